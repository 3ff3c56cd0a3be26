"""The pipeline's policies: feasibility, fairness, streams, response cache, warm-up, counts."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

from retinue.core.errors import (
    ConfigError,
    DeadlineExceeded,
    InstanceCrashed,
    ModelRunFailed,
    QueueFull,
    Superseded,
)
from retinue.core.settings import Batching, Limits
from retinue.media.encode import encode_png
from retinue.pipeline.devices import Devices
from retinue.pipeline.pipeline import ModelPipeline
from retinue.testing.models import FakeModel, FakeRuntime, gated, number_in, numbered, until

each_way = pytest.mark.parametrize("fused", [False, True], ids=["staged", "fused"])


class Monitor:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.batches: list[str] = []
        self.sheds: list[str] = []
        self.hits: list[bool] = []

    def batch(self, model: str, version: str, reason: str) -> None:
        assert (model, version) == ("fake", "0")
        self.batches.append(reason)

    def shed(self, model: str, version: str, reason: str) -> None:
        self.sheds.append(reason)

    def cached(self, model: str, version: str, hit: bool) -> None:
        self.hits.append(hit)


def make(
    *models: FakeModel, monitor=None, warm_up=False, reload=None, fused=False, **policy
) -> ModelPipeline:
    return ModelPipeline(
        models or [FakeModel()],
        batching=Batching(**policy),
        limits=Limits(),
        monitor=monitor,
        workers=1,
        warm_up=warm_up,
        reload=reload,
        fused=fused,
    )


@asynccontextmanager
async def held(fused=False, **policy):
    """A pipeline whose one instance is busy with picture 0 until the gate is opened."""
    model, gate = gated()
    monitor = Monitor()
    async with make(model, monitor=monitor, fused=fused, **policy) as pipeline:
        task = asyncio.create_task(pipeline.submit(numbered(0), client="first"))
        await until(lambda: model.fake.batches)
        try:
            yield pipeline, gate, monitor
        finally:
            gate.set()
        await task


@each_way
def test_what_cannot_be_answered_in_time_is_refused_at_the_door(fused):
    model = FakeModel(FakeRuntime(batch_s=0.02))
    monitor = Monitor()

    async def main() -> None:
        async with make(model, monitor=monitor, fused=fused) as pipeline:
            for number in range(5):
                await pipeline.submit(numbered(number))
            deadline = time.monotonic() + 0.2
            records = await asyncio.gather(
                *(pipeline.submit(numbered(n), deadline=deadline) for n in range(100))
            )
            assert time.monotonic() < deadline + 0.1
            errors = [record.outcome.error for record in records]
            refused = [e for e in errors if e is not None and "go before this one" in e.message]
            assert all(e is None or isinstance(e, DeadlineExceeded) for e in errors)
            assert len(refused) > 80
            # Once it is idle, anything that one run has time for is let in.
            assert (await pipeline.submit(numbered(1))).outcome.error is None

    asyncio.run(main())
    assert monitor.sheds.count("admission") > 80


def test_rows_are_refused_when_they_cannot_be_answered_in_time():
    async def main() -> None:
        model = FakeModel(FakeRuntime(batch_s=0.02))
        async with make(model) as pipeline:
            row = np.zeros((1, 1), np.float32)
            for _ in range(3):
                await pipeline.infer({"input": row})
            deadline = time.monotonic() + 0.1
            results = await asyncio.gather(
                *(pipeline.infer({"input": row}, deadline=deadline) for _ in range(30)),
                return_exceptions=True,
            )
            errors = [result for result in results if isinstance(result, BaseException)]
            assert len(errors) > 20
            assert all(isinstance(error, DeadlineExceeded) for error in errors)
            # One with an earlier deadline goes before those that wait.
            patient = [asyncio.create_task(pipeline.infer({"input": row})) for _ in range(9)]
            await asyncio.sleep(0)
            await pipeline.infer({"input": row}, deadline=time.monotonic() + 0.15)
            assert not patient[-1].done()
            await asyncio.gather(*patient)

    asyncio.run(main())


@each_way
def test_the_deadline_ends_the_wait_while_the_model_runs(fused):
    async def main() -> None:
        model, gate = gated()
        monitor = Monitor()
        async with make(model, monitor=monitor, fused=fused) as pipeline:
            record = await pipeline.submit(numbered(1), deadline=time.monotonic() + 0.1)
            assert isinstance(record.outcome.error, DeadlineExceeded)
            assert model.fake.batches == [1]
            assert monitor.sheds == ["running"]
            assert 100 <= record.outcome.timings_ms["total"] < 1000
            gate.set()
            assert number_in((await pipeline.submit(numbered(2))).outcome) == 2

    asyncio.run(main())


@each_way
def test_a_greedy_client_does_not_make_others_wait(fused):
    order: list[str] = []

    async def main() -> None:
        async with held(fused) as (pipeline, gate, _):

            async def one(number: int, client: str) -> None:
                await pipeline.submit(numbered(number), client=client)
                order.append(client)

            greedy = [asyncio.create_task(one(n, "greedy")) for n in range(40)]
            await asyncio.sleep(0.05)
            modest = [asyncio.create_task(one(n, "modest")) for n in range(5)]
            await asyncio.sleep(0.05)
            gate.set()
            await asyncio.gather(*greedy, *modest)

    asyncio.run(main())
    # Some of the greedy client's were decoded already; then turns are taken.
    assert order.index("modest") < 12
    assert [i for i, client in enumerate(order) if client == "modest"][-1] < 24


def test_a_client_may_have_a_limit():
    async def main() -> None:
        async with held(max_per_client=2) as (pipeline, gate, monitor):
            tasks = [
                asyncio.create_task(pipeline.submit(numbered(n), client="a")) for n in range(2)
            ]
            await asyncio.sleep(0)
            refused = await pipeline.submit(numbered(9), client="a")
            assert isinstance(refused.outcome.error, QueueFull)
            assert monitor.sheds == ["client"]
            other = asyncio.create_task(pipeline.submit(numbered(3), client="b"))
            gate.set()
            for task in (*tasks, other):
                assert (await task).outcome.error is None
            assert (await pipeline.submit(numbered(9), client="a")).outcome.error is None

    asyncio.run(main())


@each_way
def test_of_a_stream_the_latest_frame_wins(fused):
    async def main() -> None:
        async with held(fused) as (pipeline, gate, monitor):
            frames = [
                asyncio.create_task(pipeline.submit(numbered(n), client="c", stream="gate-2"))
                for n in range(1, 6)
            ]
            others = [
                asyncio.create_task(pipeline.submit(numbered(7), client="c", stream="yard")),
                asyncio.create_task(pipeline.submit(numbered(8), client="d", stream="gate-2")),
                asyncio.create_task(pipeline.submit(numbered(9), client="c")),
            ]
            await asyncio.sleep(0.05)
            gate.set()
            outcomes = [(await task).outcome for task in frames]
            assert [type(o.error) for o in outcomes[:-1]] == [Superseded] * 4
            assert number_in(outcomes[-1]) == 5
            assert [number_in((await task).outcome) for task in others] == [7, 8, 9]
            assert monitor.sheds == ["superseded"] * 4
            assert not pipeline._carrier._streams

    asyncio.run(main())


@each_way
def test_a_fast_stream_keeps_its_place_in_the_queue(fused):
    async def main() -> None:
        async with held(fused) as (pipeline, gate, _):
            old = asyncio.create_task(pipeline.submit(numbered(1), stream="s"))
            await asyncio.sleep(0.01)
            other = asyncio.create_task(pipeline.submit(numbered(2)))
            await asyncio.sleep(0.01)
            new = asyncio.create_task(pipeline.submit(numbered(3), stream="s"))
            done: list[int] = []
            for number, task in ((2, other), (3, new)):
                task.add_done_callback(lambda _, n=number: done.append(n))
            await asyncio.sleep(0.05)
            gate.set()
            assert isinstance((await old).outcome.error, Superseded)
            await asyncio.gather(other, new)
            assert done == [3, 2]

    asyncio.run(main())


@each_way
def test_the_response_cache_answers_repeated_images(fused):
    model, monitor = FakeModel(), Monitor()
    photo = encode_png(numbered(5).pixels)

    async def main() -> None:
        async with make(model, monitor=monitor, fused=fused, cache_mb=1) as pipeline:
            first = await pipeline.submit(photo, tags={"camera": "a"})
            again = await pipeline.submit(photo, tags={"camera": "b"})
            assert number_in(first.outcome) == number_in(again.outcome) == 5
            assert again.tags == {"camera": "b", "cache": "hit"}
            assert first.tags == {"camera": "a"}
            assert (again.width, again.height) == (first.width, first.height)
            assert again.input_sha256 == first.input_sha256
            assert again.id != first.id
            assert again.batch_size == 0
            assert list(again.outcome.timings_ms) == ["total"]
            with pytest.raises(ValueError, match="read-only"):
                again.outcome.value.vector[0] = 0
            bad = [await pipeline.submit(b"no image") for _ in range(2)]
            assert all(record.outcome.error is not None for record in bad)
            statistics = pipeline.statistics()
            assert statistics.cache_hit.count == 1
            assert statistics.cache_miss.count == 3
            assert (statistics.success.count, statistics.fail.count) == (2, 2)
            assert statistics.inference_count == statistics.execution_count == 1

    asyncio.run(main())
    assert model.fake.batches == [1]
    assert monitor.hits == [False, True, False, False]


def test_instances_are_warm_before_the_pipeline_is_ready():
    models = [FakeModel(FakeRuntime(item_s=0.001)) for _ in range(2)]

    async def main() -> None:
        pipeline = make(*models, warm_up=True, max_batch=6)
        assert not pipeline.ready
        async with pipeline:
            assert pipeline.ready
            for model in models:
                assert model.fake.batches == [1, 1, 2, 2, 3, 3, 4, 4, 6, 6]
            cost = pipeline._running.schedule.cost
            assert 0.001 < cost.predict(1) < cost.predict(6)
            assert pipeline.statistics().execution_count == 0
        assert not pipeline.ready

    asyncio.run(main())


def test_a_model_that_cannot_run_does_not_become_ready():
    gray = float(114 << 16 | 114 << 8 | 114)
    model = FakeModel(FakeRuntime(poison={gray: RuntimeError("no kernel for this device")}))

    async def main() -> None:
        pipeline = make(model, warm_up=True)
        with pytest.raises(ModelRunFailed, match="no kernel"):
            await pipeline.start()
        assert not pipeline.ready
        await pipeline.drain(0)

    asyncio.run(main())
    assert model.fake.closed


@each_way
def test_a_crashed_instance_is_loaded_again(fused, caplog):
    crash = FakeModel(FakeRuntime(poison={3.0: InstanceCrashed("killed by signal 9")}))

    async def main() -> None:
        async with make(crash, reload=FakeModel, fused=fused) as pipeline:
            record = await pipeline.submit(numbered(3))
            assert isinstance(record.outcome.error, InstanceCrashed)
            assert number_in((await pipeline.submit(numbered(3))).outcome) == 3
            assert pipeline.ready

    asyncio.run(main())


def test_models_on_the_same_devices_are_scheduled_together():
    models = [FakeModel(FakeRuntime(batch_s=0.01)) for _ in range(3)]

    async def main() -> None:
        devices = Devices(2, 1)
        pipelines = [
            ModelPipeline([m], batching=Batching(), limits=Limits(), devices=devices)
            for m in models
        ]
        for pipeline in pipelines:
            await pipeline.start()
        began = time.monotonic()
        records = await asyncio.gather(
            *(pipeline.submit(numbered(n)) for n in range(5) for pipeline in pipelines)
        )
        # One device: the runs of the three models never overlap.
        assert time.monotonic() - began >= 0.15
        assert [number_in(r.outcome) for r in records] == [n for n in range(5) for _ in models]
        await pipelines[0].drain(1)
        assert models[0].fake.closed
        assert number_in((await pipelines[1].submit(numbered(4))).outcome) == 4
        for pipeline in pipelines[1:]:
            await pipeline.drain(1)
        assert await devices.stop(5)

    asyncio.run(main())
    assert all(len(m.fake.threads) == 1 for m in models)


def test_batches_are_counted_with_their_reasons():
    monitor = Monitor()

    async def main() -> None:
        async with make(monitor=monitor, max_batch=2, window_ms=20) as pipeline:
            rows = np.zeros((5, 1), np.float32)
            await pipeline.infer({"input": rows})
            statistics = pipeline.statistics()
            assert (statistics.inference_count, statistics.execution_count) == (5, 3)
            assert {size: b.compute_infer.count for size, b in statistics.batches.items()} == {
                1: 1,
                2: 2,
            }
            assert statistics.success.count == 1
            assert statistics.queue.count == 1
            assert abs(statistics.last_inference_ms / 1000 - time.time()) < 5

    asyncio.run(main())
    assert monitor.batches == ["full", "full", "window"]


def test_a_fused_pipeline_takes_pictures_and_rows_and_no_batches():
    model = FakeModel()

    async def main() -> None:
        async with make(model, fused=True) as pipeline:
            photo = encode_png(numbered(5).pixels)
            record = await pipeline.submit(photo)
            assert number_in(record.outcome) == 5
            assert list(record.outcome.timings_ms) == [
                "decode",
                "preprocess",
                "queue",
                "run",
                "postprocess",
                "total",
            ]
            assert record.batch_size == 1
            bad = await pipeline.submit(b"no image")
            assert bad.batch_size == 0
            rows = await pipeline.infer({"input": np.full((3, 1), 7, np.float32)})
            assert rows["output"].tolist() == [[7], [7], [7]]
            assert pipeline.statistics().execution_count == 4

    asyncio.run(main())
    with pytest.raises(ConfigError, match="max_batch 1"):
        make(fused=True, max_batch=2)
