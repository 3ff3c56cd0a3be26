"""Whatever comes, fails, is late or goes away: every request ends, and nothing stays counted."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator

import numpy as np
import pytest

from retinue.core.errors import DeadlineExceeded, InvalidTensor, RetinueError
from retinue.core.record import Record
from retinue.core.settings import Batching, Limits
from retinue.pipeline.pipeline import ModelPipeline
from retinue.testing.models import FakeModel, FakeRuntime, gated, number_in, numbered, until
from retinue.testing.pipeline_suite import numbered_png

REQUESTS = 250
BAD_INPUTS = {n: InvalidTensor("refused") for n in range(0, REQUESTS, 17)}
BAD_OUTPUTS = {n: KeyError("no answer") for n in range(1, REQUESTS, 19)}
POISON = {float(n): ZeroDivisionError("poison") for n in range(2, REQUESTS, 13)}
BAD = {*BAD_INPUTS, *BAD_OUTPUTS, *map(int, POISON)}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def made(chance: random.Random) -> ModelPipeline:
    def model() -> FakeModel:
        cost = chance.choice([0.0, 0.0005, 0.002])
        runtime = FakeRuntime(batch_s=cost, item_s=cost / 4, poison=POISON)
        return FakeModel(runtime, bad_inputs=BAD_INPUTS, bad_outputs=BAD_OUTPUTS)

    batching = Batching(
        max_batch=chance.choice([1, 2, 8]),
        max_queue=chance.choice([8, 400, 400]),
        window_ms=chance.choice([0.0, 0.0, 2.0]),
        deadline_ms=60_000,
    )
    models = [model() for _ in range(chance.randint(1, 3))]
    return ModelPipeline(models, batching=batching, limits=Limits(), workers=chance.randint(1, 3))


def deadline(chance: random.Random) -> float | None:
    left = chance.choice([None, None, None, 0.0005, 0.005, 0.05, 60.0])
    return None if left is None else time.monotonic() + left


async def photo(pipeline: ModelPipeline, number: int, chance: random.Random) -> None:
    item = numbered_png(number) if chance.random() < 0.3 else numbered(number)
    record = await pipeline.submit(
        item, deadline=deadline(chance), priority=chance.choice([0, 0, -1, 1])
    )
    assert isinstance(record, Record)
    if record.outcome.error is None:
        assert number_in(record.outcome) == number
        assert number not in BAD


async def rows(pipeline: ModelPipeline, number: int, chance: random.Random) -> None:
    given = np.arange(number, number + chance.randint(1, 4), dtype=np.float32)[:, None]
    try:
        answer = await pipeline.infer(
            {"input": given}, deadline=deadline(chance), priority=chance.choice([0, 0, 1])
        )
    except RetinueError:
        return
    assert (answer["output"] == given).all()


async def storm(chance: random.Random) -> None:
    pipeline = made(chance)
    await pipeline.start()
    tasks = []
    drain_at = chance.choice([REQUESTS, REQUESTS, REQUESTS, chance.randrange(REQUESTS)])
    drain: asyncio.Task[None] | None = None
    for number in range(REQUESTS):
        if number == drain_at:
            drain = asyncio.create_task(pipeline.drain(chance.choice([0.0, 0.01, 5.0])))
        work = photo if chance.random() < 0.7 else rows
        task = asyncio.create_task(work(pipeline, number, chance))
        tasks.append(task)
        if chance.random() < 0.2:
            asyncio.get_running_loop().call_later(chance.choice([0, 0.002, 0.02]), task.cancel)
        if chance.random() < 0.15:
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.004]))
    async with asyncio.timeout(20):
        results = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [r for r in results if r and not isinstance(r, asyncio.CancelledError)]
        assert not failed
        assert pipeline._admission.accepted == pipeline.queue_depth == 0
        await until(lambda: not pipeline._carrier.preparing.running + pipeline._running.running)
        assert not pipeline._carrier.preparing.waiting + pipeline._running.waiting
        assert len(pipeline._carrier._lead) == 0
        if drain is None:
            await pipeline.infer({"input": np.full((1, 1), 1000, np.float32)})
            assert number_in((await pipeline.submit(numbered(1000))).outcome) == 1000
        await pipeline.drain(5)
        # A decoder that was at work when its item was given up counts nothing afterwards.
        assert len(pipeline._carrier._lead) == 0


@pytest.mark.parametrize("seed", range(6))
def test_every_request_ends_and_nothing_stays_counted(seed: int) -> None:
    asyncio.run(storm(random.Random(seed)))


def test_urgent_pictures_do_not_wait_behind_what_raw_tensors_keep_from_running() -> None:
    """Unimportant pictures hold all places of the lead, and more important rows never end."""
    model, gate = gated()
    gate.set()
    model.fake._batch_s = 0.002

    async def flood(pipeline: ModelPipeline) -> None:
        while True:
            await pipeline.infer({"input": np.ones((1, 1), np.float32)}, priority=1)

    async def main() -> None:
        batching = Batching(deadline_ms=5000)
        async with ModelPipeline([model], batching=batching, limits=Limits(), workers=1) as made:
            flooding = [asyncio.create_task(flood(made)) for _ in range(8)]
            await until(lambda: made._running.waiting > 4)
            low = [asyncio.create_task(made.submit(numbered(n))) for n in range(4)]
            await until(lambda: len(made._carrier._lead) >= 2)
            urgent = await made.submit(numbered(9), deadline=time.monotonic() + 2, priority=2)
            for task in (*flooding, *low):
                task.cancel()
            await asyncio.gather(*flooding, *low, return_exceptions=True)
            assert not isinstance(urgent.outcome.error, DeadlineExceeded)
            assert number_in(urgent.outcome) == 9
            assert len(made._carrier._lead) == 0

    asyncio.run(main())
