"""An open-loop load generator: sends requests at a rate, whatever becomes of the ones before.

    python benchmarks/open_loop.py http://127.0.0.1:8900/v1/detect PHOTO --rate 40 --deadline-ms 500

Independent clients do not wait for each other's answers, so a server that is too slow must not
slow its own load down: requests are sent at planned times, and latency counts from the plan (no
coordinated omission). Arrivals are Poisson, the bursts of many independent clients, from a seed, so
that every server gets the same ones; ``--arrivals fixed`` spaces them evenly. A client without an
answer gives up, as real ones do, and closes its connection.

A process of its own, on uvloop and raw bytes: it shares the cores with the server. It asks for a
high priority, for clients elsewhere would not wait for the server's cores. What it used, and by how
much it missed its own plan, is part of its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from http_load import encode_request

IDLE_S = 2.0  # a connection that was idle for longer is not used again: the server may close it
MAX_LAG_MS = 5.0


@dataclass(frozen=True, slots=True)
class Shot:
    """A request to send.

    Attributes:
        at: When, in seconds after the start.
        data: All its bytes.
        kind: A name to count it by.
        cut: Hang up after so many bytes; None to send all.
        leave_s: Hang up when there is no answer so long after ``at``; None to wait forever.
    """

    at: float
    data: bytes
    kind: str = ""
    cut: int | None = None
    leave_s: float | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a shot.

    Attributes:
        shot: The shot.
        status: The answer's status; 0 if there was none.
        seconds: From the planned time to the end.
        lag_s: By how much the generator itself was late.
        sent: Whether the request was sent, or its first part, before the client hung up.
        left: Whether the client hung up.
        why: What broke, if the server did not answer; "" otherwise.
    """

    shot: Shot
    status: int = 0
    seconds: float = 0.0
    lag_s: float = 0.0
    sent: bool = False
    left: bool = False
    why: str = ""


class _Connection(asyncio.Protocol):
    """One connection: one shot at a time."""

    def __init__(self, pool: OpenLoop) -> None:
        self._pool = pool
        self._outcome: Outcome | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._got = b""
        self._end = 0
        self._transport: asyncio.Transport | None = None
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, outcome: Outcome) -> None:
        assert self._transport is not None
        self._outcome, self._got, self._end = outcome, b"", 0
        outcome.sent = True
        shot = outcome.shot
        if shot.cut is not None:
            self._transport.write(shot.data[: shot.cut])
            self._transport.close()  # sends what was written first
            self._finish(left=True)
            return
        self._transport.write(shot.data)
        if shot.leave_s is not None:
            left = shot.leave_s - self._pool.age(shot)
            self._timer = self._pool.loop.call_later(max(0.0, left), self._leave)

    def data_received(self, data: bytes) -> None:
        if self._outcome is None:
            self._close()  # nothing was asked: the server says goodbye
            return
        self._got = self._got + data if self._got else data
        if not self._end:
            head, found, _ = self._got.partition(b"\r\n\r\n")
            if not found:
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._end = len(head) + 4 + int(length or 0)
        if len(self._got) >= self._end:
            head = self._got[: self._got.index(b"\r\n\r\n")].lower()
            self._finish(status=int(head[9:12]))
            if b"connection: close" in head:
                self._close()
            else:
                self.idle_since = time.monotonic()
                self._pool.give_back(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        self._finish(why=type(exc).__name__ if exc else "closed without an answer")

    def _leave(self) -> None:
        self._finish(left=True)
        self._close()

    def _finish(self, *, status: int = 0, left: bool = False, why: str = "") -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._outcome is not None:
            outcome, self._outcome = self._outcome, None
            outcome.status, outcome.left, outcome.why = status, left, why
            self._pool.finished(outcome)

    def _close(self) -> None:
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()

    close = _close


class OpenLoop:
    """Fires shots at their times over a pool of connections."""

    def __init__(self, host: str, port: int, *, max_connections: int = 512) -> None:
        """Name the server, and the most connections at a time."""
        self._address = host, port
        self._most = max_connections
        self._open: set[_Connection] = set()
        self._opening = 0
        self._idle: list[_Connection] = []
        self._waiting: deque[Outcome] = deque()
        self._left_open = 0
        self._start = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.outcomes: list[Outcome] = []

    async def run(self, shots: Iterable[Shot]) -> list[Outcome]:
        """Fire all shots, which come in the order of time; return how each ended."""
        self._start = time.monotonic()
        for shot in shots:
            # The loop's timers count in whole milliseconds: a shorter wait would turn the loop
            # without a pause, and the cores are the server's.
            while (wait := -self.age(shot)) > 0:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(max(wait, 0.001))
            self._left_open += 1
            self._fire(Outcome(shot, lag_s=self.age(shot)))
        while self._left_open:
            self._done.clear()
            await self._done.wait()
        for connection in list(self._open):
            connection.close()
        return self.outcomes

    def age(self, shot: Shot) -> float:
        """Return the seconds since a shot's planned time."""
        return time.monotonic() - self._start - shot.at

    def finished(self, outcome: Outcome) -> None:
        """Keep a shot's end."""
        outcome.seconds = self.age(outcome.shot)
        self.outcomes.append(outcome)
        self._left_open -= 1
        self._done.set()

    def give_back(self, connection: _Connection) -> None:
        """Take a connection for the next shot."""
        while self._waiting:
            outcome = self._waiting.popleft()
            if not self._gave_up(outcome):
                connection.send(outcome)
                return
        self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Take a connection out that is of no more use."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and len(self._open) + self._opening < self._most:
            self._connect(self._waiting.popleft())

    def _fire(self, outcome: Outcome) -> None:
        if self._idle and time.monotonic() - self._idle[-1].idle_since > IDLE_S:
            for connection in list(self._idle):
                connection.close()
        if self._idle:
            self._idle.pop().send(outcome)  # the one that was used last
        elif len(self._open) + self._opening < self._most:
            self._connect(outcome)
        else:
            self._waiting.append(outcome)

    def _gave_up(self, outcome: Outcome) -> bool:
        leave_s = outcome.shot.leave_s
        if leave_s is None or self.age(outcome.shot) < leave_s:
            return False
        outcome.left = True
        self.finished(outcome)
        return True

    def _connect(self, outcome: Outcome) -> None:
        self._opening += 1
        task = self.loop.create_task(self._open_for(outcome))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open_for(self, outcome: Outcome) -> None:
        leave_s = outcome.shot.leave_s
        try:
            async with asyncio.timeout(None if leave_s is None else leave_s):
                made = functools.partial(_Connection, self)
                _, connection = await self.loop.create_connection(made, *self._address)
        except TimeoutError:
            outcome.left = True
            self.finished(outcome)
            return
        except OSError as error:
            outcome.why = type(error).__name__
            self.finished(outcome)
            return
        finally:
            self._opening -= 1
        self._open.add(connection)
        if self._gave_up(outcome):
            self.give_back(connection)
        else:
            connection.send(outcome)


def times(rate: float, seconds: float, *, poisson: bool = True, seed: int = 0) -> Iterator[float]:
    """Yield the moments of arrivals in [0, seconds), ``rate`` a second in the mean."""
    source = random.Random(seed)
    at = 0.0
    while True:
        at += source.expovariate(rate) if poisson else 1 / rate
        if at >= seconds:
            return
        yield at


def fire(url: str, shots: Iterable[Shot], *, max_connections: int = 512) -> list[Outcome]:
    """Fire shots at a server from an event loop of their own."""
    parts = urlsplit(url)

    async def run() -> list[Outcome]:
        host, port = parts.hostname or "127.0.0.1", parts.port or 80
        return await OpenLoop(host, port, max_connections=max_connections).run(shots)

    return uvloop.run(run())


def hurry() -> None:
    """Take a high priority, where this user may."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share does not exceed; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def summary(outcomes: Sequence[Outcome], seconds: float, deadline_s: float) -> dict[str, Any]:
    """Return the figures of a run as JSON can hold them."""
    answered = [o for o in outcomes if o.status == 200]
    good = [o.seconds for o in answered if o.seconds <= deadline_s]
    lags = [o.lag_s for o in outcomes]
    refused = Counter(str(o.status) for o in outcomes if o.status not in (0, 200))
    return {
        "sent": len(outcomes),
        "offered_per_s": len(outcomes) / seconds,
        "good": len(good),
        "good_per_s": len(good) / seconds,
        "p50_ms": _ms(quantile(good, 0.5)),
        "p99_ms": _ms(quantile(good, 0.99)),
        "late": len(answered) - len(good),
        "refused": dict(refused),
        "gave_up": sum(o.left for o in outcomes),
        "broken": dict(Counter(o.why for o in outcomes if o.why)),
        "lag_p99_ms": _ms(quantile(lags, 0.99)),
        "lag_max_ms": _ms(max(lags, default=0.0)),
    }


def _ms(seconds: float) -> float | None:
    return None if seconds != seconds else 1e3 * seconds


def main() -> None:
    """Read the command line, run, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("body", type=Path, help="a file")
    parser.add_argument("--header", action="append", help="'Name: value'; may be repeated")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--deadline-ms", type=float, default=500.0)
    parser.add_argument("--give-up", type=float, default=2.0, help="in deadlines; 0 for never")
    parser.add_argument("--arrivals", choices=("poisson", "fixed"), default="poisson")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--connections", type=int, default=512, help="at most, at a time")
    given = parser.parse_args()
    headers = given.header or ["Content-Type: image/jpeg"]
    data = encode_request(given.url, given.body.read_bytes(), headers)
    deadline_s = given.deadline_ms / 1000
    leave_s = given.give_up * deadline_s or None
    planned = times(given.rate, given.seconds, poisson=given.arrivals == "poisson", seed=given.seed)
    shots = [Shot(at, data, leave_s=leave_s) for at in planned]
    hurry()
    before = time.process_time()
    outcomes = fire(given.url, shots, max_connections=given.connections)
    cpu_s = time.process_time() - before
    found = summary(outcomes, given.seconds, deadline_s)
    found |= {"client_cpu_s": cpu_s, "client_cpu_ms": 1e3 * cpu_s / max(1, len(outcomes))}
    print(json.dumps(found))
    if (found["lag_p99_ms"] or 0) > MAX_LAG_MS:
        print(f"the generator itself lagged: {found['lag_p99_ms']:.1f} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
