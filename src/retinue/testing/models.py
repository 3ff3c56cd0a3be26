"""A fake model whose cost and failures are programmed, and pictures that carry a number.

The fake is an identity: a picture's number goes in as a row and comes out as the outcome, so a test
can tell whose answer it got.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal, TypeAlias

import numpy as np

from retinue.core.errors import InvalidTensor, ModelRunFailed, RetinueError
from retinue.core.types import Array, Embedding, Image, Outcome, Prepared, Tensors, TensorSpec
from retinue.models.card import Card, Input, Output, Source

Task: TypeAlias = Literal["detect", "classify", "embed", "landmarks", "segment"]

FAKE_CLASSES = ("cat", "dog", "owl")
"""The classes of a fake classifier."""


def numbered(number: int, *, width: int = 4, height: int = 2) -> Image:
    """Return a picture that carries a number of [0, 2**24) in its pixels."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = (number >> 16, number >> 8 & 255, number & 255)
    return Image(pixels, width, height)


def number_in(outcome: Outcome) -> int:
    """Return the number of the picture that an outcome of `FakeModel` belongs to.

    Raises:
        RetinueError: the outcome's own error.
    """
    value = outcome.unwrap()
    assert isinstance(value, Embedding)
    return int(value.vector[0])


@cache
def fake_card(name: str, task: Task = "detect") -> Card:
    """Return a card with nothing behind it."""
    return Card(
        name=name,
        task=task,
        family="fake",
        summary="Gives back what it gets",
        license="Apache-2.0",
        source=Source(url="file:///nowhere", files={"model.onnx": "0" * 64}),
        input=Input(height=8, width=8),
        output=Output(layout="fake"),
        classes=("thing",) if task == "detect" else FAKE_CLASSES,
    )


class FakeRuntime:
    """A `Runtime` that returns its input: "input" (N, width) float32 comes out as "output".

    Attributes:
        batches: Size of each run so far, failed ones included.
        threads: Names of the threads that ran it.
        closed: Whether `close` was called.
    """

    def __init__(
        self,
        *,
        width: int = 1,
        fixed_batch: int | None = None,
        batch_s: float = 0.0,
        item_s: float = 0.0,
        poison: Mapping[float, Exception] | None = None,
        gate: threading.Event | None = None,
    ) -> None:
        """Program the runtime.

        Args:
            width: Numbers in a row.
            fixed_batch: The one batch size that it takes; None for any.
            batch_s: Seconds that a run takes.
            item_s: Seconds that each row adds.
            poison: A run with a row that starts with a key raises the value.
            gate: Each run waits until it is set.
        """
        batch = -1 if fixed_batch is None else fixed_batch
        self._inputs = (TensorSpec("input", "float32", (batch, width)),)
        self._outputs = (TensorSpec("output", "float32", (batch, width)),)
        self._batch_s = batch_s
        self._item_s = item_s
        self._poison = dict(poison or {})
        self._gate = gate
        self._used = threading.Lock()
        self.batches: list[int] = []
        self.threads: set[str] = set()
        self.closed = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """One tensor: "input"."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """One tensor: "output"."""
        return self._outputs

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Return the input as the output, after the programmed cost.

        Raises:
            InvalidTensor: the shape or dtype is wrong.
            ModelRunFailed: two threads use it at once, or it was closed.
            Exception: what ``poison`` holds for a row.
        """
        if not self._used.acquire(blocking=False):
            raise ModelRunFailed("two threads use one fake runtime at the same time")
        try:
            return {"output": self._run(tensors["input"])}
        finally:
            self._used.release()

    def _run(self, rows: Array) -> Array:
        if self.closed:
            raise ModelRunFailed("the fake runtime is closed")
        batch, width = self._inputs[0].shape
        if rows.dtype != np.float32 or rows.shape[1:] != (width,) or batch not in (-1, len(rows)):
            raise InvalidTensor(f"input: {rows.dtype} {rows.shape} is not float32 {batch, width}")
        self.batches.append(len(rows))
        self.threads.add(threading.current_thread().name)
        if self._gate is not None:
            self._gate.wait()
        cost = self._batch_s + self._item_s * len(rows)
        if cost > 0:
            time.sleep(cost)
        for row in rows:
            error = self._poison.get(float(row[0]))
            if error is not None:
                raise error
        return rows.copy()

    def close(self) -> None:
        """Refuse further runs."""
        self.closed = True


class FakeModel:
    """A `Model` on a `FakeRuntime`: the outcome is an `Embedding` of the picture's number.

    Attributes:
        fake: Its runtime, with the counts.
        card: Its card.
    """

    def __init__(
        self,
        runtime: FakeRuntime | None = None,
        *,
        name: str = "fake",
        version: str = "0",
        card: Card | None = None,
        bad_inputs: Mapping[int, Exception] | None = None,
        bad_outputs: Mapping[int, Exception] | None = None,
    ) -> None:
        """Program the model.

        Args:
            runtime: What runs the rows; None for a plain `FakeRuntime`.
            name: Its name.
            version: Its version.
            card: Its card; None for `fake_card` of its name.
            bad_inputs: Pictures with these numbers are refused in preprocessing with these errors.
            bad_outputs: Rows with these numbers fail in postprocessing with these errors.
        """
        self.fake = runtime or FakeRuntime()
        self._name = name
        self._version = version
        self.card = card or fake_card(name, "embed")
        self._bad_inputs = dict(bad_inputs or {})
        self._bad_outputs = dict(bad_outputs or {})

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self._name

    @property
    def version(self) -> str:
        """Version in the registry."""
        return self._version

    @property
    def runtime(self) -> FakeRuntime:
        """The fake runtime."""
        return self.fake

    @property
    def decode_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return 8, 8

    def preprocess(self, image: Image) -> Prepared:
        """Read the picture's number; all numbers of the row are equal to it."""
        red, green, blue = (int(v) for v in image.pixels[0, 0])
        number = red << 16 | green << 8 | blue
        if number in self._bad_inputs:
            raise self._bad_inputs[number]
        row = np.full(self.fake.inputs[0].shape[1:], number, np.float32)
        return Prepared({"input": row}, image.width, image.height, context=number)

    def run(self, batch: Sequence[Tensors]) -> list[dict[str, Array]]:
        """Stack, run, split."""
        outputs = self.fake.run({"input": np.stack([row["input"] for row in batch])})
        return [{"output": row} for row in outputs["output"]]

    def postprocess(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Return the row; it must be the one that was prepared."""
        number = int(outputs["output"][0])
        if number in self._bad_outputs:
            raise self._bad_outputs[number]
        if number != prepared.context:
            raise ModelRunFailed(f"the answer of {number} was given to {prepared.context!r}")
        return Outcome(value=Embedding(outputs["output"]))

    def predict(self, inputs: Sequence[Image]) -> list[Outcome]:
        """Carry each picture through alone."""
        outcomes = []
        for image in inputs:
            try:
                prepared = self.preprocess(image)
                outcomes.append(self.postprocess(prepared, self.run([prepared.tensors])[0]))
            except RetinueError as error:
                outcomes.append(Outcome(error=error))
        return outcomes

    def close(self) -> None:
        """Close the runtime."""
        self.fake.close()


def gated() -> tuple[FakeModel, threading.Event]:
    """Make a model whose runs wait until the event is set."""
    gate = threading.Event()
    return FakeModel(FakeRuntime(gate=gate)), gate


async def until(condition: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait until a condition holds that other threads bring about.

    Raises:
        TimeoutError: it did not.
    """
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - threads set no asyncio event
            await asyncio.sleep(0.001)
