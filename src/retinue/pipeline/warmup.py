"""Runs instances before they count: engines allocate, compile and choose kernels on first runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from retinue.core.errors import RetinueError
from retinue.core.protocols import Model
from retinue.core.types import Image
from retinue.pipeline.cost import RunCost
from retinue.pipeline.device import in_thread
from retinue.pipeline.worker import contain


def sizes(max_batch: int) -> list[int]:
    """Return the batch sizes that are tried: 1, 2, 3, 4, 6, 8, 12, 16, ... and the largest.

    Those to which the torch runtime pads; for other runtimes they are points enough of t(n).
    """
    powers = [1 << power for power in range(max_batch.bit_length())]
    between = [3 * power for power in powers if 3 * power < max_batch]
    return sorted({*powers, *between, max_batch})


async def warm_up(instances: Sequence[Model], max_batch: int, cost: RunCost) -> None:
    """Run each instance at each size, all instances side by side as they will be, and learn t(n).

    Raises:
        RetinueError: an instance cannot run.
    """
    found: list[tuple[int, float] | RetinueError] = []

    def work(model: Model) -> None:
        try:
            found.extend(_runs(model, max_batch))
        except Exception as error:  # noqa: BLE001 - isolation boundary: the thread must report
            found.append(contain(error, f"warming up {model.name}"))

    names = [f"warming up {model.name} {number}" for number, model in enumerate(instances)]
    await asyncio.gather(
        *(
            in_thread(lambda model=model: work(model), name)  # type: ignore[misc]
            for model, name in zip(instances, names, strict=True)
        )
    )
    for result in found:
        if isinstance(result, RetinueError):
            raise result
        cost.observe(*result)


def _runs(model: Model, max_batch: int) -> list[tuple[int, float]]:
    height, width = model.decode_size
    gray = np.full((height, width, 3), 114, np.uint8)
    row = model.preprocess(Image(gray, width, height)).tensors
    measured = []
    for size in sizes(max_batch):
        model.run([row] * size)
        began = time.monotonic()
        model.run([row] * size)
        measured.append((size, time.monotonic() - began))
    return measured
