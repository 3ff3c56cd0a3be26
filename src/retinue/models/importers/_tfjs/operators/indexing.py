"""Slices, gathers and scatters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._build.graph import SLICE_END, Graph, Tensor, Value
from retinue.models.importers._build.layout import axis_of
from retinue.models.importers._tfjs.operators.table import operator, promoted
from retinue.models.importers._tfjs.source import Node


@operator("Slice")
def slice_(graph: Graph, node: Node, x: Value, begin: Value, size: Value) -> Value:
    axes = [axis_of(axis, x) for axis in range(x.rank)]
    if begin.data is not None and size.data is not None:
        starts = graph.static_ints(begin, "begin")
        sizes = graph.static_ints(size, "size")
        ends = [SLICE_END if n == -1 else s + n for s, n in zip(starts, sizes, strict=True)]
        cut = [
            i
            for i, (s, n) in enumerate(zip(starts, ends, strict=True))
            if s or n < (x.shape[i] or SLICE_END)
        ]
        if not cut:
            return x
        return Value(
            graph.slice(
                x.tensor,
                [starts[i] for i in cut],
                [ends[i] for i in cut],
                [axes[i] for i in cut],
                [1] * len(cut),
            ),
            x.nchw,
        )
    first = graph.cast(begin.tensor, np.int64)
    length = graph.cast(size.tensor, np.int64)
    stop = graph.emit("Add", first, length)
    rest = graph.emit("Equal", length, graph.constant(np.array(-1, np.int64)))
    end = graph.emit("Where", rest, graph.constant(np.array(SLICE_END, np.int64)), stop)
    return Value(graph.emit("Slice", x.tensor, first, end, graph.ints(axes)), x.nchw)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a strided slice does with one position of its specification."""

    position: int
    axis: int
    new: bool
    shrink: bool
    from_start: bool
    to_end: bool


def _parts(node: Node, count: int, rank: int) -> Iterator[_Part]:
    """Walk the specification; yield one part for each position but the ellipsis."""

    def bit(key: str, position: int) -> bool:
        return bool(node.integer(key) >> position & 1)

    new_axes = sum(bit("new_axis_mask", p) and not bit("ellipsis_mask", p) for p in range(count))
    ellipses = sum(bit("ellipsis_mask", p) for p in range(count))
    axis = 0
    for position in range(count):
        if bit("ellipsis_mask", position):
            axis += rank - (count - new_axes - ellipses)
            continue
        new = bit("new_axis_mask", position)
        shrink = bit("shrink_axis_mask", position) and not new
        yield _Part(
            position, axis, new, shrink, bit("begin_mask", position), bit("end_mask", position)
        )
        axis += not new


@operator("StridedSlice")
def strided_slice(
    graph: Graph, node: Node, x: Value, begin: Value, end: Value, strides: Value
) -> Value:
    if x.data is None and (begin.data is None or end.data is None):
        return _computed_slice(graph, node, x, begin, end, strides)
    starts, stops = graph.static_ints(begin, "begin"), graph.static_ints(end, "end")
    steps = graph.static_ints(strides, "strides")
    parts = list(_parts(node, len(starts), x.rank))
    if x.nchw and any(part.new or part.shrink for part in parts):
        x = Value(graph.nhwc(x))
    cuts: list[tuple[int, int, int, int]] = []
    for part in parts:
        p = part.position
        if part.new:
            continue
        start, stop, step = starts[p], stops[p], steps[p]
        if part.shrink:
            start, stop, step = start, (SLICE_END if start == -1 else start + 1), 1
        else:
            if part.from_start:
                start = 0 if step > 0 else -1
            if part.to_end:
                stop = SLICE_END if step > 0 else -SLICE_END
        size = x.shape[part.axis]
        if (start, step) == (0, 1) and stop >= (SLICE_END if size is None else size):
            continue
        cuts.append((start, stop, axis_of(part.axis, x), step))
    tensor = x.tensor
    if cuts:
        a, b, axes, c = (list(column) for column in zip(*cuts, strict=True))
        tensor = graph.slice(tensor, a, b, axes, c)
    return Value(_reaxed(graph, tensor, parts), x.nchw)


def _reaxed(graph: Graph, tensor: Tensor, parts: list[_Part]) -> Tensor:
    """Drop the axes that shrink and insert the new ones."""
    tensor = graph.squeeze(tensor, [part.axis for part in parts if part.shrink])
    inserted: list[int] = []
    shrunk = 0
    for part in parts:
        if part.new:
            inserted.append(part.axis - shrunk + len(inserted))
        shrunk += part.shrink
    return graph.unsqueeze(tensor, inserted)


def _computed_slice(
    graph: Graph, node: Node, x: Value, begin: Value, end: Value, strides: Value
) -> Value:
    """Slice by bounds that are only known when the model runs."""
    steps = graph.static_ints(strides, "strides")
    parts = list(_parts(node, len(steps), x.rank))
    if any(part.new or part.shrink for part in parts):
        raise UnsupportedModel(f"node {node.name!r} indexes by a computed position")
    x = Value(graph.nhwc(x))
    starts: list[Tensor] = []
    stops: list[Tensor] = []
    for part in parts:
        p = part.position
        first = graph.slice(graph.cast(begin.tensor, np.int64), [p], [p + 1], [0], [1])
        last = graph.slice(graph.cast(end.tensor, np.int64), [p], [p + 1], [0], [1])
        forwards = steps[p] > 0
        starts.append(graph.ints([0 if forwards else -1]) if part.from_start else first)
        limit = SLICE_END if forwards else -SLICE_END
        stops.append(graph.ints([limit]) if part.to_end else last)
    axes = graph.ints([part.axis for part in parts])
    return Value(
        graph.emit(
            "Slice",
            x.tensor,
            graph.emit("Concat", *starts, axis=0),
            graph.emit("Concat", *stops, axis=0),
            axes,
            graph.ints([steps[part.position] for part in parts]),
        )
    )


@operator("GatherV2", "Gather", "ResourceGather")
def gather(graph: Graph, node: Node, x: Value, indices: Value, axis: Value | None = None) -> Value:
    if node.integer("batch_dims"):
        raise UnsupportedModel(f"node {node.name!r} gathers with batch dimensions")
    where = 0 if axis is None else graph.static_ints(axis, "axis")[0] % x.rank
    return Value(graph.emit("Gather", graph.nhwc(x), graph.nhwc(indices), axis=where))


@operator("GatherNd")
def gather_nd(graph: Graph, node: Node, x: Value, indices: Value) -> Value:
    where = graph.cast(graph.nhwc(indices), np.int64)
    return Value(graph.emit("GatherND", graph.nhwc(x), where))


@operator("ScatterNd")
def scatter_nd(graph: Graph, node: Node, indices: Value, updates: Value, sizes: Value) -> Value:
    zero = graph.constant(np.array(0, updates.dtype))
    blank = graph.emit("Expand", zero, graph.cast(sizes.tensor, np.int64))
    where = graph.cast(graph.nhwc(indices), np.int64)
    return Value(graph.emit("ScatterND", blank, where, graph.nhwc(updates), reduction="add"))


@operator("SparseToDense")
def sparse_to_dense(
    graph: Graph, node: Node, indices: Value, sizes: Value, values: Value, default: Value
) -> Value:
    blank = graph.emit("Expand", default.tensor, graph.cast(sizes.tensor, np.int64))
    if 0 in indices.shape:
        return Value(blank)
    where = graph.cast(indices.tensor, np.int64)
    if indices.rank < 2:
        where = graph.reshape(where, [-1, 1])
    updates = values.tensor
    if values.rank == 0:
        updates = graph.emit(
            "Expand", updates, graph.slice(graph.emit("Shape", where), [0], [1], [0], [1])
        )
    blank, updates = promoted(graph, [blank, updates])
    return Value(graph.emit("ScatterND", blank, where, updates))


@operator("Where")
def where(graph: Graph, node: Node, condition: Value) -> Value:
    found = graph.emit("NonZero", graph.nhwc(condition))
    return Value(graph.cast(graph.transpose(found, (1, 0)), np.int32))
