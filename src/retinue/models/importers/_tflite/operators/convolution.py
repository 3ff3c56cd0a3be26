"""Convolution, pooling, padding, resizing: operators on (N, H, W, C) pictures."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import tflite  # type: ignore[import-untyped]

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers._build.graph import Graph, Tensor, Value
from retinue.models.importers._build.layout import absorb_pad, exact, same_pads, stored_pads
from retinue.models.importers._build.operators import scalar
from retinue.models.importers._tflite.operators.table import activated, operator
from retinue.models.importers._tflite.source import Node

_SAME, _VALID = 1, 2
"""Paddings as the interpreter's own structures have them, in a custom operator's options."""
_LOWEST = -3.4e38
"""Below this a pad's value is as good as minus infinity for a maximum."""


def _sizes(x: Tensor) -> list[int]:
    height, width = x.shape[2:]
    if height is None or width is None:
        raise UnsupportedModel("the size of a picture inside the model must be known")
    return [height, width]


def _pads(node: Node, x: Tensor, kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    if node.integer("Padding") == tflite.Padding.VALID:
        return [0, 0, 0, 0]
    return same_pads(_sizes(x), kernel, strides)


def _convolve(
    graph: Graph, node: Node, x: Value, weights: Tensor, group: int, bias: Value | None
) -> Value:
    """Emit a Conv with weights (out, in / groups, height, width)."""
    source = graph.nchw(x)
    kernel = [size or 0 for size in weights.shape[2:]]
    strides = [node.integer("StrideH"), node.integer("StrideW")]
    dilations = [node.integer("DilationHFactor") or 1, node.integer("DilationWFactor") or 1]
    spread = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    options: dict[str, Any] = {"pads": _pads(node, source, spread, strides)}
    source = absorb_pad(graph, source, options, (0.0, 0.0))
    inputs = (source, weights) if bias is None else (source, weights, bias.tensor)
    result = graph.emit(
        "Conv",
        *inputs,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        group=group,
        **options,
    )
    return Value(activated(graph, node, result), nchw=True)


@operator("CONV_2D")
def conv_2d(graph: Graph, node: Node, x: Value, filters: Value, bias: Value | None = None) -> Value:
    channels, wanted = x.shape[3], filters.shape[3]
    if not channels or not wanted or channels % wanted:
        raise ModelCorrupt(f"node {node.name!r}: {channels} channels meet {wanted} of its filters")
    weights = graph.transpose(graph.nhwc(filters), (0, 3, 1, 2))
    return _convolve(graph, node, x, weights, channels // wanted, bias)


@operator("DEPTHWISE_CONV_2D")
def depthwise(
    graph: Graph, node: Node, x: Value, filters: Value, bias: Value | None = None
) -> Value:
    weights = graph.transpose(graph.nhwc(filters), (3, 0, 1, 2))
    return _convolve(graph, node, x, weights, x.shape[3] or 0, bias)


@operator("Convolution2DTransposeBias")
def transposed(graph: Graph, node: Node, x: Value, filters: Value, bias: Value) -> Value:
    try:
        padding, *strides = struct.unpack_from("<3i", node.custom)
    except struct.error as error:
        raise ModelCorrupt(f"node {node.name!r} ({node.op}): its options are cut off") from error
    strides = strides[::-1]  # stored as width, height
    if padding not in (_SAME, _VALID) or min(strides) < 1:
        raise ModelCorrupt(f"node {node.name!r} has the padding {padding} and strides {strides}")
    source = graph.nchw(x)
    kernel = [size or 0 for size in filters.shape[1:3]]
    pads, spare = [0, 0, 0, 0], [0, 0]
    if padding == _SAME:
        overlaps = [max(k - s, 0) for k, s in zip(kernel, strides, strict=True)]
        spare = [max(s - k, 0) for k, s in zip(kernel, strides, strict=True)]
        pads = [n // 2 for n in overlaps] + [n - n // 2 for n in overlaps]
    result = graph.emit(
        "ConvTranspose",
        source,
        graph.transpose(graph.nhwc(filters), (3, 0, 1, 2)),
        bias.tensor,
        kernel_shape=kernel,
        strides=strides,
        pads=pads,
        output_padding=spare,
    )
    return Value(result, nchw=True)


def _pool(graph: Graph, node: Node, x: Value, op: str, **options: Any) -> Value:
    source = graph.nchw(x)
    kernel = [node.integer("FilterHeight"), node.integer("FilterWidth")]
    strides = [node.integer("StrideH"), node.integer("StrideW")]
    options["pads"] = _pads(node, source, kernel, strides)
    if op == "MaxPool" and not any(options["pads"]):
        source = absorb_pad(graph, source, options, (-np.inf, _LOWEST))
    if op == "AveragePool" and kernel == _sizes(source) and not any(options["pads"]):
        return Value(activated(graph, node, graph.emit("GlobalAveragePool", source)), nchw=True)
    result = graph.emit(op, source, kernel_shape=kernel, strides=strides, **options)
    return Value(activated(graph, node, result), nchw=True)


@operator("MAX_POOL_2D")
def max_pool(graph: Graph, node: Node, x: Value) -> Value:
    return _pool(graph, node, x, "MaxPool")


@operator("AVERAGE_POOL_2D")
def average_pool(graph: Graph, node: Node, x: Value) -> Value:
    return _pool(graph, node, x, "AveragePool", count_include_pad=0)


@operator("MEAN")
def mean(graph: Graph, node: Node, x: Value, axes: Value) -> Value:
    wanted = sorted(axis % x.rank for axis in graph.static_ints(axes, "axes"))
    keep = bool(node.integer("KeepDims"))
    if keep and x.rank == 4 and wanted == [1, 2]:
        return Value(graph.emit("GlobalAveragePool", graph.nchw(x)), nchw=True)
    tensor = graph.nhwc(x)
    return Value(graph.emit("ReduceMean", tensor, axes=wanted, keepdims=int(keep)))


@operator("PAD")
def pad(graph: Graph, node: Node, x: Value, paddings: Value) -> Value:
    rows = graph.static(paddings, "padding").tolist()
    amounts = graph.ints(stored_pads(x, rows), derived=False)
    zero = scalar(graph, 0, x.tensor)
    return Value(graph.emit("Pad", x.tensor, amounts, zero, mode="constant"), x.nchw)


@operator("RESIZE_BILINEAR")
def resize_bilinear(graph: Graph, node: Node, x: Value, size: Value) -> Value:
    mode = "asymmetric"
    if node.integer("AlignCorners"):
        mode = "align_corners"
    elif node.integer("HalfPixelCenters"):
        mode = "half_pixel"
    source = graph.nchw(x)
    before, after = _sizes(source), graph.static_ints(size, "size")
    if before == after:
        return Value(source, nchw=True)
    options = {"mode": "linear", "coordinate_transformation_mode": mode}
    factors = [new / old for old, new in zip(before, after, strict=True)]
    if exact(factors):
        scales = graph.constant(np.array([1.0, 1.0, *factors], np.float32))
        return Value(graph.emit("Resize", source, None, scales, **options), nchw=True)
    sizes = graph.ints([source.shape[0] or 0, source.shape[1] or 0, *after], derived=False)
    return Value(graph.emit("Resize", source, None, None, sizes, **options), nchw=True)


@operator("DEPTH_TO_SPACE")
def depth_to_space(graph: Graph, node: Node, x: Value) -> Value:
    size = node.integer("BlockSize")
    return Value(graph.emit("DepthToSpace", graph.nchw(x), blocksize=size, mode="DCR"), nchw=True)
