"""Blobs through fsspec, under the digest of their content: ``ab/abcdef....jpg``."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.core import url_to_fs  # type: ignore[import-untyped]

from retinue.core.errors import (
    ConfigError,
    InvalidRequest,
    MissingExtra,
    NotFound,
    StorageError,
    storage_errors,
)
from retinue.store.interface import BlobStore

KEY = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,8})?")
SUFFIX = re.compile(r"(\.[a-z0-9]{1,8})?")
_SHARDS = tuple(f"{n:02x}" for n in range(256))
_ABANDONED_S = 3600.0


def open_blobs(url: str) -> BlobStore:
    """Open a store of blobs.

    Args:
        url: ``file:///FOLDER`` (made when it does not exist), a plain path, or the URL of any file
            system that fsspec knows and whose package is installed (``s3://BUCKET/FOLDER``).

    Raises:
        ConfigError: the URL is wrong, or of a file system that fsspec does not know.
        MissingExtra: the file system's package is not installed.
        NotWritable: the folder cannot be made.
    """
    scheme = urlsplit(url).scheme if "://" in url else "file"
    if scheme in ("file", "local"):
        path = unquote(urlsplit(url).path) if "://" in url else url
        if not path:
            raise ConfigError(f"blobs.url {url!r} names no folder; give file:///FOLDER")
        return FolderBlobs(Path(path).absolute())
    try:
        filesystem, root = url_to_fs(url)
    except ImportError as error:
        message = f"blobs.url {url!r}: {error}; install the package that fsspec names"
        raise MissingExtra(message) from error
    except ValueError as error:
        raise ConfigError(f"blobs.url {url!r}: {error}") from error
    return RemoteBlobs(filesystem, root)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_key(key: str) -> None:
    if not KEY.fullmatch(key):
        message = f"{key[:80]!r} is no blob key; a key is 64 hex digits, and a suffix like .jpg"
        raise InvalidRequest(message)


def _check_suffix(suffix: str) -> None:
    if not SUFFIX.fullmatch(suffix):
        message = f"{suffix[:80]!r} is no suffix; give one like .jpg, or none"
        raise InvalidRequest(message)


def _verified(key: str, data: bytes, where: str) -> bytes:
    if _digest(data) != key[:64]:
        message = f"the blob {where} is damaged: its digest is not its name; restore or delete it"
        raise StorageError(message)
    return data


def _missing(key: str) -> NotFound:
    return NotFound(f"no blob has the key {key!r}; it was never kept, or its time is over")


class _Turns:
    """Where pruning goes on: each call starts at the folder in which the last one stopped."""

    def __init__(self) -> None:
        self._next = 0
        self._lock = threading.Lock()

    def order(self) -> tuple[str, ...]:
        with self._lock:
            return _SHARDS[self._next :] + _SHARDS[: self._next]

    def stopped(self, shard: str) -> None:
        with self._lock:
            self._next = int(shard, 16)


class FolderBlobs:
    """A `BlobStore` in a folder of this machine.

    A blob is written under a temporary name, synced and renamed, so that a reader or a crash
    meets it whole or not at all.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._turns = _Turns()
        with storage_errors(root, "making the blobs' folder"):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        _check_key(key)
        return self._root / key[:2] / key

    def put(self, data: bytes, suffix: str = "") -> str:
        """Store bytes, whole or not at all, and return their key."""
        _check_suffix(suffix)
        key = _digest(data) + suffix
        path = self._path(key)
        with storage_errors(path, "storing a blob"):
            if not _refreshed(path, len(data)):
                path.parent.mkdir(mode=0o700, exist_ok=True)
                _write_whole(path, data)
        return key

    def get(self, key: str) -> bytes:
        """Return the bytes of a key."""
        path = self._path(key)
        with storage_errors(path, "reading a blob"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise _missing(key) from None
        return _verified(key, data, str(path))

    def exists(self, key: str) -> bool:
        """Whether a blob has this key."""
        path = self._path(key)
        with storage_errors(path, "looking for a blob"):
            return path.is_file()

    def delete(self, key: str) -> bool:
        """Delete a blob; return whether there was one."""
        path = self._path(key)
        with storage_errors(path, "deleting a blob"):
            return _unlinked(path)

    def prune(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most ``limit`` blobs that were last put before a moment."""
        bound = _utc(before).timestamp()
        deleted = 0
        with storage_errors(self._root, "deleting old blobs"):
            for shard in self._turns.order():
                for path in _older(self._root / shard, bound):
                    if deleted == limit:
                        self._turns.stopped(shard)
                        return deleted
                    deleted += _unlinked(path)
        return deleted


def _refreshed(path: Path, size: int) -> bool:
    """Make an existing blob young again; False when it is not there whole."""
    try:
        if path.stat().st_size != size:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _write_whole(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
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


def _older(folder: Path, bound: float) -> Iterator[Path]:
    """Blobs of a folder from before a moment, and temporary files that a crash left behind."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    abandoned = datetime.now(UTC).timestamp() - _ABANDONED_S
    for entry in entries:
        is_key = KEY.fullmatch(entry.name) is not None
        is_part = entry.name.startswith(".") and entry.name.endswith(".part")
        with suppress(FileNotFoundError):
            if (is_key or is_part) and entry.stat().st_mtime < (bound if is_key else abandoned):
                yield Path(entry.path)


def _unlinked(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class RemoteBlobs:
    """A `BlobStore` on any fsspec file system whose files appear whole, as an object store's do."""

    def __init__(self, filesystem: AbstractFileSystem, root: str) -> None:
        self._fs: Any = filesystem
        self._root = root.rstrip("/")
        self._turns = _Turns()

    def _path(self, key: str) -> str:
        _check_key(key)
        return f"{self._root}/{key[:2]}/{key}"

    def put(self, data: bytes, suffix: str = "") -> str:
        """Store bytes, whole or not at all, and return their key."""
        _check_suffix(suffix)
        key = _digest(data) + suffix
        with _translated(self._root, "storing a blob"):
            self._fs.makedirs(f"{self._root}/{key[:2]}", exist_ok=True)
            self._fs.pipe_file(self._path(key), data)
        return key

    def get(self, key: str) -> bytes:
        """Return the bytes of a key."""
        path = self._path(key)
        with _translated(path, "reading a blob"):
            try:
                data = bytes(self._fs.cat_file(path))
            except FileNotFoundError:
                raise _missing(key) from None
        return _verified(key, data, path)

    def exists(self, key: str) -> bool:
        """Whether a blob has this key."""
        path = self._path(key)
        with _translated(path, "looking for a blob"):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(path))

    def delete(self, key: str) -> bool:
        """Delete a blob; return whether there was one."""
        path = self._path(key)
        if not self.exists(key):
            return False
        with _translated(path, "deleting a blob"):
            try:
                self._fs.rm_file(path)
            except FileNotFoundError:
                return False
        return True

    def prune(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most ``limit`` blobs that were last put before a moment."""
        bound = _utc(before)
        deleted = 0
        with _translated(self._root, "deleting old blobs"):
            self._fs.invalidate_cache()
            for shard in self._turns.order():
                for key in self._older(shard, bound):
                    if deleted == limit:
                        self._turns.stopped(shard)
                        return deleted
                    deleted += self.delete(key)
        return deleted

    def _older(self, shard: str, bound: datetime) -> Iterator[str]:
        try:
            paths = self._fs.ls(f"{self._root}/{shard}", detail=False)
        except FileNotFoundError:
            return
        for path in paths:
            key = str(path).rpartition("/")[2]
            with suppress(FileNotFoundError):
                if KEY.fullmatch(key) and _utc(self._fs.modified(path)) < bound:
                    yield key


@contextmanager
def _translated(path: str, doing: str) -> Iterator[None]:
    try:
        with storage_errors(path, doing):
            yield
    except NotImplementedError as error:
        message = f"{doing}: {path}: this file system cannot do that; choose another blobs.url"
        raise StorageError(message) from error
