"""A device: threads that run batches of several queues, one decision at a time.

Each model (or each model's decoding) has a `Lane` on a device: a `Schedule` and the instances that
can run its batches. Models that share a device share its threads, so what is run next is one
decision: of the lanes that have work and a free instance, the one whose first item has the highest
priority, then the earliest deadline.

A thread that finishes a batch takes the next one itself, under a lock, and never waits for the
event loop in between; the loop wakes a thread only when it was idle, and is told of results in
groups. So the device stays busy while the loop is, and under load a batch costs no wake-up at all.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from retinue.core.errors import ShuttingDown, Unavailable
from retinue.pipeline.worker import Job, Result, Run, Task, Worker

_log = logging.getLogger(__name__)


class Queue(Protocol):
    """What a device asks of its lanes, under its lock."""

    until: float
    """When to ask for the rank again, in seconds; ``inf`` when nothing is held back."""

    def rank(self, now: float) -> tuple[float, float] | None:
        """Return the rank of what goes next, smaller is sooner; None if nothing can start now."""
        ...

    def take(self, now: float, free: int) -> Task[Any, Any]:
        """Take the batch that goes next, given how many threads are free."""
        ...

    async def close(self, timeout_s: float) -> bool:
        """Refuse new items, fail those that are left, close the instances; tell if all ended."""
        ...


class Device:
    """Threads that run the batches of lanes. Use it on one event loop only.

    Attributes:
        lock: Guards the lanes' queues.
        lanes: Kept by the lanes themselves, under the lock.
    """

    def __init__(self, threads: int, *, name: str) -> None:
        """Set it up; `start` starts the threads.

        Args:
            threads: Most batches that are run at the same time.
            name: For thread names and messages, for example "running".
        """
        self.name = name
        self.threads = threads
        self.lock = threading.Lock()
        self.lanes: list[Queue] = []
        # Under the lock.
        self._free: list[Worker] = []
        self._settled: list[tuple[Job[Any], Result[Any]]] = []
        self._told = False
        self._stopped = False
        # The rest belongs to the event loop.
        self._workers: list[Worker] = []
        self._woken = False
        self._alarm: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the threads, on the event loop. Does nothing when they run already."""
        if self._loop is None:
            loop = self._loop = asyncio.get_running_loop()
            self._workers = [
                Worker(f"{self.name} {number}", loop, self._turn) for number in range(self.threads)
            ]
            self._free = self._workers[::-1]

    def require(self) -> asyncio.AbstractEventLoop:
        """Return the event loop.

        Raises:
            ShuttingDown: the device was stopped.
            Unavailable: it was not started.
        """
        if self._stopped:
            raise ShuttingDown(f"{self.name} was stopped; send the request to another process")
        if self._loop is None:
            raise Unavailable(f"{self.name} has not started yet; try again in a moment")
        return self._loop

    def settle(self, job: Job[Any], result: Result[Any]) -> None:
        """Under the lock, on any thread: have the loop answer who waits for a job."""
        self._settled.append((job, result))
        self._tell()

    def call(self, function: Callable[[], None]) -> None:
        """On any thread: have the loop call a function, unless it was closed."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            _log.warning("%s: results came after the event loop was closed", self.name)

    def wake(self) -> None:
        """On the loop: see whether anything can be started, at the end of this turn of the loop.

        Deferred, so that what arrives in one turn is batched together.
        """
        if not self._woken and self._free and self._loop is not None:
            self._woken = True
            self._loop.call_soon(self._dispatch)

    async def stop(self, timeout_s: float) -> bool:
        """Close all lanes, let the threads end after their current batches.

        Args:
            timeout_s: How long to wait for the threads. One that is still running then is left
                behind: it ends when its run returns.

        Returns:
            Whether all threads ended.
        """
        end = time.monotonic() + timeout_s
        with self.lock:
            self._stopped = True
        if self._alarm is not None:
            self._alarm.cancel()
        closed = await asyncio.gather(*(lane.close(timeout_s) for lane in tuple(self.lanes)))
        for worker in self._workers:
            worker.end()
        if not self._workers:
            return all(closed)
        left = max(0.01, end - time.monotonic())
        _, pending = await asyncio.wait([w.left for w in self._workers], timeout=left)
        for worker in self._workers:
            if worker.left.done():
                worker.join()
        return not pending and all(closed)

    def _dispatch(self) -> None:
        """On the loop: give idle threads what waits, and set the alarm for what is held back."""
        self._woken = False
        now = time.monotonic()
        with self.lock:
            while self._free and (task := self._take(now)) is not None:
                self._free.pop().give(task)
            until = min((lane.until for lane in self.lanes), default=math.inf)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if until < math.inf and self._free and self._loop is not None:
            # Loops count in whole milliseconds; rounding up avoids waking just before the time.
            delay = math.ceil(max(0.0, until - now) * 1000) / 1000
            self._alarm = self._loop.call_later(delay, self._dispatch)

    def _turn(self, worker: Worker, task: Task[Any, Any], run: Run) -> Task[Any, Any] | None:
        """On a worker's thread: hand in a batch's results and take the next batch, if any."""
        with self.lock:
            self._settled += zip(task.batch, run.results, strict=True)
            self._tell()
            task.done(task, run)
            self._free.append(worker)
            following = None if self._stopped else self._take(time.monotonic())
            if following is not None:
                self._free.pop()
            return following

    def _take(self, now: float) -> Task[Any, Any] | None:
        """Take the batch that goes next, of any lane; a thread must be free."""
        best: Queue | None = None
        first = (math.inf, math.inf)
        for lane in self.lanes:
            rank = lane.rank(now)
            if rank is not None and (best is None or rank < first):
                best, first = lane, rank
        return None if best is None else best.take(now, len(self._free))

    def _tell(self) -> None:
        """Have the loop settle what is in ``_settled``; one message for all until it does."""
        if not self._told:
            self._told = True
            self.call(self._settle)

    def _settle(self) -> None:
        """On the loop: answer those who wait."""
        with self.lock:
            settled: Sequence[tuple[Job[Any], Result[Any]]] = self._settled
            self._settled = []
            self._told = False
        for job, result in settled:
            if job.timer is not None:
                job.timer.cancel()
            if not job.future.done():
                job.future.set_result(result)
        if self._free:
            # A thread went idle: there may be a window to set the alarm for.
            self._dispatch()


def in_thread(function: Callable[[], None], name: str) -> asyncio.Future[None]:
    """Run a function on a thread of its own; the future is set, without a result, when it ends.

    Unlike an executor's, the thread does not keep the process or the loop from ending.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def work() -> None:
        try:
            function()
        finally:
            try:
                loop.call_soon_threadsafe(end)
            except RuntimeError:
                _log.warning("%s ended after its event loop was closed", name)

    threading.Thread(target=work, name=name, daemon=True).start()
    return ended
