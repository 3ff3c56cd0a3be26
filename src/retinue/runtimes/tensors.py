"""Checks of a batch of tensors against what a model asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retinue.core.errors import InvalidTensor
from retinue.core.types import Array, Tensors, TensorSpec


def describe(spec: TensorSpec) -> str:
    """Return a spec as users read it, for example ``float32 (N, 3, 416, 416)``."""
    return f"{spec.dtype} {_shape(spec.shape)}"


def check(tensors: Tensors, specs: Sequence[TensorSpec]) -> None:
    """Check names, element types and shapes before an engine sees them.

    Args:
        tensors: The batch, with its batch dimension.
        specs: What the model asks for; -1 takes any size from 1 on. Tensors whose first
            dimension may vary must agree on it.

    Raises:
        InvalidTensor: a tensor is missing or unknown, has the wrong element type, byte order,
            rank or size, or the batch is empty.
    """
    known = {spec.name for spec in specs}
    missing = [spec.name for spec in specs if spec.name not in tensors]
    unknown = [name for name in tensors if name not in known]
    if missing or unknown:
        raise InvalidTensor(
            f"tensors do not match the model: missing {missing or 'none'}, "
            f"unknown {unknown or 'none'}; it takes "
            + ", ".join(f"{spec.name!r} {describe(spec)}" for spec in specs)
        )
    for spec in specs:
        _check_one(tensors[spec.name], spec)
    batches = {s.name: tensors[s.name].shape[0] for s in specs if s.shape[:1] == (-1,)}
    if len(set(batches.values())) > 1:
        raise InvalidTensor(f"tensors disagree on the batch size: {batches}")


def _check_one(tensor: Array, spec: TensorSpec) -> None:
    if not isinstance(tensor, np.ndarray):
        raise InvalidTensor(f"tensor {spec.name!r}: expected an array, got {type(tensor).__name__}")
    if tensor.dtype != np.dtype(spec.dtype):
        got = tensor.dtype.name if tensor.dtype.isnative else f"byte-swapped {tensor.dtype.name}"
        raise InvalidTensor(f"tensor {spec.name!r}: expected {describe(spec)}, got dtype {got}")
    fits = len(tensor.shape) == len(spec.shape) and all(
        size == wanted or (wanted == -1 and size > 0)
        for size, wanted in zip(tensor.shape, spec.shape, strict=True)
    )
    if not fits:
        empty = "; a batch holds at least one item" if 0 in tensor.shape else ""
        got = _shape(tensor.shape)
        message = f"tensor {spec.name!r}: expected {describe(spec)}, got shape {got}{empty}"
        raise InvalidTensor(message)


def _shape(shape: Sequence[int]) -> str:
    parts = [
        "N" if i == 0 and size == -1 else "?" if size == -1 else str(size)
        for i, size in enumerate(shape)
    ]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
