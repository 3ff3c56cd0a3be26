"""The thread's side of a device: runs the batches that it is given.

Every failure stays with the item that it belongs to: a run that fails is bisected until only the
bad items fail.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

from retinue.core.errors import InstanceCrashed, ModelRunFailed, RetinueError, Unavailable
from retinue.pipeline.flows import Item, Terms
from retinue.pipeline.schedule import Reason

In = TypeVar("In")
Out = TypeVar("Out")
R = TypeVar("R")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Result(NamedTuple, Generic[R]):
    """What became of one item.

    Attributes:
        value: What ``finish`` made of the item's output; None when it failed.
        error: Why it failed, or None.
        queue_ms: Milliseconds that it waited.
        run_ms: Milliseconds that its batch ran, without ``finish``; 0 if it was not run.
        batch_size: Items that were run together with it, itself included; 0 if it was not run.
    """

    value: R | None
    error: RetinueError | None
    queue_ms: float
    run_ms: float = 0.0
    batch_size: int = 0

    def unwrap(self) -> R:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("R", self.value)


class Job(Item, Generic[R]):
    """An item in a lane's hands; await its ``future`` for the `Result`."""

    __slots__ = ("finish", "future", "payload", "started", "timer")

    def __init__(
        self,
        payload: Any,
        finish: Callable[[Any], R],
        future: asyncio.Future[Result[R]],
        arrived: float,
        terms: Terms,
    ) -> None:
        super().__init__(arrived, terms)
        self.payload = payload
        self.finish = finish
        self.future = future
        self.started = 0.0
        self.timer: asyncio.TimerHandle | None = None


class Instance(NamedTuple, Generic[In, Out]):
    """Something that runs batches, on one thread at a time.

    Attributes:
        run: Takes rows and returns as many outputs in the same order. Raises `InstanceCrashed` when
            it can run nothing any more.
        close: Called when no more batches come.
        revive: Makes a new instance in place of one that crashed; None if that cannot be done.
    """

    run: Callable[[Sequence[In]], Sequence[Out]]
    close: Callable[[], None]
    revive: Callable[[], Instance[In, Out]] | None = None


class Run(NamedTuple):
    """How a batch went.

    Attributes:
        results: Of each item, in order.
        seconds: Seconds that running and finishing took, None when something failed.
        infer_s: Seconds that the run alone took.
        crashed: Whether the instance crashed.
    """

    results: Sequence[Result[Any]]
    seconds: float | None
    infer_s: float
    crashed: bool


class Task(NamedTuple, Generic[In, Out]):
    """A batch and the instance that is to run it.

    Attributes:
        instance: What runs it.
        batch: Its items.
        name: For messages, for example "running nanodet-g-416".
        reason: Why it goes now.
        done: Takes the task and how it went, under the device's lock.
    """

    instance: Instance[In, Out]
    batch: Sequence[Job[Any]]
    name: str
    reason: Reason
    done: Callable[[Task[In, Out], Run], None]

    def run(self) -> Run:
        """Run the batch on this thread."""
        started = time.monotonic()
        outputs = isolate(self.instance.run, [job.payload for job in self.batch], self.name)
        infer_s = time.monotonic() - started
        clean = not any(isinstance(output, RetinueError) for output in outputs)
        results = [
            self._result(job, output, started, infer_s)
            for job, output in zip(self.batch, outputs, strict=True)
        ]
        took = time.monotonic() - started
        crashed = not clean and any(isinstance(output, InstanceCrashed) for output in outputs)
        return Run(results, took if clean else None, infer_s, crashed)

    def _result(
        self, job: Job[R], output: Out | RetinueError, started: float, seconds: float
    ) -> Result[R]:
        value: R | None = None
        error: RetinueError | None = None
        if isinstance(output, RetinueError):
            error = output
        else:
            try:
                value = job.finish(output)
            except BaseException as raised:  # noqa: BLE001 - isolation boundary: one fails alone
                error = contain(raised, f"postprocessing ({self.name})")
        waited_ms = (started - job.arrived) * 1000
        return Result(value, error, waited_ms, seconds * 1000, len(self.batch))


def same(value: T) -> T:
    """Return the value: the ``finish`` of an item whose output needs no more work."""
    return value


def nothing() -> None:
    """Do nothing: the ``close`` of an instance that holds nothing."""


def contain(error: BaseException, doing: str) -> RetinueError:
    """Make an item's error of whatever was raised while working on it.

    An error of Retinue's own stays itself; anything else was not foreseen, is logged with its
    traceback, and becomes a `ModelRunFailed`. The traceback is then cut off: its frames would keep
    the tensors of the whole batch in memory as long as somebody keeps the error.
    """
    if isinstance(error, RetinueError):
        found = error
    else:
        _log.error("%s failed unexpectedly", doing, exc_info=error)
        found = ModelRunFailed(f"{doing} failed: {type(error).__name__}: {error}")
    found.__traceback__ = found.__cause__ = found.__context__ = None
    return found


def isolate(
    run: Callable[[Sequence[In]], Sequence[Out]], rows: Sequence[In], doing: str
) -> list[Out | RetinueError]:
    """Run rows together; when that fails, bisect until only the bad ones fail.

    One bad row among n costs at most ``2 * ceil(log2(n))`` runs more. A crash of the instance fails
    all that it was running.

    Returns:
        For each row, in order, its output or its error.
    """
    try:
        outputs = run(rows)
        if len(outputs) != len(rows):
            message = f"{doing} gave {len(outputs)} outputs for {len(rows)} rows; it must keep both"
            raise ModelRunFailed(message)
        return list(outputs)
    except (InstanceCrashed, Unavailable) as error:
        # Nothing is left to try halves on, or a remote server is away.
        return [type(error)(error.message) for _ in rows]
    except BaseException as error:  # noqa: BLE001 - isolation boundary: neighbours must not fail
        if len(rows) == 1:
            return [contain(error, doing)]
        _log.debug("%s failed for %d rows; trying halves", doing, len(rows), exc_info=error)
    half = len(rows) // 2
    return isolate(run, rows[:half], doing) + isolate(run, rows[half:], doing)


class Worker:
    """A thread that runs batches.

    Attributes:
        left: Set when the thread is about to end.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        turn: Callable[[Worker, Task[Any, Any], Run], Task[Any, Any] | None],
    ) -> None:
        """Start the thread.

        Args:
            name: The thread's name.
            loop: The device's event loop.
            turn: Called on the thread after a batch with this worker, the batch and how it went;
                returns the next one, or None when none waits.
        """
        self._name = name
        self._loop = loop
        self._turn = turn
        self._inbox: queue.SimpleQueue[Task[Any, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.left: asyncio.Future[None] = loop.create_future()
        self._thread.start()

    def give(self, task: Task[Any, Any]) -> None:
        """Wake the idle thread with a batch."""
        self._inbox.put(task)

    def end(self) -> None:
        """End the thread, after the batch that is being run."""
        self._inbox.put(None)

    def join(self) -> None:
        """Wait for the thread; only once it has ``left``."""
        self._thread.join()

    def _work(self) -> None:
        while self._work_until_idle():
            pass
        try:
            self._loop.call_soon_threadsafe(_set, self.left)
        except RuntimeError:
            _log.warning("%s ended after its event loop was closed", self._name)

    def _work_until_idle(self) -> bool:
        """Run batches until none waits; return whether to wait for more.

        A function of its own, so that an idle thread keeps no tensors alive.
        """
        task = self._inbox.get()
        if task is None:
            return False
        while task is not None:
            task = self._turn(self, task, task.run())
        return True


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
