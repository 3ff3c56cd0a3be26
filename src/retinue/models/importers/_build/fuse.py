"""Folds a constant scale and shift that follow a convolution into its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from retinue.core.types import Array
from retinue.models.importers._build.graph import Emitted, Graph, Tensor


def fuse(graph: Graph, nodes: list[Emitted], outputs: Iterable[str]) -> list[Emitted]:
    """Return the nodes with every ``Conv`` absorbing the constant ``Mul`` and ``Add`` after it.

    A convolution whose result is used elsewhere too is left as it is.
    """
    uses = Counter(i.name for node in nodes for i in node.inputs if i is not None)
    uses.update(outputs)
    convolutions: dict[str, int] = {}
    kept: list[Emitted | None] = []
    for node in nodes:
        at, constant = _follows(node, convolutions)
        fused = None
        if at is not None and constant is not None and uses[node_input(node, convolutions)] == 1:
            before = kept[at]
            assert before is not None
            fused = _absorb(graph, before, node, constant)
        if fused is not None and at is not None:
            kept[at] = None
            node = fused
        if node.op == "Conv":
            convolutions[node.outputs[0]] = len(kept)
        kept.append(node)
    return [node for node in kept if node is not None]


def node_input(node: Emitted, convolutions: dict[str, int]) -> str:
    """Return the name of the node's input that a convolution makes."""
    return next(i.name for i in node.inputs if i is not None and i.name in convolutions)


def _follows(
    node: Emitted, convolutions: dict[str, int]
) -> tuple[int | None, Tensor | None]:
    if node.op not in ("Add", "Mul") or len(node.inputs) != 2:
        return None, None
    for one, other in (node.inputs, node.inputs[::-1]):
        if one is not None and one.name in convolutions and other is not None:
            return convolutions[one.name], (other if other.data is not None else None)
    return None, None


def _absorb(graph: Graph, conv: Emitted, node: Emitted, constant: Tensor) -> Emitted | None:
    data, weights = constant.data, conv.inputs[1]
    if data is None or weights is None or weights.data is None:
        return None
    channels = weights.data.shape[0]
    values = _per_channel(data, channels)
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    if values is None or (bias is not None and bias.data is None):
        return None
    shift = np.zeros(channels, np.float32) if bias is None else np.asarray(bias.data)
    scaled = weights.data
    if node.op == "Mul":
        scaled = scaled * values.reshape(-1, *([1] * (scaled.ndim - 1)))
        shift = shift * values
    else:
        shift = shift + values
    inputs = (conv.inputs[0], graph.constant(scaled), graph.constant(shift))
    return replace(conv, inputs=inputs, outputs=node.outputs)


def _per_channel(data: Array, channels: int) -> Array | None:
    if data.dtype != np.float32:
        return None
    if data.size == 1 and data.ndim <= 4:
        return np.full(channels, data.reshape(-1)[0], np.float32)
    if data.ndim in (3, 4) and data.shape[-3:] == (channels, 1, 1) and data.size == channels:
        return data.reshape(-1)
    return None
