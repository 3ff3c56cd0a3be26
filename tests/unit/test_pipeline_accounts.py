"""The pipeline's accounts on odd paths: whose place is taken, what is counted, learnt and kept."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from contextlib import asynccontextmanager

import numpy as np
import pytest

from retinue.core.errors import (
    DeadlineExceeded,
    InstanceCrashed,
    ModelRunFailed,
    QueueFull,
    ShuttingDown,
    Superseded,
)
from retinue.core.settings import Batching, Limits
from retinue.media.encode import encode_png
from retinue.pipeline import carrier
from retinue.pipeline.counters import Unmonitored
from retinue.pipeline.pipeline import ModelPipeline
from retinue.testing.models import FakeModel, FakeRuntime, gated, number_in, numbered, until

each_way = pytest.mark.parametrize("fused", [False, True], ids=["staged", "fused"])


class Sheds(Unmonitored):
    """Keeps the reasons of what is shed."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def shed(self, model: str, version: str, reason: str) -> None:
        self.reasons.append(reason)


def make(model: FakeModel, fused=False, monitor=None, reload=None, **policy) -> ModelPipeline:
    return ModelPipeline(
        [model],
        batching=Batching(**policy),
        limits=Limits(),
        monitor=monitor,
        workers=1,
        reload=reload,
        fused=fused,
    )


@asynccontextmanager
async def held(fused=False, **policy):
    """A pipeline whose one instance is busy with picture 0 until the gate is opened."""
    model, gate = gated()
    sheds = Sheds()
    async with make(model, fused, sheds, **policy) as pipeline:
        task = asyncio.create_task(pipeline.submit(numbered(0), client="first"))
        await until(lambda: model.fake.batches)
        try:
            yield pipeline, gate, sheds
        finally:
            gate.set()
        await task


@each_way
def test_one_slow_run_is_not_believed_for_ever(fused):
    async def main() -> None:
        async with make(FakeModel(), fused) as pipeline:
            pipeline._running.schedule.cost.observe(1, 60.0)
            tries = 0
            while True:
                record = await pipeline.submit(numbered(1), deadline=time.monotonic() + 1)
                if record.outcome.error is None:
                    break
                tries += 1
            assert 20 < tries < 60

    asyncio.run(main())


def test_what_is_shed_before_a_busy_model_is_no_reason_to_doubt_its_run_time():
    async def main() -> None:
        async with held() as (pipeline, _, _sheds):
            cost = pipeline._running.schedule.cost
            cost.observe(1, 0.5)
            for _ in range(20):
                assert not pipeline._running.idle
                terms = {"deadline": time.monotonic() + 0.2, "priority": 1}
                record = await pipeline.submit(numbered(1), **terms)
                assert isinstance(record.outcome.error, DeadlineExceeded)
            assert cost.alone == 0.5

    asyncio.run(main())


@each_way
@pytest.mark.parametrize("policy", [{"max_per_client": 2}, {"max_queue": 2}])
def test_a_newer_frame_needs_no_more_room_than_the_one_before_it(fused, policy):
    async def main() -> None:
        async with held(fused, **policy) as (pipeline, gate, sheds):
            other = asyncio.create_task(pipeline.submit(numbered(9), client="c"))
            frames = []
            for number in range(1, 5):
                frame = pipeline.submit(numbered(number), client="c", stream="s")
                frames.append(asyncio.create_task(frame))
                await asyncio.sleep(0.01)
            await until(lambda: len(sheds.reasons) == 3)
            gate.set()
            outcomes = [(await task).outcome for task in (*frames, other)]
            assert [type(outcome.error) for outcome in outcomes[:3]] == [Superseded] * 3
            assert [number_in(outcome) for outcome in outcomes[3:]] == [4, 9]
            assert sheds.reasons == ["superseded"] * 3
            await until(lambda: pipeline._admission.accepted <= 1)
        assert pipeline._admission.accepted == 0
        assert not pipeline._admission._clients

    asyncio.run(main())


@each_way
def test_a_frame_that_is_refused_ends_no_other(fused):
    async def main() -> None:
        async with held(fused) as (pipeline, gate, sheds):
            pipeline._running.schedule.cost.observe(1, 0.2)
            old = asyncio.create_task(pipeline.submit(numbered(1), stream="s"))
            await asyncio.sleep(0.02)
            soon = time.monotonic() + 0.05
            new = await pipeline.submit(numbered(2), stream="s", deadline=soon)
            assert isinstance(new.outcome.error, DeadlineExceeded)
            gate.set()
            assert number_in((await old).outcome) == 1
            assert sheds.reasons == ["admission"]

    asyncio.run(main())


@each_way
def test_a_frame_takes_the_place_of_one_that_waits_and_not_of_one_that_is_run(fused):
    async def main() -> None:
        model, gate = gated()
        async with make(model, fused) as pipeline:
            tasks, places = [], []
            for number in range(4):
                frame = pipeline.submit(numbered(number), client="c", stream="s")
                tasks.append(asyncio.create_task(frame))
                await until(lambda: model.fake.batches)
                await asyncio.sleep(0.01)
                terms = pipeline._carrier._streams["c", "s"].terms
                places.append(min(terms.urgency, terms.deadline))
            gate.set()
            errors = [(await task).outcome.error for task in tasks]
            assert [type(error) for error in errors[1:3]] == [Superseded] * 2
            assert errors[0] is errors[3] is None
            assert places[0] < places[1] == places[2] == places[3]

    asyncio.run(main())


@each_way
def test_nobody_makes_room_for_what_is_refused(fused):
    async def main() -> None:
        async with held(fused, max_queue=2) as (pipeline, gate, sheds):
            pipeline._running.schedule.cost.observe(1, 0.2)
            tasks = [asyncio.create_task(pipeline.submit(numbered(n))) for n in (1, 2)]
            await asyncio.sleep(0.02)
            soon = time.monotonic() + 0.05
            record = await pipeline.submit(numbered(3), priority=1, deadline=soon)
            assert isinstance(record.outcome.error, DeadlineExceeded)
            gate.set()
            assert [number_in((await task).outcome) for task in tasks] == [1, 2]
            assert sheds.reasons == ["admission"]

    asyncio.run(main())


@pytest.mark.parametrize("busy", [False, True], ids=["timer first", "decoder first"])
@each_way
def test_what_is_late_after_its_decoding_is_counted_once(fused, busy, monkeypatch):
    decode = carrier.decode

    def slow(*args, **options):
        time.sleep(0.06)
        return decode(*args, **options)

    monkeypatch.setattr(carrier, "decode", slow)
    photo, sheds = encode_png(numbered(5).pixels), Sheds()

    async def main() -> None:
        async with make(FakeModel(), fused, sheds) as pipeline:
            soon = time.monotonic() + 0.03
            task = asyncio.create_task(pipeline.submit(photo, deadline=soon))
            await asyncio.sleep(0.01)
            if busy:
                # The loop is late itself: the decoder finds out first.
                time.sleep(0.1)  # noqa: ASYNC251
            assert isinstance((await task).outcome.error, DeadlineExceeded)

    asyncio.run(main())
    assert sheds.reasons == ["running" if fused and not busy else "decode"]


def test_rows_that_were_run_are_counted_out_before_the_request_ends():
    async def main() -> None:
        model = FakeModel(FakeRuntime(batch_s=0.002))
        async with make(model, max_queue=20, max_per_client=20) as pipeline:
            rows = np.zeros((20, 1), np.float32)
            task = asyncio.create_task(pipeline.infer({"input": rows}, client="c"))
            await until(lambda: len(model.fake.batches) > 10)
            assert pipeline.queue_depth < 12
            record = await pipeline.submit(numbered(1), client="c")
            assert record.outcome.error is None
            await task
            assert pipeline.queue_depth == 0

    asyncio.run(main())


def test_a_row_that_fails_gives_up_those_after_it():
    async def main() -> None:
        model = FakeModel(FakeRuntime(batch_s=0.002, poison={1.0: ValueError("bad row")}))
        async with make(model) as pipeline:
            with pytest.raises(ModelRunFailed, match="bad row"):
                await pipeline.infer({"input": np.arange(50, dtype=np.float32)[:, None]})
            assert pipeline._running.waiting == pipeline.queue_depth == 0
            assert len(model.fake.batches) < 10

    asyncio.run(main())


def test_rows_that_were_never_run_count_as_no_run():
    async def main() -> None:
        async with held() as (pipeline, _, _sheds):
            with pytest.raises(DeadlineExceeded):
                row = {"input": np.zeros((1, 1), np.float32)}
                await pipeline.infer(row, deadline=time.monotonic() + 0.02)
            statistics = pipeline.statistics()
            assert (statistics.fail.count, statistics.queue.count) == (1, 1)
            assert statistics.compute_infer.count == 0

    asyncio.run(main())


@each_way
def test_a_picture_is_given_back_with_its_answer(fused):
    async def one(pipeline: ModelPipeline, **options) -> weakref.ref:
        picture = numbered(7)
        await pipeline.submit(picture, **options)
        return weakref.ref(picture.pixels)

    async def main() -> None:
        async with make(FakeModel(), fused) as pipeline:
            pictures = [await one(pipeline) for _ in range(3)]
        async with held(fused) as (pipeline, gate, _):
            pictures.append(await one(pipeline, deadline=time.monotonic() + 0.02))
            frame = asyncio.create_task(one(pipeline, stream="s"))
            await asyncio.sleep(0.01)
            newer = asyncio.create_task(one(pipeline, stream="s"))
            await asyncio.sleep(0.01)
            gate.set()
            pictures += [await frame, await newer]
            del frame, newer
        await asyncio.sleep(0.01)
        assert [picture() for picture in pictures] == [None] * 6

    # Without the collector: pictures are too large to wait for it.
    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_a_crash_while_it_drains_ends_the_drain():
    gate = threading.Event()
    crash = InstanceCrashed("killed by signal 9")
    model = FakeModel(FakeRuntime(gate=gate, poison={3.0: crash}))
    loaded: list[FakeModel] = []

    def reload() -> FakeModel:
        loaded.append(FakeModel())
        return loaded[-1]

    async def main() -> None:
        pipeline = make(model, reload=reload)
        await pipeline.start()
        task = asyncio.create_task(pipeline.submit(numbered(3)))
        await until(lambda: model.fake.batches)
        drain = asyncio.create_task(pipeline.drain(0))
        assert isinstance((await task).outcome.error, ShuttingDown)
        began = time.monotonic()
        gate.set()
        await drain
        assert time.monotonic() - began < 2
        assert model.fake.closed
        assert not loaded

    asyncio.run(main())


def test_a_client_beyond_its_limit_is_still_refused():
    async def main() -> None:
        async with held(max_per_client=1) as (pipeline, gate, sheds):
            first = asyncio.create_task(pipeline.submit(numbered(1), client="c", stream="a"))
            await asyncio.sleep(0.01)
            other = await pipeline.submit(numbered(2), client="c", stream="b")
            assert isinstance(other.outcome.error, QueueFull)
            gate.set()
            assert number_in((await first).outcome) == 1
            assert sheds.reasons == ["client"]

    asyncio.run(main())


def test_a_deadline_that_had_passed_counts_as_refused_at_the_door():
    sheds = Sheds()

    async def main() -> None:
        async with make(FakeModel(), monitor=sheds) as pipeline:
            late = time.monotonic() - 1
            record = await pipeline.submit(numbered(1), deadline=late)
            assert isinstance(record.outcome.error, DeadlineExceeded)
            with pytest.raises(DeadlineExceeded):
                await pipeline.infer({"input": np.zeros((1, 1), np.float32)}, deadline=late)
            assert pipeline.statistics().fail.count == 2

    asyncio.run(main())
    assert sheds.reasons == ["admission"] * 2
