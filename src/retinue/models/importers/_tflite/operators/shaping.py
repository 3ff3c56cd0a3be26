"""Operators that change shapes or cut parts out."""

from __future__ import annotations

import math

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers._build.graph import SLICE_END, Graph, Value
from retinue.models.importers._build.layout import aligned, axis_of
from retinue.models.importers._tflite.operators.table import activated, operator
from retinue.models.importers._tflite.source import Node


@operator("RESHAPE")
def reshape(graph: Graph, node: Node, x: Value, sizes: Value | None = None) -> Value:
    if None in x.shape:
        raise UnsupportedModel(f"node {node.name!r}: the shape of its input must be known")
    shape = [size or 0 for size in x.shape]
    if sizes is None:
        wanted = [int(size) for size in node.options["NewShapeAsNumpy"]]
    else:
        wanted = graph.static_ints(sizes, "sizes")
    total, known = math.prod(shape), math.prod(size for size in wanted if size != -1)
    if wanted.count(-1) == 1 and known and total % known == 0:
        wanted[wanted.index(-1)] = total // known
    if math.prod(wanted) != total:
        raise ModelCorrupt(f"node {node.name!r}: {shape} cannot be reshaped to {wanted}")
    tensor = graph.nhwc(x)
    if x.nchw and (x.shape[3] == 1 or x.shape[1:3] == (1, 1)):
        tensor = x.tensor  # the same order of elements either way
    return Value(graph.reshape(tensor, wanted))


@operator("CONCATENATION")
def concatenation(graph: Graph, node: Node, *values: Value) -> Value:
    tensors, nchw = aligned(graph, values)
    axis = axis_of(node.integer("Axis"), Value(tensors[0], nchw))
    return Value(activated(graph, node, graph.emit("Concat", *tensors, axis=axis)), nchw)


@operator("STRIDED_SLICE")
def strided_slice(
    graph: Graph, node: Node, x: Value, begin: Value, end: Value, strides: Value
) -> Value:
    if any(node.integer(mask) for mask in ("EllipsisMask", "NewAxisMask", "ShrinkAxisMask")):
        raise UnsupportedModel(f"node {node.name!r} ({node.op}) changes the number of dimensions")
    starts, ends, steps = (
        graph.static_ints(bound, what)
        for bound, what in ((begin, "begin"), (end, "end"), (strides, "strides"))
    )
    cuts = []
    for axis, (start, stop, step) in enumerate(zip(starts, ends, steps, strict=True)):
        size = x.shape[axis]
        first = 0 if node.integer("BeginMask") >> axis & 1 else start
        last = SLICE_END if node.integer("EndMask") >> axis & 1 else stop
        whole = first == 0 and step == 1 and size is not None and last >= size
        if not whole:
            cuts.append((first, last, axis_of(axis, x), step))
    if not cuts:
        return x
    return Value(graph.slice(x.tensor, *(list(part) for part in zip(*cuts, strict=True))), x.nchw)
