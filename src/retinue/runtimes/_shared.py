"""Tensors in memory that two processes share through an inherited descriptor."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from retinue.core.types import Array

_ALIGN: Final = 64

Place = tuple[str, tuple[int, ...], int]
"""A tensor's dtype, shape and offset in bytes."""


class SharedMemory:
    """Anonymous memory with a descriptor that a child may inherit; it only grows.

    It has no name, so nothing is left behind however its users end.
    """

    def __init__(self, descriptor: int) -> None:
        """Use the memory behind a descriptor, which this object closes."""
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    @classmethod
    def make(cls) -> SharedMemory:
        """Make new, empty memory."""
        if hasattr(os, "memfd_create"):  # not bound by the size of /dev/shm, as containers set it
            return cls(os.memfd_create("retinue"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def write(self, arrays: Iterable[Array]) -> list[Place]:
        """Copy arrays in, over what was there; return where they are."""
        arrays = list(arrays)
        places: list[Place] = []
        size = 0
        for array in arrays:
            places.append((array.dtype.name, array.shape, size))
            size += -(-array.nbytes // _ALIGN) * _ALIGN
        if max(size, 1) > os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, max(size, 1))
        for view, array in zip(self.read(places), arrays, strict=True):
            np.copyto(view, array)
        return places

    def read(self, places: Iterable[Sequence[Any]]) -> list[Array]:
        """Return views of the arrays at these places; the next write changes them."""
        return [self._view(np.dtype(dtype), tuple(shape), at) for dtype, shape, at in places]

    def _view(self, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> Array:
        end = offset + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        if self._map is None or end > len(self._map):
            # Views of the smaller map keep it alive; both show the same memory.
            self._map = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size)
        return np.ndarray(shape, dtype, self._map, offset)

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last view of it."""
        self._map = None
        os.close(self.descriptor)
