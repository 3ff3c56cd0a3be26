"""Stored order, windows and padding: what operators on (N, H, W, C) pictures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._build.graph import Graph, Tensor, Value

Pads = list[int]
"""Top, left, bottom, right."""


def aligned(graph: Graph, values: Sequence[Value]) -> tuple[list[Tensor], bool]:
    """Bring operands that broadcast together into one stored order.

    Returns:
        The tensors, and whether they are channels first.
    """
    rank = max(value.rank for value in values)
    if rank != 4 or not any(value.nchw for value in values):
        return [graph.nhwc(value) for value in values], False
    tensors = []
    for value in values:
        if value.rank == 4:
            tensors.append(graph.nchw(value))
        elif all(size == 1 for size in value.shape):
            tensors.append(value.tensor)
        else:
            wide = graph.unsqueeze(value.tensor, list(range(4 - value.rank)))
            tensors.append(graph.nchw(Value(wide)))
    return tensors, True


def axis_of(axis: int, value: Value) -> int:
    """Return the stored axis of a TensorFlow axis, which may be negative."""
    if not -value.rank <= axis < value.rank:
        raise UnsupportedModel(f"axis {axis} is out of range for {value.rank} dimensions")
    axis %= value.rank
    return (0, 2, 3, 1)[axis] if value.nchw else axis


def same_pads(sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> Pads:
    """TensorFlow's SAME: as little as needed, the odd pixel at the bottom and right."""
    totals = [
        max((math.ceil(size / stride) - 1) * stride + k - size, 0)
        for size, k, stride in zip(sizes, kernel, strides, strict=True)
    ]
    return [t // 2 for t in totals] + [t - t // 2 for t in totals]


def absorb_pad(
    graph: Graph, x: Tensor, options: dict[str, Any], values: tuple[float, float]
) -> Tensor:
    """Move a constant pad before the operator into the operator's own padding.

    Args:
        graph: Where the pad was emitted.
        x: The operator's input, channels first.
        options: The operator's attributes; "pads" is changed.
        values: Range of pad values that mean the same to the operator.
    """
    pad = graph.producers.get(x.name)
    if (
        pad is None
        or pad.op != "Pad"
        or "pads" not in options
        or pad.attributes["mode"] != "constant"
    ):
        return x
    source, amounts, value = pad.inputs
    if source is None or amounts is None or amounts.data is None or value is None:
        return x
    if value.data is None or not values[0] <= float(value.data) <= values[1]:
        return x
    front, back = amounts.data[:4].tolist(), amounts.data[4:].tolist()
    if any(front[:2] + back[:2]) or min(front + back) < 0:
        return x
    more = front[2:] + back[2:]
    options["pads"] = [a + b for a, b in zip(options["pads"], more, strict=True)]
    return source


def stored_pads(x: Value, pads: Sequence[Sequence[int]]) -> list[int]:
    """Return ONNX's list of pads for a value, from (before, after) of each TensorFlow axis."""
    rows = [pads[i] for i in (0, 3, 1, 2)] if x.nchw else pads
    return [int(row[0]) for row in rows] + [int(row[1]) for row in rows]


def exact(factors: Sequence[float]) -> bool:
    """Tell whether Resize's scales lose nothing: others could round a size down by one pixel."""
    return all(factor * 64 % 1 == 0 for factor in factors)
