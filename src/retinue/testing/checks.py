"""What contract suites share."""

from __future__ import annotations

from collections.abc import Callable

from retinue.core.errors import RetinueError


def raises(
    kind: type[RetinueError], action: Callable[..., object], *args: object, **named: object
) -> RetinueError:
    """Return the error that a call raises, which must be of this class and have a message."""
    try:
        action(*args, **named)
    except kind as error:
        assert len(error.message) > len("too short"), f"{error!r} does not say what was wrong"
        return error
    raise AssertionError(f"expected {kind.__name__}")
