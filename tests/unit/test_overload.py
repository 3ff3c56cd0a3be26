"""Batching and overload in real time, on a stand-in for a GPU.

The stand-in sleeps for t(b) = batch_s + b * item_s. The line goes through two published points of
an H100 that runs ViT-L/14 in bf16 with CUDA graphs, 677 images/s one by one and 2,590 in batches of
32, slowed down eight times so that a small machine keeps the time. The arrivals do not wait for the
answers, and an answer is good when it comes within the deadline by the caller's own clock.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from retinue.core.settings import Batching, Limits
from retinue.pipeline.pipeline import ModelPipeline
from retinue.testing.models import FakeModel, FakeRuntime, number_in, numbered

SLOWER = 8
BATCH = 32
ONE_S, FULL_S = SLOWER / 677, SLOWER * BATCH / 2590
ITEM_S = (FULL_S - ONE_S) / (BATCH - 1)
CAPACITY = BATCH / FULL_S
DEADLINE_S = 0.4
SECONDS = 1.5
ROUNDS = 3  # other work on the machine can only make a round worse: the best of them counts


@dataclass
class Seen:
    """What the callers saw."""

    good: int = 0
    late: int = 0
    refused: int = 0

    @property
    def goodput(self) -> float:
        return self.good / SECONDS


async def _offer(rate: float, max_batch: int, *, told: bool) -> Seen:
    """Offer a rate; ``told`` is whether the pipeline knows of the callers' deadline."""
    model = FakeModel(FakeRuntime(batch_s=ONE_S - ITEM_S, item_s=ITEM_S))
    batching = Batching(max_batch=max_batch, max_queue=4096, deadline_ms=30_000)
    pipeline = ModelPipeline([model], batching=batching, limits=Limits(), warm_up=True)
    seen = Seen()

    async def ask(number: int, planned: float) -> None:
        until = planned + DEADLINE_S
        record = await pipeline.submit(numbered(number), deadline=until if told else None)
        if record.outcome.error is not None:
            seen.refused += 1
        elif time.monotonic() <= until:
            assert number_in(record.outcome) == number
            seen.good += 1
        else:
            seen.late += 1

    await pipeline.start()
    start = time.monotonic()
    tasks = []
    for number in range(int(rate * SECONDS)):
        planned = start + number / rate
        if (wait := planned - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(ask(number, planned)))
    await asyncio.sleep(DEADLINE_S)
    await pipeline.drain(0)
    await asyncio.gather(*tasks)
    assert seen.good + seen.late + seen.refused == len(tasks)
    return seen


def offer(rate: float, *, max_batch: int = BATCH, told: bool = True) -> Seen:
    return asyncio.run(_offer(rate, max_batch, told=told))


@pytest.mark.timeout(120)
def test_batching_multiplies_throughput_at_the_same_offered_load() -> None:
    gains = []
    for _ in range(ROUNDS):
        alone, together = offer(2 * CAPACITY, max_batch=1), offer(2 * CAPACITY)
        gains.append(together.goodput / alone.goodput)
        if gains[-1] >= 3:
            return
    pytest.fail(f"batches of {BATCH} gave {gains} times the goodput of single runs")


@pytest.mark.timeout(120)
def test_goodput_does_not_collapse_at_twice_the_capacity() -> None:
    shares = []
    for _ in range(ROUNDS):
        peak = max(offer(share * CAPACITY).goodput for share in (0.8, 1.0))
        shares.append(offer(2 * CAPACITY).goodput / peak)
        if shares[-1] >= 0.9:
            return
    pytest.fail(f"at twice the capacity, {shares} of the peak goodput are left")


def test_a_queue_that_knows_no_deadline_does_collapse() -> None:
    blind, told = offer(2 * CAPACITY, told=False), offer(2 * CAPACITY)
    assert blind.refused > 0 or blind.late > 0
    assert blind.goodput < 0.7 * told.goodput
