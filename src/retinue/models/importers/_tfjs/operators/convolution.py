"""Convolution, pooling, padding, resizing: operators on (N, H, W, C) pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._build.graph import Graph, Tensor, Value
from retinue.models.importers._build.layout import absorb_pad, exact, same_pads, stored_pads
from retinue.models.importers._build.operators import scalar
from retinue.models.importers._tfjs.operators.elementwise import activate
from retinue.models.importers._tfjs.operators.table import operator
from retinue.models.importers._tfjs.source import Node


def _window(node: Node, key: str) -> list[int]:
    if node.text("data_format", "NHWC") != "NHWC":
        raise UnsupportedModel(f"node {node.name!r} ({node.op}) has the data format NCHW")
    values = node.integers(key) or [1, 1, 1, 1]
    if len(values) != 4 or values[0] != 1 or values[3] != 1:
        raise UnsupportedModel(f"node {node.name!r} ({node.op}) has {key} {values}")
    return values[1:3]


def _padding(
    node: Node, x: Tensor, kernel: Sequence[int], strides: Sequence[int]
) -> dict[str, Any]:
    padding = node.text("padding")
    if padding == "VALID":
        return {"pads": [0, 0, 0, 0]}
    if padding == "EXPLICIT":
        pads = node.integers("explicit_paddings")
        if len(pads) != 8 or any(pads[:2] + pads[6:]):
            raise UnsupportedModel(f"node {node.name!r} pads {pads}")
        return {"pads": [pads[2], pads[4], pads[3], pads[5]]}
    if padding != "SAME":
        raise UnsupportedModel(f"node {node.name!r} ({node.op}) has the padding {padding!r}")
    if all(stride == 1 for stride in strides):
        return {"pads": same_pads([10**6, 10**6], kernel, strides)}
    height, width = x.shape[2:]
    if height is None or width is None:
        return {"auto_pad": "SAME_UPPER"}
    return {"pads": same_pads([height, width], kernel, strides)}


def _fused(graph: Graph, node: Node, result: Tensor, extra: Sequence[Value]) -> Tensor:
    """Apply ``fused_ops`` to a result that is channels first (or of rank 2)."""
    remaining = list(extra)
    steps = node.texts("fused_ops")
    for step in steps:
        if step == "BiasAdd":
            bias = remaining.pop(0).tensor
            result = graph.emit("Add", result, _channelwise(graph, bias, len(result.shape)))
        elif step == "FusedBatchNorm":
            tensors = [v.tensor for v in remaining[:4]]
            del remaining[:4]
            result = graph.emit(
                "BatchNormalization", result, *tensors, epsilon=node.real("epsilon", 1e-4)
            )
        elif step == "Prelu":
            alpha = graph.reshape(remaining.pop(0).tensor, [-1])
            result = graph.emit("PRelu", result, _channelwise(graph, alpha, len(result.shape)))
        else:
            active = activate(graph, node, result, step)
            if active is None:
                raise UnsupportedModel(f"node {node.name!r} fuses {step}, which is not supported")
            result = active
    return result


def _channelwise(graph: Graph, vector: Tensor, rank: int) -> Tensor:
    if rank == 4 and len(vector.shape) == 1:
        return graph.unsqueeze(vector, [1, 2])
    return vector


def _convolve(
    graph: Graph,
    node: Node,
    x: Value,
    weights: Tensor,
    options: dict[str, Any],
    extra: Sequence[Value],
) -> Value:
    """Emit a Conv with weights (out, in / groups, height, width)."""
    source = graph.nchw(x)
    kernel = [size or 0 for size in weights.shape[2:]]
    dilations = _window(node, "dilations")
    spread = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    options |= _padding(node, source, spread, options["strides"])
    source = absorb_pad(graph, source, options, (0.0, 0.0))
    result = graph.emit(
        "Conv", source, weights, kernel_shape=kernel, dilations=dilations, **options
    )
    return Value(_fused(graph, node, result, extra), nchw=True)


@operator("Conv2D", "_FusedConv2D")
def conv2d(graph: Graph, node: Node, x: Value, filters: Value, *extra: Value) -> Value:
    channels, wanted = x.shape[3], filters.shape[2]
    if not channels or not wanted or channels % wanted:
        raise UnsupportedModel(f"node {node.name!r}: {channels} channels meet {wanted} of filters")
    options = {"strides": _window(node, "strides"), "group": channels // wanted}
    weights = graph.transpose(graph.nhwc(filters), (3, 2, 0, 1))
    return _convolve(graph, node, x, weights, options, extra)


@operator("DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")
def depthwise(graph: Graph, node: Node, x: Value, filters: Value, *extra: Value) -> Value:
    height, width, channels, multiplier = (size or 0 for size in filters.shape)
    options = {"strides": _window(node, "strides"), "group": channels}
    weights = graph.transpose(graph.nhwc(filters), (2, 3, 0, 1))
    weights = graph.reshape(weights, [channels * multiplier, 1, height, width])
    return _convolve(graph, node, x, weights, options, extra)


@operator("Conv2DBackpropInput")
def conv_transpose(graph: Graph, node: Node, sizes: Value, filters: Value, x: Value) -> Value:
    strides = _window(node, "strides")
    if _window(node, "dilations") != [1, 1]:
        raise UnsupportedModel(f"node {node.name!r}: a dilated transposed convolution")
    source = graph.nchw(x)
    kernel = [size or 0 for size in filters.shape[:2]]
    height, width = source.shape[2:]
    if height is None or width is None:
        raise UnsupportedModel(f"node {node.name!r}: the size of its input must be known")
    if sizes.data is not None:
        wanted = graph.static_ints(sizes, "output size")[1:3]
    else:
        # Keras computes the output size from the input's shape; SAME multiplies by the stride.
        if node.text("padding") != "SAME":
            graph.static(sizes, "output size")
        wanted = [height * strides[0], width * strides[1]]
    forward = Tensor("", source.dtype, (None, None, wanted[0], wanted[1]))
    pads = _padding(node, forward, kernel, strides)["pads"]
    spare = [
        wanted[i] - ((size - 1) * strides[i] + kernel[i] - pads[i] - pads[i + 2])
        for i, size in enumerate((height, width))
    ]
    weights = graph.transpose(graph.nhwc(filters), (3, 2, 0, 1))
    result = graph.emit(
        "ConvTranspose",
        source,
        weights,
        kernel_shape=kernel,
        strides=strides,
        pads=pads,
        output_padding=spare,
    )
    return Value(result, nchw=True)


@operator("BiasAdd")
def bias_add(graph: Graph, node: Node, x: Value, bias: Value) -> Value:
    if x.rank != 4:
        return Value(graph.emit("Add", graph.nhwc(x), bias.tensor))
    return Value(graph.emit("Add", graph.nchw(x), graph.unsqueeze(bias.tensor, [1, 2])), nchw=True)


@operator("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def batch_norm(
    graph: Graph, node: Node, x: Value, scale: Value, offset: Value, mean: Value, variance: Value
) -> Value:
    tensors = [v.tensor for v in (scale, offset, mean, variance)]
    epsilon = node.real("epsilon", 1e-4)
    return Value(graph.emit("BatchNormalization", graph.nchw(x), *tensors, epsilon=epsilon), True)


def _pool(graph: Graph, node: Node, x: Value, op: str, **options: Any) -> Value:
    kernel, strides = _window(node, "ksize"), _window(node, "strides")
    source = graph.nchw(x)
    options |= _padding(node, source, kernel, strides)
    if op == "MaxPool" and not any(options.get("pads", [1])):
        source = absorb_pad(graph, source, options, (-math.inf, -3.4e38))
    return Value(graph.emit(op, source, kernel_shape=kernel, strides=strides, **options), True)


@operator("MaxPool")
def max_pool(graph: Graph, node: Node, x: Value) -> Value:
    return _pool(graph, node, x, "MaxPool")


@operator("AvgPool")
def average_pool(graph: Graph, node: Node, x: Value) -> Value:
    return _pool(graph, node, x, "AveragePool", count_include_pad=0)


@operator("Pad", "PadV2")
def pad(graph: Graph, node: Node, x: Value, paddings: Value, fill: Value | None = None) -> Value:
    value = scalar(graph, 0, x.tensor) if fill is None else fill.tensor
    if paddings.data is None:
        rows = graph.reshape(graph.transpose(graph.cast(paddings.tensor, np.int64), (1, 0)), [-1])
        return Value(graph.emit("Pad", graph.nhwc(x), rows, value, mode="constant"))
    amounts = graph.ints(stored_pads(x, paddings.data.tolist()), derived=False)
    return Value(graph.emit("Pad", x.tensor, amounts, value, mode="constant"), x.nchw)


@operator("MirrorPad")
def mirror_pad(graph: Graph, node: Node, x: Value, paddings: Value) -> Value:
    if node.text("mode") != "REFLECT":
        raise UnsupportedModel(f"node {node.name!r} pads in the mode {node.text('mode')!r}")
    amounts = stored_pads(x, graph.static(paddings, "padding").tolist())
    return Value(
        graph.emit("Pad", x.tensor, graph.ints(amounts, derived=False), mode="reflect"), x.nchw
    )


def _resize(graph: Graph, node: Node, x: Value, size: Value, **options: Any) -> Value:
    if node.flag("align_corners"):
        options["coordinate_transformation_mode"] = "align_corners"
    elif node.flag("half_pixel_centers"):
        options["coordinate_transformation_mode"] = "half_pixel"
    else:
        options["coordinate_transformation_mode"] = "asymmetric"
    source = graph.nchw(x)
    height, width = source.shape[2:]
    if size.data is not None and height and width:
        after = graph.static_ints(size, "size")
        if after == [height, width]:
            return Value(source, nchw=True)
        factors = np.array([1.0, 1.0, after[0] / height, after[1] / width])
        if exact(factors.tolist()):
            scales = graph.constant(factors.astype(np.float32))
            return Value(graph.emit("Resize", source, None, scales, **options), nchw=True)
    kept = graph.slice(_shape(graph, source), [0], [2], [0], [1])
    sizes = graph.emit("Concat", kept, graph.cast(size.tensor, np.int64), axis=0)
    return Value(graph.emit("Resize", source, None, None, sizes, **options), nchw=True)


def _shape(graph: Graph, tensor: Tensor) -> Tensor:
    if None in tensor.shape:
        return graph.emit("Shape", tensor)
    return graph.ints([size or 0 for size in tensor.shape])


@operator("ResizeBilinear")
def resize_bilinear(graph: Graph, node: Node, x: Value, size: Value) -> Value:
    return _resize(graph, node, x, size, mode="linear")


@operator("ResizeNearestNeighbor")
def resize_nearest(graph: Graph, node: Node, x: Value, size: Value) -> Value:
    source = graph.nchw(x)
    before = source.shape[2:]
    after = graph.static_ints(size, "size")
    if any(known is None for known in before):
        raise UnsupportedModel(f"node {node.name!r}: the size of its input must be known")
    for axis, (old, new) in enumerate(zip((s or 0 for s in before), after, strict=True), start=2):
        if old != new:
            source = _nearest(graph, node, source, axis, old, new)
    return Value(source, nchw=True)


def _nearest(
    graph: Graph, node: Node, source: Tensor, axis: int, before: int, after: int
) -> Tensor:
    corners, centers = node.flag("align_corners"), node.flag("half_pixel_centers")
    if after % before == 0 and not corners:
        scales = np.ones(4, np.float32)
        scales[axis] = after // before
        options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return graph.emit("Resize", source, None, graph.constant(scales), mode="nearest", **options)
    # Other ratios are gathered: Resize may round a tie to another pixel than TensorFlow does.
    step = (before - 1) / max(after - 1, 1) if corners else before / after
    places = (np.arange(after) + (0.5 if centers else 0.0)) * step + (0.5 if corners else 0.0)
    chosen = np.clip(np.floor(places), 0, before - 1).astype(np.int64)
    return graph.emit("Gather", source, graph.constant(chosen), axis=axis)


@operator("DepthToSpace")
def depth_to_space(graph: Graph, node: Node, x: Value) -> Value:
    size = node.integer("block_size")
    return Value(graph.emit("DepthToSpace", graph.nchw(x), blocksize=size, mode="DCR"), True)


@operator("SpaceToDepth")
def space_to_depth(graph: Graph, node: Node, x: Value) -> Value:
    return Value(
        graph.emit("SpaceToDepth", graph.nchw(x), blocksize=node.integer("block_size")), True
    )


def _known(x: Value, node: Node) -> list[int]:
    if None in x.shape:
        raise UnsupportedModel(f"node {node.name!r} ({node.op}): the input's shape must be known")
    return [size or 0 for size in x.shape]


@operator("SpaceToBatchND")
def space_to_batch(graph: Graph, node: Node, x: Value, block: Value, paddings: Value) -> Value:
    blocks = graph.static_ints(block, "block shape")
    pads = graph.static(paddings, "padding")
    spatial = len(blocks)
    rest = x.rank - 1 - spatial
    rows = np.concatenate([[[0, 0]], pads, np.zeros((rest, 2), np.int64)])
    amounts = graph.ints([int(p) for p in rows.T.reshape(-1)], derived=False)
    tensor = graph.nhwc(x)
    padded = Value(graph.emit("Pad", tensor, amounts, scalar(graph, 0, tensor), mode="constant"))
    batch, *sizes = _known(padded, node)
    split = [batch]
    for size, b in zip(sizes[:spatial], blocks, strict=True):
        split += [size // b, b]
    split += sizes[spatial:]
    inner = [2 * i + 2 for i in range(spatial)]
    outer = [2 * i + 1 for i in range(spatial)]
    order = [*inner, 0, *outer, *range(1 + 2 * spatial, len(split))]
    moved = graph.transpose(graph.reshape(padded.tensor, split), order)
    small = [s // b for s, b in zip(sizes[:spatial], blocks, strict=True)]
    return Value(graph.reshape(moved, [batch * math.prod(blocks), *small, *sizes[spatial:]]))


@operator("BatchToSpaceND")
def batch_to_space(graph: Graph, node: Node, x: Value, block: Value, crops: Value) -> Value:
    blocks = graph.static_ints(block, "block shape")
    cut = graph.static(crops, "crops")
    spatial = len(blocks)
    batch, *sizes = _known(x, node)
    batch //= math.prod(blocks)
    split = graph.reshape(graph.nhwc(x), [*blocks, batch, *sizes])
    order = [spatial]
    for i in range(spatial):
        order += [spatial + 1 + i, i]
    order += range(2 * spatial + 1, spatial + 1 + len(sizes))
    large = [s * b for s, b in zip(sizes[:spatial], blocks, strict=True)]
    whole = graph.reshape(graph.transpose(split, order), [batch, *large, *sizes[spatial:]])
    starts = [int(c[0]) for c in cut]
    ends = [size - int(c[1]) for size, c in zip(large, cut, strict=True)]
    return Value(graph.slice(whole, starts, ends, list(range(1, spatial + 1)), [1] * spatial))
