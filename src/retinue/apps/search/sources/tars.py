"""Pictures in a tar file: of a plain one read in place, of a compressed one as it goes by."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import IO, Any, BinaryIO, cast

from retinue.apps.search.sources.base import (
    Found,
    Offer,
    Options,
    Refused,
    check_size,
    check_suffix,
    is_hidden,
    member_name,
    mtime_us,
    reading,
    text,
)
from retinue.core.errors import (
    CorruptMedia,
    InputError,
    RetinueError,
    TooManyBytes,
    UnsupportedMedia,
)

MAX_HEADER = 1 << 20
"""Bytes of a long name or of extended headers, which tarfile reads into memory at once."""

FREE_BYTES = 64 << 20
"""Bytes that may be unpacked before the ratio counts."""

MAX_RATIO = 200
"""Unpacked bytes a packed one: photos give 1, very plain bitmaps 100."""

_DAMAGE = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError)
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


class _Info(tarfile.TarInfo):
    """A header that is checked before tarfile acts on it, and that notices the end marker."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Info:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _EXTENDED and info.size > MAX_HEADER):
            raise CorruptMedia(f"a header announces {info.size:,} bytes")
        return info

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> _Info:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            tarfile_.ended = True
            raise


def compression(head: bytes) -> str:
    """Return how a file is compressed, by its first bytes; "" if it is not."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def open_tar(path: str, prefix: str, source: str, options: Options) -> Iterator[Offer]:
    """Offer the pictures of a tar file, in its own order.

    Of a compressed one, `Found.read` returns bytes that are held since the picture was offered:
    hold few of them at a time.

    Args:
        path: The archive: plain, or compressed by gzip, bzip2, xz, or (from Python 3.14) Zstandard.
        prefix: What the members' ids begin with, for example "photos.tar".
        source: See `Found`.
        options: Limits of bytes and members.
    """
    shown = text(path)
    try:
        with reading(shown), ExitStack() as stack:
            file = stack.enter_context(open(path, "rb"))  # noqa: PTH123
            packed = compression(file.read(8))
            file.seek(0)
            stream: IO[bytes] = file
            if packed:
                stream = stack.enter_context(_unpacked(file, packed, shown))
            yield from _Listing(path, prefix, source, options).offers(stream, bool(packed))
    except _DAMAGE as error:
        message = f"{shown} is cut or damaged: {error}; the pictures before that are taken"
        yield Refused(source, shown, CorruptMedia(message), partial=True)
    except CorruptMedia as error:
        message = f"{shown} is cut or damaged: {error.message}; the pictures before that are taken"
        yield Refused(source, shown, CorruptMedia(message), partial=True)
    except RetinueError as error:
        yield Refused(source, shown, error, partial=True)


class _Listing:
    def __init__(self, path: str, prefix: str, source: str, options: Options) -> None:
        self._path, self._prefix, self._source = path, prefix, source
        self._options = options
        self._shown = text(path)
        self._status = os.stat(path)  # noqa: PTH116

    def offers(self, stream: IO[bytes], packed: bool) -> Iterator[Offer]:
        mode: Any = "r|" if packed else "r:"
        with tarfile.open(fileobj=stream, mode=mode, tarinfo=_Info) as tar:
            count = 0
            while (member := tar.next()) is not None:
                count += 1
                if count > self._options.max_members:
                    most = self._options.max_members
                    raise InputError(f"{self._shown} has more than {most:,} members; split it")
                offer = self._offer(tar, member, packed)
                if offer is not None:
                    yield offer
                # tarfile keeps all members that it has seen.
                tar.members = []  # type: ignore[attr-defined]
            if not getattr(tar, "ended", False):
                raise CorruptMedia("its end marker is missing")

    def _offer(self, tar: tarfile.TarFile, member: tarfile.TarInfo, packed: bool) -> Offer | None:
        if member.isdir():
            return None
        where, item_id = f"{self._shown}!{member.name}", f"{self._prefix}/{member.name}"
        try:
            name = member_name(member.name)
            where, item_id = text(f"{self._shown}!{name}"), text(f"{self._prefix}/{name}")
            if is_hidden(name) or not check_suffix(name):
                return None
            if not member.isreg() or member.issparse():
                raise UnsupportedMedia(f"{where} is a link or a device; pack the picture itself")
            check_size(member.size, where, self._options.limits)
        except RetinueError as error:
            return Refused(self._source, text(where), error, text(item_id))
        read: Callable[[], bytes]
        if packed:
            held = tar.extractfile(member)
            assert held is not None
            data = held.read()
            if len(data) != member.size:
                raise CorruptMedia(f"{where} ends too early")
            read = partial(bytes, data)
        else:
            if member.offset_data + member.size > self._status.st_size:
                raise CorruptMedia(f"{where} ends too early")
            read = partial(_read, self._path, self._status, member.offset_data, member.size, where)
        changed = mtime_us(self._status)
        return Found(self._source, item_id, where, member.size, changed, f"{member.mtime}", read)


def _read(path: str, status: os.stat_result, offset: int, size: int, where: str) -> bytes:
    with reading(text(path)), open(path, "rb", buffering=0) as file:  # noqa: PTH123
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise InputError(f"{where}: the archive was changed meanwhile; index it again")
        data = bytearray()
        file.seek(offset)
        while len(data) < size and (chunk := file.read(size - len(data))):
            data += chunk
    if len(data) != size:
        raise CorruptMedia(f"{where} ends too early; the archive is cut")
    return bytes(data)


def _unpacked(file: BinaryIO, packed: str, shown: str) -> BinaryIO:
    openers: dict[str, Callable[[BinaryIO], Any]] = {
        "gzip": lambda inner: gzip.GzipFile(fileobj=inner, mode="rb"),
        "bzip2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
    }
    opener = openers.get(packed) or _zstd(shown)
    return cast(BinaryIO, _Bounded(opener(file), file, shown))


def _zstd(shown: str) -> Callable[[BinaryIO], Any]:
    try:
        module = importlib.import_module("compression.zstd")
    except ImportError as error:
        message = f"{shown} is compressed by Zstandard, which Python reads from 3.14 on"
        raise UnsupportedMedia(f"{message}; unpack it first (unzstd)") from error
    opener: Callable[[BinaryIO], Any] = module.ZstdFile
    return opener


class _Bounded(io.RawIOBase):
    """A reader that stops where far more is unpacked than pictures would give."""

    def __init__(self, inner: Any, packed: BinaryIO, shown: str) -> None:
        self._inner, self._packed, self._shown = inner, packed, shown
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        self._done += len(data)
        if self._done > FREE_BYTES + MAX_RATIO * self._packed.tell():
            message = f"{self._shown} unpacks to more than {MAX_RATIO} times its size"
            raise TooManyBytes(f"{message}: it is no archive of photos; the rest is left out")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
        super().close()
