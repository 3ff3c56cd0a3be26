"""What a lane and the whole pipeline cost in CPU time for each item, with a model that does
nothing: ``python benchmarks/scheduling.py [--items 8000] [--concurrent 32]``.

The process' CPU time over all threads, loop and thread hops included. A round is one pass over all
rows of the table (A B A B ...); the best and the median round are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import uvloop

from common import show
from retinue.core.settings import Batching, Limits
from retinue.pipeline.device import Device
from retinue.pipeline.flows import Terms
from retinue.pipeline.lane import Lane
from retinue.pipeline.pipeline import ModelPipeline
from retinue.pipeline.worker import Instance, nothing, same
from retinue.testing.models import FakeModel, numbered

One = Callable[[], Awaitable[object]]


async def closed_loop(one: One, items: int, concurrent: int) -> tuple[float, float]:
    """Return CPU and wall microseconds an item."""

    async def client() -> None:
        for _ in range(items // concurrent):
            await one()

    await asyncio.gather(*(one() for _ in range(concurrent)))
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(concurrent)))
    scale = 1e6 / (items // concurrent * concurrent)
    return (time.process_time() - cpu) * scale, (time.perf_counter() - wall) * scale


async def lane(instances: int, max_batch: int, items: int, concurrent: int) -> tuple[float, float]:
    device = Device(instances, name="bench")
    made = Lane(
        device,
        [Instance(list, nothing)] * instances,
        name="bench",
        max_batch=max_batch,
        max_queue=4096,
    )
    device.start()
    terms = Terms(deadline=time.monotonic() + 600)
    try:
        return await closed_loop(lambda: made.submit(1, same, terms), items, concurrent)
    finally:
        await device.stop(5)


async def executor(items: int, concurrent: int) -> tuple[float, float]:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        return await closed_loop(lambda: loop.run_in_executor(pool, list, (1,)), items, concurrent)


async def floor(items: int, concurrent: int) -> tuple[float, float]:
    """A future that the loop sets in its next turn: what waiting alone costs."""
    loop = asyncio.get_running_loop()

    async def one() -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    return await closed_loop(one, items, concurrent)


async def pipeline(max_batch: int, items: int, concurrent: int) -> tuple[float, float]:
    image = numbered(7)
    batching = Batching(max_batch=max_batch, max_queue=4096)
    async with ModelPipeline([FakeModel()], batching=batching, limits=Limits(), workers=1) as made:
        return await closed_loop(lambda: made.submit(image), items, concurrent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=8_000)
    parser.add_argument("--concurrent", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size = {"items": options.items, "concurrent": options.concurrent}
    cases = {
        "floor: a future and a turn of the loop": partial(floor, **size),
        "run_in_executor, one thread": partial(executor, **size),
        "lane, 1 instance, max_batch 1": partial(lane, 1, 1, **size),
        "lane, 1 instance, max_batch 8": partial(lane, 1, 8, **size),
        "lane, 1 instance, max_batch 32": partial(lane, 1, 32, **size),
        "lane, 2 instances, max_batch 16": partial(lane, 2, 16, **size),
        "whole pipeline, max_batch 1": partial(pipeline, 1, **size),
        "whole pipeline, max_batch 32": partial(pipeline, 32, **size),
    }
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    seen: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(options.rounds):
        for name, case in cases.items():
            for loop, factory in loops.items():
                with asyncio.Runner(loop_factory=factory) as runner:
                    seen.setdefault((name, loop), []).append(runner.run(case()))
    rows = []
    for (name, loop), pairs in seen.items():
        cpu, wall = zip(*pairs, strict=True)
        figures = (min(cpu), statistics.median(cpu), statistics.median(wall))
        rows.append((name, loop, *(f"{figure:.1f}" for figure in figures)))
    show(
        f"Overhead an item, {options.concurrent} concurrent, a model that does nothing",
        ("what", "loop", "CPU us, best", "CPU us, median", "wall us, median"),
        rows,
        notes=[f"{options.rounds} rounds of {options.items} items; CPU of all threads"],
    )


if __name__ == "__main__":
    main()
