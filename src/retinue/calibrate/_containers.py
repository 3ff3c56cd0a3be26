"""The files of a data set: a folder, a tar or a zip, read in place and one at a time.

Nothing of an archive is written to disk, so a member's path, link or device cannot lead anywhere:
names are only names. A plain tar and a zip are read by position. A compressed tar can be read from
its beginning alone; the files that are wanted of it are kept in memory, up to `MAX_HELD`.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import stat
import sys
import tarfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from retinue.core.errors import (
    CorruptMedia,
    InputError,
    InputNotFound,
    TooManyBytes,
    UnsupportedMedia,
    storage_errors,
)

MAX_FILES = 1_000_000
"""Most files of one data set."""
MAX_HELD = 2**30
"""Most bytes of files that are kept of a compressed tar."""
MAX_UNPACKED = 16 * 2**30
"""Most bytes that a compressed tar may unfold to."""
_MAX_HEADER = 2**20

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)

Read = Callable[[], bytes]
Wanted = Callable[[str], int]
"""Most bytes that a file of this name may have; 0 for one that is of no interest."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a data set.

    Attributes:
        name: Its path inside the data set, with "/" and no leading one.
        read: Returns its bytes; raises an `InputError` that names it when they cannot be had.
    """

    name: str
    read: Read


def printable(name: str) -> str:
    """Return a file's name with what cannot be printed, or is no text, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def files(data: Path, wanted: Wanted) -> list[File]:
    """List the wanted files of a folder, a tar (plain, gzip, bzip2, xz) or a zip, by name.

    A file that is of the wrong kind or too large is in the list; reading it says so.

    Args:
        data: The folder or archive; an archive is told by its content.
        wanted: Says of each name how large it may be.

    Raises:
        InputNotFound: there is no such file or folder.
        UnsupportedMedia: it is a file that is no archive.
        CorruptMedia: the archive is damaged or cut short.
        TooManyBytes: a compressed tar unfolds to more than is held.
        StorageError: it cannot be read.
    """
    with storage_errors(data, "reading the data set"):
        if data.is_dir():
            found = list(_folder(data, wanted))
        elif data.is_file():
            found = _archive(data, wanted)
        elif data.exists():
            raise UnsupportedMedia(f"{data} is a device or a pipe; give a folder or an archive")
        else:
            raise InputNotFound(f"no data set at {data}; give a folder, a tar or a zip of pictures")
    # Of a name that an archive holds twice, the later one counts, as when it is unpacked.
    return sorted({file.name: file for file in found}.values(), key=lambda file: file.name)


def _folder(root: Path, wanted: Wanted) -> Iterator[File]:
    for count, path in enumerate(_walk(root)):
        _check_count(root, count)
        name = _clean(str(path.relative_to(root)))
        if limit := _limit(name, wanted):
            yield File(name, partial(_read_path, path, name, limit))


def _walk(root: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, onerror=_fail, followlinks=True):
        found = Path(folder).stat()
        if (found.st_dev, found.st_ino) in seen:
            # A link leads back here.
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(folder, name) for name in sorted(names))


def _fail(error: OSError) -> None:
    raise error


def _read_path(path: Path, name: str, limit: int) -> bytes:
    with storage_errors(path, "reading"):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnsupportedMedia(f"{name} is a device or a pipe, not a file")
        _check_size(name, found.st_size, limit)
        return path.read_bytes()


def _archive(path: Path, wanted: Wanted) -> list[File]:
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((o for magic, o in _COMPRESSED.items() if head.startswith(magic)), None)
    with _damage(path):
        if head.startswith(b"PK"):
            return list(_Zip(path).files(wanted))
        if opener is not None:
            with opener(path, "rb") as stream:
                return list(_held(path, stream, wanted))
        if tarfile.is_tarfile(path):
            return list(_Tar(path).files(wanted))
    raise UnsupportedMedia(f"{path} is no tar or zip; give a folder or an archive of pictures")


_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


@contextmanager
def _damage(path: Path | str) -> Iterator[None]:
    try:
        yield
    except gzip.BadGzipFile as error:
        raise CorruptMedia(f"{path} is damaged: {error}") from error
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise CorruptMedia(f"{path} cannot be read as an archive: {reason}") from error
    except OSError as error:
        # bz2 has no error of its own, and a damaged zip leads to a place before its beginning.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise CorruptMedia(f"{path} cannot be read as an archive: {error}") from error


class _Tar:
    """A plain tar: the place of each file is noted once, then read from there by any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)

    def files(self, wanted: Wanted) -> Iterator[File]:
        for member in _members(self._path, self._file, sys.maxsize):
            if not (limit := _limit(member.name, wanted)):
                continue
            if (refusal := _refusal(member)) is not None:
                yield File(_clean(member.name), refusal)
                continue
            place = (member.offset_data, member.size)
            name = _clean(member.name)
            yield File(name, partial(self._read, name, *place, limit))

    def _read(self, name: str, offset: int, size: int, limit: int) -> bytes:
        _check_size(name, size, limit)
        with storage_errors(self._path, "reading"):
            content = os.pread(self._file.fileno(), size, offset)
        if len(content) != size:
            raise CorruptMedia(f"{name}: the archive ends in the middle of it")
        return content


class _Zip:
    """A zip, whose directory tells the place of each file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(path)
        self._turn = threading.Lock()
        weakref.finalize(self, self._zip.close)

    def files(self, wanted: Wanted) -> Iterator[File]:
        for count, member in enumerate(self._zip.infolist()):
            _check_count(self._path, count)
            limit = _limit(member.filename, wanted)
            if limit and not member.is_dir():
                name = _clean(member.filename)
                yield File(name, partial(self._read, name, member, limit))

    def _read(self, name: str, member: zipfile.ZipInfo, limit: int) -> bytes:
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UnsupportedMedia(f"{name} is a link inside the archive; links are not followed")
        _check_size(name, member.file_size, limit)
        with (
            self._turn,
            storage_errors(self._path, "reading"),
            _damage(name),
            self._zip.open(member) as file,
        ):
            # The directory may lie about the size: a bomb announces little.
            content = file.read(limit + 1)
        _check_size(name, len(content), limit)
        return content


def _held(path: Path, stream: IO[bytes], wanted: Wanted) -> Iterator[File]:
    """Yield the wanted files of a compressed tar with their bytes."""
    held = 0
    for member in _members(path, stream, MAX_UNPACKED):
        if not (limit := _limit(member.name, wanted)):
            continue
        name = _clean(member.name)
        refusal = _refusal(member) or _too_large(name, member.size, limit)
        if refusal is not None:
            yield File(name, refusal)
            continue
        held += member.size
        if held > MAX_HELD:
            raise TooManyBytes(
                f"{path} holds more than {MAX_HELD >> 20} MiB of pictures; a compressed tar is "
                "read into memory: unpack it, or make it a plain tar"
            )
        stream.seek(member.offset_data)
        content = stream.read(member.size)
        if len(content) != member.size:
            raise CorruptMedia(f"{path} ends in the middle of {name}; copy it again")
        yield File(name, partial(bytes, content))


def _members(path: Path, stream: IO[bytes], limit: int) -> Iterator[tarfile.TarInfo]:
    bounded: Any = _Bounded(path, stream, limit)
    archive: Any
    with tarfile.open(fileobj=bounded, mode="r:") as archive:
        count = 0
        while (member := archive.next()) is not None:
            _check_count(path, count)
            count += 1
            # It keeps all that it has met, which is memory for nothing.
            archive.members.clear()
            yield member
        # It takes a damaged header for the end.
        stream.seek(archive.offset)
        rest = stream.read(tarfile.BLOCKSIZE)
        if rest.strip(b"\0") or len(rest) not in (0, tarfile.BLOCKSIZE):
            raise CorruptMedia(f"{path} is damaged after {count:,} files; copy it again")


class _Bounded:
    """What tarfile reads headers from: none that is absurdly large, nothing beyond a limit."""

    def __init__(self, path: Path, stream: IO[bytes], limit: int) -> None:
        self._path, self._stream, self._limit = path, stream, limit
        self.tell = stream.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if offset > self._limit:
            raise TooManyBytes(f"{self._path} unfolds to more than {self._limit:,} bytes")
        return self._stream.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise CorruptMedia(f"{self._path} is no sound tar: a header of {size:,} bytes")
        return self._stream.read(size)


def _refusal(member: tarfile.TarInfo) -> Read | None:
    """Return a reader that refuses what is no ordinary file; None for one that is."""
    name = _clean(member.name)
    if member.issym() or member.islnk():
        return _refusing(
            UnsupportedMedia(f"{name} is a link inside the archive; links are not followed")
        )
    if member.issparse() or not member.isreg():
        return _refusing(UnsupportedMedia(f"{name} is no ordinary file of the archive"))
    return None


def _too_large(name: str, size: int, limit: int) -> Read | None:
    try:
        _check_size(name, size, limit)
    except TooManyBytes as error:
        return _refusing(error)
    return None


def _refusing(error: InputError) -> Read:
    def read() -> bytes:
        raise type(error)(error.message)

    return read


def _limit(name: str, wanted: Wanted) -> int:
    """Return how large a file may be; 0 for hidden ones and what an archiver left behind."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return 0 if hidden or "__MACOSX" in parts else wanted(name)


def _clean(name: str) -> str:
    """Return a name that leads nowhere and can be printed anywhere."""
    parts = PurePosixPath(printable(name)).parts
    return "/".join(part for part in parts if part not in ("/", ".", ".."))


def _check_size(name: str, size: int, limit: int) -> None:
    if size > limit:
        raise TooManyBytes(f"{name} has {size:,} bytes; the limit is {limit:,}")


def _check_count(path: Path, count: int) -> None:
    if count >= MAX_FILES:
        raise TooManyBytes(f"{path} holds more than {MAX_FILES:,} files; give a part of them")
