"""Operators that reduce, reshape, index, multiply and join, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import UnsupportedModel
from retinue.testing import tfjs_twins as twin
from retinue.testing.tfjs import TinyGraph
from retinue.testing.tfjs_run import call, run, same

RNG = np.random.default_rng(5)


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


REDUCTIONS = {"Max": np.max, "Mean": np.mean, "Min": np.min, "Prod": np.prod, "Sum": np.sum}


@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions(op: str) -> None:
    """Every way to reduce a picture in one graph; those over the batch in another."""
    kept = [[1], [2], [3], [-1], [1, 2], [2, 1], [1, 3], [2, 3], [1, 2, 3], []]
    for first, ways in ((None, kept), (2, [[0], [0, 3], [0, 1], [0, 1, 2], [0, 1, 2, 3]])):
        x = array(2, 4, 5, 3)
        graph, wanted = TinyGraph(), {}
        graph.input("x", (first, 4, 5, 3))
        for at, axes in enumerate(ways):
            graph.const(f"axes{at}", np.array(axes, np.int32))
            for keep in (True, False):
                name = graph.node(f"{at}{keep}", op, "x", f"axes{at}", keep_dims=keep)
                graph.outputs[name] = name
                function = REDUCTIONS[op]
                wanted[name] = function(x, axis=tuple(axes), keepdims=keep) if axes else x
        for found, name in zip(run(graph, {"x": x}), sorted(wanted), strict=True):
            same(found, wanted[name])


def test_arguments_and_top_k() -> None:
    x = array(2, 4, 5, 3)
    for axis in (1, 2, 3, -1):
        same(call("ArgMax", x, axis)[0], x.argmax(axis))
        same(call("ArgMin", x, axis)[0], x.argmin(axis))
    values, places = call("TopKV2", x[0, 0], 2, outputs=2)
    order = np.argsort(-x[0, 0], 1)[:, :2]
    same(places, order)
    same(values, np.take_along_axis(x[0, 0], order, 1))


@pytest.mark.parametrize(("a", "b"), [(False, False), (True, False), (False, True), (True, True)])
def test_matrix_products(a: bool, b: bool) -> None:
    x, y = array(4, 4), array(4, 4)
    expected = (x.T if a else x) @ (y.T if b else y)
    graph = TinyGraph()
    graph.input("x", (4, 4))
    graph.input("x1", (4, 4))
    graph.node("y", "MatMul", "x", "x1", transpose_a=a, transpose_b=b)
    same(run(graph, {"x": x, "x1": y})[0], expected)
    x, y = array(2, 3, 4, 4), array(2, 3, 4, 4)
    for op in ("BatchMatMul", "BatchMatMulV2"):
        left, right = (x.swapaxes(2, 3) if a else x), (y.swapaxes(2, 3) if b else y)
        graph = TinyGraph()
        graph.input("x", (2, 12, 4))
        graph.input("x1", (2, 12, 4))
        graph.const("sizes", [2, 3, 4, 4])
        graph.node("xx", "Reshape", "x", "sizes")
        graph.node("yy", "Reshape", "x1", "sizes")
        graph.node("y", op, "xx", "yy", adj_x=a, adj_y=b)
        feeds = {"x": x.reshape(2, 12, 4), "x1": y.reshape(2, 12, 4)}
        same(run(graph, feeds)[0], left @ right)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_strided_slice(data: st.DataObject) -> None:
    """Against Python's own slices, on a picture and on a vector of rows."""
    shape = data.draw(st.sampled_from([(2, 4, 5, 3), (2, 6)]))
    x = array(*shape)
    begin, end, strides, index = [], [], [], []
    masks = dict.fromkeys(["begin_mask", "end_mask", "shrink_axis_mask", "new_axis_mask"], 0)
    axis = 0
    for position in range(data.draw(st.integers(1, len(shape)))):
        kind = "slice" if axis == 0 else data.draw(st.sampled_from(["slice", "shrink", "new"]))
        if kind == "new":
            begin.append(0), end.append(0), strides.append(1), index.append(None)
            masks["new_axis_mask"] |= 1 << position
            continue
        size = shape[axis]
        step = 1 if axis == 0 else data.draw(st.sampled_from([1, 2, -1]))
        low = 0 if axis == 0 else data.draw(st.integers(-size, size - 1))
        high = size if axis == 0 else data.draw(st.integers(-size, size))
        if kind == "shrink":
            begin.append(low), end.append(low + 1), strides.append(1), index.append(low)
            masks["shrink_axis_mask"] |= 1 << position
        else:
            from_start = axis == 0 or data.draw(st.booleans())
            to_end = axis == 0 or data.draw(st.booleans())
            masks["begin_mask"] |= from_start << position
            masks["end_mask"] |= to_end << position
            begin.append(low), end.append(high), strides.append(step)
            index.append(slice(None if from_start else low, None if to_end else high, step))
        axis += 1
    expected = x[tuple(index)]
    if expected.size:
        ints = [np.array(item, np.int32) for item in (begin, end, strides)]
        same(call("StridedSlice", x, *ints, **masks)[0], expected)


def test_strided_slice_with_an_ellipsis() -> None:
    x = array(2, 4, 5, 3)
    bounds = [np.array(item, np.int32) for item in ([0, 1], [0, 2], [1, 1])]
    same(call("StridedSlice", x, *bounds, ellipsis_mask=1)[0], x[..., 1:2])
    same(call("StridedSlice", x, *bounds, ellipsis_mask=1, shrink_axis_mask=2)[0], x[..., 1])


def test_slice() -> None:
    x = array(2, 4, 5, 3)
    begin, size = np.array([0, 1, 0, 2], np.int32), np.array([-1, 2, -1, 1], np.int32)
    same(call("Slice", x, begin, size)[0], x[:, 1:3, :, 2:3])
    same(call("Slice", x, np.zeros(4, np.int32), np.full(4, -1, np.int32))[0], x)


def test_slices_by_computed_bounds() -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    graph = TinyGraph()
    graph.input("x", (2, 6))
    graph.input("n", (2,), "DT_INT32")
    graph.const("zero", [0, 0])
    graph.const("one", [1, 1])
    graph.node("a", "StridedSlice", "x", "zero", "n", "one", end_mask=1)
    graph.node("b", "Slice", "x", "zero", "n")
    graph.outputs = {"a": "a", "b": "b"}
    found = run(graph, {"x": x, "n": np.array([-1, 4], np.int32)})
    same(found[0], x[:, :4])
    same(found[1], x[:, :4])


def test_gathers() -> None:
    x = array(2, 4, 5, 3)
    chosen = np.array([2, 0], np.int32)
    for axis in (1, 2, 3, -1):
        same(call("GatherV2", x, chosen, axis)[0], x.take(chosen, axis))
    table = array(5, 3)
    for op in ("Gather", "ResourceGather"):
        graph = TinyGraph()
        graph.input("x", (2, 2), "DT_INT32")
        graph.const("table", table)
        graph.node("y", op, "table", "x")
        places = np.array([[0, 4], [3, 3]], np.int32)
        same(run(graph, {"x": places})[0], table[places])
    with pytest.raises(UnsupportedModel, match="batch dimensions"):
        call("GatherV2", x, chosen, 1, batch_dims=1)
    graph = TinyGraph()
    graph.input("x", (2, 4, 5, 3))
    graph.const("at", [[0, 1, 2], [1, 3, 4]])
    graph.node("y", "GatherNd", "x", "at")
    same(run(graph, {"x": x})[0], np.stack([x[0, 1, 2], x[1, 3, 4]]))


def test_scatters() -> None:
    rows = array(3, 2)
    graph = TinyGraph()
    graph.input("x", (3, 2))
    graph.const("at", [[1], [3], [1]])
    graph.const("sizes", [5, 2])
    graph.node("y", "ScatterNd", "at", "x", "sizes")
    expected = np.zeros((5, 2), np.float32)
    np.add.at(expected, [1, 3, 1], rows)
    same(run(graph, {"x": rows})[0], expected)
    graph = TinyGraph()
    graph.input("x", (3,))
    graph.const("at", [0, 2, 3])
    graph.const("size", [5])
    graph.const("rest", -1.0)
    graph.node("y", "SparseToDense", "at", "size", "x", "rest")
    same(run(graph, {"x": rows[:, 0]})[0], np.array([rows[0, 0], -1, rows[1, 0], rows[2, 0], -1]))


def test_sparse_to_dense_of_nothing_is_its_default() -> None:
    """The form in which a converter leaves a constant shape."""
    graph = TinyGraph()
    graph.input("x", (1, 4))
    graph.const("at", np.zeros((0, 1), np.int32))
    graph.const("size", [2])
    graph.const("values", np.zeros(0, np.int32))
    graph.const("rest", np.int32(2))
    graph.node("sizes", "SparseToDense", "at", "size", "values", "rest")
    graph.node("y", "Reshape", "x", "sizes")
    x = array(1, 4)
    same(run(graph, {"x": x})[0], x.reshape(2, 2))


def test_where_finds_places() -> None:
    x = np.array([[0, 1, 0], [2, 0, 3]], np.float32)
    graph = TinyGraph()
    graph.input("x", (2, 3))
    graph.const("zero", 0.0)
    graph.node("p", "Greater", "x", "zero")
    graph.node("y", "Where", "p")
    same(run(graph, {"x": x})[0], np.argwhere(x > 0))


def test_shapes() -> None:
    x = array(2, 4, 5, 3)
    same(call("Reshape", x, np.array([-1, 20, 3], np.int32))[0], x.reshape(2, 20, 3))
    same(call("Reshape", x[:1], np.array([-1, 6], np.int32))[0], x[:1].reshape(-1, 6))
    for perm in ([0, 3, 1, 2], [0, 2, 1, 3], [0, 2, 3, 1], [0, 1, 2, 3]):
        same(call("Transpose", x, np.array(perm, np.int32))[0], x.transpose(perm))
    last = np.array([3, 0, 1, 2], np.int32)
    same(call("Transpose", x[:1], last)[0], x[:1].transpose(last))
    for axis in (1, -1, 3):
        same(call("ExpandDims", x, axis)[0], np.expand_dims(x, axis))
    wide = array(2, 1, 1, 3)
    same(call("Squeeze", wide, squeeze_dims=[1, 2])[0], wide[:, 0, 0])
    same(call("Squeeze", wide, squeeze_dims=[-2])[0], wide[:, :, 0])
    same(call("Squeeze", wide)[0], wide[:, 0, 0])
    same(call("Reshape", wide, np.array([-1, 3], np.int32))[0], wide.reshape(2, 3))
    same(call("Tile", x, np.array([1, 2, 1, 3], np.int32))[0], np.tile(x, (1, 2, 1, 3)))
    same(call("ReverseV2", x, np.array([1, 3], np.int32))[0], x[:, ::-1, :, ::-1])


def test_broadcast_to() -> None:
    x = array(2, 1)
    graph = TinyGraph()
    graph.input("x", (2, 1))
    graph.const("sizes", [3, 2, 4])
    graph.node("y", "BroadcastTo", "x", "sizes")
    same(run(graph, {"x": x})[0], np.broadcast_to(x, (3, 2, 4)))


def test_joins_and_splits() -> None:
    x, y = array(2, 4, 5, 3), array(2, 4, 5, 3)
    for axis in (1, 2, 3, -1):
        same(call("ConcatV2", x, y, axis)[0], np.concatenate([x, y], axis))
        same(call("Pack", x, y, axis=axis)[0], np.stack([x, y], axis))
    graph = TinyGraph()
    graph.input("x", (None, 4))
    graph.const("axis", 1)
    graph.node("y", "Concat", "axis", "x", "x")
    flat = array(2, 4)
    same(run(graph, {"x": flat})[0], np.concatenate([flat, flat], 1))
    for found, wanted in zip(
        call("Unpack", x, outputs=3, axis=3, num=3), np.moveaxis(x, 3, 0), strict=True
    ):
        same(found, wanted)
    parts = call("SplitV", x, np.array([1, -1], np.int32), 2, outputs=2, num_split=2)
    for found, wanted in zip(parts, np.split(x, [1], 2), strict=True):
        same(found, wanted)
    graph = TinyGraph()
    graph.input("x", (None, 4, 5, 3))
    graph.const("axis", 1)
    graph.node("s", "Split", "axis", "x", num_split=2)
    graph.outputs = {"a": "s:0", "b": "s:1"}
    for found, wanted in zip(run(graph, {"x": x}), np.split(x, 2, 1), strict=True):
        same(found, wanted)


def test_sizes_and_fills() -> None:
    x = array(1, 4, 5, 3)
    graph = TinyGraph()
    graph.input("x", (1, 4, 5, 3))
    graph.node("asize", "Size", "x")
    graph.node("brank", "Rank", "x")
    graph.node("cshape", "Shape", "x")
    graph.const("start", 1)
    graph.const("step", 2)
    graph.node("drange", "Range", "start", "asize", "step")
    graph.const("value", 0.5)
    graph.node("efill", "Fill", "cshape", "value")
    names = ("asize", "brank", "cshape", "drange", "efill")
    graph.outputs = {name: name for name in names}
    size, rank, shape, steps, filled = run(graph, {"x": x})
    assert (size, rank, shape.tolist()) == (60, 4, [1, 4, 5, 3])
    same(steps, np.arange(1, 60, 2))
    same(filled, np.full((1, 4, 5, 3), 0.5))


@pytest.mark.parametrize("op", ["NonMaxSuppressionV3", "NonMaxSuppressionV5"])
def test_suppression(op: str) -> None:
    corners = RNG.uniform(0, 1, (40, 2))
    boxes = np.concatenate([corners, corners + RNG.uniform(0.2, 0.5, (40, 2))], 1)
    boxes, scores = boxes.astype(np.float32), RNG.permutation(40).astype(np.float32) / 40
    graph = TinyGraph()
    graph.input("x", (40, 4))
    graph.input("x1", (40,))
    more = [graph.const("limit", 7), graph.const("iou", 0.3), graph.const("least", 0.2)]
    if op.endswith("V5"):
        more.append(graph.const("sigma", 0.0))
    graph.node("y", op, "x", "x1", *more)
    graph.outputs = {"a": "y"}
    if op.endswith("V5"):
        graph.outputs |= {"b": "y:1", "c": "y:2"}
    found = run(graph, {"x": boxes, "x1": scores})
    kept = twin.suppress(boxes, scores, 7, 0.3, 0.2)
    same(found[0], np.array(kept))
    if op.endswith("V5"):
        same(found[1], scores[kept])
        assert found[2] == len(kept)


def test_soft_suppression_is_refused() -> None:
    constants = (1, 0.5, 0.0, 0.5)
    with pytest.raises(UnsupportedModel, match="soft"):
        call("NonMaxSuppressionV5", array(4, 4), array(4), *map(np.float32, constants))
