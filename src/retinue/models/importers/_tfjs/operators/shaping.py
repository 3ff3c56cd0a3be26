"""Operators that change or read shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._build.graph import BATCH, TO_NCHW, TO_NHWC, Graph, Tensor, Value
from retinue.models.importers._build.layout import aligned, axis_of
from retinue.models.importers._tfjs.operators.table import operator, promoted
from retinue.models.importers._tfjs.source import Node


@operator("Reshape")
def reshape(graph: Graph, node: Node, x: Value, sizes: Value) -> Value:
    tensor = graph.nhwc(x)
    if x.nchw and (x.shape[3] == 1 or x.shape[1:3] == (1, 1)):
        tensor = x.tensor  # the same order of elements either way
    if sizes.data is None:
        return Value(graph.emit("Reshape", tensor, graph.cast(sizes.tensor, np.int64)))
    wanted = graph.static_ints(sizes, "sizes")
    if None not in tensor.shape:
        wanted = _resolved(math.prod(size or 0 for size in tensor.shape), tensor.shape, wanted)
    return Value(graph.reshape(tensor, wanted))


def _resolved(total: int, shape: Sequence[int | None], wanted: list[int]) -> list[int]:
    """Replace -1 by its size, and a leading 1 by the batch size where that is what it means."""
    if wanted[:1] == [1] and shape[:1] == (BATCH,):
        rest = math.prod(size for size in wanted if size != -1)
        if -1 in wanted or total == BATCH * rest:
            wanted = [BATCH, *wanted[1:]]
    rest = math.prod(size for size in wanted if size != -1)
    return [total // rest if size == -1 and rest else size for size in wanted]


@operator("Transpose")
def transpose(graph: Graph, node: Node, x: Value, perm: Value) -> Value:
    order = tuple(axis % x.rank for axis in graph.static_ints(perm, "permutation"))
    if order == TO_NCHW and x.nchw:
        return Value(x.tensor)
    if order == TO_NHWC and not x.nchw:
        return Value(x.tensor, nchw=True)
    return Value(graph.transpose(graph.nhwc(x), order))


@operator("ExpandDims")
def expand_dims(graph: Graph, node: Node, x: Value, axis: Value) -> Value:
    (where,) = graph.static_ints(axis, "axis")
    return Value(graph.unsqueeze(graph.nhwc(x), [where % (x.rank + 1)]))


@operator("Squeeze")
def squeeze(graph: Graph, node: Node, x: Value) -> Value:
    axes = [axis % x.rank for axis in node.integers("squeeze_dims") or node.integers("axis")]
    if not axes:
        axes = [at for at, size in enumerate(x.shape) if size == 1]
    if x.nchw and set(axes) in ({1, 2}, {1, 2, 3}, {0, 1, 2}):
        return Value(graph.squeeze(x.tensor, sorted(axis_of(axis, x) for axis in axes)))
    return Value(graph.squeeze(graph.nhwc(x), axes))


@operator("Shape")
def shape(graph: Graph, node: Node, x: Value) -> Value:
    if None not in x.shape:
        sizes = np.array(x.shape, np.int32).reshape(-1)
        return Value(graph.constant(sizes, derived=True))
    return Value(graph.cast(graph.emit("Shape", graph.nhwc(x)), np.int32))


@operator("Size")
def size(graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.cast(graph.emit("Size", x.tensor), np.int32))


@operator("Rank")
def rank(graph: Graph, node: Node, x: Value) -> Value:
    return Value(graph.constant(np.array(x.rank, np.int32)))


def _joined(graph: Graph, values: Sequence[Value], axis: Value) -> Value:
    (where,) = graph.static_ints(axis, "axis")
    full = [value for value in values if value.shape != (0,)] or list(values[:1])
    tensors, nchw = aligned(graph, full)
    tensors = promoted(graph, tensors)
    if len(tensors) == 1:
        return Value(tensors[0], nchw)
    stored = axis_of(where, Value(tensors[0], nchw))
    return Value(graph.emit("Concat", *tensors, axis=stored), nchw)


@operator("ConcatV2")
def concat(graph: Graph, node: Node, *values: Value) -> Value:
    return _joined(graph, values[:-1], values[-1])


@operator("Concat")
def concat_v1(graph: Graph, node: Node, *values: Value) -> Value:
    return _joined(graph, values[1:], values[0])


@operator("Pack")
def pack(graph: Graph, node: Node, *values: Value) -> Value:
    axis = node.integer("axis") % (values[0].rank + 1)
    tensors = promoted(graph, [graph.nhwc(value) for value in values])
    wide = [graph.unsqueeze(tensor, [axis]) for tensor in tensors]
    return Value(wide[0] if len(wide) == 1 else graph.emit("Concat", *wide, axis=axis))


@operator("Unpack")
def unpack(graph: Graph, node: Node, x: Value) -> list[Value]:
    axis = node.integer("axis") % x.rank
    count = x.shape[axis] or node.integer("num")
    tensor = graph.nhwc(x)
    return [
        Value(graph.emit("Gather", tensor, graph.constant(np.array(i, np.int64)), axis=axis))
        for i in range(count)
    ]


def _split(graph: Graph, x: Value, axis: int, sizes: list[int]) -> list[Value]:
    stored = axis_of(axis, x)
    if len(sizes) == 1:
        return [x]
    parts = graph.emit_many("Split", len(sizes), x.tensor, graph.ints(sizes), axis=stored)
    return [Value(part, x.nchw) for part in parts]


@operator("Split")
def split(graph: Graph, node: Node, axis: Value, x: Value) -> list[Value]:
    (where,) = graph.static_ints(axis, "axis")
    count = node.integer("num_split", 1)
    size = x.shape[where % x.rank]
    if not size or size % count:
        raise UnsupportedModel(f"node {node.name!r} splits {size} into {count} equal parts")
    return _split(graph, x, where, [size // count] * count)


@operator("SplitV")
def split_v(graph: Graph, node: Node, x: Value, sizes: Value, axis: Value) -> list[Value]:
    (where,) = graph.static_ints(axis, "axis")
    parts = graph.static_ints(sizes, "sizes")
    if -1 in parts:
        whole = x.shape[where % x.rank]
        if whole is None:
            raise UnsupportedModel(f"node {node.name!r} splits an axis whose size is not known")
        parts[parts.index(-1)] = whole - sum(parts) - 1
    return _split(graph, x, where, parts)


@operator("Tile")
def tile(graph: Graph, node: Node, x: Value, multiples: Value) -> Value:
    return Value(graph.emit("Tile", graph.nhwc(x), graph.cast(multiples.tensor, np.int64)))


@operator("Fill")
def fill(graph: Graph, node: Node, sizes: Value, value: Value) -> Value:
    return Value(graph.emit("Expand", value.tensor, graph.cast(sizes.tensor, np.int64)))


@operator("BroadcastTo")
def broadcast_to(graph: Graph, node: Node, x: Value, sizes: Value) -> Value:
    tensor = graph.nhwc(x)
    if sizes.data is not None and tensor.shape == tuple(graph.static_ints(sizes, "sizes")):
        return x
    return Value(graph.emit("Expand", tensor, graph.cast(sizes.tensor, np.int64)))


@operator("Range")
def range_(graph: Graph, node: Node, start: Value, limit: Value, delta: Value) -> Value:
    tensors = promoted(graph, [v.tensor for v in (start, limit, delta)])
    return Value(graph.emit("Range", *tensors))


def _flip(graph: Graph, node: Node, x: Value, axes: Value) -> Value:
    wanted = [axis_of(axis, x) for axis in graph.static_ints(axes, "axes")]
    tensor: Tensor = x.tensor
    if wanted:
        count = len(wanted)
        lowest = int(np.iinfo(np.int64).min)
        tensor = graph.slice(tensor, [-1] * count, [lowest] * count, wanted, [-1] * count)
    return Value(tensor, x.nchw)


operator("ReverseV2")(partial(_flip))
