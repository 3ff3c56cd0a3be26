"""Pictures in object stores and other file systems, through fsspec."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from fsspec.core import url_to_fs  # type: ignore[import-untyped]

from retinue.apps.search.sources.base import (
    Found,
    Offer,
    Options,
    Refused,
    check_size,
    check_suffix,
    is_hidden,
    scheme,
    too_long,
)
from retinue.core.errors import (
    FetchError,
    InputError,
    InputNotFound,
    InvalidRequest,
    MissingExtra,
    RetinueError,
)
from retinue.core.settings import Limits

SCHEMES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"})
"""Object stores that a table's row may name; SOURCE itself may be of any file system."""

_EXTRAS = {"s3": "retinue[s3]", "s3a": "retinue[s3]", "gs": "gcsfs", "gcs": "gcsfs"}
_EXTRAS |= {"az": "adlfs", "abfs": "adlfs", "abfss": "adlfs", "oss": "ossfs"}


@contextmanager
def _translated(shown: str) -> Iterator[None]:
    """Turn what a file system raises into the error tree.

    Raises:
        InputNotFound: there is no such object, bucket or folder.
        InputError: access is denied.
        FetchError: anything else.
    """
    try:
        yield
    except RetinueError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputNotFound(f"{shown}: there is no such object or folder") from error
    except PermissionError as error:
        message = f"{shown}: access is denied ({error}); check the credentials"
        raise InputError(message) from error
    # An isolation boundary: each file system raises its client's own errors (botocore's are no
    # OSError), and fsspec has no common class for them.
    except Exception as error:
        raise FetchError(f"cannot read {shown}: {error or type(error).__name__}") from error


def check_url(url: str) -> str:
    """Return the URL of a file system, if it holds nothing that must not be kept.

    Raises:
        InvalidRequest: it holds a password, or chains file systems, of which one could
            reach addresses that are not checked.
    """
    if "::" in url:
        raise InvalidRequest(f"{scheme(url)}://...: chained file systems are not read")
    user, mark, _ = url.partition("://")[2].partition("/")[0].rpartition("@")
    if mark and ":" in user:
        message = f"{scheme(url)}://...: the URL holds a password, which would be kept"
        raise InvalidRequest(f"{message}; give it as the store's own settings say")
    return url


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        InvalidRequest: the URL is wrong, or of a file system that fsspec does not know.
        MissingExtra: its package is not installed.
    """
    try:
        # A listing that is kept would hide what was added since, and grow with the bucket.
        filesystem, path = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(scheme(url), "")
        advice = f"pip install '{extra}'" if extra else "install the package that it names"
        raise MissingExtra(f"{url}: {error}; {advice}") from error
    except ValueError as error:
        raise InvalidRequest(f"{url}: {error}") from error
    return filesystem, str(path)


class Stores:
    """Reads objects; any thread may. File systems are opened once for each scheme.

    Args:
        limits: Bytes that a picture may have.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._opened: dict[str, Any] = {}

    def offer(self, url: str, *, source: str, item_id: str) -> Found | Refused:
        """Offer an object by its URL; nothing is asked for yet."""
        try:
            check_url(url)
        except RetinueError as error:
            return Refused(source, f"{scheme(url)}://...", error, item_id)
        return Found(source, item_id, url, -1, 0, "", partial(self.read, url))

    def read(self, url: str) -> bytes:
        """Return an object's bytes.

        Raises:
            InputNotFound: there is no such object.
            TooManyBytes: it has more bytes than the limit.
            InputError: access is denied.
            FetchError: anything else failed.
        """
        with _translated(url):
            filesystem, path = self._at(url)
            size = int(filesystem.info(path).get("size") or 0)
        return read_object(filesystem, path, url, size, self._limits)

    def _at(self, url: str) -> tuple[Any, str]:
        kind = scheme(url)
        with self._lock:
            if kind not in self._opened:
                self._opened[kind] = _open(url)[0]
        filesystem = self._opened[kind]
        return filesystem, str(filesystem._strip_protocol(url))


def read_object(filesystem: Any, path: str, shown: str, size: int, limits: Limits) -> bytes:
    """Return an object's bytes, given how many it has.

    Raises:
        TooManyBytes: it has more bytes than the limit.
        InputError: it has more than it had when it was listed.
    """
    check_size(size, shown, limits)
    if not size:
        return b""
    with _translated(shown):
        data = bytes(filesystem.cat_file(path, start=0, end=size + 1))
    if len(data) > limits.max_bytes:
        raise too_long(shown, limits)
    if len(data) != size:
        raise InputError(f"{shown} was changed meanwhile; index it again")
    return data


def open_store(url: str, source: str, options: Options) -> Iterator[Offer]:
    """Offer the pictures below a prefix, folder by folder, in the order of their names.

    Raises:
        InputNotFound: nothing is there.
        InvalidRequest: the URL is wrong.
        MissingExtra: the file system's package is not installed.
        FetchError: the store cannot be reached.
    """
    filesystem, root = _open(url)
    with _translated(url):
        filesystem.invalidate_cache()
        top = filesystem.info(root)
    return _listed(filesystem, root.rstrip("/"), top, source, options)


def _listed(
    filesystem: Any, root: str, top: Mapping[str, Any], source: str, options: Options
) -> Iterator[Offer]:
    if top.get("type") == "file":
        yield from _object(filesystem, root.rpartition("/")[0], top, source, options)
        return
    try:
        with _translated(source):
            for _, folders, files in filesystem.walk(root, detail=True, on_error="raise"):
                for name in [name for name in folders if name.startswith(".")]:
                    del folders[name]
                for name in sorted(files):
                    yield from _object(filesystem, root, files[name], source, options)
    except RetinueError as error:
        yield Refused(source, source, error, partial=True)


def _object(
    filesystem: Any, root: str, info: Mapping[str, Any], source: str, options: Options
) -> Iterator[Offer]:
    path = str(info["name"])
    item_id = path.removeprefix(root).lstrip("/")
    shown = str(filesystem.unstrip_protocol(path))
    size = int(info.get("size") or 0)
    try:
        if is_hidden(item_id) or not item_id or not check_suffix(item_id):
            return
        check_size(size, shown, options.limits)
    except RetinueError as error:
        yield Refused(source, shown, error, item_id)
        return
    read = partial(read_object, filesystem, path, shown, size, options.limits)
    yield Found(source, item_id, shown, size, _changed(info), _etag(info), read)


def _etag(info: Mapping[str, Any]) -> str:
    return str(info.get("ETag") or info.get("etag") or info.get("md5Hash") or "").strip('"')


def _changed(info: Mapping[str, Any]) -> int:
    """Return when an object was changed, in microseconds since 1970; 0 where it is not said."""
    names = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
    value = next((info[name] for name in names if info.get(name)), None)
    if isinstance(value, str):
        try:
            value = datetime.datetime.fromisoformat(value)
        except ValueError:
            return 0
    if isinstance(value, datetime.datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    return round(value * 1e6) if isinstance(value, int | float) else 0
