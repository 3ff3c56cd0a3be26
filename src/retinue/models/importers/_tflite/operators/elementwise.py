"""Elementwise operators; they keep the stored order of what they are given."""

from __future__ import annotations

from functools import partial

import numpy as np

from retinue.models.importers._build.graph import Graph, Value
from retinue.models.importers._build.layout import aligned
from retinue.models.importers._tflite.operators.table import activated, clip, operator
from retinue.models.importers._tflite.source import Node

_UNARY = {"HARD_SWISH": "HardSwish", "LOGISTIC": "Sigmoid", "RELU": "Relu", "TANH": "Tanh"}
_BINARY = {"ADD": "Add", "MUL": "Mul", "SUB": "Sub"}


def _unary(op: str, graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.emit(op, x.tensor), x.nchw)


def _binary(op: str, graph: Graph, node: Node, a: Value, b: Value) -> Value:
    tensors, nchw = aligned(graph, (a, b))
    return Value(activated(graph, node, graph.emit(op, *tensors)), nchw)


for _name, _op in _UNARY.items():
    operator(_name)(partial(_unary, _op))
for _name, _op in _BINARY.items():
    operator(_name)(partial(_binary, _op))


@operator("RELU6")
def relu6(graph: Graph, node: Node, x: Value) -> Value:
    return Value(clip(graph, x.tensor, 0, 6), x.nchw)


@operator("PRELU")
def prelu(graph: Graph, node: Node, x: Value, alpha: Value) -> Value:
    (tensor, slope), nchw = aligned(graph, (x, alpha))
    return Value(graph.emit("PRelu", tensor, slope), nchw)


@operator("DEQUANTIZE")
def dequantize(graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.cast(x.tensor, np.float32), x.nchw)


@operator("DENSIFY")
def densify(graph: Graph, node: Node, x: Value) -> Value:
    # Sparse constants are made dense where they are read.
    return x
