"""The table of operators, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tflite  # type: ignore[import-untyped]

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._build.graph import Graph, Tensor, Value
from retinue.models.importers._build.operators import registering, scalar
from retinue.models.importers._tflite.source import Node

Operator: TypeAlias = Callable[..., Value]
"""Called with (graph, node, *inputs); returns its output."""

OPERATORS: dict[str, Operator] = {}
operator = registering(OPERATORS)
"""Register a function as the translation of TensorFlow Lite operators."""

_ACTIVATIONS = {
    tflite.ActivationFunctionType.NONE: "",
    tflite.ActivationFunctionType.RELU: "Relu",
    tflite.ActivationFunctionType.TANH: "Tanh",
}


def activated(graph: Graph, node: Node, tensor: Tensor) -> Tensor:
    """Apply the activation that an operator ends with."""
    kind = node.integer("FusedActivationFunction")
    if kind == tflite.ActivationFunctionType.RELU6:
        return clip(graph, tensor, 0, 6)
    if kind == tflite.ActivationFunctionType.RELU_N1_TO_1:
        return clip(graph, tensor, -1, 1)
    if kind not in _ACTIVATIONS:
        message = f"node {node.name!r} ({node.op}) ends with the activation {kind}"
        raise UnsupportedModel(f"{message}, which is not supported")
    return graph.emit(_ACTIVATIONS[kind], tensor) if _ACTIVATIONS[kind] else tensor


def clip(graph: Graph, tensor: Tensor, low: float, high: float) -> Tensor:
    """Limit to [low, high]."""
    return graph.emit("Clip", tensor, scalar(graph, low, tensor), scalar(graph, high, tensor))
