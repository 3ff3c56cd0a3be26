"""Loops, branches and lists; and that no operator lacks a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._tfjs.execute import CONTROL
from retinue.models.importers._tfjs.operators import OPERATORS
from retinue.testing.tfjs import TinyGraph
from retinue.testing.tfjs_run import run, same

RNG = np.random.default_rng(5)


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def loop(kind: str) -> TinyGraph:
    """Square each row by itself: TensorFlow's map_fn, with a list of either kind."""
    graph = TinyGraph()
    graph.input("x", (3, 2))
    for name, value in (("zero", 0), ("one", 1), ("three", 3)):
        graph.const(name, value)
    graph.const("element", [2])
    graph.const("range", [0, 1, 2])
    graph.node("i0", "Enter", "zero", frame_name="loop")
    graph.node("n", "Enter", "three", frame_name="loop", is_constant=True)
    if kind == "array":
        graph.node("in", "TensorArrayV3", "three")
        graph.node("filled", "TensorArrayScatterV3", "in", "range", "x", "in:1")
        graph.node("length", "TensorArraySizeV3", "in", "filled")
        graph.node("out", "TensorArrayV3", "length")
        graph.node("handle", "Enter", "in", frame_name="loop", is_constant=True)
        graph.node("rows", "Enter", "filled", frame_name="loop", is_constant=True)
        graph.node("target", "Enter", "out", frame_name="loop", is_constant=True)
        graph.node("o0", "Enter", "out:1", frame_name="loop")
    else:
        graph.node("filled", "TensorListFromTensor", "x", "element")
        graph.node("out", "TensorListReserve", "element", "three")
        graph.node("rows", "Enter", "filled", frame_name="loop", is_constant=True)
        graph.node("o0", "Enter", "out", frame_name="loop")
    graph.node("i", "Merge", "i0", "inext")
    graph.node("o", "Merge", "o0", "onext")
    graph.node("less", "Less", "i", "n")
    graph.node("cond", "LoopCond", "less")
    graph.node("iswitch", "Switch", "i", "cond")
    graph.node("oswitch", "Switch", "o", "cond")
    if kind == "array":
        graph.node("row", "TensorArrayReadV3", "handle", "iswitch:1", "rows")
        graph.node("square", "Square", "row")
        write = ("target", "iswitch:1", "square", "oswitch:1")
        graph.node("written", "TensorArrayWriteV3", *write)
    else:
        graph.node("row", "TensorListGetItem", "rows", "iswitch:1", "element")
        graph.node("square", "Square", "row")
        graph.node("written", "TensorListSetItem", "oswitch:1", "iswitch:1", "square")
    graph.node("increment", "AddV2", "iswitch:1", "one")
    graph.node("inext", "NextIteration", "increment")
    graph.node("onext", "NextIteration", "written")
    graph.node("exit", "Exit", "oswitch")
    if kind == "array":
        graph.node("y", "TensorArrayGatherV3", "out", "range", "exit")
    else:
        graph.node("y", "TensorListStack", "exit", "element")
    graph.outputs = {"y": "y"}
    return graph


@pytest.mark.parametrize("kind", ["array", "list"])
def test_loops_over_sizes_are_unrolled(kind: str) -> None:
    x = array(3, 2)
    same(run(loop(kind), {"x": x})[0], x**2)


def test_a_loop_without_an_end() -> None:
    graph = loop("list")
    next(n for n in graph.nodes if n["name"] == "increment")["op"] = "Maximum"
    with pytest.raises(UnsupportedModel, match="iterations"):
        run(graph, {"x": array(3, 2)})


@pytest.mark.parametrize("taken", [True, False])
def test_a_branch_on_a_constant(taken: bool) -> None:
    graph = TinyGraph()
    graph.input("x", (None, 2))
    graph.const("p", np.array(taken))
    graph.node("s", "Switch", "x", "p")
    graph.node("no", "Neg", "s")
    graph.node("yes", "Square", "s:1")
    graph.node("y", "Merge", "no", "yes")
    x = array(2, 2)
    same(run(graph, {"x": x})[0], x**2 if taken else -x)


def test_a_branch_on_the_input_is_refused() -> None:
    graph = TinyGraph()
    graph.input("x", (None, 2))
    graph.const("axes", [0, 1])
    graph.const("zero", 0.0)
    graph.node("sum", "Sum", "x", "axes")
    graph.node("p", "Greater", "sum", "zero")
    graph.node("s", "Switch", "x", "p")
    graph.node("y", "Merge", "s", "s:1")
    with pytest.raises(UnsupportedModel, match="branch condition"):
        run(graph, {"x": array(1, 2)})


def test_every_operator_is_tested() -> None:
    """An operator that no test names fails this one."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_tfjs_*.py"))
    assert [op for op in OPERATORS if f'"{op}"' not in text] == []
    assert not CONTROL & set(OPERATORS)
