"""Blobs through fsspec, under the digest of their content: ``ab/abcdef....jpg``."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.config import conf as fsspec_conf  # type: ignore[import-untyped]
from fsspec.core import url_to_fs  # type: ignore[import-untyped]

from retinue.core.errors import (
    ConfigError,
    InvalidRequest,
    MissingExtra,
    NotFound,
    RetinueError,
    StorageError,
    storage_errors,
)
from retinue.store._sync import sync
from retinue.store.interface import BlobStore

KEY = re.compile(r"[0-9a-f]{64}(\.[a-z0-9]{1,8})?")
SUFFIX = re.compile(r"(\.[a-z0-9]{1,8})?")
_SHARDS = tuple(f"{n:02x}" for n in range(256))
_ABANDONED_S = 3600.0
TOGETHER = 8
_ANSWER_S = 30.0
"""How long a remote store may take for one blob, its client's own attempts included."""
_S3 = ("s3", "s3a")
_S3_RETRIES = 2
_CLEAR = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""Numbers that say what is wrong, also where the file system is a remote one."""
_ADVICE = {
    "s3": "AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


def open_blobs(url: str) -> BlobStore:
    """Open a store of blobs.

    Args:
        url: ``file:///FOLDER`` (made when it does not exist), a plain path, or the URL of any file
            system that fsspec knows and whose package is installed (``s3://BUCKET/FOLDER``).

    Raises:
        ConfigError: the URL is wrong or names no place in its file system, or fsspec does not know
            that file system.
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
        filesystem, root = url_to_fs(url, **_options(scheme))
    except ImportError as error:
        extra = "pip install 'retinue[s3]'" if scheme in _S3 else "install what it names"
        raise MissingExtra(f"blobs.url {url!r}: {error}; {extra}") from error
    except ValueError as error:
        raise ConfigError(f"blobs.url {url!r}: {error}") from error
    if not root.strip("/") and scheme != "memory":
        raise ConfigError(f"blobs.url {url!r} names no bucket; give {scheme}://BUCKET/FOLDER")
    return RemoteBlobs(filesystem, root)


def _options(scheme: str) -> dict[str, Any]:
    """Settle for fewer attempts than S3's client makes, unless the user chose a number."""
    chosen = "AWS_MAX_ATTEMPTS" in os.environ or "config_kwargs" in fsspec_conf.get("s3", {})
    if scheme not in _S3 or chosen:
        return {}
    return {"config_kwargs": {"retries": {"max_attempts": _S3_RETRIES}}}


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
        return self.put_many([data], suffix)[0]

    def put_many(self, blobs: Sequence[bytes], suffix: str = "") -> list[str]:
        """Store several, each whole or not at all, and return their keys in their order."""
        _check_suffix(suffix)
        keys = [_digest(data) + suffix for data in blobs]
        parts: dict[Path, Path] = {}
        with storage_errors(self._root, "storing blobs"):
            try:
                for key, data in zip(keys, blobs, strict=True):
                    path = self._path(key)
                    if path not in parts and not _refreshed(path, len(data)):
                        path.parent.mkdir(mode=0o700, exist_ok=True)
                        parts[path] = _written(path, data)
                # The first of many waits for the disk; what was written with it is there then.
                for part in parts.values():
                    sync(part)
                for path, part in parts.items():
                    part.replace(path)
                for folder in {path.parent for path in parts}:
                    sync(folder)
            finally:
                for part in parts.values():
                    part.unlink(missing_ok=True)
        return keys

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


def _written(path: Path, data: bytes) -> Path:
    """Write bytes under a temporary name beside a path, and return that."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


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
        with self._translated(self._root, "storing a blob"):
            try:
                self._ask("pipe_file", self._path(key), data)
            except FileNotFoundError:
                self._make_folders(f"{self._root}/{key[:2]}")
                self._ask("pipe_file", self._path(key), data)
        return key

    def _make_folders(self, shard: str) -> None:
        """Make the folders of a file system that has them, but never a bucket."""
        for folder in (self._root, shard):
            if "/" in folder.strip("/"):
                with suppress(FileExistsError):
                    self._ask("mkdir", folder, create_parents=False)

    def put_many(self, blobs: Sequence[bytes], suffix: str = "") -> list[str]:
        """Store several at once, each whole or not at all; return their keys in their order."""
        with ThreadPoolExecutor(TOGETHER) as threads:
            return list(threads.map(lambda data: self.put(data, suffix), blobs))

    def get(self, key: str) -> bytes:
        """Return the bytes of a key."""
        path = self._path(key)
        with self._translated(path, "reading a blob"):
            try:
                data = bytes(self._ask("cat_file", path))
            except FileNotFoundError:
                raise _missing(key) from None
        return _verified(key, data, path)

    def exists(self, key: str) -> bool:
        """Whether a blob has this key."""
        path = self._path(key)
        with self._translated(path, "looking for a blob"):
            self._fs.invalidate_cache()
            return bool(self._ask("exists", path))

    def delete(self, key: str) -> bool:
        """Delete a blob; return whether there was one."""
        return self.exists(key) and self._removed(self._path(key))

    def _removed(self, path: str) -> bool:
        with self._translated(path, "deleting a blob"):
            try:
                self._ask("rm_file", path)
            except FileNotFoundError:
                return False
        return True

    def prune(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most ``limit`` blobs that were last put before a moment."""
        bound = _utc(before)
        deleted = 0
        with self._translated(self._root, "deleting old blobs"):
            self._fs.invalidate_cache()
            present = {str(entry["name"]).rpartition("/")[2] for entry in self._list(self._root)}
            for shard in self._turns.order():
                for path in self._older(shard, bound) if shard in present else ():
                    if deleted == limit:
                        self._turns.stopped(shard)
                        return deleted
                    deleted += self._removed(path)
        return deleted

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            return list(self._ask("ls", folder, detail=True))
        except FileNotFoundError:
            return []

    def _older(self, shard: str, bound: datetime) -> Iterator[str]:
        for entry in self._list(f"{self._root}/{shard}"):
            path = str(entry["name"])
            if not KEY.fullmatch(path.rpartition("/")[2]):
                continue
            with suppress(FileNotFoundError):
                # S3 lists the time; asking for it would be one more request a blob.
                if _utc(entry.get("LastModified") or self._fs.modified(path)) < bound:
                    yield path

    def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        if self._fs.async_impl:
            options["timeout"] = _ANSWER_S
        return getattr(self._fs, method)(*arguments, **options)

    @contextmanager
    def _translated(self, path: str, doing: str) -> Iterator[None]:
        with storage_errors(path, doing):
            try:
                yield
            except RetinueError:
                raise
            except NotImplementedError as error:
                reason = "this file system cannot do that; choose another blobs.url"
                raise StorageError(f"{doing}: {path}: {reason}") from error
            # A boundary: each file system has errors of its own, which share no class.
            except Exception as error:
                if isinstance(error, OSError) and error.errno in _CLEAR:
                    raise
                raise self._failure(path, doing, error) from error

    def _failure(self, path: str, doing: str, error: Exception) -> StorageError:
        """Say what to do about an error that is not one of this machine's disks."""
        protocol = self._fs.protocol
        names = protocol if isinstance(protocol, str) else next(iter(protocol), "")
        settings = _ADVICE.get(names, "blobs.url and the file system's own settings")
        match error:
            case PermissionError():
                reason = f"access is denied ({error}); check {settings}"
            case FileNotFoundError():
                reason = f"there is no such place ({error}); make the bucket, or correct blobs.url"
            case TimeoutError():
                reason = f"no answer for {_ANSWER_S:g} s; check {settings}, and the network"
            case _:
                reason = f"{error or type(error).__name__}; check {settings}, and the network"
        return StorageError(f"{doing}: {path}: {reason}")
