"""Ten thousand connections that misbehave, and twenty requests a second that must be answered.

    python benchmarks/connections.py [--connections 10000] [--seconds 20]

`retinue up` with a model that does nothing. Most connections send a body at one byte a second; one
in ten is idle after a request (keep-alive), one sends a request's head at one byte a second, one
asks for a large file and never reads. Who is thrown out comes back at once, so how many are open is
also a race: each is thrown out after 10 to 30 s. `open_loop.py` sends well-behaved requests
meanwhile. Three runs: HTTP with ``server.max_connections`` raised; HTTP with the default of 1,000,
where the server must refuse politely; gRPC, with connections that say nothing and ones that are
idle after HTTP/2's first frames, while NVIDIA's client asks over another one.

Exits with 1 when a well-behaved request is not answered where the limit was raised, or when the
server ends. The hard limit of open files (``ulimit -Hn``) bounds the number of connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import tritonclient.grpc as triton
import uvloop

import servers
from assets import install_nothing, small_photo
from common import show
from open_loop import quantile
from servers import Running, Server, generate

GOOD_PER_S = 20
DEADLINE_MS = 10_000
AT_ONCE = 400
SETTLE_S = 10.0
SPARE_FILES = 500
LARGE = "/swagger/swagger-ui-bundle.js"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@dataclass(frozen=True)
class Habit:
    """How a connection misbehaves.

    Attributes:
        first: What it sends at once.
        drip: What it sends again and again, one byte a second; nothing if empty.
        reads: Whether it reads what comes.
        share: How many of all, beside those of the other habits.
    """

    first: bytes
    drip: bytes = b""
    reads: bool = True
    share: int = 1


HABITS = {
    "slow body": Habit(
        b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
        b"x",
        share=7,
    ),
    "never reads": Habit(f"GET {LARGE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), reads=False),
    "idle": Habit(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "slow head": Habit(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", b"x"),
}
GRPC_HABITS = {"silent": Habit(b""), "idle": Habit(HTTP2)}


class _Connection(asyncio.Protocol):
    def __init__(self, crowd: Crowd, habit: Habit) -> None:
        self._crowd, self.habit = crowd, habit
        self._head = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if not self.habit.reads:
            self.transport.pause_reading()
        self._crowd.open.add(self)
        if self.habit.first:
            self.transport.write(self.habit.first)

    def data_received(self, data: bytes) -> None:
        if len(self._head) < 12:
            self._head += data[:12]
            if self._head.startswith(b"HTTP/1.1 ") and len(self._head) >= 12:
                self._crowd.answers[self._head[9:12].decode()] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.left(self)


@dataclass
class Crowd:
    """Many connections to one port, opened again when they are closed.

    Attributes:
        open: Those that are open.
        answers: Statuses that came.
        thrown_out: How many the server closed.
        failed: How many could not be opened.
        most: Most that were open at a time.
    """

    port: int
    open: set[_Connection] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    thrown_out: int = 0
    failed: int = 0
    most: int = 0
    _lost: list[Habit] = field(default_factory=list)
    _made: int = 0
    _over: bool = False

    def left(self, connection: _Connection) -> None:
        """Note that the server closed a connection."""
        self.open.discard(connection)
        if not self._over:
            self.thrown_out += 1
            self._lost.append(connection.habit)

    async def hold(self, habits: list[Habit], until: Callable[[], bool]) -> None:
        """Keep a connection open for each habit until it is time to go."""
        self._lost = list(habits)
        while not until():
            began = time.monotonic()
            wanted, self._lost = self._lost, []
            for at in range(0, len(wanted), AT_ONCE):
                await asyncio.gather(*map(self._connect, wanted[at : at + AT_ONCE]))
            self.most = max(self.most, len(self.open))
            for connection in list(self.open):
                if connection.habit.drip and connection.transport is not None:
                    connection.transport.write(connection.habit.drip)
            await asyncio.sleep(max(0.05, 1 - (time.monotonic() - began)))
        self._over = True
        for connection in list(self.open):
            if connection.transport is not None:
                connection.transport.abort()

    async def _connect(self, habit: Habit) -> None:
        loop = asyncio.get_running_loop()
        self._made += 1
        sock = socket.socket()
        sock.setblocking(False)
        if not habit.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            # A source address has some 28,000 ports; those of closed connections rest a minute.
            sock.bind((f"127.0.0.{2 + self._made % 8}", 0))
            await asyncio.wait_for(loop.sock_connect(sock, ("127.0.0.1", self.port)), 10)
            await loop.create_connection(lambda: _Connection(self, habit), sock=sock)
        except OSError:
            sock.close()
            self.failed += 1
            self._lost.append(habit)


@dataclass
class Watch:
    """The most memory and open files of a server, from a thread of its own."""

    pid: int
    rss_mb: float = 0.0
    files: int = 0

    def look(self) -> float:
        """Look once; return the memory in MB."""
        process = psutil.Process(self.pid)
        now = float(process.memory_info().rss / 1e6)
        self.rss_mb = max(self.rss_mb, now)
        self.files = max(self.files, process.num_fds())
        return now

    def run(self, stop: threading.Event) -> None:
        """Look twice a second."""
        with contextlib.suppress(psutil.NoSuchProcess):
            while not stop.wait(0.5):
                self.look()


def ask_http(running: Running, seconds: float) -> dict[str, Any]:
    """Send well-behaved requests over HTTP."""
    return generate(
        "open_loop.py",
        running,
        *("--rate", str(GOOD_PER_S), "--seconds", str(seconds)),
        *("--deadline-ms", str(DEADLINE_MS), "--arrivals", "fixed"),
    )


def ask_grpc(address: str, seconds: float) -> dict[str, Any]:
    """Send well-behaved requests over gRPC, one after the other."""
    waits, failed = [], Counter[str]()
    until = time.monotonic() + seconds
    with contextlib.closing(triton.InferenceServerClient(address)) as client:
        while (began := time.monotonic()) < until:
            try:
                assert client.get_model_metadata("nothing", client_timeout=DEADLINE_MS / 1000)
                waits.append(time.monotonic() - began)
            except triton.InferenceServerException as error:
                failed[str(error.status())] += 1
            time.sleep(max(0.0, began + 1 / GOOD_PER_S - time.monotonic()))
    figures = {"p50_ms": 1e3 * quantile(waits, 0.5), "p99_ms": 1e3 * quantile(waits, 0.99)}
    refused = dict(failed)
    return figures | {"sent": len(waits) + failed.total(), "good": len(waits), "refused": refused}


@dataclass(frozen=True)
class Case:
    """A run: who connects where, with which limit."""

    name: str
    habits: dict[str, Habit]
    connections: int
    limit: int
    grpc: bool = False


def run(case: Case, server: Server, seconds: float) -> tuple[tuple[object, ...], bool]:
    """Run a case; return the table's row and whether all was well."""
    port = servers.free_port()
    more = {
        "RETINUE_SERVER__MAX_CONNECTIONS": str(case.limit),
        "RETINUE_SERVER__GRPC_PORT": str(port),
    }
    server = replace(server, environment={**server.environment, **more})
    with servers.running(server) as running:
        base = running.url.removesuffix(server.path)
        watch, stop = Watch(running.pid), threading.Event()
        before = watch.look()
        crowd = Crowd(port if case.grpc else int(base.rpartition(":")[2]))
        each = case.connections // sum(habit.share for habit in case.habits.values())
        wanted = [h for habit in case.habits.values() for h in [habit] * (each * habit.share)]
        threads = [
            threading.Thread(target=watch.run, args=(stop,)),
            threading.Thread(target=lambda: uvloop.run(crowd.hold(wanted, stop.is_set))),
        ]
        for thread in threads:
            thread.start()
        try:
            _until_full(crowd, min(case.connections, 2 * case.limit))
            good = (
                ask_grpc(f"127.0.0.1:{port}", seconds) if case.grpc else ask_http(running, seconds)
            )
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        time.sleep(5)
        after = watch.look()
        alive = httpx.get(f"{base}/healthz").status_code == 200
    answers = " ".join(f"{n}x{status}" for status, n in sorted(crowd.answers.items()))
    refused = " ".join(f"{n}x{status}" for status, n in good["refused"].items())
    row = (
        case.name,
        f"{crowd.most:,}",
        f"{crowd.thrown_out:,}",
        answers or "-",
        f"{good['good']}/{good['sent']}",
        refused or "-",
        *("-" if good[key] is None else f"{good[key]:.0f}" for key in ("p50_ms", "p99_ms")),
        " ".join(f"{mb:.0f}" for mb in (before, watch.rss_mb, after)),
        f"{watch.files:,}",
    )
    print(*row, file=sys.stderr, sep=" | ", flush=True)
    return row, alive and (case.limit < case.connections or good["good"] == good["sent"])


def _until_full(crowd: Crowd, wanted: int) -> None:
    """Wait until nearly all are there, for a minute at most: some are always thrown out."""
    until = time.monotonic() + 60
    while crowd.most < 0.95 * wanted and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(SETTLE_S)  # opening so many at once is work of its own


@contextlib.contextmanager
def prepared() -> Iterator[Server]:
    """Return Retinue with a model that does nothing."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as home:
        entry = install_nothing(Path(cache))
        yield servers.retinue(entry, Path(cache), home, body=small_photo())


def main() -> None:
    """Run the three cases and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of well-behaved requests")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    many = given.connections
    if hard != resource.RLIM_INFINITY and many > hard - SPARE_FILES:
        raise SystemExit(f"{many} connections need more open files than {hard}: ulimit -Hn")
    cases = [
        Case("HTTP, limit raised", HABITS, many, many + SPARE_FILES),
        Case("HTTP, limit 1,000", HABITS, many, 1000),
        Case("gRPC, limit raised", GRPC_HABITS, many, many + SPARE_FILES, grpc=True),
    ]
    with prepared() as server:
        found = [run(case, server, given.seconds) for case in cases]
    columns = ("case", "open", "thrown out", "answers to them", "good", "refused")
    more = ("p50 ms", "p99 ms", "RSS MB: before, peak, after", "files")
    show("Connections", (*columns, *more), [row for row, _ in found])
    if not all(well for _, well in found):
        sys.exit("a well-behaved request was not answered, or the server ended")


if __name__ == "__main__":
    main()
