"""A runtime that answers what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from retinue.core.errors import ModelRunFailed
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.runtimes import tensors as tensor_checks

Answer = Callable[[Tensors], Mapping[str, Array]]


class FunctionRuntime:
    """Runs a Python function on each item of a batch; keeps the runtime contract otherwise.

    Attributes:
        batches: Sizes of the batches that were run, in order; failed ones too.
        closed: How often `close` was called.
    """

    def __init__(
        self,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        answer: Answer,
        fails: Callable[[Tensors], bool] = lambda row: False,
    ) -> None:
        """Make a runtime.

        Args:
            inputs: What it takes.
            outputs: What it says it returns.
            answer: One item's input rows to its output rows, without the batch dimension.
            fails: Whether an item's row makes the whole batch fail, as a real engine does.
        """
        self._inputs, self._outputs = inputs, outputs
        self._answer, self._fails = answer, fails
        self.batches: list[int] = []
        self.closed = 0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` needs."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` returns."""
        return self._outputs

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run one batch; see `retinue.core.protocols.Runtime`."""
        tensor_checks.check(tensors, self._inputs)
        size = len(tensors[self._inputs[0].name])
        self.batches.append(size)
        rows = [{name: array[i] for name, array in tensors.items()} for i in range(size)]
        if any(self._fails(row) for row in rows):
            raise ModelRunFailed("the fake runtime was told to fail on this batch")
        answers = [self._answer(row) for row in rows]
        return {s.name: np.stack([answer[s.name] for answer in answers]) for s in self._outputs}

    def close(self) -> None:
        """Count the call."""
        self.closed += 1
