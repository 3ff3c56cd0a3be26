"""How Milvus is reached, and what its errors mean here."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from retinue.core.errors import ConfigError, MissingExtra, StorageError, Unavailable
from retinue.index._checks import Ids

TOKEN: Final = "MILVUS_TOKEN"  # noqa: S105 - the variable's name, not a secret
# ServiceNotReady, ServiceUnavailable, MemoryLimitExceeded, TooManyRequests, RateLimit.
# https://github.com/milvus-io/milvus/blob/master/pkg/util/merr/errors.go
_LATER: Final = frozenset({1, 2, 3, 4, 8})


def library() -> Any:
    """Return pymilvus, whose import takes a second.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("pymilvus")
    except ImportError as error:
        raise MissingExtra(
            "the milvus index needs pymilvus; install it with: pip install 'retinue[milvus]'"
        ) from error


def remote(uri: str) -> bool:
    """Return whether an address is a server's, not a file's."""
    return uri.startswith(("http://", "https://", "tcp://"))


def address(uri: str) -> str:
    """Return the address, a file's made absolute.

    Raises:
        ConfigError: it is neither a server's nor a file's, or holds a password.
        StorageError: the file's folder does not exist.
    """
    if remote(uri):
        if "@" in urlsplit(uri).netloc:
            raise ConfigError(f"Milvus' address must hold no password: set {TOKEN} to it instead")
        return uri
    path = Path(uri).absolute()
    if path.suffix != ".db":
        raise ConfigError(f"Milvus' address must be http://host:port or a file *.db, not {uri!r}")
    if not path.parent.is_dir():
        raise StorageError(f"no folder {path.parent} for the database {path.name}; make it first")
    return str(path)


def named(collection: str) -> str:
    """Return a name that Milvus takes: letters, digits and "_", no digit first, at most 255."""
    if not collection:
        return f"retinue_{uuid.uuid4().hex}"
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", collection):
        return collection
    plain = re.sub(r"[^A-Za-z0-9_]", "_", collection)[:240]
    return f"_{plain}_{zlib.crc32(collection.encode()):08x}"


def connect(uri: str, token: str, timeout_s: float) -> Any:
    """Return pymilvus' client; see `retinue.index.milvus.MilvusIndex` for the errors."""
    milvus = library()
    try:
        with errors("connecting", uri):
            return milvus.MilvusClient(
                uri, token=token or os.environ.get(TOKEN, ""), timeout=timeout_s
            )
    except StorageError as error:
        if remote(uri):
            raise
        if importlib.util.find_spec("milvus_lite") is None:
            message = "a file of Milvus needs milvus-lite; install it with: pip install milvus-lite"
            raise MissingExtra(message) from error
        raise Unavailable(
            f"Milvus cannot open {uri}: another process has it open, or it cannot be written"
        ) from error


@contextmanager
def errors(doing: str, uri: str) -> Iterator[None]:
    """Turn what pymilvus raises in the block into `Unavailable` or `StorageError`."""
    milvus = library()
    grpc = importlib.import_module("grpc")
    try:
        yield
    except milvus.MilvusException as error:
        bad = (milvus.exceptions.ParamError, milvus.exceptions.ConnectionConfigException)
        message = f"Milvus at {uri}, {doing}: {error.message}"
        if error.code in _LATER and not isinstance(error, bad):
            raise Unavailable(f"{message}; try again later") from error
        raise StorageError(message) from error
    except grpc.RpcError as error:
        raise Unavailable(f"Milvus at {uri}, {doing}: {error}; try again later") from error


def among_ids(ids: Ids) -> str:
    """Return Milvus' expression for some ids (N,)."""
    return f"id in [{','.join(map(str, ids.tolist()))}]"
