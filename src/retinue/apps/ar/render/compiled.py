"""The loops that Numba compiles, where it is installed."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType


@cache
def loops() -> ModuleType | None:
    """Return `retinue.apps.ar.render.kernels`; None without Numba (the extra ``ar-cpu``)."""
    try:
        return importlib.import_module("retinue.apps.ar.render.kernels")
    except ImportError:
        return None
