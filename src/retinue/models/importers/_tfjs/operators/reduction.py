"""Reductions, arg-reductions and top-k."""

from __future__ import annotations

from functools import partial

import numpy as np

from retinue.models.importers._build.graph import Graph, Tensor, Value
from retinue.models.importers._build.layout import axis_of
from retinue.models.importers._tfjs.operators.table import operator
from retinue.models.importers._tfjs.source import Node

_KEEP_ORDER = ({3}, {1, 2}, {0, 3}, {1, 2, 3}, {0, 1, 2}, {0, 1, 2, 3})


def _reduce(op: str, graph: Graph, node: Node, x: Value, axes: Value) -> Value:
    keep = node.flag("keep_dims", node.flag("keepdims"))
    wanted = {axis % x.rank for axis in graph.static_ints(axes, "axes")}
    # Stored channels first, what is left must still be in TensorFlow's order.
    ordered = keep or wanted in _KEEP_ORDER
    if x.nchw and not ordered:
        x = Value(graph.nhwc(x))
    if not wanted:
        return x
    stored = sorted(axis_of(axis, x) for axis in wanted)
    tensor = x.tensor
    if op == "ReduceMean" and stored == [2, 3] and x.nchw:
        pooled = graph.emit("GlobalAveragePool", tensor)
        return Value(pooled, True) if keep else Value(graph.squeeze(pooled, [2, 3]))
    reduced = _emit(graph, op, tensor, stored, keep)
    return Value(reduced, x.nchw and keep)


def _emit(graph: Graph, op: str, tensor: Tensor, axes: list[int], keep: bool) -> Tensor:
    if op == "ReduceSum":
        return graph.emit(op, tensor, graph.ints(axes, derived=False), keepdims=int(keep))
    return graph.emit(op, tensor, axes=axes, keepdims=int(keep))


for _name in ("Max", "Mean", "Min", "Prod", "Sum"):
    operator(_name)(partial(_reduce, f"Reduce{_name}"))


def _logical(op: str, graph: Graph, node: Node, x: Value, axes: Value) -> Value:
    counted = _reduce(op, graph, node, Value(graph.cast(x.tensor, np.int32), x.nchw), axes)
    return Value(graph.cast(counted.tensor, np.bool_), counted.nchw)


operator("Any")(partial(_logical, "ReduceMax"))
operator("All")(partial(_logical, "ReduceMin"))


def _arg(op: str, graph: Graph, node: Node, x: Value, axis: Value) -> Value:
    (where,) = graph.static_ints(axis, "axis")
    found = graph.emit(op, graph.nhwc(x), axis=where % x.rank, keepdims=0)
    return Value(graph.cast(found, np.int32))


operator("ArgMax")(partial(_arg, "ArgMax"))
operator("ArgMin")(partial(_arg, "ArgMin"))


@operator("TopKV2")
def top_k(graph: Graph, node: Node, x: Value, k: Value) -> list[Value]:
    count = graph.reshape(graph.cast(k.tensor, np.int64), [1])
    values, indices = graph.emit_many("TopK", 2, graph.nhwc(x), count, axis=-1)
    return [Value(values), Value(graph.cast(indices, np.int32))]
