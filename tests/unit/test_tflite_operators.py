"""The TensorFlow Lite importer's operators against slow and obvious twins."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from flatbuffers import flexbuffers

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers.tflite import convert
from retinue.testing import tfjs_twins as twin
from retinue.testing.tflite import TinyModel

RNG = np.random.default_rng(4)
SAME, VALID = {"Padding": 0}, {"Padding": 1}
STEP = {"StrideH": 1, "StrideW": 1}


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def run(content: bytes, *feeds: np.ndarray) -> list[np.ndarray]:
    """Feed in TensorFlow's order; pictures are turned to channels first."""
    session = ort.InferenceSession(
        convert(content).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    named = {}
    for spec, feed in zip(session.get_inputs(), feeds, strict=True):
        picture = feed.ndim == 4 and list(feed.shape) != spec.shape
        named[spec.name] = np.ascontiguousarray(feed.transpose(0, 3, 1, 2)) if picture else feed
    return session.run(None, named)


def call(
    op: str,
    *operands: np.ndarray,
    options: Mapping[str, Any] | None = None,
    custom: bytes = b"",
    fixed: int = 1,
) -> np.ndarray:
    """Run one operator; the first ``fixed`` operands are inputs, the rest are constants."""
    model = TinyModel()
    ends = [
        model.input(x.shape) if at < fixed else model.const(x, x.dtype.name)
        for at, x in enumerate(operands)
    ]
    output = model.node(op, *ends, shape=(), options=options, custom=custom)
    (found,) = run(model.finish(output), *operands[:fixed])
    return found


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("size", [(9, 8), (8, 11)])
def test_convolutions(padding: str, strides: tuple[int, int], size: tuple[int, int]) -> None:
    x, filters, bias = array(1, *size, 3), array(5, 3, 4, 3), array(5)
    options = {"Padding": int(padding == "VALID"), "StrideH": strides[0], "StrideW": strides[1]}
    wanted = twin.conv2d(x, filters.transpose(1, 2, 3, 0), strides, padding) + bias
    same(call("CONV_2D", x, filters, bias, options=options), wanted)
    deep = array(1, 3, 3, 3)
    wanted = twin.depthwise(x, deep[0][..., None], strides, padding)
    same(call("DEPTHWISE_CONV_2D", x, deep, options=options), wanted)
    wide = array(1, 2, 2, 6)  # two of each channel, side by side
    wanted = twin.depthwise(x, wide[0].reshape(2, 2, 3, 2), strides, padding)
    same(call("DEPTHWISE_CONV_2D", x, wide, options=options), wanted)


def test_dilated_and_activated_convolution() -> None:
    x, filters = array(1, 9, 9, 3), array(4, 3, 3, 3)
    options = {**SAME, **STEP, "DilationHFactor": 2, "DilationWFactor": 3}
    wanted = twin.conv2d(x, filters.transpose(1, 2, 3, 0), dilations=(2, 3))
    same(call("CONV_2D", x, filters, options=options), wanted)
    limits = {1: (0, np.inf), 2: (-1, 1), 3: (0, 6)}
    for activation, (low, high) in limits.items():
        found = call(
            "CONV_2D", x, filters, options=options | {"FusedActivationFunction": activation}
        )
        same(found, wanted.clip(low, high))
    with pytest.raises(UnsupportedModel, match="activation 5"):
        call("CONV_2D", x, filters, options=options | {"FusedActivationFunction": 5})


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_transposed_convolution(padding: str, kernel: tuple[int, int]) -> None:
    x, filters, bias = array(1, 4, 5, 3), array(2, *kernel, 3), array(2)
    size = (8, 10) if padding == "SAME" else (6 + kernel[0], 8 + kernel[1])
    custom = struct.pack("<3i", 1 if padding == "SAME" else 2, 2, 2)
    wanted = twin.conv2d_transpose(x, filters.transpose(1, 2, 0, 3), size, (2, 2), padding) + bias
    same(call("Convolution2DTransposeBias", x, filters, bias, custom=custom), wanted)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 2), (7, 6)])
def test_pools(padding: str, kernel: tuple[int, int]) -> None:
    x = array(1, 7, 6, 3)
    sizes = {"FilterHeight": kernel[0], "FilterWidth": kernel[1]}
    options = {**sizes, "Padding": int(padding == "VALID"), "StrideH": 2, "StrideW": 2}
    for op, mean in (("MAX_POOL_2D", False), ("AVERAGE_POOL_2D", True)):
        same(call(op, x, options=options), twin.pool(x, kernel, (2, 2), padding, mean))


def test_mean() -> None:
    x = array(1, 4, 5, 3)
    for axes in ([1, 2], [2], [-1, 1]):
        for keep in (True, False):
            found = call("MEAN", x, np.array(axes, np.int32), options={"KeepDims": keep})
            same(found, x.mean(axis=tuple(axes), keepdims=keep))


def test_pads() -> None:
    x, rows = array(1, 4, 5, 3), np.array([[0, 0], [1, 2], [0, 1], [0, 4]], np.int32)
    same(call("PAD", x, rows), np.pad(x, rows))


def test_a_pad_before_a_convolution_becomes_its_own() -> None:
    x, filters = array(1, 6, 6, 3), array(4, 3, 3, 3)
    model = TinyModel()
    rows = [[0, 0], [1, 1], [1, 1], [0, 0]]
    padded = model.node("PAD", model.input(x.shape), model.const(rows, "int32"), shape=())
    options = {**VALID, **STEP}
    output = model.node("CONV_2D", padded, model.const(filters), shape=(), options=options)
    content = model.finish(output)
    assert [node.op_type for node in convert(content).graph.node] == ["Conv", "Transpose"]
    same(run(content, x)[0], twin.conv2d(x, filters.transpose(1, 2, 3, 0)))


@pytest.mark.parametrize("size", [(8, 10), (7, 13), (4, 5)])
def test_resizes(size: tuple[int, int]) -> None:
    x, sizes = array(1, 4, 5, 3), np.array(size, np.int32)
    for corners, halves in ((False, False), (False, True), (True, False)):
        options = {"AlignCorners": corners, "HalfPixelCenters": halves}
        wanted = twin.resize_bilinear(x, size, corners, halves)
        same(call("RESIZE_BILINEAR", x, sizes, options=options), wanted)


def test_depth_to_space() -> None:
    x = array(1, 3, 2, 8)
    same(call("DEPTH_TO_SPACE", x, options={"BlockSize": 2}), twin.depth_to_space(x, 2))


UNARY = {
    "RELU": lambda x: np.maximum(x, 0),
    "RELU6": lambda x: x.clip(0, 6),
    "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)),
    "TANH": np.tanh,
    "HARD_SWISH": lambda x: x * (x + 3).clip(0, 6) / 6,
}


@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str) -> None:
    x = 5 * array(1, 3, 4, 3)
    same(call(op, x), UNARY[op](x))


@pytest.mark.parametrize("shape", [(1, 3, 4, 3), (3,), (1,), (1, 1, 1, 3), (4, 3)])
def test_binary_with_constants_of_other_ranks(shape: tuple[int, ...]) -> None:
    x, y = array(1, 3, 4, 3), array(*shape)
    for op, function in (("ADD", np.add), ("MUL", np.multiply), ("SUB", np.subtract)):
        same(call(op, x, y), function(x, y))
        found = call(op, x, y, options={"FusedActivationFunction": 1})
        same(found, np.maximum(function(x, y), 0))


@pytest.mark.parametrize("shape", [(1, 1, 3), (3,), (1, 4, 3)])
def test_prelu(shape: tuple[int, ...]) -> None:
    x, slope = array(1, 5, 4, 3), array(*shape)
    same(call("PRELU", x, slope), np.where(x > 0, x, x * slope))


def test_float16_weights_become_float32() -> None:
    x, weights = array(1, 3, 4, 3), array(1, 1, 1, 3).astype(np.float16)
    model = TinyModel()
    whole = model.node("DEQUANTIZE", model.const(weights, "float16"), shape=(1, 1, 1, 3))
    output = model.node("MUL", model.input(x.shape), whole, shape=())
    same(run(model.finish(output), x)[0], x * weights.astype(np.float32))


def test_shapes() -> None:
    x = array(1, 4, 6, 3)
    same(call("RESHAPE", x, np.array([1, -1, 9], np.int32)), x.reshape(1, 8, 9))
    same(call("RESHAPE", x, options={"NewShape": [2, 36]}), x.reshape(2, 36))
    one = x[..., :1]
    same(call("RESHAPE", one, np.array([24], np.int32)), one.reshape(24))
    with pytest.raises(ModelCorrupt, match="cannot be reshaped"):
        call("RESHAPE", x, np.array([7, -1], np.int32))
    for axis in (1, 3, -2):
        y = array(1, 4, 6, 3)
        found = call("CONCATENATION", x, y, options={"Axis": axis})
        same(found, np.concatenate([x, y], axis))


def test_strided_slices() -> None:
    x = array(1, 4, 6, 3)
    bounds = [np.array(part, np.int32) for part in ([0, 1, 5, 0], [1, 4, 0, 2], [1, 2, -2, 1])]
    same(call("STRIDED_SLICE", x, *bounds), x[:, 1:4:2, 5:0:-2, :2])
    whole = [np.array(part, np.int32) for part in ([0, 3, 0, 0], [1, 0, 6, 1], [1, 1, 1, 1])]
    found = call("STRIDED_SLICE", x, *whole, options={"BeginMask": 2, "EndMask": 0b1010})
    same(found, x)
    with pytest.raises(UnsupportedModel, match="number of dimensions"):
        call("STRIDED_SLICE", x, *bounds, options={"ShrinkAxisMask": 1})


BOX = {
    "left_rotation_idx": 1,
    "right_rotation_idx": 6,
    "target_rotation_radians": 0.3,
    "output_width": 5,
    "output_height": 4,
    "scale_x": 1.5,
    "scale_y": 1.25,
    "subset_idxs": [0, 2, 3, 5, 7],
}


def box_matrix(points: np.ndarray) -> np.ndarray:
    """What the operator means, with an angle and whole matrices."""
    (ax, ay), (bx, by) = points[BOX["left_rotation_idx"], :2], points[BOX["right_rotation_idx"], :2]
    angle = BOX["target_rotation_radians"] - math.atan2(by - ay, bx - ax)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    rotated = points[BOX["subset_idxs"], :2] @ turn.T
    low, high = rotated.min(0), rotated.max(0)
    size = np.array([BOX["output_width"], BOX["output_height"]])
    steps = (high - low) * [BOX["scale_x"], BOX["scale_y"]] / size
    whole = np.eye(4)
    whole[:2, :2] = turn.T @ np.diag(steps)
    whole[:2, 3] = turn.T @ ((low + high) / 2) - whole[:2, :2] @ (size / 2)
    return whole


def test_the_box_around_landmarks() -> None:
    for points in (array(8, 3), 50 + 30 * array(8, 3), np.eye(8, 3, dtype=np.float32)):
        found = call(
            "Landmarks2TransformMatrix", points[None], custom=bytes(flexbuffers.Dumps(BOX))
        )
        same(found, box_matrix(points)[None])


def test_a_line_of_no_length_is_level() -> None:
    points = array(8, 3)
    points[6] = points[1]
    found = call("Landmarks2TransformMatrix", points[None], custom=bytes(flexbuffers.Dumps(BOX)))
    same(found, box_matrix(points)[None])


def sampled(x: np.ndarray, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear, pixel by pixel; a place outside the outermost centres is 0."""
    rows, columns, channels = x.shape
    out = np.zeros((height, width, channels))
    for y in range(height):
        for xx in range(width):
            px, py = (matrix @ [xx + 0.5, y + 0.5, 0, 1])[:2] - 0.5
            if not (0 <= px <= columns - 1 and 0 <= py <= rows - 1):
                continue
            left, top = min(int(px), columns - 2), min(int(py), rows - 2)
            u, v = px - left, py - top
            upper = (1 - u) * x[top, left] + u * x[top, left + 1]
            lower = (1 - u) * x[top + 1, left] + u * x[top + 1, left + 1]
            out[y, xx] = (1 - v) * upper + v * lower
    return out


@pytest.mark.parametrize("shift", [(1.0, 1.5), (-3.0, 2.0), (7.0, -2.0)])
def test_a_transformed_picture(shift: tuple[float, float]) -> None:
    x, matrix = array(1, 9, 8, 3), np.eye(4, dtype=np.float32)
    matrix[:2, :2], matrix[:2, 3] = [[0.9, -0.4], [0.5, 0.8]], shift
    custom = bytes(flexbuffers.Dumps({"output_width": 6, "output_height": 7}))
    found = call("TransformTensorBilinear", x, matrix[None], custom=custom, fixed=2)
    same(found, sampled(x[0], matrix, 6, 7)[None])
    assert (found == 0).any()


def test_transformed_landmarks() -> None:
    points, matrix = array(1, 5, 2), array(1, 4, 4)
    found = call("TransformLandmarks", points, matrix, fixed=2)
    wide = np.concatenate([points[0], np.zeros((5, 1)), np.ones((5, 1))], axis=1)
    same(found, (wide @ matrix[0].T)[None, :, :2])
