"""The batcher: drives a `Schedule` on an event loop and runs batches on instances.

Each instance has one thread of its own, so a session is never used by two. A thread that finishes a
batch takes the next one from the schedule itself, under a lock, and never waits for the event loop
in between; the loop wakes a thread only when it was idle, and is told of results in groups. So the
instances stay busy while the loop is, and under load a batch costs no wake-up at all.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic

from retinue.core.errors import (
    DeadlineExceeded,
    QueueFull,
    RetinueError,
    ShuttingDown,
    Unavailable,
)
from retinue.pipeline.schedule import Schedule
from retinue.pipeline.worker import In, Instance, Job, Out, R, Result, Worker

_log = logging.getLogger(__name__)


def never(_payload: object) -> bool:
    """Say no."""
    return False


class Batcher(Generic[In, Out]):
    """Runs items in batches on instances, by a `Schedule`. Use it on one event loop only."""

    def __init__(
        self,
        instances: Sequence[Instance[In, Out]],
        *,
        name: str,
        max_batch: int,
        max_queue: int,
        window_s: float = 0.0,
        held: Callable[[In], bool] = never,
    ) -> None:
        """Set the policy; `start` starts the threads.

        Args:
            instances: What runs the batches, one thread each.
            name: For thread names and messages, for example "running nanodet-g-416".
            max_batch: Most items of one run.
            max_queue: Most items that wait.
            window_s: How long an unfilled batch waits for more, in seconds.
            held: Whether to start no batch at present, given the payload that goes next, because
                what comes after is behind; asked from any thread, and again after each batch and
                each `look_again`.
        """
        self._held = held
        self._instances = instances
        self._name = name
        self._schedule: Schedule[Job[Any]] = Schedule(
            max_batch=max_batch, max_queue=max_queue, window_s=window_s
        )
        self._lock = threading.Lock()
        # Under the lock: the schedule and these. The rest belongs to the event loop.
        self._free: list[Worker[In, Out]] = []
        self._running = 0
        self._settled: list[tuple[Job[Any], Result[Any]]] = []
        self._told = False
        self._stopped = False
        self._workers: list[Worker[In, Out]] = []
        self._woken = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return len(self._schedule)

    @property
    def running(self) -> int:
        """Items that are being run, without those whose callers went away."""
        return self._running

    def start(self) -> None:
        """Start one thread for each instance; call it once, on the event loop."""
        loop = self._loop = asyncio.get_running_loop()
        for number, instance in enumerate(self._instances):
            worker = Worker(
                instance,
                name=self._name,
                number=number,
                loop=loop,
                turn=self._turn,
            )
            self._workers.append(worker)
        self._free = self._workers[::-1]

    def enqueue(
        self,
        payload: In,
        finish: Callable[[Out], R],
        *,
        deadline: float = math.inf,
        priority: int = 0,
    ) -> Job[R]:
        """Put an item in the queue and return it at once; its future gives the `Result`.

        The future never carries an exception: a failure is the result's ``error``. A caller that
        stops waiting must `cancel` the job.

        Args:
            payload: What the instance's ``run`` takes for this item.
            finish: Makes the value of the item's output, on the instance's thread.
            deadline: Seconds on ``time.monotonic()``'s clock.
            priority: Larger goes first.

        Raises:
            QueueFull: the queue is full of items that are at least as important.
            ShuttingDown: the batcher was stopped.
            Unavailable: the batcher was not started.
        """
        loop = self._loop
        if loop is None or self._stopped:
            raise self._refusal()
        now = time.monotonic()
        future: asyncio.Future[Result[R]] = loop.create_future()
        job = Job(payload, finish, future, now, deadline, priority)
        schedule = self._schedule
        with self._lock:
            if len(schedule) >= schedule.max_queue:
                self._drop(schedule.shed(now), now)
            evicted = schedule.push(job)
            if evicted is not None:
                self._evict(evicted, now)
            idle = bool(self._free)
        if not idle:
            # The next thread that is done takes it; all there is to do is to end its wait in time.
            if deadline < self._alarm_at:
                self._arm(deadline, now)
        else:
            self.look_again()
        return job

    def look_again(self) -> None:
        """On the loop: see whether anything can be started, at the end of this turn of the loop.

        Deferred, so that what arrives in one turn is batched together.
        """
        if not self._woken and self._loop is not None:
            self._woken = True
            self._loop.call_soon(self._dispatch)

    async def submit(
        self,
        payload: In,
        finish: Callable[[Out], R],
        *,
        deadline: float = math.inf,
        priority: int = 0,
    ) -> Result[R]:
        """Put an item in the queue and wait for its result; see `enqueue`.

        When the waiting task is cancelled, the item leaves the queue, or its result is discarded.
        """
        job = self.enqueue(payload, finish, deadline=deadline, priority=priority)
        try:
            return await job.future
        except asyncio.CancelledError:
            self.cancel(job)
            raise

    def cancel(self, job: Job[Any]) -> None:
        """Take a waiting item out of the queue, or discard the result of a running one."""
        job.future.cancel()
        with self._lock:
            if not self._schedule.cancel(job):
                self._forget(job)

    def make_room(self, priority: int) -> bool:
        """Drop what cannot make its deadline, else one item of lower priority; tell if any was."""
        now = time.monotonic()
        with self._lock:
            shed = self._schedule.shed(now)
            self._drop(shed, now)
            evicted = None if shed else self._schedule.evict(priority)
            if evicted is not None:
                self._evict(evicted, now)
        return bool(shed) or evicted is not None

    def abort(self, reason: str) -> None:
        """Fail all waiting and running items with `ShuttingDown`; a run that goes on is ignored."""
        now = time.monotonic()
        with self._lock:
            left = self._schedule.clear()
            left += [job for worker in self._workers for job in worker.batch if job.running]
            for job in left:
                self._refuse(job, ShuttingDown(reason), now)

    async def stop(self, timeout_s: float) -> bool:
        """Refuse new items, let the threads end after their current batches, close the instances.

        Args:
            timeout_s: How long to wait for the threads. One that is still running then is left
                behind: it closes its instance and ends when its run returns.

        Returns:
            Whether all threads ended.
        """
        with self._lock:
            self._stopped = True
        if self._loop is None:
            for instance in self._instances:
                instance.close()
            return True
        if self._alarm is not None:
            self._alarm.cancel()
        self.abort(f"{self._name} was stopped")
        for worker in self._workers:
            worker.end()
        _, pending = await asyncio.wait([w.left for w in self._workers], timeout=timeout_s)
        for worker in self._workers:
            if worker.left.done():
                worker.join()
        return not pending

    def _refusal(self) -> RetinueError:
        if self._stopped:
            return ShuttingDown(f"{self._name} was stopped; send the request to another process")
        return Unavailable(f"{self._name} has not started yet; try again in a moment")

    def _dispatch(self) -> None:
        """On the loop: give idle threads what waits, and set the alarm for what must wait."""
        self._woken = False
        now = time.monotonic()
        with self._lock:
            until = math.inf
            while self._free and until == math.inf and self._may_start(now):
                batch, until = self._next(now)
                if batch:
                    worker = self._free.pop()
                    worker.batch = batch
                    worker.give(batch)
            if not self._free:
                self._drop(self._schedule.shed(now), now)
            until = min(until, self._schedule.due())
        if until < self._alarm_at:
            self._arm(until, now)

    def _turn(
        self, worker: Worker[In, Out], results: Sequence[Result[Any]], seconds: float | None
    ) -> Sequence[Job[Any]]:
        """On a worker's thread: hand in a batch's results and take the next batch, if any."""
        now = time.monotonic()
        with self._lock:
            done = worker.batch
            if seconds is not None:
                self._schedule.done(len(done), seconds)
            self._settled += zip(done, results, strict=True)
            self._tell()
            self._free.append(worker)
            worker.batch = self._next(now)[0] if self._may_start(now) else ()
            if worker.batch:
                self._free.pop()
            return worker.batch

    def _may_start(self, now: float) -> bool:
        """Drop what is late; tell whether something waits that may be started."""
        self._drop(self._schedule.shed(now), now)
        first = self._schedule.first()
        return first is not None and not self._stopped and not self._held(first.payload)

    def _next(self, now: float) -> tuple[Sequence[Job[Any]], float]:
        """Take the next batch out of the schedule; else say until when to wait."""
        batch, dropped, until = self._schedule.next(now, len(self._free))
        self._drop(dropped, now)
        for job in batch:
            job.running = True
        self._running += len(batch)
        return batch, until

    def _arm(self, until: float, now: float) -> None:
        assert self._loop is not None
        if self._alarm is not None:
            self._alarm.cancel()
        # Loops count in whole milliseconds; rounding up avoids waking just before the time.
        delay = math.ceil(max(0.0, until - now) * 1000) / 1000
        self._alarm_at = until
        self._alarm = self._loop.call_later(delay, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._alarm_at = math.inf
        self._dispatch()

    def _tell(self) -> None:
        """Have the loop settle what is in ``_settled``; one message for all until it does."""
        if not self._told:
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._settle)
                self._told = True
            except RuntimeError:
                _log.warning("%s: results came after the event loop was closed", self._name)

    def _settle(self) -> None:
        """On the loop: answer those who wait."""
        with self._lock:
            settled, self._settled = self._settled, []
            self._told = False
            for job, _ in settled:
                self._forget(job)
        for job, result in settled:
            if not job.future.done():
                job.future.set_result(result)
        if self._free:
            # A thread went idle: there may be a window or a deadline to set the alarm for.
            self._dispatch()

    def _forget(self, job: Job[Any]) -> None:
        if job.running:
            job.running = False
            self._running -= 1

    def _drop(self, jobs: Sequence[Job[Any]], now: float) -> None:
        for job in jobs:
            waited = (now - job.arrived) * 1000
            if job.deadline <= now:
                message = f"the deadline passed after {waited:.0f} ms in the queue"
            else:
                left, run = (job.deadline - now) * 1000, self._schedule.cost.alone * 1000
                message = f"{left:.0f} ms are left to the deadline, but a run takes {run:.0f} ms"
            error = DeadlineExceeded(f"{message}; allow more time or send less")
            self._refuse(job, error, now)

    def _evict(self, job: Job[Any], now: float) -> None:
        message = "the queue is full and a request of higher priority took this place"
        self._refuse(job, QueueFull(f"{message}; try again later"), now)

    def _refuse(self, job: Job[Any], error: RetinueError, now: float) -> None:
        self._settled.append((job, Result(None, error, (now - job.arrived) * 1000)))
        self._tell()
