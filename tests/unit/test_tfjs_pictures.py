"""Operators on (N, H, W, C) pictures against slow NumPy twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import UnsupportedModel
from retinue.testing import tfjs_twins as twin
from retinue.testing.tfjs import TinyGraph
from retinue.testing.tfjs_run import run
from retinue.testing.tfjs_run import same as close

RNG = np.random.default_rng(3)


def picture(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def one(x: np.ndarray, op: str, *constants: Any, **attributes: Any) -> np.ndarray:
    """Run one operator on a picture and constants."""
    graph = TinyGraph()
    graph.input("x", (None, *x.shape[1:]))
    names = [graph.const(f"c{at}", value) for at, value in enumerate(constants)]
    graph.node("y", op, "x", *names, **attributes)
    return run(graph, {"x": x})[0]


def same(actual: np.ndarray, expected: np.ndarray) -> None:
    close(actual, expected, 1e-4)


def window(strides: tuple[int, int]) -> list[int]:
    return [1, *strides, 1]


SIZES = st.integers(5, 9)
SMALL = st.integers(1, 3)


@settings(max_examples=25, deadline=None)
@given(
    SIZES,
    SIZES,
    SMALL,
    SMALL,
    SMALL,
    SMALL,
    SMALL,
    st.sampled_from(["SAME", "VALID"]),
    st.sampled_from(["Conv2D", "DepthwiseConv2dNative"]),
    SMALL,
)
def test_convolution(
    height: int,
    width: int,
    kh: int,
    kw: int,
    sh: int,
    sw: int,
    dilation: int,
    padding: str,
    op: str,
    channels: int,
) -> None:
    if dilation > 1 and (sh > 1 or sw > 1):
        sh = sw = 1  # TensorFlow does not offer both
    if padding == "VALID" and (kh - 1) * dilation + 1 > height:
        kh = 1
    if padding == "VALID" and (kw - 1) * dilation + 1 > width:
        kw = 1
    x, w = picture(2, height, width, channels), picture(kh, kw, channels, 2)
    y = one(x, op, w, padding=padding, strides=window((sh, sw)), dilations=window((dilation,) * 2))
    function = twin.conv2d if op == "Conv2D" else twin.depthwise
    same(y, function(x, w, (sh, sw), padding, (dilation, dilation)))


@settings(max_examples=20, deadline=None)
@given(
    SIZES,
    SIZES,
    SMALL,
    SMALL,
    SMALL,
    SMALL,
    st.sampled_from(["SAME", "VALID"]),
    st.sampled_from(["MaxPool", "AvgPool"]),
)
def test_pooling(
    height: int, width: int, kh: int, kw: int, sh: int, sw: int, padding: str, op: str
) -> None:
    x = picture(2, height, width, 3) - 5
    y = one(x, op, ksize=window((kh, kw)), strides=window((sh, sw)), padding=padding)
    same(y, twin.pool(x, (kh, kw), (sh, sw), padding, mean=op == "AvgPool"))


@pytest.mark.parametrize("op", ["_FusedConv2D", "FusedDepthwiseConv2dNative"])
@pytest.mark.parametrize(
    ("steps", "function"),
    [
        (["BiasAdd"], lambda v: v),
        (["BiasAdd", "Relu"], lambda v: np.maximum(v, 0)),
        (["BiasAdd", "Relu6"], lambda v: np.clip(v, 0, 6)),
        (["BiasAdd", "Elu"], lambda v: np.where(v > 0, v, np.exp(np.minimum(v, 0)) - 1)),
        (["BiasAdd", "Sigmoid"], lambda v: 1 / (1 + np.exp(-v))),
        (["BiasAdd", "Tanh"], np.tanh),
        (["BiasAdd", "LeakyRelu"], lambda v: np.where(v > 0, v, 0.3 * v)),
    ],
)
def test_fused_activations(op: str, steps: list[str], function: Any) -> None:
    x, bias = 3 * picture(2, 5, 6, 3), picture(3)
    w = picture(3, 3, 3, 3 if op == "_FusedConv2D" else 1)
    y = one(
        x, op, w, bias, padding="SAME", strides=window((2, 2)), fused_ops=steps, leakyrelu_alpha=0.3
    )
    plain = (twin.conv2d if op == "_FusedConv2D" else twin.depthwise)(x, w, (2, 2))
    same(y, function(plain + bias))


@pytest.mark.parametrize("alpha_shape", [(2,), (1, 1, 2)])
def test_fused_prelu(alpha_shape: tuple[int, ...]) -> None:
    x, w, bias = picture(1, 4, 4, 3), picture(1, 1, 3, 2), picture(2)
    alpha = picture(*alpha_shape)
    y = one(
        x,
        "_FusedConv2D",
        w,
        bias,
        alpha,
        padding="VALID",
        strides=window((1, 1)),
        fused_ops=["BiasAdd", "Prelu"],
    )
    plain = twin.conv2d(x, w, padding="VALID") + bias
    same(y, np.where(plain > 0, plain, plain * alpha.reshape(-1)))


def test_fused_batch_norm_inside_a_convolution() -> None:
    x, w = picture(1, 4, 4, 3), picture(1, 1, 3, 2)
    scale, offset, mean = picture(3, 2)
    variance = np.abs(picture(2)) + 0.5
    y = one(
        x,
        "_FusedConv2D",
        w,
        scale,
        offset,
        mean,
        variance,
        padding="VALID",
        strides=window((1, 1)),
        fused_ops=["FusedBatchNorm"],
        epsilon=0.01,
    )
    plain = twin.conv2d(x, w, padding="VALID")
    same(y, (plain - mean) / np.sqrt(variance + 0.01) * scale + offset)


def test_unknown_fused_activation() -> None:
    with pytest.raises(UnsupportedModel, match="Mystery"):
        one(
            picture(1, 4, 4, 3),
            "_FusedConv2D",
            picture(1, 1, 3, 2),
            padding="VALID",
            strides=window((1, 1)),
            fused_ops=["Mystery"],
        )


def test_explicit_padding() -> None:
    x, w = picture(1, 5, 5, 3), picture(3, 3, 3, 2)
    y = one(
        x,
        "Conv2D",
        w,
        padding="EXPLICIT",
        explicit_paddings=[0, 0, 1, 2, 0, 3, 0, 0],
        strides=window((1, 1)),
    )
    same(y, twin.conv2d(np.pad(x, [(0, 0), (1, 2), (0, 3), (0, 0)]), w, padding="VALID"))


def test_grouped_convolution() -> None:
    x, w = picture(2, 5, 6, 4), picture(3, 3, 2, 6)
    y = one(x, "Conv2D", w, padding="SAME", strides=window((1, 1)))
    parts = [twin.conv2d(x[..., :2], w[..., :3]), twin.conv2d(x[..., 2:], w[..., 3:])]
    same(y, np.concatenate(parts, 3))


def test_channels_first_data_format_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="NCHW"):
        one(
            picture(1, 4, 4, 3),
            "Conv2D",
            picture(1, 1, 3, 2),
            padding="VALID",
            strides=[1, 1, 1, 1],
            data_format="NCHW",
        )


@pytest.mark.parametrize(
    ("size", "kernel", "padding"),
    [
        ((8, 10), (2, 2), "SAME"),
        ((8, 10), (3, 3), "SAME"),
        ((7, 9), (3, 3), "SAME"),
        ((8, 10), (4, 4), "SAME"),
        ((8, 10), (1, 1), "SAME"),
        ((9, 11), (3, 3), "VALID"),
    ],
)
def test_transposed_convolution(
    size: tuple[int, int], kernel: tuple[int, int], padding: str
) -> None:
    x, w = picture(2, 4, 5, 3), picture(*kernel, 2, 3)
    graph = TinyGraph()
    graph.input("x", (1, 4, 5, 3))
    graph.const("sizes", [1, *size, 2])
    graph.const("w", w)
    graph.node(
        "y", "Conv2DBackpropInput", "sizes", "w", "x", strides=window((2, 2)), padding=padding
    )
    same(run(graph, {"x": x})[0], twin.conv2d_transpose(x, w, size, (2, 2), padding))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 7),
    st.integers(2, 7),
    st.integers(2, 13),
    st.integers(2, 13),
    st.sampled_from([(False, False), (True, False), (False, True)]),
    st.sampled_from(["ResizeBilinear", "ResizeNearestNeighbor"]),
)
def test_resize(
    height: int, width: int, rows: int, columns: int, mode: tuple[bool, bool], op: str
) -> None:
    x = picture(2, height, width, 1)
    y = one(x, op, [rows, columns], align_corners=mode[0], half_pixel_centers=mode[1])
    nearest = op == "ResizeNearestNeighbor"
    function = twin.resize_nearest if nearest else twin.resize_bilinear
    expected = function(x, (rows, columns), *mode)
    same(y, expected)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("half_pixel", [True, False])
def test_resize_nearest_by_whole_factors_is_exact(factor: int, half_pixel: bool) -> None:
    x = picture(1, 4, 5, 3)
    y = one(x, "ResizeNearestNeighbor", [4 * factor, 5 * factor], half_pixel_centers=half_pixel)
    np.testing.assert_array_equal(y, x.repeat(factor, 1).repeat(factor, 2))


def test_resize_to_a_size_computed_from_a_shape() -> None:
    graph = TinyGraph()
    graph.input("x", (None, 4, 5, 3))
    graph.node("shape", "Shape", "x")
    graph.const("from", [1])
    graph.const("to", [3])
    graph.const("one", [1])
    graph.node("sizes", "StridedSlice", "shape", "from", "to", "one")
    graph.const("two", 2)
    graph.node("double", "Mul", "sizes", "two")
    graph.node("y", "ResizeBilinear", "x", "double", half_pixel_centers=True)
    x = picture(2, 4, 5, 3)
    same(run(graph, {"x": x})[0], twin.resize_bilinear(x, (8, 10), half_pixel=True))


def test_pads() -> None:
    x = picture(2, 3, 4, 3)
    pads = [(0, 0), (1, 2), (3, 0), (0, 1)]
    same(one(x, "Pad", pads), np.pad(x, pads))
    same(one(x, "PadV2", pads, 7.0), np.pad(x, pads, constant_values=7))
    reflected = [(0, 0), (1, 2), (3, 0), (0, 0)]
    same(one(x, "MirrorPad", reflected, mode="REFLECT"), np.pad(x, reflected, "reflect"))
    with pytest.raises(UnsupportedModel, match="SYMMETRIC"):
        one(x, "MirrorPad", reflected, mode="SYMMETRIC")


@pytest.mark.parametrize("value", [0.0, -np.inf, -3.4028235e38])
def test_a_pad_before_max_pooling(value: float) -> None:
    """Only a pad by the lowest number may move into the pooling; one by 0 counts."""
    x = picture(1, 4, 4, 3) - 4
    graph = TinyGraph()
    graph.input("x", (None, 4, 4, 3))
    graph.const("pads", [[0, 0], [1, 1], [1, 1], [0, 0]])
    graph.const("value", np.float32(value))
    graph.node("p", "PadV2", "x", "pads", "value")
    graph.node("y", "MaxPool", "p", ksize=window((3, 3)), strides=window((2, 2)), padding="VALID")
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=value)
    same(run(graph, {"x": x})[0], twin.pool(padded, (3, 3), (2, 2), "VALID", mean=False))


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_pad_before_a_convolution(value: float) -> None:
    x, w = picture(1, 4, 4, 3), picture(3, 3, 3, 2)
    graph = TinyGraph()
    graph.input("x", (None, 4, 4, 3))
    graph.const("pads", [[0, 0], [1, 2], [0, 1], [0, 0]])
    graph.const("value", np.float32(value))
    graph.const("w", w)
    graph.node("p", "PadV2", "x", "pads", "value")
    graph.node("y", "Conv2D", "p", "w", strides=window((2, 2)), padding="SAME")
    padded = np.pad(x, [(0, 0), (1, 2), (0, 1), (0, 0)], constant_values=value)
    same(run(graph, {"x": x})[0], twin.conv2d(padded, w, (2, 2)))


def test_a_scale_between_uses_is_not_absorbed() -> None:
    """The convolution's own result is used too."""
    x, w = picture(1, 4, 4, 3), picture(1, 1, 3, 2)
    graph = TinyGraph()
    graph.input("x", (None, 4, 4, 3))
    graph.const("w", w)
    graph.const("s", [2.0, 3.0])
    graph.node("c", "Conv2D", "x", "w", strides=window((1, 1)), padding="SAME")
    graph.node("m", "Mul", "c", "s")
    graph.node("y", "AddV2", "c", "m")
    same(run(graph, {"x": x})[0], twin.conv2d(x, w) * [3, 4])


def test_space_and_depth() -> None:
    x = picture(2, 4, 6, 12)
    same(one(x, "DepthToSpace", block_size=2), twin.depth_to_space(x, 2))
    same(one(x, "SpaceToDepth", block_size=2), twin.space_to_depth(x, 2))


def test_space_and_batch() -> None:
    """A dilated convolution as TensorFlow spells it."""
    x, w = picture(2, 7, 6, 3), picture(3, 3, 3, 1)
    pads = [(2, 3), (2, 2)]
    split = twin.space_to_batch(x, (2, 2), pads)
    same(twin.batch_to_space(split, (2, 2), pads), x)
    graph = TinyGraph()
    graph.input("x", (None, 7, 6, 3))
    graph.const("block", [2, 2])
    graph.const("pads", pads)
    graph.const("crops", [(0, 1), (0, 0)])
    graph.const("w", w)
    graph.node("s", "SpaceToBatchND", "x", "block", "pads")
    graph.node("d", "DepthwiseConv2dNative", "s", "w", strides=window((1, 1)), padding="VALID")
    graph.node("y", "BatchToSpaceND", "d", "block", "crops")
    same(run(graph, {"x": x})[0], twin.depthwise(x, w, dilations=(2, 2)))


def test_bias_and_batch_norm() -> None:
    x, bias = picture(2, 3, 4, 3), picture(3)
    same(one(x, "BiasAdd", bias), x + bias)
    flat = picture(2, 3)
    same(one(flat, "BiasAdd", bias), flat + bias)
    scale, offset, mean = picture(3, 3)
    variance = np.abs(picture(3)) + 0.5
    expected = (x - mean) / np.sqrt(variance + 0.001) * scale + offset
    for op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
        same(one(x, op, scale, offset, mean, variance, epsilon=0.001), expected)
