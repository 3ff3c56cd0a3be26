"""Elementwise operators against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from retinue.core.errors import UnsupportedModel
from retinue.testing.tfjs import TinyGraph
from retinue.testing.tfjs_run import call, run, same

RNG = np.random.default_rng(5)


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "Erf": np.vectorize(math.erf),
    "Exp": np.exp,
    "Floor": np.floor,
    "Neg": np.negative,
    "Reciprocal": lambda x: 1 / x,
    "Relu": lambda x: np.maximum(x, 0),
    "Relu6": lambda x: np.clip(x, 0, 6),
    "Round": np.round,
    "Selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Sign": np.sign,
    "Sin": np.sin,
    "Softplus": lambda x: np.log1p(np.exp(x)),
    "Square": np.square,
    "Tanh": np.tanh,
    "LeakyRelu": lambda x: np.where(x > 0, x, np.float32(0.2) * x),
    "ZerosLike": np.zeros_like,
    "OnesLike": np.ones_like,
    "Identity": lambda x: x,
    "Snapshot": lambda x: x,
    "StopGradient": lambda x: x,
    "PreventGradient": lambda x: x,
    "IdentityN": lambda x: x,
}
POSITIVE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Rsqrt": lambda x: 1 / np.sqrt(x),
}
BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "RealDiv": np.divide,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "Mod": np.mod,
    "SquaredDifference": lambda a, b: (a - b) ** 2,
    "Atan2": np.arctan2,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
}


@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str) -> None:
    for shape in ((2, 5), (2, 3, 4, 3)):
        x = 3 * array(*shape)
        same(call(op, x)[0], UNARY[op](x))


@pytest.mark.parametrize("op", POSITIVE)
def test_unary_of_positive(op: str) -> None:
    x = np.abs(array(2, 5)) + 0.1
    same(call(op, x)[0], POSITIVE[op](x))


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 5, 3)])
def test_binary_broadcasts(op: str, shape: tuple[int, ...]) -> None:
    """Two inputs; a picture and a channel's constant; a constant and a picture; a scalar."""
    a, b = np.round(4 * array(*shape)) / 2 + 0.25, np.round(4 * array(*shape)) / 2 + 0.25
    vector = np.round(2 * array(shape[-1])) + 0.25
    twin_of = BINARY[op]
    same(call(op, a, b)[0], twin_of(a, b))
    graph = TinyGraph()
    graph.input("x", (None, *shape[1:]))
    graph.const("v", vector)
    graph.const("s", np.float32(0.75))
    graph.node("left", op, "x", "v")
    graph.node("right", op, "v", "x")
    graph.node("scalar", op, "x", "s")
    left, right, scalar = run(graph, {"x": a})
    same(left, twin_of(a, vector))
    same(right, twin_of(vector, a))
    same(scalar, twin_of(a, np.float32(0.75)))


def test_atan2_in_every_quadrant_and_on_the_axes() -> None:
    points = np.array([-2, -1, 0, 1, 2], np.float32)
    y, x = (grid.reshape(1, -1) for grid in np.meshgrid(points, points))
    expected = np.where((y == 0) & (x == 0), 0, np.arctan2(y, x))
    same(call("Atan2", y, x)[0], expected.astype(np.float32))


def integers(op: str, a: list[int], b: list[int]) -> np.ndarray:
    """Run a binary operator on integers that are only known when the model runs."""
    graph = TinyGraph()
    graph.input("x", (None, len(a)), "DT_INT32")
    graph.const("b", b)
    graph.node("y", op, "x", "b")
    return run(graph, {"x": np.array([a], np.int32)})[0][0]


def test_integer_division_rounds_down() -> None:
    a, b = [7, -7, 7, -7, 6, -6, 0], [2, 2, -2, -2, 3, 3, 5]
    same(integers("FloorDiv", a, b), np.floor_divide(a, b))
    same(integers("FloorMod", a, b), np.mod(a, b))


def test_pow_and_integers_meet_floats() -> None:
    x = np.abs(array(2, 3))
    same(call("Pow", x, np.float32(1.5))[0], x**1.5)
    same(call("Mul", x, np.array([1, 2, 3], np.int32))[0], x * np.array([1, 2, 3]))


def test_logic() -> None:
    x = array(2, 6)
    graph = TinyGraph()
    graph.input("x", (None, 6))
    graph.const("zero", 0.0)
    graph.const("one", 0.5)
    graph.node("p", "Greater", "x", "zero")
    graph.node("q", "Less", "x", "one")
    for name, op, inputs in (
        ("and", "LogicalAnd", ("p", "q")),
        ("or", "LogicalOr", ("p", "q")),
        ("not", "LogicalNot", ("p",)),
    ):
        graph.node(name, op, *inputs)
    graph.const("axis", [1])
    graph.node("all", "All", "q", "axis", keep_dims=False)
    graph.node("any", "Any", "p", "axis", keep_dims=True)
    graph.node("zselect", "SelectV2", "p", "x", "zero")
    p, q = x > 0, x < 0.5
    expected = [q.all(1), p & q, p.any(1, keepdims=True), ~p, p | q, np.where(p, x, 0)]
    for found, wanted in zip(run(graph, {"x": x}), expected, strict=True):
        same(found, wanted)


def test_select_by_rows() -> None:
    a, b = array(3, 4), array(3, 4)
    graph = TinyGraph()
    graph.input("x", (3, 4))
    graph.input("x1", (3, 4))
    graph.const("c", np.array([True, False, True]))
    graph.node("y", "Select", "c", "x", "x1")
    same(run(graph, {"x": a, "x1": b})[0], np.where(np.array([[True], [False], [True]]), a, b))


def test_casts() -> None:
    x = np.array([[-1.7, -0.2, 0.0, 0.9, 2.5]], np.float32)
    same(call("Cast", x, DstT="DT_INT32")[0], x.astype(np.int32))
    same(call("Cast", x, DstT="DT_BOOL")[0], x.astype(bool))
    with pytest.raises(UnsupportedModel, match="DT_STRING"):
        call("Cast", x, DstT="DT_STRING")


def test_prelu_clip_and_sums() -> None:
    x, alpha = array(2, 4, 5, 3), array(1, 1, 3)
    graph = TinyGraph()
    graph.input("x", (None, 4, 5, 3))
    graph.const("alpha", alpha)
    graph.node("y", "Prelu", "x", "alpha")
    same(run(graph, {"x": x})[0], np.where(x > 0, x, alpha * x))
    same(call("ClipByValue", x, np.float32(-0.5), np.float32(0.25))[0], np.clip(x, -0.5, 0.25))
    same(call("AddN", x, 2 * x, np.float32(1))[0], 3 * x + 1)


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 5, 3)])
def test_softmax(shape: tuple[int, ...]) -> None:
    x = array(*shape)
    e = np.exp(x - x.max(-1, keepdims=True))
    same(call("Softmax", x)[0], e / e.sum(-1, keepdims=True))
    same(call("LogSoftmax", x)[0], np.log(e / e.sum(-1, keepdims=True)))
