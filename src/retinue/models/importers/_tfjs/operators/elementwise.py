"""Elementwise operators; they keep the stored order of what they are given."""

from __future__ import annotations

from functools import partial
from math import pi
from typing import Any

import numpy as np

from retinue.models.importers._build.graph import Graph, Tensor, Value
from retinue.models.importers._build.layout import aligned
from retinue.models.importers._build.operators import scalar
from retinue.models.importers._tfjs.operators.table import operator, promoted
from retinue.models.importers._tfjs.source import Node

_UNARY = {
    "Abs": "Abs",
    "Ceil": "Ceil",
    "Cos": "Cos",
    "Elu": "Elu",
    "Erf": "Erf",
    "Exp": "Exp",
    "Floor": "Floor",
    "Log": "Log",
    "LogicalNot": "Not",
    "Neg": "Neg",
    "Reciprocal": "Reciprocal",
    "Relu": "Relu",
    "Round": "Round",
    "Selu": "Selu",
    "Sigmoid": "Sigmoid",
    "Sign": "Sign",
    "Sin": "Sin",
    "Softplus": "Softplus",
    "Sqrt": "Sqrt",
    "Tanh": "Tanh",
}
_BINARY = {
    "Add": "Add",
    "AddV2": "Add",
    "Div": "Div",
    "Equal": "Equal",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
    "LogicalAnd": "And",
    "LogicalOr": "Or",
    "Maximum": "Max",
    "Minimum": "Min",
    "Mul": "Mul",
    "Pow": "Pow",
    "RealDiv": "Div",
    "Sub": "Sub",
}


def _unary(op: str, graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.emit(op, x.tensor), x.nchw)


def _binary(op: str, graph: Graph, node: Node, a: Value, b: Value) -> Value:
    tensors, nchw = aligned(graph, (a, b))
    return Value(graph.emit(op, *promoted(graph, tensors)), nchw)


for _name, _op in _UNARY.items():
    operator(_name)(partial(_unary, _op))
for _name, _op in _BINARY.items():
    operator(_name)(partial(_binary, _op))


@operator("Identity", "Snapshot", "StopGradient", "PreventGradient", "IdentityN")
def identity(graph: Graph, node: Node, *values: Value) -> list[Value]:
    return list(values)


@operator("Relu6")
def relu6(graph: Graph, node: Node, x: Value) -> Value:
    return Value(clip(graph, x.tensor, 0, 6), x.nchw)


@operator("ClipByValue")
def clip_by_value(graph: Graph, node: Node, x: Value, low: Value, high: Value) -> Value:
    return Value(graph.emit("Clip", x.tensor, low.tensor, high.tensor), x.nchw)


def clip(graph: Graph, tensor: Tensor, low: float, high: float) -> Tensor:
    """Limit to [low, high]."""
    return graph.emit("Clip", tensor, scalar(graph, low, tensor), scalar(graph, high, tensor))


@operator("LeakyRelu")
def leaky_relu(graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.emit("LeakyRelu", x.tensor, alpha=node.real("alpha", 0.2)), x.nchw)


@operator("Prelu")
def prelu(graph: Graph, node: Node, x: Value, alpha: Value) -> Value:
    (tensor, slope), nchw = aligned(graph, (x, alpha))
    return Value(graph.emit("PRelu", tensor, slope), nchw)


@operator("NotEqual")
def not_equal(graph: Graph, node: Node, a: Value, b: Value) -> Value:
    equal = _binary("Equal", graph, node, a, b)
    return Value(graph.emit("Not", equal.tensor), equal.nchw)


@operator("Square")
def square(graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.emit("Mul", x.tensor, x.tensor), x.nchw)


@operator("Rsqrt")
def rsqrt(graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.emit("Reciprocal", graph.emit("Sqrt", x.tensor)), x.nchw)


@operator("SquaredDifference")
def squared_difference(graph: Graph, node: Node, a: Value, b: Value) -> Value:
    return square(graph, node, _binary("Sub", graph, node, a, b))


@operator("AddN")
def add_n(graph: Graph, node: Node, *values: Value) -> Value:
    total = values[0]
    for value in values[1:]:
        total = _binary("Add", graph, node, total, value)
    return total


def _modulo(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.kind == "i":
        return graph.emit("Mod", a, b)
    whole = graph.emit("Floor", graph.emit("Div", a, b))
    return graph.emit("Sub", a, graph.emit("Mul", whole, b))


@operator("FloorMod", "Mod")
def floor_mod(graph: Graph, node: Node, a: Value, b: Value) -> Value:
    tensors, nchw = aligned(graph, (a, b))
    return Value(_modulo(graph, *promoted(graph, tensors)), nchw)


@operator("FloorDiv")
def floor_div(graph: Graph, node: Node, a: Value, b: Value) -> Value:
    tensors, nchw = aligned(graph, (a, b))
    x, y = promoted(graph, tensors)
    if x.dtype.kind == "i":
        # ONNX rounds integer division towards zero.
        exact = graph.emit("Sub", x, graph.emit("Mod", x, y))
        return Value(graph.emit("Div", exact, y), nchw)
    return Value(graph.emit("Floor", graph.emit("Div", x, y)), nchw)


@operator("Atan2")
def atan2(graph: Graph, node: Node, y: Value, x: Value) -> Value:
    (top, bottom), nchw = aligned(graph, (y, x))
    zero = scalar(graph, 0, top)

    def number(value: float) -> Tensor:
        return scalar(graph, value, top)

    angle = graph.emit("Atan", graph.emit("Div", top, bottom))
    negative = graph.emit("Less", top, zero)
    turned = graph.emit("Add", angle, graph.emit("Where", negative, number(-pi), number(pi)))
    upright = graph.emit("Where", negative, number(-pi / 2), number(pi / 2))
    straight = graph.emit("Where", graph.emit("Equal", top, zero), zero, upright)
    left = graph.emit("Where", graph.emit("Less", bottom, zero), turned, straight)
    return Value(graph.emit("Where", graph.emit("Greater", bottom, zero), angle, left), nchw)


@operator("Select", "SelectV2")
def select(graph: Graph, node: Node, condition: Value, a: Value, b: Value) -> Value:
    if node.op == "Select" and condition.rank == 1 and a.rank > 1:
        wide = graph.unsqueeze(condition.tensor, list(range(1, a.rank)))
        condition = Value(wide)
    (mask, yes, no), nchw = aligned(graph, (condition, a, b))
    yes, no = promoted(graph, (yes, no))
    return Value(graph.emit("Where", graph.cast(mask, np.bool_), yes, no), nchw)


@operator("Cast")
def cast(graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.cast(x.tensor, node.dtype("DstT")), x.nchw)


def _filled_like(number: float, graph: Graph, node: Node, x: Value) -> Value:
    shape = graph.emit("Shape", x.tensor) if None in x.shape else graph.ints(_sizes(x))
    return Value(graph.emit("Expand", scalar(graph, number, x.tensor), shape), x.nchw)


def _sizes(x: Value) -> list[int]:
    return [size or 0 for size in x.tensor.shape]


operator("ZerosLike")(partial(_filled_like, 0))
operator("OnesLike")(partial(_filled_like, 1))


@operator("Softmax")
def softmax(graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.emit("Softmax", x.tensor, axis=1 if x.nchw else -1), x.nchw)


@operator("LogSoftmax")
def log_softmax(graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.emit("LogSoftmax", x.tensor, axis=1 if x.nchw else -1), x.nchw)


_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "Relu": ("Relu", {}),
    "Elu": ("Elu", {}),
    "Sigmoid": ("Sigmoid", {}),
    "Tanh": ("Tanh", {}),
}


def activate(graph: Graph, node: Node, tensor: Tensor, name: str) -> Tensor | None:
    """Apply a fused activation; None for one that is not known."""
    if name == "Relu6":
        return clip(graph, tensor, 0, 6)
    if name == "LeakyRelu":
        return graph.emit("LeakyRelu", tensor, alpha=node.real("leakyrelu_alpha", 0.2))
    if name not in _ACTIVATIONS:
        return None
    op, attributes = _ACTIVATIONS[name]
    return graph.emit(op, tensor, **attributes)
