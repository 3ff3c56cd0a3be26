"""In the place of OpenCV on a machine without it: may be imported, may not be used.

What is measured here takes raw tensors; no picture is decoded or resized.
"""

from __future__ import annotations

from typing import Any


class error(Exception):  # noqa: N801 - OpenCV's own name
    """Never raised."""


class _Missing:
    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_args: Any, **_more: Any) -> Any:
        raise ImportError(f"cv2.{self._name} was called, but OpenCV is not installed here")


def setNumThreads(_count: int) -> None:  # noqa: N802 - OpenCV's own name
    """Nothing has threads."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Missing(name)
