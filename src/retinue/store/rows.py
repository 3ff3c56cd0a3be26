"""Rows of fixed width in a file that only grows, read through a memory map.

A row's number is its slot; it is never given again. The file knows nothing of what a row means, nor
which rows count: a database says so, after `sync` made the rows durable. Rows that a crash left
behind, or half of one, are taken back by the next writer with `truncate`. One writer at a time is
the caller's business; readers may be in any thread or process.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import InvalidTensor, NotFound, StorageError, storage_errors
from retinue.store._sync import sync

MAGIC: Final = b"RETINUE-ROWS\0"
FORMAT: Final = 1
HEADER: Final = 4096
DTYPES: Final = ("float16", "float32", "uint8")

Rows = NDArray[Any]
Slots = NDArray[np.int64]


class RowFile:
    """One file of rows; made by `create` or `open`."""

    def __init__(self, path: Path, handle: int, dtype: str, width: int, *, write: bool) -> None:
        self._path = path
        self._handle = handle
        self._dtype = np.dtype(dtype)
        self._width = width
        self._write = write
        self._size = self._dtype.itemsize * width
        self._map: Rows = np.empty((0, width), self._dtype)
        self._lock = threading.Lock()
        self._count = self._durable()

    @classmethod
    def create(cls, path: Path, dtype: str, width: int) -> Self:
        """Make an empty file, durable when this returns.

        Args:
            path: Must not exist; its folder must.
            dtype: "float16", "float32" or "uint8".
            width: Elements of a row, at least 1.

        Raises:
            DiskFull, NotWritable, StorageError: it could not be made.
        """
        if dtype not in DTYPES or width < 1:
            raise InvalidTensor(f"rows of {width} x {dtype!r} cannot be kept; choose of {DTYPES}")
        head = json.dumps({"format": FORMAT, "dtype": dtype, "width": width}).encode()
        block = MAGIC + zlib.crc32(head).to_bytes(4, "little") + head
        part = path.with_name(f".{path.name}.part")
        with storage_errors(path, "making a file of rows"):
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            try:
                with part.open("wb") as file:
                    file.write(block.ljust(HEADER, b"\0"))
                    file.flush()
                    os.fsync(file.fileno())
                part.rename(path)
                sync(path.parent)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return cls.open(path, write=True)

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Self:
        """Open an existing file.

        Raises:
            NotFound: there is none.
            StorageError: it is no file of rows, or a newer release has written it.
        """
        with storage_errors(path, "opening a file of rows"):
            try:
                handle = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
            except FileNotFoundError:
                raise NotFound(f"there is no file of rows at {path}") from None
            try:
                dtype, width = _parse(path, os.pread(handle, HEADER, 0))
                return cls(path, handle, dtype, width, write=write)
            except BaseException:
                os.close(handle)
                raise

    @property
    def width(self) -> int:
        """Elements of a row."""
        return self._width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self._dtype

    def __len__(self) -> int:
        """Whole rows, those of a writer in another process included."""
        if not self._write:
            self._count = self._durable()
        return self._count

    def append(self, rows: Rows) -> int:
        """Write rows (N, width) behind the last one; durable after `sync`.

        Returns:
            The slot of the first row; the others follow.

        Raises:
            InvalidTensor: of another width.
            DiskFull, StorageError: nothing was added.
        """
        if rows.ndim != 2 or rows.shape[1] != self._width:
            raise InvalidTensor(f"{self._path}: rows must be (N, {self._width}), not {rows.shape}")
        data = memoryview(np.ascontiguousarray(rows, self._dtype).tobytes())
        first = self._count
        start = HEADER + first * self._size
        with storage_errors(self._path, "writing rows"):
            try:
                done = 0
                while done < len(data):
                    done += os.pwrite(self._handle, data[done:], start + done)
            except OSError:
                with suppress(OSError):  # the first error is the one to tell
                    os.ftruncate(self._handle, start)
                raise
        self._count = first + len(rows)
        return first

    def sync(self) -> None:
        """Make all that was written durable."""
        with storage_errors(self._path, "writing rows"):
            os.fdatasync(self._handle)

    def truncate(self, count: int) -> None:
        """Take back all rows behind the first ``count``; nobody may be reading those."""
        if count > self._durable():
            raise StorageError(
                f"{self._path} has {self._durable():,} rows and {count:,} are known to have been "
                "written: it was cut or replaced; restore it, or delete the collection and index "
                "it anew"
            )
        with storage_errors(self._path, "taking back rows"), self._lock:
            os.ftruncate(self._handle, HEADER + count * self._size)
            self._count = count
            if len(self._map) > count:
                self._map = self._map[:count]

    def read(self, slots: Slots) -> Rows:
        """Return the rows (N, width) of slots (N,), copied.

        Raises:
            StorageError: a slot lies behind the end.
        """
        if not len(slots):
            return np.empty((0, self._width), self._dtype)
        rows: Rows = self.view(int(slots.max()) + 1)[slots]
        return rows

    def view(self, count: int) -> Rows:
        """Return the first ``count`` rows as a read-only view of the file.

        Raises:
            StorageError: there are fewer.
        """
        with self._lock:
            # To read a map behind the end of a file that was cut would kill the process.
            if self._handle >= 0:
                self._check(count)
            while count > len(self._map):
                with suppress(ValueError):  # a writer took rows back since they were counted
                    self._remap(self._check(count))
            return self._map[:count]

    def _check(self, count: int) -> int:
        known = self._durable()
        if count > known:
            raise StorageError(
                f"{self._path} has {known:,} rows, not {count:,}: it was cut or replaced; "
                "restore it, or delete the collection and index it anew"
            )
        return known

    def _remap(self, known: int) -> None:
        size = HEADER + known * self._size
        with storage_errors(self._path, "reading rows"):
            mapped = mmap.mmap(self._handle, size, prot=mmap.PROT_READ)
        flat = np.frombuffer(mapped, self._dtype, known * self._width, HEADER)
        self._map = flat.reshape(known, self._width)

    def _durable(self) -> int:
        with storage_errors(self._path, "reading rows"):
            return max(0, os.fstat(self._handle).st_size - HEADER) // self._size

    def close(self) -> None:
        """Close the file; views stay valid. May be called twice."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1


def _parse(path: Path, block: bytes) -> tuple[str, int]:
    start = len(MAGIC) + 4
    head = block[start:].rstrip(b"\0")
    crc = int.from_bytes(block[len(MAGIC) : start], "little")
    if not block.startswith(MAGIC) or len(block) != HEADER or zlib.crc32(head) != crc:
        raise StorageError(f"{path} is no file of rows, or its head is damaged; restore it")
    fields = json.loads(head)
    if fields["format"] != FORMAT or fields["dtype"] not in DTYPES:
        raise StorageError(f"{path} was written by a newer release of retinue: upgrade it")
    return fields["dtype"], int(fields["width"])
