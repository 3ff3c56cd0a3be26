"""MediaPipe's operators that look at a part of the face again, as standard ONNX.

The semantics are those of version 2 of each in MediaPipe 0.10 (``util/tflite/operations``,
Apache-2.0). A transform is (N, 4, 4): homogeneous coordinates of a part's pixels to those of the
feature map. As rotations are made of unit vectors here, no angle is ever computed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from flatbuffers import flexbuffers  # type: ignore[import-untyped]

from retinue.core.errors import ModelCorrupt
from retinue.models.importers._build.graph import Graph, Tensor, Value
from retinue.models.importers._build.operators import scalar
from retinue.models.importers._tflite.operators.table import operator
from retinue.models.importers._tflite.source import Node

_OUTSIDE = 3.0
"""A place, in GridSample's units of half a picture, where it reads zeros only."""


def _options(node: Node) -> dict[str, Any]:
    try:
        options = flexbuffers.Loads(node.custom)
    # What the reader raises on bytes that are no flexbuffer is not documented.
    except (ValueError, IndexError, TypeError, LookupError, RuntimeError, RecursionError) as error:
        raise ModelCorrupt(f"node {node.name!r} ({node.op}): damaged options ({error})") from error
    if not isinstance(options, dict):
        raise ModelCorrupt(f"node {node.name!r} ({node.op}) has no options")
    return options


@operator("Landmarks2TransformMatrix")
def landmarks_to_transform(graph: Graph, node: Node, landmarks: Value) -> Value:
    """(N, L, 3) -> (N, 4, 4): the upright box around some landmarks, scaled, turned back.

    With R the rotation that brings the line between two landmarks to the wanted angle, the box is
    that of the rotated landmarks; the transform is shift(center) R^T scale shift(-size / 2).
    """
    options = _options(node)
    subset = np.array(options["subset_idxs"], np.int64).ravel()
    width, height = int(options["output_width"]), int(options["output_height"])
    flat = graph.slice(graph.nhwc(landmarks), [0], [2], [2], [1])
    points = graph.emit("Gather", flat, graph.ints(subset.tolist()), axis=1)
    unit = _direction(graph, flat, options)
    angle = float(options["target_rotation_radians"])
    cos, sin = math.cos(angle), math.sin(angle)
    # Rows: what the unit vector's x and y add to r00, r01, r10, r11 of the rotation.
    rotation = np.array([[cos, -sin, sin, cos], [sin, cos, -cos, sin]], np.float32)
    forth = _square(graph, unit, rotation)
    back = _square(graph, unit, rotation[:, [0, 2, 1, 3]])
    turned = graph.emit("MatMul", points, back)
    high = graph.emit("ReduceMax", turned, axes=[1], keepdims=1)
    low = graph.emit("ReduceMin", turned, axes=[1], keepdims=1)
    scale = np.array([options["scale_x"] / width, options["scale_y"] / height], np.float32)
    steps = graph.emit("Mul", graph.emit("Sub", high, low), graph.constant(scale))
    axes = graph.emit("Mul", back, steps)
    half = graph.constant(np.array([[width / 2], [height / 2]], np.float32))
    center = graph.emit("Mul", graph.emit("Add", high, low), scalar(graph, 0.5, low))
    center = graph.emit("MatMul", center, forth)
    corner = graph.emit(
        "Sub",
        graph.reshape(center, [-1, 2]),
        graph.reshape(graph.emit("MatMul", axes, half), [-1, 2]),
    )
    return Value(_homogeneous(graph, graph.reshape(axes, [-1, 4]), corner))


def _direction(graph: Graph, flat: Tensor, options: dict[str, Any]) -> Tensor:
    """Return the unit vector (N, 2) from the left to the right landmark; x where they coincide."""
    ends = [int(options["right_rotation_idx"]), int(options["left_rotation_idx"])]
    pair = graph.emit("Gather", flat, graph.ints(ends), axis=1)
    signs = graph.constant(np.array([[[1.0], [-1.0]]], np.float32))
    line = graph.emit("ReduceSum", graph.emit("Mul", pair, signs), graph.ints([1]), keepdims=0)
    nudge = graph.constant(np.array([1e-20, 0.0], np.float32))
    line = graph.emit("Add", line, nudge)
    return graph.emit("Div", line, graph.emit("ReduceL2", line, axes=[1], keepdims=1))


def _square(graph: Graph, unit: Tensor, parts: np.ndarray[Any, Any]) -> Tensor:
    return graph.reshape(graph.emit("MatMul", unit, graph.constant(parts)), [-1, 2, 2])


def _homogeneous(graph: Graph, axes: Tensor, corner: Tensor) -> Tensor:
    """Put (N, 4) a b c d and (N, 2) x y into [[a b 0 x] [c d 0 y] [0 0 1 0] [0 0 0 1]]."""
    places = np.zeros((6, 16), np.float32)
    places[range(6), [0, 1, 4, 5, 3, 7]] = 1
    rest = np.zeros(16, np.float32)
    rest[[10, 15]] = 1
    parts = graph.emit("Concat", axes, corner, axis=1)
    whole = graph.emit("Gemm", parts, graph.constant(places), graph.constant(rest))
    return graph.reshape(whole, [-1, 4, 4])


@operator("TransformTensorBilinear")
def transform_tensor(graph: Graph, node: Node, x: Value, transform: Value) -> Value:
    """(N, H, W, C) and a transform -> (N, h, w, C), bilinear; zero where it leads outside."""
    options = _options(node)
    width, height = int(options["output_width"]), int(options["output_height"])
    source = graph.nchw(x)
    sizes = np.array([source.shape[3], source.shape[2]], np.float32)
    rows, columns = np.mgrid[:height, :width].reshape(2, -1) + 0.5
    ones, zeros = np.ones(len(rows)), np.zeros(len(rows))
    pixels = graph.constant(np.stack([columns, rows, zeros, ones], axis=1).astype(np.float32))
    matrix = graph.slice(transform.tensor, [0], [2], [1], [1])
    places = graph.emit("MatMul", pixels, graph.emit("Transpose", matrix, perm=[0, 2, 1]))
    grid = graph.emit("Mul", places, graph.constant(2 / sizes))
    grid = graph.emit("Sub", grid, scalar(graph, 1, grid))
    # The original gives zero half a pixel before GridSample would begin to fade.
    reach = graph.emit("Mul", graph.emit("Abs", grid), graph.constant(sizes / (sizes - 1)))
    reach = graph.emit("ReduceMax", reach, axes=[2], keepdims=1)
    outside = graph.emit("Greater", reach, scalar(graph, 1, reach))
    grid = graph.emit("Where", outside, scalar(graph, _OUTSIDE, grid), grid)
    grid = graph.reshape(grid, [-1, height, width, 2])
    options = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": 0}
    return Value(graph.emit("GridSample", source, grid, **options), nchw=True)


@operator("TransformLandmarks")
def transform_landmarks(graph: Graph, node: Node, points: Value, transform: Value) -> Value:
    """(N, L, 2) and a transform -> (N, L, 2)."""
    matrix = graph.slice(transform.tensor, [0], [2], [1], [1])
    matrix = graph.emit("Transpose", matrix, perm=[0, 2, 1])
    turn = graph.slice(matrix, [0], [2], [1], [1])
    shift = graph.slice(matrix, [3], [4], [1], [1])
    turned = graph.emit("MatMul", graph.nhwc(points), turn)
    return Value(graph.emit("Add", turned, shift))
