"""Runs the rows of raw tensors through a model's lane."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from retinue.core.errors import DeadlineExceeded
from retinue.core.types import Array, Tensors
from retinue.pipeline.admission import Admission
from retinue.pipeline.flows import Terms
from retinue.pipeline.lane import Lane
from retinue.pipeline.rows import join
from retinue.pipeline.worker import Job, same


async def run_rows(
    rows: Sequence[Tensors],
    terms: Terms,
    running: Lane[Any, Any],
    admission: Admission,
    timings: dict[str, float],
) -> dict[str, Array]:
    """Admit the rows of one request, run each with whatever else waits, and join their outputs.

    Args:
        rows: Tensors without the batch dimension, at least one.
        terms: What is asked for all of them.
        running: The lane of the model's instances.
        admission: Counts each row out as soon as it has its result.
        timings: Gets the longest "queue" and, if any row was run, "run", in milliseconds.

    Returns:
        The outputs, rows in the order given.

    Raises:
        RetinueError: what stopped any of the rows; the rows after it are then given up.
    """
    began = time.monotonic()
    estimate = admission.enter(len(rows), terms, may_evict=False)
    jobs: list[Job[dict[str, Array]]] = []
    outputs: list[dict[str, Array]] = []
    left = len(rows)
    try:
        for row in rows:
            # One by one: those before one that is refused are cancelled below.
            jobs.append(running.enqueue(row, same, terms))  # noqa: PERF401
        for job in jobs:
            result = await job.future
            timings["queue"] = max(timings.get("queue", 0.0), result.queue_ms)
            if result.batch_size:
                timings["run"] = max(timings.get("run", 0.0), result.run_ms)
            outputs.append(result.unwrap())
            left -= 1
            admission.leave(1, terms.client)
        admission.learn(estimate, time.monotonic() - began)
        return join(outputs)
    except DeadlineExceeded:
        admission.learn(estimate, time.monotonic() - began)
        raise
    finally:
        for job in jobs:
            running.cancel(job)
        admission.leave(left, terms.client)
