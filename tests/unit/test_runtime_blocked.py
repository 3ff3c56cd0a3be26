"""What ONNX Runtime is told in other words means the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from retinue.core.errors import ModelCorrupt
from retinue.runtimes._blocked import rewritten
from retinue.runtimes.onnxruntime import OnnxRuntime

RNG = np.random.default_rng(3)
PAD = np.array([0, 0, 0, 0, 0, 16, 0, 0], np.int64)


def save(
    path: Path,
    slope: np.ndarray,
    pads: np.ndarray = PAD,
    shape: tuple[int | str, ...] = (1, 16, 5, 4),
    **attributes: str,
) -> Path:
    """A PRelu, then a Pad."""
    nodes = [
        helper.make_node("PRelu", ["images", "slope"], ["active"]),
        helper.make_node("Pad", ["active", "pads"], ["wide"], **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("wide", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(slope, "slope"), numpy_helper.from_array(pads, "pads")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def operators(content: bytes | None) -> list[str]:
    assert content is not None
    return [node.op_type for node in onnx.load_from_string(content).graph.node]


@pytest.mark.parametrize("shape", [(16, 1, 1), (1, 16, 1, 1), (1,), (1, 1, 1)])
def test_the_same_numbers(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "m.onnx", RNG.normal(size=shape).astype(np.float32))
    assert operators(rewritten(path)) == ["Conv", "Relu", "Conv", "Add", "Conv"]
    x = RNG.normal(size=(1, 16, 5, 4)).astype(np.float32)
    plain = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (wanted,) = plain.run(None, {"images": x})
    found = OnnxRuntime(path).run({"images": x})["wide"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_batch_may_vary(tmp_path: Path) -> None:
    slope = RNG.normal(size=(16, 1, 1)).astype(np.float32)
    runtime = OnnxRuntime(save(tmp_path / "m.onnx", slope, shape=("batch", 16, 5, 4)))
    assert runtime.run({"images": np.zeros((3, 16, 5, 4), np.float32)})["wide"].shape[0] == 3


def test_what_it_does_not_know_is_left(tmp_path: Path) -> None:
    full = RNG.normal(size=(16, 5, 4)).astype(np.float32)
    assert rewritten(save(tmp_path / "a.onnx", full, np.zeros(8, np.int64))) is None
    channels = full[:, :1, :1]
    spatial = np.array([0, 0, 1, 0, 0, 16, 0, 0], np.int64)
    odd = np.array([0, 0, 0, 0, 0, 3, 0, 0], np.int64)
    for pads in (spatial, odd):
        assert operators(rewritten(save(tmp_path / "b.onnx", channels, pads)))[-1] == "Pad"
    zero = np.zeros(8, np.int64)
    kept = save(tmp_path / "c.onnx", channels, zero, mode="edge")
    assert operators(rewritten(kept))[-1] == "Pad"
    flat = save(tmp_path / "d.onnx", np.ones(4, np.float32), np.zeros(4, np.int64), (2, 4))
    assert rewritten(flat) is None


class Tiny:
    """A network of convolutions, built node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def emit(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def conv(self, x: str, taken: int, made: int, group: int = 1, kernel: int = 1) -> str:
        weights = RNG.normal(size=(made, taken // group, kernel, kernel)).astype(np.float32)
        bias = self.constant(RNG.normal(size=made).astype(np.float32))
        pads = [kernel // 2] * 4
        return self.emit("Conv", x, self.constant(weights), bias, group=group, pads=pads)

    def pad(self, x: str, more: int) -> str:
        amounts = np.array([0, 0, 0, 0, 0, more, 0, 0], np.int64)
        return self.emit("Pad", x, self.constant(amounts))

    def save(self, path: Path, *outputs: str, size: int = 8) -> Path:
        results = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs]
        shape = (1, 3, size, size)
        picture = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "g", [picture], results, self.constants)
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
        return path


def agrees(path: Path, size: int = 8) -> list[str]:
    """Run both; return the rewritten operators."""
    x = RNG.normal(size=(1, 3, size, size)).astype(np.float32)
    plain = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    content = rewritten(path)
    other = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    for one, two in zip(
        plain.run(None, {"images": x}), other.run(None, {"images": x}), strict=True
    ):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-4)
    return operators(content)


def stage(net: Tiny, x: str, taken: int, made: int) -> str:
    """BlazeFace's block."""
    deep = net.conv(x, taken, taken, group=taken, kernel=3)
    grown = net.conv(deep, taken, made)
    return net.emit("Relu", net.emit("Add", net.pad(x, made - taken), grown))


def test_a_network_that_grows_by_a_few_channels(tmp_path: Path) -> None:
    net = Tiny()
    x = net.emit("Relu", net.conv("images", 3, 24, kernel=3))
    x = stage(net, stage(net, x, 24, 28), 28, 32)
    x = net.emit("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = stage(net, x, 32, 36)
    last = net.conv(x, 36, 5)
    flat = net.emit("Reshape", last, net.constant(np.array([1, -1], np.int64)))
    found = agrees(net.save(tmp_path / "m.onnx", flat))
    assert "Pad" not in found
    assert found.count("Identity") == 2


def test_ends_that_others_see_keep_their_channels(tmp_path: Path) -> None:
    """Inputs, outputs, and what other operators read."""
    net = Tiny()
    first = net.pad("images", 2)
    x = net.emit("Relu", net.conv(first, 5, 24))
    seen = net.pad(x, 4)
    shaped = net.emit("Softmax", net.conv(x, 24, 20), axis=1)
    wide = net.pad(net.conv(x, 24, 30), 3)
    both = net.emit("Concat", wide, shaped, axis=1)
    agrees(net.save(tmp_path / "m.onnx", seen, both))
    apart = net.conv(x, 24, 48, group=24)
    grouped = net.conv(net.pad(x, 8), 32, 8, group=4)
    summed = net.emit("Add", x, net.constant(np.ones((1, 24, 1, 1), np.float32)))
    agrees(net.save(tmp_path / "n.onnx", net.emit("Relu", apart), grouped, summed))


def test_a_sum_after_a_padded_picture(tmp_path: Path) -> None:
    net = Tiny()
    padded = net.pad("images", 4)
    x = net.emit("Add", padded, net.conv("images", 3, 7))
    last = net.conv(net.emit("Relu", x), 7, 2)
    assert "Pad" in agrees(net.save(tmp_path / "m.onnx", last))


def test_a_large_pad_stays(tmp_path: Path) -> None:
    net = Tiny()
    x = net.conv("images", 3, 16)
    last = net.conv(net.emit("Add", net.pad(x, 16), net.conv(x, 16, 32)), 32, 2)
    assert rewritten(net.save(tmp_path / "m.onnx", last, size=80)) is None


def test_damage_is_left_to_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\xff\xff PRelu \0")
    assert rewritten(path) is None
    with pytest.raises(ModelCorrupt):
        OnnxRuntime(path)
    path.write_bytes(b"")
    assert rewritten(path) is None
    assert rewritten(tmp_path / "none.onnx") is None
