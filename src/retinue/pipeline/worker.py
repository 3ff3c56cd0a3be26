"""The instance's side of the batcher: runs the batches that it is given, on one thread.

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

from retinue.core.errors import ModelRunFailed, RetinueError
from retinue.pipeline.schedule import Item

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
    """An item in the batcher's hands; await its ``future`` for the `Result`."""

    __slots__ = ("finish", "future", "payload", "running")

    def __init__(
        self,
        payload: Any,
        finish: Callable[[Any], R],
        future: asyncio.Future[Result[R]],
        arrived: float,
        deadline: float,
        priority: int,
    ) -> None:
        self.arrived = arrived
        self.deadline = deadline
        self.priority = priority
        self.sequence = 0
        self.payload = payload
        self.finish = finish
        self.future = future
        self.running = False


class Instance(NamedTuple, Generic[In, Out]):
    """Something that runs batches, one at a time, always on the same thread.

    Attributes:
        run: Takes rows and returns as many outputs in the same order.
        close: Called on that thread when no more batches come.
    """

    run: Callable[[Sequence[In]], Sequence[Out]]
    close: Callable[[], None]


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

    One bad row among n costs at most ``2 * ceil(log2(n))`` runs more.

    Returns:
        For each row, in order, its output or its error.
    """
    try:
        outputs = run(rows)
        if len(outputs) != len(rows):
            message = f"{doing} gave {len(outputs)} outputs for {len(rows)} rows; it must keep both"
            raise ModelRunFailed(message)
        return list(outputs)
    except BaseException as error:  # noqa: BLE001 - isolation boundary: neighbours must not fail
        if len(rows) == 1:
            return [contain(error, doing)]
        _log.debug("%s failed for %d rows; trying halves", doing, len(rows), exc_info=error)
    half = len(rows) // 2
    return isolate(run, rows[:half], doing) + isolate(run, rows[half:], doing)


class Worker(Generic[In, Out]):
    """An instance, its thread, and the batch that it is running.

    Attributes:
        batch: What is being run; kept by the batcher, under its lock.
        left: Set when the thread has closed the instance and is about to end.
    """

    def __init__(
        self,
        instance: Instance[In, Out],
        *,
        name: str,
        number: int,
        loop: asyncio.AbstractEventLoop,
        turn: Callable[[Worker[In, Out], Sequence[Result[Any]], float | None], Sequence[Job[Any]]],
    ) -> None:
        """Start the thread.

        Args:
            instance: What runs the batches.
            name: What the batcher is called.
            number: Which of the batcher's workers this is.
            loop: The batcher's event loop.
            turn: Called on the thread after a batch with this worker, the batch's results, and the
                seconds that running and finishing took, None when something failed. Returns the
                next batch, or an empty one when none waits.
        """
        self._instance = instance
        self._name = name
        self._loop = loop
        self._turn = turn
        self._inbox: queue.SimpleQueue[Sequence[Job[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"{name} {number}", daemon=True)
        self.batch: Sequence[Job[Any]] = ()
        self.left: asyncio.Future[None] = loop.create_future()
        self._thread.start()

    def give(self, batch: Sequence[Job[Any]]) -> None:
        """Wake the idle thread with a batch."""
        self._inbox.put(batch)

    def end(self) -> None:
        """Close the instance and end the thread, after the batch that is being run."""
        self._inbox.put(None)

    def join(self) -> None:
        """Wait for the thread; only once it has ``left``."""
        self._thread.join()

    def _work(self) -> None:
        while self._work_until_idle():
            pass
        try:
            self._instance.close()
        except Exception as error:  # noqa: BLE001 - isolation boundary: the thread must report
            contain(error, f"closing an instance ({self._name})")
        try:
            self._loop.call_soon_threadsafe(_set, self.left)
        except RuntimeError:
            _log.warning("%s ended after its event loop was closed", self._name)

    def _work_until_idle(self) -> bool:
        """Run batches until none waits; return whether to wait for more.

        A function of its own, so that an idle thread keeps no tensors alive.
        """
        batch = self._inbox.get()
        if batch is None:
            return False
        while batch:
            batch = self._turn(self, *self._run(batch))
        return True

    def _run(self, batch: Sequence[Job[Any]]) -> tuple[list[Result[Any]], float | None]:
        started = time.monotonic()
        outputs = isolate(self._instance.run, [job.payload for job in batch], self._name)
        ran = time.monotonic() - started
        clean = not any(isinstance(output, RetinueError) for output in outputs)
        results = [
            self._result(job, output, started, ran, len(batch))
            for job, output in zip(batch, outputs, strict=True)
        ]
        took = time.monotonic() - started
        return results, took if clean else None

    def _result(
        self, job: Job[R], output: Out | RetinueError, started: float, seconds: float, size: int
    ) -> Result[R]:
        value: R | None = None
        error: RetinueError | None = None
        if isinstance(output, RetinueError):
            error = output
        else:
            try:
                value = job.finish(output)
            except BaseException as raised:  # noqa: BLE001 - isolation boundary: one fails alone
                error = contain(raised, f"postprocessing ({self._name})")
        return Result(value, error, (started - job.arrived) * 1000, seconds * 1000, size)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
