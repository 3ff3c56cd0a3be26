"""A model's pipeline: admission, decode, preprocess, batch, run, postprocess, record.

Two batchers do the work: one of decode workers (items one by one; decode and preprocess in one
hop), one of model instances. Both queue by the same order and shed by the same rule. Postprocessing
is done on the instance's thread, right after the run: with an instance a core, which is the
default, the cores are the bottleneck and another hop would only add its own cost and a queue behind
the decoders.

The whole pipeline holds at most ``max_queue`` items that are not being run yet, those in the decode
stage included. Few of them are tensors: an item is not decoded while a batch for each instance goes
before it, so a queue costs the memory of the files in it, decoders do not take the cores from the
runs, and what is shed was mostly not decoded.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Self

from retinue.core.errors import (
    ClientClosed,
    ConfigError,
    DeadlineExceeded,
    InvalidTensor,
    QueueFull,
    RetinueError,
    ShuttingDown,
    Unavailable,
)
from retinue.core.protocols import Model
from retinue.core.record import Record
from retinue.core.settings import Batching, Limits, cores
from retinue.core.types import STAGES, Array, Image, Outcome, Prepared, Tensors
from retinue.media.decode import decode
from retinue.pipeline.batcher import Batcher
from retinue.pipeline.lead import Lead, Place
from retinue.pipeline.rows import join, largest_batch, split
from retinue.pipeline.worker import Instance, Job, nothing, same
from retinue.runtimes.tensors import check

_log = logging.getLogger(__name__)
_THREAD_END_S = 5.0
# Items on their way, at least: with fewer, a model of a millisecond waits for decoders to wake up.
LEAST_AHEAD = 8


@dataclass(slots=True, eq=False)
class _Request:
    """What is known of one item on its way; the record is made of it."""

    item: bytes | Image
    app: str
    source: str
    tags: Mapping[str, str] | None
    depth: int
    began: float
    place: Place
    sha256: str = ""
    width: int = 0
    height: int = 0
    batch_size: int = 0
    timings: dict[str, float] = field(default_factory=dict)


class ModelPipeline:
    """Serves one model; implements `retinue.core.protocols.Pipeline`.

    Use it on one event loop: ``async with ModelPipeline(...) as pipeline``, or `start` and `drain`.

    The model's ``preprocess`` and ``postprocess`` are called from several threads at once, its
    ``run`` only from its own thread.
    """

    def __init__(
        self,
        instances: Sequence[Model],
        *,
        batching: Batching,
        limits: Limits,
        abandoned: Callable[[Record], None] | None = None,
        workers: int = 0,
    ) -> None:
        """Set the pipeline up; `start` starts its threads.

        Args:
            instances: The same model, once for each run that may go on at the same time. The
                pipeline owns them: it closes them at the end of `drain`.
            batching: The scheduler's policy. A model of a fixed batch size caps ``max_batch``.
            limits: What the decoder may be given.
            abandoned: Called on the event loop with the record of a `submit` that was cancelled,
                which no caller receives; must not block. What it raises is logged and goes no
                further.
            workers: Threads that decode and preprocess; 0 for one a core.

        Raises:
            ConfigError: there is no instance.
        """
        if not instances:
            raise ConfigError("a pipeline needs at least one instance of its model; got none")
        self._model = model = instances[0]
        self._limits = limits
        self._abandoned = abandoned
        self._max_queue = batching.max_queue
        self._deadline_s = batching.deadline_ms / 1000
        self._specs = [replace(s, shape=(-1, *s.shape[1:])) for s in model.runtime.inputs]
        self._accepted = 0
        self._started = False
        self._idle: asyncio.Event | None = None
        self._drained: asyncio.Task[None] | None = None
        # One batch of each instance is being run, and the next one is ready.
        ahead = 2 * len(instances) * largest_batch(model, batching.max_batch)
        self._lead = Lead(max(ahead, LEAST_AHEAD))
        self._preparing = self._make_preparing(workers or cores())
        self._batcher = self._make_batcher(instances, batching)

    def _make_preparing(self, workers: int) -> Batcher[_Request, Prepared]:
        worker: Instance[_Request, Prepared] = Instance(self._prepare_one, nothing)
        return Batcher(
            [worker] * workers,
            name=f"preparing for {self._model.name}",
            max_batch=1,
            max_queue=self._max_queue,
            held=lambda request: self._lead.is_enough(request.place),
        )

    def _make_batcher(
        self, instances: Sequence[Model], batching: Batching
    ) -> Batcher[Tensors, dict[str, Array]]:
        return Batcher(
            [Instance(instance.run, instance.close) for instance in instances],
            name=f"running {self._model.name}",
            max_batch=largest_batch(self._model, batching.max_batch),
            max_queue=self._max_queue,
            window_s=batching.window_ms / 1000,
        )

    @property
    def model(self) -> Model:
        """The model that it serves: the first instance."""
        return self._model

    @property
    def queue_depth(self) -> int:
        """Items that were accepted and are not being run yet; may be read from any thread."""
        return max(0, self._accepted - self._batcher.running)

    async def start(self) -> None:
        """Start the threads. Does nothing when they run already.

        Raises:
            ShuttingDown: the pipeline was drained; its models are closed.
        """
        if self._idle is not None:
            raise ShuttingDown(f"the pipeline of {self._model.name} was drained; make a new one")
        if not self._started:
            self._started = True
            self._preparing.start()
            self._batcher.start()

    async def drain(self, timeout_s: float) -> None:
        """Refuse new work, finish what was accepted, end the threads and close the models.

        May be called again, also at the same time; later calls wait for the first.

        Args:
            timeout_s: How long accepted work may take, in seconds. What is left then fails with
                `ShuttingDown`. A run that still goes on is given a few seconds more, then left
                behind; its thread closes the model when the run returns.
        """
        if self._drained is None:
            self._idle = asyncio.Event()
            self._drained = asyncio.create_task(self._drain(self._idle, timeout_s))
        await asyncio.shield(self._drained)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        # By then the default deadline has ended whatever was accepted before.
        await self.drain(self._deadline_s)

    async def submit(
        self,
        item: bytes | Image,
        *,
        deadline: float | None = None,
        priority: int = 0,
        app: str = "",
        source: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Record:
        """Carry one item through all stages; a failure is the record's outcome, never raised.

        When the calling task is cancelled, ``asyncio.CancelledError`` passes through, and the
        record, whose error is `ClientClosed`, goes to ``abandoned``.

        Args:
            item: An encoded image file, or a decoded image.
            deadline: Seconds on ``time.monotonic()``'s clock; None for ``deadline_ms`` from now.
            priority: Larger goes first; when the queue is full it takes the place of a smaller.
            app: Name of the app that asks.
            source: Where the item came from.
            tags: Free labels kept on the record.

        Returns:
            The record. Timings in milliseconds: decode, preprocess, queue (in both stages), run (of
            the whole batch), postprocess and total; a stage that was not reached is absent.
        """
        now = time.monotonic()
        until = now + self._deadline_s if deadline is None else deadline
        place = Place(priority, until)
        request = _Request(item, app, source, tags, self.queue_depth, now, place)
        try:
            self._admit(1, until, now, priority)
        except Unavailable as error:
            return self._record(request, Outcome(error=error))
        try:
            outcome = await self._carry(request, until, priority)
        except asyncio.CancelledError:
            gone = ClientClosed("the caller went away before its answer was ready")
            self._give_up(self._record(request, Outcome(error=gone)))
            raise
        finally:
            self._leave(1)
        return self._record(request, outcome)

    async def infer(
        self, tensors: Tensors, *, deadline: float | None = None, priority: int = 0
    ) -> dict[str, Array]:
        """Run raw tensors, with their batch dimension, through the same queue.

        Each row is batched with whatever else waits. No record is made of it, since an outcome has
        no value for raw tensors: the host's metrics count the request.

        Args:
            tensors: All of the model's inputs; as many rows as wanted up to ``max_queue``, also for
                a model of a fixed batch size.
            deadline: Seconds on ``time.monotonic()``'s clock; None for ``deadline_ms`` from now.
            priority: Larger goes first. Rows never take the place of a waiting item.

        Returns:
            The outputs, rows in the order of the inputs' rows.

        Raises:
            InvalidTensor: a tensor is missing or unknown, or its dtype or shape is wrong.
            RetinueError: what stopped any of its rows; the other rows are then given up.
        """
        check(tensors, self._specs)
        rows = split(tensors)
        if len(rows) > self._max_queue:
            message = f"{len(rows)} rows in one request; send at most {self._max_queue}"
            raise InvalidTensor(message)
        now = time.monotonic()
        until = now + self._deadline_s if deadline is None else deadline
        self._admit(len(rows), until, now, None)
        jobs: list[Job[dict[str, Array]]] = []
        try:
            for row in rows:
                job = self._batcher.enqueue(row, same, deadline=until, priority=priority)
                jobs.append(job)
            return join([(await job.future).unwrap() for job in jobs])
        finally:
            for job in jobs:
                self._batcher.cancel(job)
            self._leave(len(rows))

    def _admit(self, count: int, deadline: float, now: float, priority: int | None) -> None:
        """Count items in, or raise; ``priority`` lets one take the place of a waiting one."""
        name = self._model.name
        if self._idle is not None:
            raise ShuttingDown(f"{name} is shutting down and takes no new work; try again later")
        if not self._started:
            raise Unavailable(f"{name} has not started yet; try again in a moment")
        # Also true of NaN, which no queue can order.
        if not deadline > now:
            late = (now - deadline) * 1000
            message = f"the deadline had passed {late:.0f} ms before the request came in"
            raise DeadlineExceeded(f"{message}; allow more time")
        depth = self.queue_depth
        if depth + count > self._max_queue and (
            priority is None
            or not (self._preparing.make_room(priority) or self._batcher.make_room(priority))
        ):
            message = f"{name}: {depth} items wait already and {self._max_queue} may"
            raise QueueFull(f"{message}; send fewer at a time or try again later")
        self._accepted += count

    def _leave(self, count: int) -> None:
        self._accepted -= count
        if self._accepted == 0 and self._idle is not None:
            self._idle.set()

    async def _carry(self, request: _Request, deadline: float, priority: int) -> Outcome:
        timings = request.timings
        try:
            ready = await self._preparing.submit(
                request, same, deadline=deadline, priority=priority
            )
            timings["queue"] = ready.queue_ms
            prepared = ready.unwrap()
            ran = await self._batcher.submit(
                prepared.tensors,
                partial(self._postprocess, timings, prepared),
                deadline=deadline,
                priority=priority,
            )
            timings["queue"] += ran.queue_ms
            if ran.batch_size:
                timings["run"] = ran.run_ms
                request.batch_size = ran.batch_size
            return ran.unwrap()
        except RetinueError as error:
            return Outcome(error=error)
        finally:
            self._lead.give_up(request.place)
            self._preparing.look_again()

    def _record(self, request: _Request, outcome: Outcome) -> Record:
        timings = request.timings
        timings["total"] = (time.monotonic() - request.began) * 1000
        ordered = {stage: timings[stage] for stage in STAGES if stage in timings}
        if outcome.error is not None:
            # Its frames would keep this request's bytes and tensors as long as the record lives.
            outcome.error.__traceback__ = None
        return Record(
            app=request.app,
            model=self._model.name,
            version=self._model.version,
            outcome=replace(outcome, timings_ms=MappingProxyType(ordered)),
            source=request.source,
            input_sha256=request.sha256,
            width=request.width,
            height=request.height,
            batch_size=request.batch_size,
            queue_depth=request.depth,
            tags=MappingProxyType(dict(request.tags or {})),
        )

    def _give_up(self, record: Record) -> None:
        if self._abandoned is not None:
            try:
                self._abandoned(record)
            except Exception:  # noqa: BLE001 - isolation boundary: the cancellation passes through
                _log.exception("telling of the abandoned record %s failed", record.id)

    async def _drain(self, idle: asyncio.Event, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        if self._accepted:
            try:
                async with asyncio.timeout(timeout_s):
                    await idle.wait()
            except TimeoutError:
                left, name = self._accepted, self._model.name
                _log.warning("%s: %d items are given up after %g s", name, left, timeout_s)
        allowed = max(0.0, end - time.monotonic()) + _THREAD_END_S
        for batcher in (self._preparing, self._batcher):
            if not await batcher.stop(allowed):
                _log.warning("a thread of %s still runs; it is left behind", self._model.name)

    # ---- on a worker's thread

    def _prepare_one(self, requests: Sequence[_Request]) -> list[Prepared]:
        (request,) = requests
        self._lead.take(request.place)
        item, timings = request.item, request.timings
        began = time.perf_counter()
        if isinstance(item, Image):
            image = item
        else:
            request.sha256 = hashlib.sha256(item).hexdigest()
            image = decode(item, limits=self._limits, target=self._model.decode_size)
            decoded = time.perf_counter()
            timings["decode"] = (decoded - began) * 1000
            began = decoded
        request.width, request.height = image.width, image.height
        prepared = self._model.preprocess(image)
        timings["preprocess"] = (time.perf_counter() - began) * 1000
        return [prepared]

    def _postprocess(
        self, timings: dict[str, float], prepared: Prepared, outputs: dict[str, Array]
    ) -> Outcome:
        began = time.perf_counter()
        outcome = self._model.postprocess(prepared, outputs)
        timings["postprocess"] = (time.perf_counter() - began) * 1000
        return outcome
