"""The TFJS importer on files: weights, manifests, errors, names, batches, determinism."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers.tfjs import IMPORTER, convert
from retinue.testing.tfjs import TinyGraph

BIAS = np.array([0.5, -0.5], np.float32)


def affine(quantization: dict[str, object] | None = None, weights: object = None) -> TinyGraph:
    graph = TinyGraph()
    graph.input("x", (None, 2))
    graph.const("w", [[1.0, 2.0], [3.0, 4.0]] if weights is None else weights, quantization)
    graph.const("b", BIAS)
    graph.node("y", "_FusedMatMul", "x", "w", "b", fused_ops=["BiasAdd", "Relu"])
    graph.outputs = {"result:0": "y:0"}
    return graph


def run(model: onnx.ModelProto, *feeds: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    return session.run(None, dict(zip(names, feeds, strict=True)))


def test_names_and_open_batch(tmp_path: Path) -> None:
    model = convert(affine().write(tmp_path))
    assert [i.name for i in model.graph.input] == ["x"]
    assert [o.name for o in model.graph.output] == ["result"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    x = np.array([[1, 1], [-1, 0], [0, 2]], np.float32)
    (y,) = run(model, x)
    np.testing.assert_allclose(y, np.maximum(x @ np.array([[1, 2], [3, 4]], np.float32) + BIAS, 0))


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    files = affine().write(tmp_path)
    IMPORTER(files, tmp_path / "a.onnx")
    IMPORTER(dict(reversed(files.items())), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards(tmp_path: Path, shards: int) -> None:
    (y,) = run(convert(affine().write(tmp_path, shards)), np.ones((1, 2), np.float32))
    np.testing.assert_allclose(y, [[4.5, 5.5]])


@pytest.mark.parametrize(
    ("dtype", "stored", "scale", "minimum"),
    [("uint8", np.uint8, 0.25, -3.0), ("uint16", np.uint16, 0.001, 7.0)],
)
def test_quantised_weights(
    tmp_path: Path, dtype: str, stored: type, scale: float, minimum: float
) -> None:
    codes = np.array([[0, 200], [17, 255]], stored)
    graph = affine({"dtype": dtype, "scale": scale, "min": minimum}, codes)
    (y,) = run(convert(graph.write(tmp_path)), np.ones((1, 2), np.float32))
    real = (codes.astype(np.float64) * scale + minimum).astype(np.float32)
    np.testing.assert_allclose(y[0], np.maximum(real.sum(0) + BIAS, 0), rtol=1e-6)


def test_half_precision_weights(tmp_path: Path) -> None:
    weights = np.array([[0.1, 2], [3, 4]], np.float16)
    (y,) = run(
        convert(affine({"dtype": "float16"}, weights).write(tmp_path)), np.ones((1, 2), np.float32)
    )
    expected = weights.astype(np.float32).sum(0) + BIAS
    np.testing.assert_allclose(y[0], expected, rtol=1e-6)


def test_quantised_integers_are_rounded(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.input("x", (None, 3))
    codes = {"dtype": "uint8", "scale": 0.5, "min": 0.1}
    graph.const("n", np.array([0, 1, 2], np.uint8), codes)
    graph.weights[0]["dtype"] = "int32"
    graph.node("f", "Cast", "n", DstT="DT_FLOAT")
    graph.node("y", "AddV2", "x", "f")
    (y,) = run(convert(graph.write(tmp_path)), np.zeros((1, 3), np.float32))
    np.testing.assert_array_equal(y, [[0, 1, 1]])


def test_every_unknown_operator_is_named(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.input("x", (None, 2))
    graph.node("a", "Frobnicate", "x")
    graph.node("b", "Bessel", "a")
    graph.node("y", "Relu", "b")
    graph.node("unused", "NeverSeen", "x")
    graph.outputs = {"y": "y:0"}
    with pytest.raises(UnsupportedModel, match="Bessel, Frobnicate") as caught:
        convert(graph.write(tmp_path))
    assert "NeverSeen" not in caught.value.message


def test_truncated_weights(tmp_path: Path) -> None:
    files = affine().write(tmp_path)
    path = files["m/shard0.bin"]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ModelCorrupt, match="truncated"):
        convert(files)


def test_too_many_weights(tmp_path: Path) -> None:
    files = affine().write(tmp_path)
    path = files["m/shard0.bin"]
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ModelCorrupt, match="28 bytes where the manifest lists 24"):
        convert(files)


def test_missing_shard(tmp_path: Path) -> None:
    files = affine().write(tmp_path)
    del files["m/shard0.bin"]
    with pytest.raises(ModelCorrupt, match=r"m/shard0\.bin"):
        convert(files)


def test_no_document(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=r"no TFJS model\.json"):
        convert({"a.bin": tmp_path / "a.bin"})


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{not json", ModelCorrupt, "not JSON"),
        ('{"modelTopology": {"model_config": {}}}', UnsupportedModel, "layers-model"),
        ('{"modelTopology": 3}', ModelCorrupt, "not an object"),
        ('{"modelTopology": {"node": [{"op": "Relu"}]}}', ModelCorrupt, "not a TFJS graph-model"),
        ('{"modelTopology": {"node": 7}}', ModelCorrupt, "not a TFJS graph-model"),
    ],
)
def test_damaged_document(
    tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "model.json"
    path.write_text(content)
    with pytest.raises(error, match=message):
        convert({"model.json": path})


def test_unsupported_weight_type(tmp_path: Path) -> None:
    graph = affine()
    graph.weights[0]["dtype"] = "complex64"
    with pytest.raises(UnsupportedModel, match="complex64"):
        convert(graph.write(tmp_path))


def test_missing_node(tmp_path: Path) -> None:
    graph = affine()
    graph.nodes[-1]["input"][0] = "nowhere"
    with pytest.raises(ModelCorrupt, match="nowhere"):
        convert(graph.write(tmp_path))


def test_circle(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.node("a", "Relu", "b")
    graph.node("b", "Relu", "a")
    graph.outputs = {"b": "b"}
    with pytest.raises(ModelCorrupt, match="depends on itself"):
        convert(graph.write(tmp_path))


def test_wrong_number_of_inputs(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.input("x", (None, 2))
    graph.node("y", "Relu", "x", "x")
    with pytest.raises(ModelCorrupt, match="has 2 inputs"):
        convert(graph.write(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 3),
        ("op", {}),
        ("input", [["x"]]),
        ("attr", [1]),
        ("attr", {"strides": {"list": {"i": ["one"]}}}),
        ("attr", {"strides": {"list": {"i": [0, 0, 0, 0]}}}),
        ("attr", {"strides": {"list": {"i": [1, 1 << 70, 1, 1]}}}),
        ("attr", {"padding": {"s": 7}}),
    ],
)
def test_a_node_that_makes_no_sense(tmp_path: Path, key: str, value: Any) -> None:
    graph = TinyGraph()
    graph.input("x", (None, 4, 4, 2))
    graph.node("y", "MaxPool", "x", ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME")
    node = graph.nodes[-1]
    node[key] = {**node[key], **value} if isinstance(value, dict) and key == "attr" else value
    with pytest.raises((ModelCorrupt, UnsupportedModel)):
        convert(graph.write(tmp_path))


def test_json_nested_beyond_measure(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(ModelCorrupt, match="not JSON"):
        convert({"model.json": tmp_path / "model.json"})


def test_open_size_needs_a_shape(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.input("x", (None, None, None, 3))
    graph.node("y", "Relu", "x")
    files = graph.write(tmp_path)
    with pytest.raises(UnsupportedModel, match="no fixed shape"):
        convert(files)
    model = convert(files, shapes={"x": (1, 4, 6, 3)})
    sizes = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes[1:] == [3, 4, 6]


def test_an_input_may_become_a_constant(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.input("x", (None, 2))
    graph.node("ratio", "Placeholder", dtype="DT_FLOAT")
    graph.node("y", "Mul", "x", "ratio")
    files = graph.write(tmp_path)
    with pytest.raises(UnsupportedModel, match="ratio"):
        convert(files)
    (y,) = run(convert(files, constants={"ratio": 3}), np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(y, np.full((2, 2), 3))


def test_leading_one_of_a_reshape_becomes_the_batch(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.input("x", (1, 2, 2, 3))
    graph.const("sizes", [1, 4, -1])
    graph.node("y", "Reshape", "x", "sizes")
    model = convert(graph.write(tmp_path))
    x = np.arange(36, dtype=np.float32).reshape(3, 3, 2, 2)
    (y,) = run(model, x)
    np.testing.assert_array_equal(y, x.transpose(0, 2, 3, 1).reshape(3, 4, 3))


def test_batch_stays_one_where_items_would_mix(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.input("x", (1, 4))
    graph.const("axis", [0])
    graph.node("mean", "Mean", "x", "axis", keep_dims=True)
    graph.node("y", "Sub", "x", "mean")
    model = convert(graph.write(tmp_path))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_shape_arithmetic_follows_the_batch(tmp_path: Path) -> None:
    """Fill by (N, 2), computed from the input's shape, as TensorFlow spells it."""
    graph = TinyGraph()
    graph.input("x", (None, 2))
    graph.node("shape", "Shape", "x")
    graph.const("zero", [0])
    graph.const("one", [1])
    graph.node("n", "StridedSlice", "shape", "zero", "one", "one", shrink_axis_mask=1)
    graph.const("two", 2)
    graph.node("sizes", "Pack", "n", "two", axis=0)
    graph.const("half", 0.5)
    graph.node("filled", "Fill", "sizes", "half")
    graph.const("axis", 1)
    graph.node("y", "ConcatV2", "x", "filled", "axis")
    model = convert(graph.write(tmp_path))
    for rows in (1, 3):
        (y,) = run(model, np.ones((rows, 2), np.float32))
        np.testing.assert_array_equal(y, [[1, 1, 0.5, 0.5]] * rows)


def test_transposes_cancel_and_pads_and_scales_are_absorbed(tmp_path: Path) -> None:
    """A chain as converted from PyTorch by way of ONNX: one Conv and one Relu remain."""
    graph = TinyGraph()
    graph.input("x", (1, 3, 8, 8))
    graph.const("pads", [[0, 0], [0, 0], [1, 1], [1, 1]])
    graph.node("padded", "Pad", "x", "pads")
    graph.const("last", [0, 2, 3, 1])
    graph.const("first", [0, 3, 1, 2])
    graph.node("nhwc", "Transpose", "padded", "last")
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(3, 3, 3, 5)).astype(np.float32)
    graph.const("w", weights)
    graph.node("conv", "Conv2D", "nhwc", "w", padding="VALID", strides=[1, 1, 1, 1])
    scale, shift = rng.normal(size=(2, 5)).astype(np.float32)
    graph.const("scale", scale)
    graph.const("shift", shift)
    graph.node("scaled", "Mul", "conv", "scale")
    graph.node("shifted", "AddV2", "shift", "scaled")
    graph.node("nchw", "Transpose", "shifted", "first")
    graph.node("y", "Relu", "nchw")
    model = convert(graph.write(tmp_path))
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu"]
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    (y,) = run(model, x)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.zeros((2, 5, 8, 8))
    for i in range(3):
        for j in range(3):
            expected += np.einsum(
                "nchw,co->nohw", padded[:, :, i : i + 8, j : j + 8], weights[i, j]
            )
    expected = np.maximum(expected * scale[:, None, None] + shift[:, None, None], 0)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_outputs_without_a_signature(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.input("x", (None, 2))
    graph.node("b", "Relu", "x")
    graph.node("a", "Tanh", "x")
    model = convert(graph.write(tmp_path))
    assert [o.name for o in model.graph.output] == ["a", "b"]


def test_an_input_and_one_value_as_several_outputs(tmp_path: Path) -> None:
    graph = TinyGraph()
    graph.input("x", (None, 2))
    graph.node("r", "Relu", "x")
    graph.outputs = {"one": "r", "two": "r:0", "same": "x"}
    model = convert(graph.write(tmp_path))
    one, same, two = run(model, np.array([[-1, 2]], np.float32))
    np.testing.assert_array_equal(one, [[0, 2]])
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(same, [[-1, 2]])


def test_the_signature_names_a_node_that_is_not_there(tmp_path: Path) -> None:
    graph = affine()
    graph.outputs = {"q": "q"}
    with pytest.raises(ModelCorrupt, match="'q' is no node"):
        convert(graph.write(tmp_path))


def test_attribute_text_must_be_base64(tmp_path: Path) -> None:
    graph = affine()
    files = graph.write(tmp_path)
    document = json.loads(files["m/model.json"].read_text())
    document["modelTopology"]["node"][-1]["attr"]["fused_ops"] = {"list": {"s": ["%%%"]}}
    files["m/model.json"].write_text(json.dumps(document))
    with pytest.raises(ModelCorrupt, match="base64"):
        convert(files)
