"""The contract of every `Cache`, as checks that any test runner can call.

A check takes a function that opens one and the same cache with a bound in bytes, empty at first,
and raises `AssertionError` where the contract is broken::

    @pytest.mark.parametrize("check", cache_suite.CHECKS, ids=lambda c: c.__name__)
    def test_contract(check):
        check(lambda max_bytes: open_cache("memory://", max_bytes=max_bytes))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

from retinue.store.cache import Cache

Open = Callable[[int], Cache]
Check = Callable[[Open], None]

ROOM = 2**20
TTL_S = 0.15
ODD_KEYS = (
    b"",
    b"a",
    b"a:b",
    b"\0",
    b"\xff\xfe",
    b"\r\n",
    b"retinue:",
    b"*",
    b"[a-z]?",
    b"k" * 999,
)


def what_was_put_comes_back(open_cache: Open) -> None:
    """Any bytes under any bytes; no bytes are a value too."""
    with closing(open_cache(ROOM)) as cache:
        for key in ODD_KEYS:
            assert cache.get(key) is None
        values = {key: bytes(range(256)) * n + key for n, key in enumerate(ODD_KEYS)}
        for key, value in values.items():
            cache.put(key, value)
        cache.put(b"none", b"")
        assert {key: cache.get(key) for key in values} == values
        assert cache.get(b"none") == b""


def the_last_value_counts(open_cache: Open) -> None:
    """Also where it has another length."""
    with closing(open_cache(ROOM)) as cache:
        for value in (b"one", b"two and more", b"", b"3"):
            cache.put(b"key", value)
            assert cache.get(b"key") == value


def a_value_that_is_too_large_is_not_kept(open_cache: Open) -> None:
    """Nor is the one before it, which it was to replace; others are."""
    with closing(open_cache(40_000)) as cache:
        cache.put(b"other", b"here")
        cache.put(b"key", b"small")
        cache.put(b"key", b"x" * 10_000)
        assert cache.get(b"key") is None
        assert cache.get(b"other") == b"here"
        cache.put(b"key", b"x" * 9_000)
        assert cache.get(b"key") == b"x" * 9_000


def values_end(open_cache: Open) -> None:
    """Each at its own time; a later put counts anew."""
    with closing(open_cache(ROOM)) as cache:
        for key in (b"short", b"again"):
            cache.put(key, b"value", ttl_s=TTL_S)
        cache.put(b"long", b"value", ttl_s=60)
        cache.put(b"again", b"value")
        for ttl_s in (0.0, -1.0):
            cache.put(b"long ago", b"value")
            cache.put(b"long ago", b"value", ttl_s=ttl_s)
            assert cache.get(b"long ago") is None
        time.sleep(2 * TTL_S)
        assert cache.get(b"short") is None
        assert cache.get(b"long") == b"value"
        assert cache.get(b"again") == b"value"


def deleted_values_are_gone(open_cache: Open) -> None:
    """One alone; what is not there can be deleted."""
    with closing(open_cache(ROOM)) as cache:
        cache.put(b"a", b"1")
        cache.put(b"ab", b"2")
        cache.delete(b"a")
        cache.delete(b"a")
        assert cache.get(b"a") is None
        assert cache.get(b"ab") == b"2"


def a_prefix_is_cleared(open_cache: Open) -> None:
    """Its bytes mean themselves, as in no pattern."""
    with closing(open_cache(ROOM)) as cache:
        prefixes = (b"a*", b"a?", b"[a]", b"a\\", b"a", b"\xff-^")
        for number in range(300):
            for prefix in prefixes:
                cache.put(prefix + b":%d" % number, b"value")
        for cleared, prefix in enumerate(prefixes):
            cache.clear(prefix + b":")
            gone = [cache.get(p + b":7") is None for p in prefixes]
            assert gone == [n <= cleared for n in range(len(prefixes))]
            assert all(cache.get(prefix + b":%d" % n) is None for n in range(300))
        cache.put(b"1", b"x")
        cache.clear()
        assert cache.get(b"1") is None


def looks_are_counted(open_cache: Open) -> None:
    """Hits and misses."""
    with closing(open_cache(ROOM)) as cache:
        cache.put(b"key", b"value")
        for key in (b"key", b"key", b"none"):
            cache.get(key)
        assert (cache.stats.hits, cache.stats.misses, cache.stats.failures) == (2, 1, 0)


def threads_share_a_cache(open_cache: Open) -> None:
    """What is read was put under that key, whole."""
    failures: list[BaseException] = []

    def work(cache: Cache, seed: int) -> None:
        try:
            for turn in range(150):
                number = (seed * 7 + turn) % 20
                found = cache.get(b"%d" % number)
                assert found in (None, b"%d," % number * 500)
                cache.put(b"%d" % number, b"%d," % number * 500, ttl_s=60)
                if turn % 10 == 0:
                    cache.delete(b"%d" % number)
                    cache.clear(b"1")
        except BaseException as error:  # noqa: BLE001 (handed to the checking thread)
            failures.append(error)

    with closing(open_cache(12_000)) as cache:
        threads = [threading.Thread(target=work, args=(cache, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        assert cache.stats.failures == 0


def closing_twice_is_fine(open_cache: Open) -> None:
    """As in a clean-up after a clean-up."""
    cache = open_cache(ROOM)
    cache.put(b"key", b"value")
    cache.close()
    cache.close()


CHECKS: tuple[Check, ...] = (
    what_was_put_comes_back,
    the_last_value_counts,
    a_value_that_is_too_large_is_not_kept,
    values_end,
    deleted_values_are_gone,
    a_prefix_is_cleared,
    looks_are_counted,
    threads_share_a_cache,
    closing_twice_is_fine,
)
