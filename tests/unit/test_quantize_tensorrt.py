"""The network for TensorRT, and the check that it is what TensorRT asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from retinue.calibrate.tensorrt import check, export
from retinue.calibrate.variants import Recipe, prepare
from retinue.calibrate.variants_onnxruntime import StaticQuantizer
from retinue.core.errors import NotWritable, UnsupportedModel
from retinue.core.types import Array
from retinue.models.fetch import Quiet
from retinue.testing.onnx_models import aliases, convolution, save


def pictures(number: int) -> Iterator[dict[str, Array]]:
    random = np.random.default_rng(3)
    for _ in range(number):
        yield {"x": random.normal(size=(1, 3, 8, 8)).astype(np.float32)}


def residual(path: Path) -> Path:
    """Write a block with a shortcut: relu(conv(x)) + conv(relu(conv(x))), then a linear layer."""
    random = np.random.default_rng(5)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "b2": (4,), "w3": (5, 4)}
    weights = {k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=pads),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "second", pads=pads),
        helper.make_node("Add", ["c2", "r1"], ["sum"], "join"),
        helper.make_node("ReduceMean", ["sum"], ["m"], "mean", axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["m", "w3"], ["y"], "linear", transB=1),
    ]
    inputs = {"x": ("float32", ("N", 3, 8, 8))}
    return save(path, nodes, inputs, {"y": ("float32", ("N", 5))}, weights)


@pytest.fixture
def static(tmp_path: Path) -> StaticQuantizer:
    folder = tmp_path / "work"
    folder.mkdir()
    return StaticQuantizer(
        prepare(residual(tmp_path / "model.onnx"), folder, pictures), 16, Quiet()
    )


@pytest.fixture
def exported(static: StaticQuantizer, tmp_path: Path) -> Path:
    export(static, tmp_path / "deep" / "trt.onnx", method="minmax")
    return tmp_path / "deep" / "trt.onnx"


def test_the_export_passes_and_answers_alike(exported: Path, tmp_path: Path) -> None:
    assert check(exported) == []
    sessions = [
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (tmp_path / "model.onnx", exported)
    ]
    for feed in pictures(4):
        wanted, found = (session.run(None, feed)[0] for session in sessions)
        assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_the_shortcut_alone_is_quantised(exported: Path) -> None:
    graph = onnx.load(str(exported)).graph
    makers = {tensor: node for node in graph.node for tensor in node.output}
    (join,) = (node for node in graph.node if node.op_type == "Add")
    assert [makers[tensor].op_type for tensor in join.input] == ["Conv", "DequantizeLinear"]
    # Nothing is left of the pair that was taken out.
    read = {tensor for node in graph.node for tensor in node.input} | {"y"}
    assert all(set(node.output) & read for node in graph.node)
    assert all(tensor.name in read for tensor in graph.initializer)


def test_signed_and_symmetric_with_float_biases(exported: Path) -> None:
    model = onnx.load(str(exported))
    assert {o.domain for o in model.opset_import} == {""}
    kinds = {t.data_type for t in model.graph.initializer}
    assert TensorProto.UINT8 not in kinds
    assert TensorProto.INT32 not in kinds
    scales = [t for t in model.graph.initializer if list(t.dims) == [4] and "scale" in t.name]
    assert len(scales) == 2


Change = Callable[[onnx.ModelProto], None]


def constant(model: onnx.ModelProto, node: onnx.NodeProto, place: int, values: Array) -> None:
    """Give a node another constant as an input."""
    name = f"{node.name}_{place}_changed"
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    node.input[place] = name


def of_type(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def unsigned(model: onnx.ModelProto) -> None:
    for node in of_type(model, "QuantizeLinear") + of_type(model, "DequantizeLinear"):
        constant(model, node, 2, np.zeros((), np.uint8))


def shifted(model: onnx.ModelProto) -> None:
    constant(model, of_type(model, "QuantizeLinear")[0], 2, np.array(3, np.int8))


def negative(model: onnx.ModelProto) -> None:
    constant(model, of_type(model, "QuantizeLinear")[0], 1, np.array(-1, np.float32))


def computed(model: onnx.ModelProto) -> None:
    of_type(model, "QuantizeLinear")[0].input[1] = "m"


def lonely(model: onnx.ModelProto) -> None:
    node = of_type(model, "DequantizeLinear")[0]
    constant(model, node, 0, np.zeros((4, 3, 3, 3), np.int8))


def one_factor(model: onnx.ModelProto) -> None:
    constant(model, of_type(model, "Conv")[0], 1, np.zeros((4, 3, 3, 3), np.float32))


def both_joined(model: onnx.ModelProto) -> None:
    (join,) = of_type(model, "Add")
    join.input[0] = join.input[1]


def wrong_axis(model: onnx.ModelProto) -> None:
    for node in of_type(model, "QuantizeLinear") + of_type(model, "DequantizeLinear"):
        for attribute in node.attribute:
            if attribute.name == "axis":
                attribute.i = 1


def quantized_bias(model: onnx.ModelProto) -> None:
    pair = of_type(model, "DequantizeLinear")[0]
    of_type(model, "Conv")[0].input[2] = pair.output[0]


def contrib(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    of_type(model, "Relu")[0].domain = "com.microsoft"


def old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unsigned, "not signed 8-bit"),
        (shifted, "zero point is not 0"),
        (negative, "scale is not positive"),
        (computed, "scale is no constant"),
        (lonely, "does not follow a QuantizeLinear"),
        (one_factor, "only one of its two factors"),
        (both_joined, "fuses with no layer"),
        (wrong_axis, "4 scales on axis 1 of its weights, not 4 on axis 0"),
        (quantized_bias, "bias is quantised"),
        (contrib, "com.microsoft"),
        (old, "opset is 11"),
    ],
)
def test_each_broken_rule_is_named(exported: Path, change: Change, message: str) -> None:
    from retinue.calibrate.tensorrt import _broken

    model = onnx.load(str(exported))
    change(model)
    assert any(message in said for said in _broken(model))


def test_what_is_made_for_processors_fails(static: StaticQuantizer, tmp_path: Path) -> None:
    made = static.make(Recipe("onnxruntime", "minmax"), tmp_path / "cpu.onnx")
    said = " ".join(check(made))
    assert "not signed 8-bit" in said
    assert "bias is quantised" in said


def test_what_is_not_quantised_or_not_onnx_fails(tmp_path: Path) -> None:
    assert "nothing in it is quantised" in check(convolution(tmp_path / "float.onnx"))
    (tmp_path / "not.onnx").write_bytes(b"hello")
    assert "not a valid ONNX file" in check(tmp_path / "not.onnx")[0]
    assert check(aliases(tmp_path / "plain.onnx")) == ["nothing in it is quantised"]


def test_a_place_that_cannot_be_written(static: StaticQuantizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable, match="writing the TensorRT model"):
        export(static, tmp_path / "file" / "trt.onnx", method="minmax")
    with pytest.raises(UnsupportedModel):
        export(static, tmp_path / "trt.onnx", method="mixed")
    assert not (tmp_path / "trt.onnx").exists()
