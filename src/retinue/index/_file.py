"""One file an index: a header that says what it is, sections, and a checksum over all of it."""

from __future__ import annotations

import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from retinue.core.errors import IndexCorrupt, NotFound, storage_errors

MAGIC = b"RETINUE-INDEX\0"
FORMAT = 1
MAX_HEADER = 2**20
CHUNK = 4 * 2**20
_LENGTH = struct.Struct("<I")


class _Summed:
    """Writes through, and sums."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.crc = 0

    def write(self, data: bytes) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self._file.write(data)


def write_index(path: Path, header: Mapping[str, Any], body: Callable[[BinaryIO], None]) -> None:
    """Write an index's file under a temporary name, sync it, and give it its name.

    Args:
        path: The file; its folder must exist.
        header: What `read_index` gives back; JSON.
        body: Writes the rest to a file that can only be appended to.

    Raises:
        DiskFull, NotWritable, StorageError: it could not be written; an old file is as it was.
    """
    with storage_errors(path, "writing the index"):
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                summed = _Summed(file)
                head = json.dumps({"format": FORMAT, **header}).encode()
                summed.write(MAGIC + _LENGTH.pack(len(head)) + head)
                body(summed)  # type: ignore[arg-type]  # what writes needs no more of a file
                file.write(_LENGTH.pack(summed.crc))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def read_index(path: Path, kind: str) -> Iterator[tuple[dict[str, Any], BinaryIO]]:
    """Give an index's header, and its file at the place where the body begins.

    The checksum is verified before anything is given to a parser.

    Raises:
        IndexCorrupt: it is damaged, or of another kind or version.
        NotFound: there is no such file.
    """
    with storage_errors(path, "reading the index"):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise NotFound(f"no index at {path}; build it") from None
        with file:
            _verify(file, path)
            header = _header(file, path)
            if header.get("kind") != kind:
                raise _corrupt(path, f"it is of kind {header.get('kind')!r}, not {kind!r}")
            yield header, file


def corrupt(path: Path, error: Exception) -> IndexCorrupt:
    """Return the error for a body that cannot be parsed although its checksum is right."""
    return _corrupt(path, f"its library cannot read it ({error})")


def _corrupt(path: Path, reason: str) -> IndexCorrupt:
    return IndexCorrupt(f"index {path}: {reason}; delete it, and it is built anew")


def _verify(file: BinaryIO, path: Path) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if not file.read(len(MAGIC)) == MAGIC:
        raise _corrupt(path, "it is no index of Retinue's, or empty")
    left = size - _LENGTH.size
    file.seek(0)
    crc = 0
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        crc = zlib.crc32(chunk, crc)
        left -= len(chunk)
    if left or file.read() != _LENGTH.pack(crc):
        raise _corrupt(path, "it is truncated or damaged (its checksum is wrong)")


def _header(file: BinaryIO, path: Path) -> dict[str, Any]:
    file.seek(len(MAGIC))
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    if length > MAX_HEADER:
        raise _corrupt(path, f"its header announces {length} bytes")
    try:
        header: dict[str, Any] = json.loads(file.read(length))
    except ValueError as error:
        raise corrupt(path, error) from error
    if header.get("format") != FORMAT:
        raise _corrupt(path, f"its format is {header.get('format')!r}, this Retinue's {FORMAT}")
    return header
