"""A lane: one queue on a device, and the instances that run its batches."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic

from retinue.core.errors import (
    DeadlineExceeded,
    InstanceCrashed,
    QueueFull,
    RetinueError,
    ShuttingDown,
    Superseded,
    Unavailable,
)
from retinue.pipeline.device import Device, in_thread
from retinue.pipeline.flows import Terms
from retinue.pipeline.schedule import Schedule
from retinue.pipeline.watcher import Unwatched, Watcher
from retinue.pipeline.worker import In, Instance, Job, Out, R, Result, Run, Task, contain

_log = logging.getLogger(__name__)
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 30.0


def never(_payload: object) -> bool:
    """Say no."""
    return False


class Lane(Generic[In, Out]):
    """Runs items in batches on instances, by a `Schedule`, on a `Device`."""

    def __init__(
        self,
        device: Device,
        instances: Sequence[Instance[In, Out]],
        *,
        name: str,
        max_batch: int,
        max_queue: int,
        window_s: float = 0.0,
        after: Lane[Any, Any] | None = None,
        held: Callable[[In], bool] = never,
        watcher: Watcher | None = None,
    ) -> None:
        """Set the policy and take a place on the device.

        Args:
            device: Whose threads run the batches.
            instances: What runs the batches, each on one thread at a time.
            name: For messages, for example "running nanodet-g-416".
            max_batch: Most items of one run.
            max_queue: Most items that wait.
            window_s: How long an unfilled batch waits for more, in seconds.
            after: The lane that an item still has to go through after this one.
            held: Whether to start no batch at present, given the payload that goes next, because
                what comes after is behind; asked from any thread, and again after each batch and
                each `wake`.
            watcher: Is told of batches and shed items.
        """
        self.name = name
        self.schedule: Schedule[Job[Any]] = Schedule(
            max_batch=max_batch,
            max_queue=max_queue,
            window_s=window_s,
            after=None if after is None else after.schedule.cost,
        )
        self.until = math.inf
        self.broken = ""
        """Why no instance is left and none could be made; "" otherwise."""
        self._device = device
        self._after = after
        self._held = held
        self._watcher = watcher or Unwatched()
        # Under the device's lock.
        self._free = list(instances)
        self._alive = len(instances)
        self._running: dict[Job[Any], None] = {}
        self._closed = False
        self._returned: asyncio.Future[None] | None = None
        with device.lock:
            device.lanes.append(self)

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return len(self.schedule)

    @property
    def running(self) -> int:
        """Items that are being run, without those whose callers went away."""
        return len(self._running)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and no instance is busy."""
        return not self.schedule and len(self._free) == self._alive

    @property
    def alive(self) -> int:
        """Instances that have not crashed."""
        return self._alive

    def enqueue(
        self,
        payload: In,
        finish: Callable[[Out], R],
        terms: Terms = Terms(),  # noqa: B008 - immutable
    ) -> Job[R]:
        """Put an item in the queue and return it at once; its future gives the `Result`.

        The future never carries an exception: a failure is the result's ``error``. It is there by
        the deadline, whatever the item's run does. A caller that stops waiting must `cancel`.

        Args:
            payload: What the instance's ``run`` takes for this item.
            finish: Makes the value of the item's output, on the device's thread.
            terms: What is asked for it; times on ``time.monotonic()``'s clock.

        Raises:
            QueueFull: the queue is full, and no item in it has to make room.
            ShuttingDown: the lane was closed.
            Unavailable: the device was not started, or no instance is left.
        """
        if self._closed:
            raise ShuttingDown(f"{self.name} was stopped; send the request to another process")
        loop = self._device.require()
        now = time.monotonic()
        job: Job[R] = Job(payload, finish, loop.create_future(), now, terms)
        with self._device.lock:
            if self.broken:
                raise Unavailable(f"{self.name}: {self.broken}")
            if self.waiting >= self.schedule.max_queue:
                self._shed(now)
            evicted = self.schedule.push(job)
            if evicted is not None:
                self._evict(evicted, now)
        if terms.deadline < math.inf:
            job.timer = loop.call_later(max(0.0, terms.deadline - now), self._expire, job)
        self._device.wake()
        return job

    async def submit(
        self,
        payload: In,
        finish: Callable[[Out], R],
        terms: Terms = Terms(),  # noqa: B008 - immutable
    ) -> Result[R]:
        """Put an item in the queue and wait for its result; see `enqueue`.

        When the waiting task is cancelled, the item leaves the queue, or its result is discarded.
        """
        return await self.wait(self.enqueue(payload, finish, terms))

    async def wait(self, job: Job[R]) -> Result[R]:
        """Wait for a job's result; cancelling this cancels the job."""
        try:
            return await job.future
        except asyncio.CancelledError:
            self.cancel(job)
            raise

    def cancel(self, job: Job[Any]) -> None:
        """Take a waiting item out of the queue, or discard the result of a running one."""
        job.future.cancel()
        if job.timer is not None:
            job.timer.cancel()
        with self._device.lock:
            if not self.schedule.cancel(job):
                self._running.pop(job, None)

    def has(self, job: Job[Any]) -> bool:
        """Tell whether an item waits."""
        with self._device.lock:
            return self.schedule.has(job)

    def supersede(self, job: Job[Any]) -> bool:
        """Fail a waiting item because a newer frame takes its place; tell if it was waiting."""
        with self._device.lock:
            waited = self.schedule.cancel(job)
            if waited:
                error = Superseded("a newer frame of the same stream took this one's place")
                self._refuse(job, error, time.monotonic(), "superseded")
        return waited

    def make_room(self, terms: Terms) -> bool:
        """Drop what cannot make its deadline, else what has to make room; tell if any was."""
        now = time.monotonic()
        with self._device.lock:
            shed = self._shed(now)
            evicted = None if shed else self.schedule.evict(terms)
            if evicted is not None:
                self._evict(evicted, now)
        return shed or evicted is not None

    def ahead(self, terms: Terms) -> int:
        """Return about how many items would go before one like this, running ones included."""
        with self._device.lock:
            return len(self._running) + self.schedule.ahead(terms)

    def wake(self) -> None:
        """On the loop: see whether something can be started that was `held`."""
        if self.waiting:
            self._device.wake()

    def abort(self, reason: str) -> None:
        """Fail all waiting and running items with `ShuttingDown`; a run that goes on is ignored."""
        now = time.monotonic()
        with self._device.lock:
            left = [*self.schedule.clear(), *self._running]
            self._running.clear()
            for job in left:
                self._refuse(job, ShuttingDown(reason), now, "stopped")

    async def close(self, timeout_s: float) -> bool:
        """Refuse new items, fail those that are left, close the instances, leave the device.

        Args:
            timeout_s: How long to wait for runs and closing. An instance that is still running
                then is closed when its run returns.

        Returns:
            Whether all instances were closed.
        """
        self.abort(f"{self.name} was stopped")
        with self._device.lock:
            if self._closed:
                return True
            self._closed = True
            self._device.lanes.remove(self)
            instances, self._free = self._free, []
            self._alive -= len(instances)
            if self._alive:
                self._returned = asyncio.get_running_loop().create_future()
        closing = in_thread(lambda: self._close_all(instances), f"closing {self.name}")
        waits = [closing] if self._returned is None else [closing, self._returned]
        _, pending = await asyncio.wait(waits, timeout=timeout_s)
        return not pending

    # ---- for the device, under its lock

    def rank(self, now: float) -> tuple[float, float] | None:
        """Drop what is late; return the rank of what goes next, None if nothing can start now."""
        self.until = math.inf
        self._shed(now)
        first = self.schedule.first()
        if first is None or not self._free or self._held(first.payload):
            return None
        until = self.schedule.hold(now)
        if until > now:
            self.until = until
            return None
        return (-first.priority, first.urgency)

    def take(self, now: float, free: int) -> Task[In, Out]:
        """Take the batch that goes next, given how many threads are free."""
        instance = self._free.pop()
        batch, reason = self.schedule.take(now, min(free, len(self._free) + 1))
        for job in batch:
            job.started = now
            self._running[job] = None
        return Task(instance, batch, self.name, reason, self._done)

    def _done(self, task: Task[In, Out], run: Run) -> None:
        """Take an instance back after its run."""
        for job in task.batch:
            self._running.pop(job, None)
        if run.seconds is not None:
            self.schedule.done(len(task.batch), run.seconds)
        self._watcher.ran(task, run)
        if self._closed:
            # Not on this thread, which other lanes may want.
            name = f"closing {self.name}"
            late = threading.Thread(target=self._close_late, args=(task.instance,), name=name)
            late.daemon = True
            late.start()
        elif run.crashed:
            self._alive -= 1
            errors = (result.error for result in run.results)
            crash = next(error for error in errors if isinstance(error, InstanceCrashed))
            _log.error("%s: an instance crashed: %s", self.name, crash)
            self._replace(task.instance)
        else:
            self._free.append(task.instance)

    # ---- inside

    def _replace(self, instance: Instance[In, Out]) -> None:
        """Make a new instance on a thread of its own: loading takes seconds."""
        name = f"reviving {self.name}"
        threading.Thread(target=self._revive, args=(instance,), name=name, daemon=True).start()

    def _revive(self, instance: Instance[In, Out]) -> None:
        self._close_all([instance])
        delay = _FIRST_RETRY_S
        while not self._closed and instance.revive is not None:
            try:
                revived = instance.revive()
            except Exception as error:  # noqa: BLE001 - isolation boundary: it is tried again
                found = contain(error, f"restarting an instance ({self.name})")
                _log.warning("%s; trying again in %g s", found.message, delay)
                self._break(f"{found.message}; it is tried again, try later")
                time.sleep(delay)
                delay = min(2 * delay, _LAST_RETRY_S)
                continue
            self._admit(revived)
            return
        if instance.revive is None:
            self._break("its instance crashed and cannot be restarted; load the model anew")

    def _break(self, why: str) -> None:
        """Fail what waits when no instance is left to run it."""
        now = time.monotonic()
        with self._device.lock:
            if self._alive or self._closed:
                return
            self.broken = why
            for job in self.schedule.clear():
                self._refuse(job, InstanceCrashed(f"{self.name}: {why}"), now, "crashed")

    def _admit(self, instance: Instance[In, Out]) -> None:
        with self._device.lock:
            closed = self._closed
            if not closed:
                self._alive += 1
                self._free.append(instance)
                self.broken = ""
        if closed:
            self._close_all([instance])
        else:
            _log.warning("%s: a new instance took the place of the one that crashed", self.name)
            self._device.call(self._device.wake)

    def _close_late(self, instance: Instance[In, Out]) -> None:
        self._close_all([instance])
        with self._device.lock:
            self._alive -= 1
            ended = self._alive == 0
        returned = self._returned
        if ended and returned is not None:
            self._device.call(lambda: None if returned.done() else returned.set_result(None))

    def _close_all(self, instances: Sequence[Instance[In, Out]]) -> None:
        for instance in instances:
            try:
                instance.close()
            except Exception as error:  # noqa: BLE001 - isolation boundary: the others close too
                contain(error, f"closing an instance ({self.name})")

    def _expire(self, job: Job[Any]) -> None:
        """On the loop: a job's deadline has come, and it has no result."""
        now = time.monotonic()
        with self._device.lock:
            waited = self.schedule.cancel(job)
            if waited:
                self._late(job, now)
            elif job in self._running:
                del self._running[job]
                error = DeadlineExceeded(f"the deadline passed ({self.name}); allow more time")
                self._refuse(job, error, now, "running")

    def _shed(self, now: float) -> bool:
        jobs = self.schedule.shed(now)
        after = self._after
        if after is not None and any(job.deadline > now for job in jobs) and after.idle:
            # Dropped on a prediction of what comes after, which learns nothing while it is idle.
            after.schedule.cost.doubt()
        for job in jobs:
            self._late(job, now)
        return bool(jobs)

    def _late(self, job: Job[Any], now: float) -> None:
        if job.deadline <= now:
            waited = (now - job.arrived) * 1000
            message = f"the deadline passed after {waited:.0f} ms in the queue"
        else:
            left, needs = (job.deadline - now) * 1000, self.schedule.needs_s * 1000
            message = f"{left:.0f} ms are left to the deadline, but a run takes {needs:.0f} ms"
        error = DeadlineExceeded(f"{message}; allow more time or send less")
        self._refuse(job, error, now, "queue")

    def _evict(self, job: Job[Any], now: float) -> None:
        message = "the queue is full and a request that goes before it took this place"
        self._refuse(job, QueueFull(f"{message}; try again later"), now, "evicted")

    def _refuse(self, job: Job[Any], error: RetinueError, now: float, reason: str) -> None:
        self._watcher.shed(reason)
        waited_ms = ((job.started or now) - job.arrived) * 1000
        self._device.settle(job, Result(None, error, waited_ms))
