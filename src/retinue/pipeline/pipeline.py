"""A model's pipeline: admission, decode, preprocess, batch, run, postprocess, record.

Two lanes do the work: one of decode workers (items one by one; decode and preprocess in one hop),
one of model instances. Both queue by the same order and shed by the same rule. Postprocessing is
done on the instance's thread, right after the run: with an instance a core, which is the default,
the cores are the bottleneck and another hop would only add its own cost and a queue behind the
decoders.

The whole pipeline holds at most ``max_queue`` items that are not being run yet, those in the decode
stage included. Few of them are tensors: an item is not decoded while a batch for each instance goes
before it, so a queue costs the memory of the files in it, decoders do not take the cores from the
runs, and what is shed was mostly not decoded. What cannot be answered by its deadline is refused at
the door, as far as that can be foreseen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Self

from retinue.core.errors import (
    ClientClosed,
    ConfigError,
    DeadlineExceeded,
    InvalidTensor,
    ShuttingDown,
    Unavailable,
)
from retinue.core.protocols import Model
from retinue.core.record import Record
from retinue.core.settings import Batching, Limits, cores
from retinue.core.statistics import Statistics
from retinue.core.types import Array, Image, Outcome, Tensors
from retinue.pipeline.admission import Admission
from retinue.pipeline.cache import ResponseCache
from retinue.pipeline.carrier import Carrier
from retinue.pipeline.counters import Counters, Monitor, Unmonitored
from retinue.pipeline.devices import Devices
from retinue.pipeline.flows import Terms
from retinue.pipeline.lane import Lane
from retinue.pipeline.lead import Place
from retinue.pipeline.raw import run_rows
from retinue.pipeline.request import Request
from retinue.pipeline.rows import largest_batch, split
from retinue.pipeline.warmup import warm_up
from retinue.pipeline.worker import Instance
from retinue.runtimes.tensors import check

_log = logging.getLogger(__name__)
_THREAD_END_S: Final = 5.0
# Items on their way, at least: with fewer, a model of a millisecond waits for decoders to wake up.
LEAST_AHEAD = 8


class ModelPipeline:
    """Serves one model; implements `retinue.core.protocols.Pipeline`.

    Use it on one event loop: ``async with ModelPipeline(...) as pipeline``, or `start` and `drain`.

    The model's ``preprocess`` and ``postprocess`` are called from several threads at once, each
    instance's ``run`` from one thread at a time.
    """

    def __init__(
        self,
        instances: Sequence[Model],
        *,
        batching: Batching,
        limits: Limits,
        reload: Callable[[], Model] | None = None,
        devices: Devices | None = None,
        monitor: Monitor | None = None,
        abandoned: Callable[[Record], None] | None = None,
        workers: int = 0,
        warm_up: bool = False,
        fused: bool = False,
    ) -> None:
        """Set the pipeline up; `start` starts its threads.

        Args:
            instances: The same model, once for each run that may go on at the same time. The
                pipeline owns them: it closes them at the end of `drain`.
            batching: The scheduler's policy. A model of a fixed batch size caps ``max_batch``.
            limits: What the decoder may be given.
            reload: Loads one more instance, in place of one that crashed.
            devices: What is shared with other models; None for threads of its own, one for each
                instance.
            monitor: Is told of batches, shed items and the response cache.
            abandoned: Called on the event loop with the record of a `submit` that was cancelled,
                which no caller receives; must not block. What it raises is logged and goes no
                further.
            workers: Threads of its own that decode and preprocess; 0 for one a core.
            warm_up: Whether `start` runs the instances before it returns.
            fused: Whether an instance's thread takes a picture through all stages, from decoding
                on. Where instances fill the cores and batches are of one, decoding ahead gains
                nothing and costs a hop between threads.

        Raises:
            ConfigError: there is no instance, or batches of more than one are fused.
        """
        if not instances:
            raise ConfigError("a pipeline needs at least one instance of its model; got none")
        if fused and largest_batch(instances[0], batching.max_batch) > 1:
            raise ConfigError("only a pipeline with batching.max_batch 1 can be fused")
        self._fused = fused
        self._model = model = instances[0]
        self._instances = instances if warm_up else ()
        self._abandoned = abandoned
        self._batching = batching
        self._deadline_s = batching.deadline_ms / 1000
        self._specs = [replace(s, shape=(-1, *s.shape[1:])) for s in model.runtime.inputs]
        self._max_batch = largest_batch(model, batching.max_batch)
        self._started = False
        self._drained: asyncio.Task[None] | None = None
        self._counters = Counters(model.name, model.version, monitor or Unmonitored())
        self._own = devices is None
        self._devices = devices or Devices(workers or cores(), len(instances), model.name)
        self._running = self._make_running(instances, reload)
        self._carrier = Carrier(
            model,
            self._running,
            self._devices.prepare,
            # One batch of each instance is being run, and the next one is ready.
            ahead=max(2 * len(instances) * self._max_batch, LEAST_AHEAD),
            cache=ResponseCache(int(batching.cache_mb * 1e6)),
            limits=limits,
            counters=self._counters,
            fused=fused,
        )
        self._admission = Admission(
            model.name, batching, self._carrier.preparing, self._running, self._counters
        )

    def _make_running(
        self, instances: Sequence[Model], reload: Callable[[], Model] | None
    ) -> Lane[Any, Any]:
        def instance(model: Model) -> Instance[Any, Any]:
            return Instance(self._run_with(model), model.close, again)

        again = None if reload is None else lambda: instance(reload())
        return Lane(
            self._devices.run,
            [instance(model) for model in instances],
            name=f"running {self._model.name}",
            max_batch=self._max_batch,
            max_queue=self._batching.max_queue,
            window_s=self._batching.window_ms / 1000,
            watcher=self._counters,
        )

    def _run_with(self, model: Model) -> Callable[[Sequence[Any]], Sequence[Any]]:
        def run(rows: Sequence[Any]) -> Sequence[Any]:
            if isinstance(rows[0], Request):
                return [self._carrier.run_whole(model, rows[0])]
            return model.run(rows)

        return run if self._fused else model.run

    @property
    def model(self) -> Model:
        """The model that it serves: the first instance."""
        return self._model

    @property
    def max_batch(self) -> int:
        """Most items of one run."""
        return self._max_batch

    @property
    def queue_depth(self) -> int:
        """Items that were accepted and are not being run yet; may be read from any thread."""
        return self._admission.depth

    @property
    def ready(self) -> bool:
        """Whether it takes work: started, warmed up, with a live instance, not draining."""
        return self._started and self._drained is None and self._running.alive > 0

    def statistics(self) -> Statistics:
        """Return what it has done since it was started; on the event loop."""
        return self._counters.statistics()

    async def start(self) -> None:
        """Start the threads and warm the instances up. Does nothing when that was done.

        Raises:
            ShuttingDown: the pipeline was drained; its models are closed.
            RetinueError: an instance cannot run.
        """
        if self._drained is not None:
            raise ShuttingDown(f"the pipeline of {self._model.name} was drained; make a new one")
        if not self._started:
            self._devices.start()
            instances, self._instances = self._instances, ()
            if instances:
                cost = self._running.schedule.cost
                await warm_up(instances, self._max_batch, cost, self._devices.run)
            self._started = True

    async def drain(self, timeout_s: float) -> None:
        """Refuse new work, finish what was accepted, end the threads and close the models.

        May be called again, also at the same time; later calls wait for the first.

        Args:
            timeout_s: How long accepted work may take, in seconds. What is left then fails with
                `ShuttingDown`. A run that still goes on is given a few seconds more, then left
                behind; its thread closes the model when the run returns.
        """
        if self._drained is None:
            self._drained = asyncio.create_task(self._drain(timeout_s))
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
        client: str = "",
        stream: str = "",
    ) -> Record:
        """Carry one item through all stages; a failure is the record's outcome, never raised.

        When the calling task is cancelled, ``asyncio.CancelledError`` passes through, and the
        record, whose error is `ClientClosed`, goes to ``abandoned``.

        Args:
            item: An encoded image file, or a decoded image.
            deadline: Seconds on ``time.monotonic()``'s clock; None for ``deadline_ms`` from now.
                There is an answer by then, whatever stage the item is in.
            priority: Larger goes first; when the queue is full it takes the place of a smaller.
            app: Name of the app that asks.
            source: Where the item came from.
            tags: Free labels kept on the record.
            client: Who asks; clients take turns.
            stream: The client's stream of which this is the latest frame.

        Returns:
            The record. Timings in milliseconds: decode, preprocess, queue (in both stages), run (of
            the whole batch), postprocess and total; a stage that was not reached is absent. An
            answer from the response cache has the total alone, and the tag ``cache: hit``.
        """
        now = time.monotonic()
        until = now + self._deadline_s if deadline is None else deadline
        terms = Terms(until, priority, client)
        place = Place(priority, until)
        request = Request(item, app, source, tags, stream, self.queue_depth, now, terms, place)
        try:
            outcome = await self._answer(request)
        except asyncio.CancelledError:
            gone = ClientClosed("the caller went away before its answer was ready")
            self._give_up(self._record(request, Outcome(error=gone)))
            raise
        return self._record(request, outcome)

    async def infer(
        self,
        tensors: Tensors,
        *,
        deadline: float | None = None,
        priority: int = 0,
        client: str = "",
    ) -> dict[str, Array]:
        """Run raw tensors, with their batch dimension, through the same queue.

        Each row is batched with whatever else waits. No record is made of it, since an outcome has
        no value for raw tensors: the host's metrics count the request.

        Args:
            tensors: All of the model's inputs; as many rows as wanted up to ``max_queue``, also for
                a model of a fixed batch size.
            deadline: Seconds on ``time.monotonic()``'s clock; None for ``deadline_ms`` from now.
            priority: Larger goes first. Rows never take the place of a waiting item.
            client: Who asks; clients take turns.

        Returns:
            The outputs, rows in the order of the inputs' rows.

        Raises:
            InvalidTensor: a tensor is missing or unknown, or its dtype or shape is wrong.
            RetinueError: what stopped any of its rows; the other rows are then given up.
        """
        check(tensors, self._specs)
        rows = split(tensors)
        if len(rows) > self._batching.max_queue:
            message = f"{len(rows)} rows in one request; send at most {self._batching.max_queue}"
            raise InvalidTensor(message)
        now = time.monotonic()
        until = now + self._deadline_s if deadline is None else deadline
        timings: dict[str, float] = {}
        ok = False
        try:
            self._check_open(until, now)
            terms = Terms(until, priority, client)
            outputs = await run_rows(rows, terms, self._running, self._admission, timings)
            ok = True
            return outputs
        finally:
            timings["total"] = (time.monotonic() - now) * 1000
            self._counters.ended(ok, timings)

    def _check_open(self, deadline: float, now: float) -> None:
        name = self._model.name
        if self._drained is not None:
            raise ShuttingDown(f"{name} is shutting down and takes no new work; try again later")
        if not self._started:
            raise Unavailable(f"{name} has not started yet; try again in a moment")
        self._admission.check_deadline(deadline, now)

    def _leave(self, request: Request) -> None:
        if request.inside:
            request.inside = False
            self._admission.leave(1, request.terms.client)

    async def _answer(self, request: Request) -> Outcome:
        """Look into the cache; else admit the request, carry it through, and count it out."""
        carrier = self._carrier
        try:
            self._check_open(request.terms.deadline, request.began)
            known = await carrier.recall(request)
            if known is not None:
                return known
            last = carrier.follow(request)
            freed = 1 if last is not None and last.queued else 0
            estimate = self._admission.enter(1, request.terms, may_evict=True, freed=freed)
        except Unavailable as error:
            return Outcome(error=error)
        request.inside = True
        carrier.remember(request)
        if last is not None and last.supersede():
            self._leave(last)
        try:
            outcome = await carrier.carry(request)
            if outcome.error is None or isinstance(outcome.error, DeadlineExceeded):
                self._admission.learn(estimate, time.monotonic() - request.began)
            return outcome
        finally:
            self._leave(request)
            carrier.forget(request)

    def _record(self, request: Request, outcome: Outcome) -> Record:
        record = request.record(self._model, outcome)
        self._counters.ended(outcome.error is None, record.outcome.timings_ms)
        return record

    def _give_up(self, record: Record) -> None:
        if self._abandoned is not None:
            try:
                self._abandoned(record)
            except Exception:  # noqa: BLE001 - isolation boundary: the cancellation passes through
                _log.exception("telling of the abandoned record %s failed", record.id)

    async def _drain(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        if self._admission.accepted:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._admission.empty.wait()
            except TimeoutError:
                left, name = self._admission.accepted, self._model.name
                _log.warning("%s: %d items are given up after %g s", name, left, timeout_s)
        allowed = max(0.0, end - time.monotonic()) + _THREAD_END_S
        ended = [await lane.close(allowed) for lane in (self._carrier.preparing, self._running)]
        if self._own:
            ended.append(await self._devices.stop(allowed if all(ended) else 0.0))
        if not all(ended):
            _log.warning("a thread of %s still runs; it is left behind", self._model.name)
