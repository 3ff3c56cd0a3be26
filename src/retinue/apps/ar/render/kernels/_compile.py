"""How the loops are compiled, and how what was compiled is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def _fingerprint() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    whole = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    return whole.hexdigest()[:12]


_FINGERPRINT: Final = _fingerprint()


# "_nrt": nothing is allocated here, and counting references to arrays takes a third of the time.
_OPTIONS: Final[dict[str, Any]] = {"error_model": "numpy", "nogil": True, "_nrt": False}
_WITHIN: Final = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(function: F) -> F:
    """Have Numba compile a function when it is first called, and keep the result on disk."""
    return _made(function, _OPTIONS)


def inner(function: F) -> F:
    """As `compiled`, of small ones that compiled ones call alone: they become part of these."""
    return _made(function, _OPTIONS | _WITHIN | {"forceinline": True})


def _made(function: F, options: dict[str, Any]) -> F:
    # Numba knows a kept result by its function's name and file; what other files give to it, it
    # does not see. So the name is made to tell the contents of all.
    function.__qualname__ = f"{function.__qualname__}_{_FINGERPRINT}"
    try:
        return _kept(function, options)
    except (KeyError, TypeError):
        # A Numba that knows not all of these options goes on without.
        return _kept(function, {"error_model": "numpy", "nogil": True})


def _kept(function: F, options: dict[str, Any]) -> F:
    made: Any
    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder can be written for the cache: compile at each start.
        made = numba.njit(**options)(function)
    return cast(F, made)
