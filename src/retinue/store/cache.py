"""A cache of small values: in this process, or in Redis, shared by many.

A cache may forget at any time, and never fails a caller: one that is down, slow or full is empty.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from retinue.core.errors import ConfigError, MissingExtra

log = logging.getLogger("retinue")

ENTRY_BYTES: Final = 200
"""What an entry costs beside its key and value, about."""
TIMEOUT_S: Final = 0.2
REST_S: Final = 5.0
"""How long a Redis that does not answer is left alone."""
SILENCE_S: Final = 60.0
"""Between two warnings about the same Redis."""
KEEP_S: Final = 3600.0
PREFIX: Final = b"retinue:"
_SCAN = 500


@dataclass(frozen=True)
class CacheStats:
    """What a cache did since it was opened.

    Attributes:
        hits: Looks that found a value.
        misses: Looks that found none, also because the cache could not be asked.
        failures: Commands that Redis did not answer, or refused.
        entries: Values held; None where others hold values too.
        bytes: What they cost; None where others hold values too.
    """

    hits: int = 0
    misses: int = 0
    failures: int = 0
    entries: int | None = None
    bytes: int | None = None


class Cache(Protocol):
    """Keeps bytes under bytes; may be used by several threads at once."""

    def get(self, key: bytes) -> bytes | None:
        """Return what was put, or None."""
        ...

    def put(self, key: bytes, value: bytes, *, ttl_s: float | None = None) -> None:
        """Keep a value in place of the one before.

        Args:
            key: Any bytes.
            value: Any bytes; none is kept where key and value are more than a quarter of all.
            ttl_s: Seconds after which it is gone. None: it stays while there is room, in Redis
                for an hour at most.
        """
        ...

    def delete(self, key: bytes) -> None:
        """Forget a value, if there is one."""
        ...

    def clear(self, prefix: bytes = b"") -> None:
        """Forget the values whose keys begin with a prefix."""
        ...

    def close(self) -> None:
        """Give back what is held. May be called twice."""
        ...

    @property
    def stats(self) -> CacheStats:
        """What it did since it was opened."""
        ...


def open_cache(url: str, *, max_bytes: int) -> Cache:
    """Open a cache.

    Args:
        url: "" or "memory://", or "redis://HOST:PORT/DATABASE" ("rediss://" with TLS, "unix://";
            extra ``redis``).
        max_bytes: Of a cache in this process; for Redis, four times its largest value.

    Raises:
        ConfigError: the URL is of another kind, or wrong.
        MissingExtra: Redis' client is not installed.
    """
    kind = url.partition("://")[0] if url else "memory"
    if kind == "memory":
        return MemoryCache(max_bytes)
    if kind in ("redis", "rediss", "unix"):
        return RedisCache(url, max_bytes)
    raise ConfigError(
        f"cache {_shown(url)!r} is not known; give memory:// or redis://HOST:PORT/DATABASE"
    )


def _shown(url: str) -> str:
    return re.sub(r"(://[^/@]*:|password=)[^@&]+", r"\1***", url)


def _cost(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES


class MemoryCache:
    """The least recently used values leave first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._hits = self._misses = 0
        self._entries: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> bytes | None:
        """Return what was put, or None."""
        with self._lock:
            value, end = self._entries.get(key, (None, 0.0))
            if value is not None and time.monotonic() >= end:
                self._forget(key)
                value = None
            if value is None:
                self._misses += 1
            else:
                self._hits += 1
                self._entries.move_to_end(key)
            return value

    def put(self, key: bytes, value: bytes, *, ttl_s: float | None = None) -> None:
        """Keep a value until its time is over or there is no room for it."""
        cost = _cost(key, value)
        with self._lock:
            self._forget(key)
            if cost > self._max_bytes // 4 or (ttl_s is not None and ttl_s <= 0):
                return
            end = float("inf") if ttl_s is None else time.monotonic() + ttl_s
            self._entries[key] = (value, end)
            self._bytes += cost
            while self._bytes > self._max_bytes:
                self._forget(next(iter(self._entries)))

    def delete(self, key: bytes) -> None:
        """Forget a value, if there is one."""
        with self._lock:
            self._forget(key)

    def clear(self, prefix: bytes = b"") -> None:
        """Forget the values whose keys begin with a prefix."""
        with self._lock:
            for key in [key for key in self._entries if key.startswith(prefix)]:
                self._forget(key)

    def _forget(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _cost(key, entry[0])

    def close(self) -> None:
        """Forget all."""
        self.clear()

    @property
    def stats(self) -> CacheStats:
        """What it did since it was opened, and what it holds."""
        with self._lock:
            return CacheStats(self._hits, self._misses, 0, len(self._entries), self._bytes)


class RedisCache:
    """Values in Redis under ``retinue:``, each with an end.

    A Redis that does not answer in `TIMEOUT_S` is left alone for `REST_S`; then one command tries
    it again. What was deleted or cleared meanwhile may come back until its end.
    """

    def __init__(self, url: str, max_bytes: int) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ModuleNotFoundError as error:
            raise MissingExtra(
                f"cache {_shown(url)!r}: Redis' client is missing: pip install 'retinue[redis]'"
            ) from error
        self._refusal: Any = redis.ResponseError
        self._failure: Any = (redis.RedisError, OSError)
        self._max_bytes = max_bytes
        self._hits = self._misses = self._failures = 0
        self._down = False
        self._rests_until = self._silent_until = 0.0
        self._lock = threading.Lock()
        options = {
            "socket_timeout": TIMEOUT_S,
            "socket_connect_timeout": TIMEOUT_S,
            "protocol": 2,
            # A connection that Redis closed as idle is opened anew; a timeout is not tried again.
            "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        }
        if urlsplit(url).scheme == "unix":
            del options["socket_connect_timeout"]
        try:
            self._client: Any = redis.Redis.from_url(url, **options)
        except ValueError as error:
            raise ConfigError(f"cache {_shown(url)!r}: {error}") from error

    def get(self, key: bytes) -> bytes | None:
        """Return what was put, or None; also where Redis cannot be asked."""
        found = self._ask("get", PREFIX + key)
        value = found if isinstance(found, bytes) else None
        with self._lock:
            self._misses += value is None
            self._hits += value is not None
        return value

    def put(self, key: bytes, value: bytes, *, ttl_s: float | None = None) -> None:
        """Keep a value for a while; nothing happens where Redis cannot be asked."""
        end_ms = int((KEEP_S if ttl_s is None else ttl_s) * 1000)
        if _cost(key, value) > self._max_bytes // 4 or end_ms <= 0:
            self.delete(key)
        else:
            self._ask("set", PREFIX + key, value, px=end_ms)

    def delete(self, key: bytes) -> None:
        """Forget a value, if there is one."""
        self._ask("unlink", PREFIX + key)

    def clear(self, prefix: bytes = b"") -> None:
        """Forget the values whose keys begin with a prefix, some hundred at a time."""
        pattern = re.sub(rb"([*?\[\]\\^-])", rb"\\\1", PREFIX + prefix) + b"*"
        cursor = 0
        while (answer := self._ask("scan", cursor, match=pattern, count=_SCAN)) is not None:
            cursor, keys = answer
            if keys:
                self._ask("unlink", *keys)
            if cursor == 0:
                break

    def _ask(self, command: str, *arguments: Any, **options: Any) -> Any:
        """Return Redis' answer, or None where there is none."""
        with self._lock:
            now = time.monotonic()
            if now < self._rests_until:
                return None
            if self._down:
                # The others do not wait while this one tries.
                self._rests_until = now + REST_S
        try:
            answer = getattr(self._client, command)(*arguments, **options)
        except self._refusal as error:
            self._failed(error, rest_s=0.0)
            return None
        except self._failure as error:
            self._failed(error, rest_s=REST_S)
            return None
        if self._down:
            with self._lock:
                self._down, self._rests_until = False, 0.0
            log.info("the cache is used again")
        return answer

    def _failed(self, error: Exception, *, rest_s: float) -> None:
        with self._lock:
            now = time.monotonic()
            self._failures += 1
            if rest_s:
                self._down, self._rests_until = True, now + rest_s
            if now < self._silent_until:
                return
            self._silent_until = now + SILENCE_S
        advice = f"it is asked again every {rest_s:g} s" if rest_s else "see Redis' settings"
        log.warning("the cache is not used: %s; %s", error, advice)

    def close(self) -> None:
        """Give back the connections; what is in Redis stays for others."""
        self._client.close()

    @property
    def stats(self) -> CacheStats:
        """What this process asked for since it was opened."""
        with self._lock:
            return CacheStats(self._hits, self._misses, self._failures)
