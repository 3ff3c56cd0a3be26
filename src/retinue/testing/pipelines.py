"""Fake pipelines: no queue, no threads, answers that a test can tell apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retinue.core.errors import (
    CorruptMedia,
    DeadlineExceeded,
    EmptyInput,
    InvalidTensor,
    RetinueError,
)
from retinue.core.record import Record
from retinue.core.statistics import BatchTotal, Statistics, Total
from retinue.core.types import (
    Array,
    Detections,
    Embedding,
    Image,
    Landmarks,
    Mask,
    Outcome,
    Scores,
    Tensors,
    TensorSpec,
    Value,
)
from retinue.testing.models import FAKE_CLASSES, FakeModel, FakeRuntime, Task


@dataclass(frozen=True, slots=True)
class FakeServed:
    """A fake model that is served.

    Attributes:
        name: Its name.
        task: What its card says that it is for.
        specs: Its inputs; each comes out again as "NAME_out".
    """

    name: str
    task: Task = "detect"
    specs: tuple[TensorSpec, ...] = (TensorSpec("x", "float32", (-1, 2)),)


FAKE_MODELS = (
    FakeServed("fake"),
    FakeServed("text", specs=(TensorSpec("text", "object", (-1, 1)),)),
    FakeServed("scores", "classify", (TensorSpec("scores", "float32", (-1, 3)),)),
)
"""One model of numbers, one of BYTES, one of class scores."""


class TypedRuntime(FakeRuntime):
    """A `FakeRuntime` of any tensors: every input "x" of a dtype comes out again as "x_out"."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        super().__init__()
        self._inputs = tuple(specs)  # type: ignore[assignment]
        self._outputs = tuple(  # type: ignore[assignment]
            TensorSpec(f"{spec.name}_out", spec.dtype, spec.shape) for spec in specs
        )


class FakePipeline:
    """A `Pipeline` without a queue; raw tensors come out as they went in.

    Of a submitted file only the size counts: one of n bytes is answered with n % 4 detections of
    class 0, the i-th (from 1) with the box i, i, 10 i, 10 i and the score 1 / i; or with the score
    1 for class n % 3; or with the embedding of four times n % 4; or with two landmarks at n % 4 and
    the score 0.5; or with a mask of 1 + n % 4 rows and 2 columns of 255. A file that starts with
    ``b"bad"`` is `CorruptMedia`, one of no bytes `EmptyInput`.

    Attributes:
        model: The model that it stands for.
        error: What every request fails with, None for none.
        calls: Each request's terms: deadline, priority and client.
    """

    max_batch = 8
    queue_depth = 0

    def __init__(self, model: FakeModel, *, task: str = "detect", delay_s: float = 0.0) -> None:
        self.model = model
        self.ready = True
        self.error: RetinueError | None = None
        self.calls: list[tuple[float | None, int, str]] = []
        self._task = task
        self._delay_s = delay_s
        self._done = Statistics()

    def statistics(self) -> Statistics:
        """Return how many requests succeeded and failed; each run takes a microsecond."""
        return self._done

    async def submit(
        self,
        item: bytes | Image,
        *,
        deadline: float | None = None,
        priority: int = 0,
        app: str = "",
        source: str = "",
        tags: Mapping[str, str] | None = None,
        client: str = "",
        stream: str = "",
    ) -> Record:
        """Answer as the task has it, or with the programmed error."""
        assert isinstance(item, bytes)
        try:
            await self._work(1, deadline, priority, client)
            if not item:
                raise EmptyInput("the picture is empty")
            if item.startswith(b"bad"):
                raise CorruptMedia("the picture is damaged")
            outcome = Outcome(value=_fake_value(self._task, len(item)))
        except RetinueError as error:
            outcome = Outcome(error=error)
        return Record(app, self.model.name, self.model.version, outcome, source)

    async def infer(
        self,
        tensors: Tensors,
        *,
        deadline: float | None = None,
        priority: int = 0,
        client: str = "",
    ) -> dict[str, Array]:
        """Return every input under its output's name, or raise the programmed error."""
        rows = len(next(iter(tensors.values())))
        if not rows:
            raise InvalidTensor("a batch holds at least one item")
        await self._work(rows, deadline, priority, client)
        return {f"{name}_out": np.array(array) for name, array in tensors.items()}

    async def _work(self, items: int, deadline: float | None, priority: int, client: str) -> None:
        self.calls.append((deadline, priority, client))
        before = self._done
        try:
            if deadline is not None and deadline < time.monotonic() + self._delay_s:
                raise DeadlineExceeded("the deadline passes before this is done")
            await asyncio.sleep(self._delay_s)
            if self.error is not None:
                raise self.error
        except RetinueError:
            self._done = replace(before, fail=_more(before.fail, 1))
            raise
        batch = before.batches.get(items, BatchTotal())
        self._done = replace(
            before,
            inference_count=before.inference_count + items,
            execution_count=before.execution_count + 1,
            last_inference_ms=time.time_ns() // 1_000_000,
            success=_more(before.success, 1),
            compute_infer=_more(before.compute_infer, items),
            batches={
                **before.batches,
                items: replace(
                    batch,
                    compute_input=_more(batch.compute_input, 1),
                    compute_infer=_more(batch.compute_infer, 1),
                    compute_output=_more(batch.compute_output, 1),
                ),
            },
        )


def _more(total: Total, count: int) -> Total:
    return Total(total.count + count, total.ns + count * 1000)


def _fake_value(task: str, size: int) -> Value:
    count = size % 4
    if task == "detect":
        ranks = np.arange(1, count + 1, dtype=np.float32)
        boxes = np.stack([ranks, ranks, 10 * ranks, 10 * ranks], axis=1)
        return Detections(boxes, np.reciprocal(ranks), np.zeros(count, np.int64))
    if task == "classify":
        return Scores(np.eye(len(FAKE_CLASSES), dtype=np.float32)[size % len(FAKE_CLASSES)])
    if task == "landmarks":
        return Landmarks(np.full((2, 3), count, np.float32), 0.5)
    if task == "segment":
        return Mask(np.full((1 + count, 2), 255, np.uint8), 2, 1 + count)
    return Embedding(np.full(4, count, np.float32))
