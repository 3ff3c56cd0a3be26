"""A cache of small values: in this process, or in Redis, shared by many.

A cache may forget at any time, and never fails a caller: one that is down, slow or full is empty.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from retinue.core.errors import ConfigError, MissingExtra

log = logging.getLogger("retinue")

ENTRY_BYTES: Final = 200
"""What an entry costs beside its key and value, about."""
TIMEOUT_S: Final = 0.2
REST_S: Final = 5.0
"""How long a Redis that failed is left alone."""
KEEP_S: Final = 3600
PREFIX: Final = b"retinue:"


class Cache(Protocol):
    """Keeps bytes under bytes; may be used by several threads at once."""

    def get(self, key: bytes) -> bytes | None:
        """Return what was put, or None."""
        ...

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value for a while; one that is larger than a quarter of all is not kept."""
        ...

    def close(self) -> None:
        """Give back what is held. May be called twice."""
        ...


def open_cache(url: str, *, max_bytes: int) -> Cache:
    """Open a cache.

    Args:
        url: "memory://", or "redis://HOST:PORT/DATABASE" (extra ``redis``).
        max_bytes: Of a cache in this process; for Redis, four times its largest value.

    Raises:
        ConfigError: the URL is of another kind.
        MissingExtra: Redis' client is not installed.
    """
    kind = urlsplit(url).scheme
    if kind == "memory":
        return MemoryCache(max_bytes)
    if kind in ("redis", "rediss", "unix"):
        return RedisCache(url, max_bytes // 4)
    raise ConfigError(f"cache {url!r} is not known; give memory:// or redis://HOST:PORT/DATABASE")


class MemoryCache:
    """The least recently used values leave first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> bytes | None:
        """Return what was put, or None."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value until there is no room for it."""
        size = len(key) + len(value) + ENTRY_BYTES
        with self._lock:
            self._forget(key)
            if size > self._max_bytes // 4:
                return
            self._entries[key] = value
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._forget(next(iter(self._entries)))

    def _forget(self, key: bytes) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._bytes -= len(key) + len(value) + ENTRY_BYTES

    def close(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


class RedisCache:
    """Values in Redis, for an hour; one that fails is left alone for some seconds."""

    def __init__(self, url: str, largest: int) -> None:
        try:
            import redis
        except ModuleNotFoundError as error:
            raise MissingExtra(f"cache {url!r} needs: pip install 'retinue[redis]'") from error
        self._errors: Any = redis.RedisError
        self._largest = largest
        self._down_until = 0.0
        try:
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
            )
        except ValueError as error:
            raise ConfigError(f"cache {url!r}: {error}") from error

    def get(self, key: bytes) -> bytes | None:
        """Return what was put, or None; also where Redis cannot be asked."""
        found: bytes | None = self._ask("get", PREFIX + key)
        return found

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value for an hour; nothing happens where Redis cannot be reached."""
        if len(value) <= self._largest:
            self._ask("set", PREFIX + key, value, ex=KEEP_S)

    def _ask(self, command: str, *arguments: Any, **options: Any) -> Any:
        if time.monotonic() < self._down_until:
            return None
        try:
            return getattr(self._client, command)(*arguments, **options)
        except (self._errors, OSError) as error:
            log.warning("the cache is not used for %g s: %s", REST_S, error)
            self._down_until = time.monotonic() + REST_S
            return None

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()
