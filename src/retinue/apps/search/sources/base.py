"""What every source offers, and the checks that they share."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote

from retinue.core.errors import (
    InputError,
    InputNotFound,
    RetinueError,
    StorageError,
    TooManyBytes,
    UnsupportedMedia,
)
from retinue.core.settings import Limits
from retinue.media.sniff import READ

Value = str | float | int | bool | None
"""A value of an item's metadata."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"})
"""Suffixes of the pictures that `retinue.media.decode` reads."""

UNREAD = frozenset(
    {".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".psd", ".dng", ".cr2", ".nef"}
)
"""Suffixes of pictures that are not read: saying so is better than leaving them out silently."""

MAX_MEMBERS = 10_000_000
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Found:
    """One picture that a source offers; nothing of it is read yet.

    Attributes:
        source: Normalised name of the source, as `source_name` gives it: what vanished from a
            source is what carries its name and is offered no longer.
        id: Stable id in the collection: the path below the source's root ("a/b.jpg"), of a member
            "photos.zip/a/b.jpg", of a row its id column or else its path, a URL, or an object's
            key below the prefix.
        path: Where it is, as a person would write it: a path, "archive.zip!member", a URL.
        size: Bytes of the encoded file; -1 where it is not known.
        mtime_us: When it was changed, in microseconds since 1970; 0 where it is not known. Of an
            archive's member, when the archive was.
        etag: What tells a change better than time and size, such as an object's ETag or a
            member's CRC-32; "" where there is nothing.
        read: Returns the encoded file's bytes, at most ``limits.max_bytes``; any thread may call
            it. Raises `InputError`, `InputNotFound`, `FetchError` or `StorageError`.
        meta: Other columns of a table's row.
    """

    source: str
    id: str
    path: str
    size: int
    mtime_us: int
    etag: str
    read: Callable[[], bytes] = field(repr=False, compare=False)
    meta: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that is not offered, and why.

    Attributes:
        source: As of `Found`.
        path: As of `Found`, with a table's line or row where that says more.
        error: Why.
        id: The id that it would have had; "" where it has none.
        partial: Whether further pictures may be missing because of it, as where an archive ends
            too early: then nothing may be taken as vanished.
    """

    source: str
    path: str
    error: RetinueError
    id: str = ""
    partial: bool = False


Offer = Found | Refused


@dataclass(frozen=True, slots=True)
class Options:
    """How a source is read: the arguments of `open_source`."""

    limits: Limits
    allow_private: bool = False
    id_column: str = ""
    path_column: str = ""
    encoding: str = ""
    text_columns: tuple[str, ...] = ()
    max_members: int = MAX_MEMBERS


def text(name: str | os.PathLike[str]) -> str:
    r"""Return a file name as valid Unicode; bytes that are not UTF-8 become ``\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def scheme(url: str) -> str:
    """Return what stands before ``://`` in lower case; "" if nothing does."""
    before, mark, _ = url.partition("://")
    return before.lower() if mark and _SCHEME.fullmatch(before) else ""


def file_path(url: str) -> str:
    """Return the path of a ``file://`` URL."""
    return "/" + unquote(url.partition("://")[2].partition("/")[2])


def suffix(name: str) -> str:
    """Return a name's suffix in lower case, with its dot."""
    return PurePosixPath(name).suffix.lower()


def is_hidden(name: str) -> bool:
    """Whether a part of a relative name starts with a dot, or is macOS' folder of such."""
    return any(p.startswith(".") or p == "__MACOSX" for p in name.split("/") if p not in (".", ""))


def check_suffix(name: str) -> bool:
    """Return whether a name is that of a picture that is read.

    Raises:
        UnsupportedMedia: it is that of a picture of another type.
    """
    kind = suffix(name)
    if kind in UNREAD:
        raise UnsupportedMedia(f"{text(name)}: a {kind} file; {READ}")
    return kind in SUFFIXES


def check_size(size: int, path: str, limits: Limits) -> None:
    """Refuse what has more bytes than the limit.

    Raises:
        TooManyBytes: it has.
    """
    if size > limits.max_bytes:
        message = f"{path} has {size:,} bytes; the limit is {limits.max_bytes:,}"
        raise TooManyBytes(f"{message} (setting limits.max_bytes)")


def too_long(path: str, limits: Limits) -> TooManyBytes:
    """Return the error for what turns out to have more bytes than the limit."""
    message = f"{path} has more bytes than the limit of {limits.max_bytes:,}"
    return TooManyBytes(f"{message} (setting limits.max_bytes)")


def member_name(name: str) -> str:
    """Return an archive member's name in its plain form.

    Raises:
        InputError: the name leads out of the archive, or is not a portable relative path.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    wrong = ""
    if name.startswith("/") or _DRIVE.match(name):
        wrong = "is absolute"
    elif ".." in parts:
        wrong = "leads out of its folder"
    elif "\\" in name:
        wrong = "has a backslash"
    elif not parts or any(c < " " for c in name):
        wrong = "is empty or has control characters"
    if wrong:
        raise InputError(f"the member's name {name[:200]!r} {wrong}; pack the archive anew")
    return "/".join(parts)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn an ``OSError`` raised in the block into a class of the error tree.

    Raises:
        InputNotFound: there is no such file.
        InputError: it may not be read, or is no file.
        StorageError: on any other ``OSError``.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputNotFound(f"{path}: there is no such file") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read; change its permissions") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder, not a picture") from error
    except OSError as error:
        raise StorageError(f"reading {path}: {error.strerror or error}") from error


def read_file(path: str, limits: Limits) -> bytes:
    """Return a regular file's bytes.

    Raises:
        TooManyBytes: it has more than the limit.
        UnsupportedMedia: it is a device or a pipe.
        InputError: see `reading`.
    """
    shown = text(path)
    with reading(shown):
        # A pipe that took the file's place must not hang the thread.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb", buffering=0) as file:  # noqa: PTH123
            status = os.fstat(handle)
            check_regular(status, shown)
            check_size(status.st_size, shown, limits)
            data = bytearray()
            while chunk := file.read(min(1 << 20, limits.max_bytes + 1 - len(data))):
                data += chunk
            if len(data) > limits.max_bytes:
                raise too_long(shown, limits)
            return bytes(data)


def check_regular(status: os.stat_result, shown: str) -> None:
    """Refuse what is no regular file.

    Raises:
        InputError: it is a folder.
        UnsupportedMedia: it is a device, a socket or a pipe.
    """
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{shown} is a folder, not a picture")
    if not stat.S_ISREG(status.st_mode):
        raise UnsupportedMedia(f"{shown} is a device or a pipe; save its content to a file first")


def mtime_us(status: os.stat_result) -> int:
    """Return a file's modification time in microseconds since 1970; never 0, which is unknown."""
    return status.st_mtime_ns // 1000 or 1
