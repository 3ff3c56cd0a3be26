"""Runs instances before they count: engines allocate, compile and choose kernels on first runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from retinue.core.protocols import Model
from retinue.core.types import Image
from retinue.pipeline.cost import RunCost
from retinue.pipeline.device import Device
from retinue.pipeline.flows import Terms
from retinue.pipeline.lane import Lane
from retinue.pipeline.worker import Instance, nothing, same

# Before what is waited for: under a load that never ends a version would never be ready.
_TERMS: Final = Terms(priority=1)
_END_S: Final = 5.0


def sizes(max_batch: int) -> list[int]:
    """Return the batch sizes that are tried: 1, 2, 3, 4, 6, 8, 12, 16, ... and the largest.

    Those to which the torch runtime pads; for other runtimes they are points enough of t(n).
    """
    powers = [1 << power for power in range(max_batch.bit_length())]
    between = [3 * power for power in powers if 3 * power < max_batch]
    return sorted({*powers, *between, max_batch})


async def warm_up(
    instances: Sequence[Model], max_batch: int, cost: RunCost, device: Device
) -> None:
    """Run each instance at each size, on the device that will run them, and learn t(n).

    Each run takes one turn on the device: models that serve meanwhile wait for one run at a time.

    Raises:
        RetinueError: an instance cannot run.
    """
    slots = [Instance(_run_all, nothing) for _ in instances]
    name = f"warming up {instances[0].name}"
    lane = Lane(device, slots, name=name, max_batch=1, max_queue=len(instances))

    async def warm(model: Model) -> None:
        for size in sizes(max_batch):
            for _ in ("allocate and compile", "measure"):
                seconds = (await lane.submit((model, size), same, _TERMS)).unwrap()
            cost.observe(size, seconds)

    try:
        await asyncio.gather(*(warm(model) for model in instances))
    finally:
        await lane.close(_END_S)


def _run_all(items: Sequence[tuple[Model, int]]) -> list[float]:
    return [_run(model, size) for model, size in items]


def _run(model: Model, size: int) -> float:
    """Run a batch of gray pictures; return the seconds of the run."""
    height, width = model.decode_size
    gray = np.full((height, width, 3), 114, np.uint8)
    row = model.preprocess(Image(gray, width, height)).tensors
    began = time.monotonic()
    model.run([row] * size)
    return time.monotonic() - began
