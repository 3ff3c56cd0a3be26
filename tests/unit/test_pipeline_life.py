"""The pipeline's beginning, end, and how far it works ahead."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from retinue.core.errors import (
    ShuttingDown,
    Unavailable,
)
from retinue.core.settings import Batching, Limits
from retinue.pipeline.pipeline import LEAST_AHEAD, ModelPipeline
from retinue.testing.models import FakeModel, gated, number_in, numbered, until


def make(*models: FakeModel, abandoned=None, workers=1, **policy) -> ModelPipeline:
    return ModelPipeline(
        models or [FakeModel()],
        batching=Batching(**policy),
        limits=Limits(),
        abandoned=abandoned,
        workers=workers,
    )


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.endswith((" 0", " 1", " 2"))]


def test_before_its_start_and_after_its_end_it_takes_nothing():
    model = FakeModel()

    async def main() -> None:
        pipeline = make(model)
        assert type((await pipeline.submit(numbered(1))).outcome.error) is Unavailable
        await pipeline.start()
        await pipeline.start()
        await asyncio.gather(pipeline.drain(1), pipeline.drain(1))
        await pipeline.drain(1)
        assert isinstance((await pipeline.submit(numbered(1))).outcome.error, ShuttingDown)
        with pytest.raises(ShuttingDown):
            await pipeline.infer({"input": np.zeros((1, 1), np.float32)})
        with pytest.raises(ShuttingDown):
            await pipeline.start()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert model.fake.closed
    assert not threads()


def test_a_pipeline_that_was_never_started_closes_its_models():
    model = FakeModel()
    asyncio.run(make(model).drain(1))
    assert model.fake.closed


def test_draining_finishes_what_was_accepted():
    model, gate = gated()

    async def main() -> None:
        pipeline = make(model)
        await pipeline.start()
        tasks = [asyncio.create_task(pipeline.submit(numbered(n))) for n in range(5)]
        await until(lambda: model.fake.batches)
        drain = asyncio.create_task(pipeline.drain(5))
        await asyncio.sleep(0)
        assert isinstance((await pipeline.submit(numbered(9))).outcome.error, ShuttingDown)
        assert not model.fake.closed
        gate.set()
        await drain
        assert [number_in((await task).outcome) for task in tasks] == list(range(5))

    asyncio.run(main())
    assert model.fake.closed
    assert not threads()


def test_draining_gives_up_what_takes_too_long(monkeypatch):
    monkeypatch.setattr("retinue.pipeline.pipeline._THREAD_END_S", 0.01)
    model, gate = gated()

    async def main() -> None:
        pipeline = make(model)
        await pipeline.start()
        tasks = [asyncio.create_task(pipeline.submit(numbered(n))) for n in range(3)]
        await until(lambda: model.fake.batches)
        await pipeline.drain(0.01)
        for task in tasks:
            assert isinstance((await task).outcome.error, ShuttingDown)
        assert not model.fake.closed
        gate.set()
        await until(lambda: model.fake.closed)
        await until(lambda: not threads())

    asyncio.run(main())


def test_decoding_stops_while_enough_is_ready_and_goes_on_after():
    model, gate = gated()
    decoded: list[int] = []

    class Counting(type(model)):
        def preprocess(self, image):
            decoded.append(1)
            return super().preprocess(image)

    model.__class__ = Counting

    async def main() -> None:
        async with make(model, workers=2) as pipeline:
            tasks = [asyncio.create_task(pipeline.submit(numbered(i))) for i in range(20)]
            await until(lambda: len(decoded) >= LEAST_AHEAD)
            await asyncio.sleep(0.05)
            ahead = len(decoded)
            gate.set()
            # Both decoders may have begun the last one at the same time.
            assert LEAST_AHEAD <= ahead <= LEAST_AHEAD + 1
            records = await asyncio.gather(*tasks)
            assert [number_in(r.outcome) for r in records] == list(range(20))

    asyncio.run(main())
