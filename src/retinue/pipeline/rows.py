"""Between tensors with a batch dimension and rows without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from retinue.core.errors import ModelRunFailed
from retinue.core.protocols import Model
from retinue.core.types import Array, Tensors


def largest_batch(model: Model, wanted: int) -> int:
    """Return ``max_batch``, capped by the batch size of a model whose inputs fix it."""
    fixed = [spec.shape[0] for spec in model.runtime.inputs if spec.shape and spec.shape[0] > 0]
    return min([wanted, *fixed])


def split(tensors: Tensors) -> list[Tensors]:
    """Return the rows of tensors, as views without the batch dimension."""
    count = len(next(iter(tensors.values())))
    return [{name: tensor[i] for name, tensor in tensors.items()} for i in range(count)]


def join(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Stack rows of outputs, in order.

    Raises:
        ModelRunFailed: the rows' shapes differ.
    """
    if len(rows) == 1:
        return {name: tensor[np.newaxis] for name, tensor in rows[0].items()}
    try:
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    except ValueError as error:
        message = "the rows of this request have outputs of different shapes; send one row each"
        raise ModelRunFailed(message) from error
