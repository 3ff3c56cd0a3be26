"""Carries pictures through a pipeline's stages: cache, decode, preprocess, run, postprocess."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from retinue.core.errors import DeadlineExceeded, RetinueError, Superseded
from retinue.core.protocols import Model
from retinue.core.settings import Limits
from retinue.core.types import Array, Image, Outcome, Prepared
from retinue.media.decode import decode
from retinue.pipeline.cache import Cached, ResponseCache
from retinue.pipeline.counters import Counters
from retinue.pipeline.device import Device
from retinue.pipeline.lane import Lane
from retinue.pipeline.lead import Lead
from retinue.pipeline.request import Request
from retinue.pipeline.watcher import Unwatched
from retinue.pipeline.worker import Instance, Job, Result, nothing, same

_HASH_ON_LOOP_BYTES: Final = 1 << 20


class _Shedding(Unwatched):
    """Watches the decode stage: what it sheds counts, its runs are no batches of the model."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def shed(self, reason: str) -> None:
        self._counters.shed("decode" if reason == "running" else reason)


class Carrier:
    """The stages of one model's pictures. Use it on one event loop.

    Attributes:
        preparing: The lane of decoding and preprocessing.
        cache: The answers to repeated images.
    """

    def __init__(
        self,
        model: Model,
        running: Lane[Any, Any],
        device: Device,
        *,
        ahead: int,
        cache: ResponseCache,
        limits: Limits,
        counters: Counters,
        fused: bool,
    ) -> None:
        """Put the stage before the model's lane on a device.

        Args:
            model: Pre- and postprocesses.
            running: The lane of the model's instances.
            device: Whose threads decode and preprocess.
            ahead: How many items may be on their way between decoding and their result.
            cache: The answers to repeated images.
            limits: What the decoder may be given.
            counters: What is done is counted there.
            fused: Whether ``running`` takes whole requests, by `run_whole`.
        """
        self._fused = fused
        self._model = model
        self._running = running
        self._limits = limits
        self._counters = counters
        self._lead = Lead(ahead)
        self._streams: dict[tuple[str, str], Request] = {}
        self.cache = cache
        worker: Instance[Request, Prepared] = Instance(self._prepare, nothing)
        self.preparing: Lane[Request, Prepared] = Lane(
            device,
            [worker] * device.threads,
            name=f"preparing for {model.name}",
            max_batch=1,
            max_queue=running.schedule.max_queue,
            after=running,
            held=lambda request: self._lead.is_enough(request.place),
            watcher=_Shedding(counters),
        )

    async def recall(self, request: Request) -> Outcome | None:
        """Return the outcome of the same content, if there is a cache and it has it."""
        item = request.item
        if not self.cache.enabled or not isinstance(item, bytes):
            return None
        if len(item) > _HASH_ON_LOOP_BYTES:
            request.sha256 = await asyncio.to_thread(_sha256, item)
        else:
            request.sha256 = _sha256(item)
        found = self.cache.get(request.sha256)
        self._counters.cached(found is not None, time.monotonic() - request.began)
        if found is None:
            return None
        request.width, request.height = found.width, found.height
        request.tags = {**(request.tags or {}), "cache": "hit"}
        return found.outcome

    def follow(self, request: Request) -> Request | None:
        """Give a frame the place of its stream's last one; return that, unless it is being run."""
        last = self._streams.get((request.terms.client, request.stream))
        if last is None or last.waiting is None:
            return None
        if last.waiting[0] is self._running and not last.queued:
            return None
        # A stream whose every frame went to the end of the queue would starve.
        urgency = min(request.terms.urgency, last.terms.urgency, last.terms.deadline)
        request.terms = request.terms._replace(urgency=urgency)
        return last

    def remember(self, request: Request) -> None:
        """Note that an admitted request is the latest frame of its stream."""
        if request.stream:
            self._streams[request.terms.client, request.stream] = request

    def forget(self, request: Request) -> None:
        """Note that a request has its answer, or that nobody waits for it."""
        self._lead.give_up(request.place)
        request.waiting = None  # the job there knows the request: a cycle would keep the picture
        stream = (request.terms.client, request.stream)
        if self._streams.get(stream) is request:
            del self._streams[stream]
        self.preparing.wake()

    async def carry(self, request: Request) -> Outcome:
        """Take an admitted request through all stages; its failure is its outcome."""
        try:
            outcome = await (self._whole if self._fused else self._stages)(request)
        except RetinueError as error:
            return Outcome(error=error)
        if self.cache.enabled and outcome.error is None and request.sha256:
            self.cache.put(request.sha256, Cached(outcome, request.width, request.height))
        return outcome

    def run_whole(self, model: Model, request: Request) -> Outcome:
        """Take a request through all stages on this thread."""
        (prepared,) = self._prepare([request])
        began = time.perf_counter()
        (outputs,) = model.run([prepared.tensors])
        request.timings["run"] = (time.perf_counter() - began) * 1000
        request.batch_size = 1
        return self._postprocess(request.timings, prepared, outputs)

    async def _whole(self, request: Request) -> Outcome:
        running: Job[Any] = self._running.enqueue(request, same, request.terms)
        request.waiting = (self._running, running)
        ran = await self._running.wait(running)
        request.timings["queue"] = ran.queue_ms
        self._note_late(ran)
        outcome: Outcome = ran.unwrap()
        return outcome

    async def _stages(self, request: Request) -> Outcome:
        timings = request.timings
        preparing = self.preparing.enqueue(request, same, request.terms)
        request.waiting = (self.preparing, preparing)
        ready = await self.preparing.wait(preparing)
        timings["queue"] = ready.queue_ms
        self._note_late(ready)
        prepared = ready.unwrap()
        if request.stale:
            self._counters.shed("superseded")
            raise Superseded("a newer frame of the same stream took this one's place")
        finish = partial(self._postprocess, timings, prepared)
        running = self._running.enqueue(prepared.tensors, finish, request.terms)
        request.waiting = (self._running, running)
        ran = await self._running.wait(running)
        timings["queue"] += ran.queue_ms
        if ran.batch_size:
            timings["run"] = ran.run_ms
            request.batch_size = ran.batch_size
        return ran.unwrap()

    def _note_late(self, result: Result[Any]) -> None:
        """Count an item that was found late after its decoding; its lane counts all others."""
        if result.batch_size and isinstance(result.error, DeadlineExceeded):
            self._counters.shed("decode")

    # ---- on a device's thread

    def _prepare(self, requests: Sequence[Request]) -> list[Prepared]:
        (request,) = requests
        self._lead.take(request.place)
        item, timings = request.item, request.timings
        began = time.perf_counter()
        if isinstance(item, Image):
            image = item
        else:
            request.sha256 = request.sha256 or _sha256(item)
            image = decode(item, limits=self._limits, target=self._model.decode_size)
            decoded = time.perf_counter()
            timings["decode"] = (decoded - began) * 1000
            began = decoded
        request.width, request.height = image.width, image.height
        if time.monotonic() >= request.terms.deadline:
            raise DeadlineExceeded("the deadline passed while the image was decoded")
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


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
