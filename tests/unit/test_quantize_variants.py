"""INT8 variants: recipes, the network made ready, the tools that write the files."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from retinue.calibrate import variants_nncf
from retinue.calibrate.variants import Network, Recipe, foreign, prepare, recipes, saturates
from retinue.calibrate.variants_onnxruntime import StaticQuantizer
from retinue.core.errors import InvalidRequest, MissingExtra, UnsupportedModel
from retinue.core.types import Array
from retinue.models.fetch import Quiet
from retinue.testing.onnx_models import (
    aliases,
    convolution,
    convolution_weights,
    evaluate_convolution,
    save,
)

STATIC = Recipe("onnxruntime", "minmax")


def pictures(number: int) -> Iterator[dict[str, Array]]:
    random = np.random.default_rng(3)
    for _ in range(number):
        yield {"picture": random.normal(size=(1, 3, 8, 8)).astype(np.float32)}


@pytest.fixture
def network(tmp_path: Path) -> Network:
    folder = tmp_path / "work"
    folder.mkdir()
    return prepare(convolution(tmp_path / "model.onnx"), folder, pictures)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def check_answers(path: Path, tolerance: float) -> None:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for feed in pictures(4):
        wanted = evaluate_convolution(feed["picture"])
        found = session.run(["features", "scores"], feed)
        for name, values in zip(("features", "scores"), found, strict=True):
            spread = float(np.abs(wanted[name]).max())
            assert np.abs(values - wanted[name]).max() <= tolerance * spread


def test_weights_of_seven_bits_where_products_saturate() -> None:
    assert {r.weights for r in recipes(saturates=False)} == {"s8"}
    assert {r.weights for r in recipes(saturates=True)} == {"s7", "u8"}
    labels = [r.label for r in recipes(saturates=True)]
    assert len(labels) == len(set(labels))
    assert "onnxruntime percentile per-channel s7" in labels


def test_saturation_is_told_by_the_instruction_sets() -> None:
    assert saturates("x86_64", ("avx2", "avx512f"))
    assert not saturates("x86_64", ("avx2", "avx512_vnni"))
    assert not saturates("AMD64", ("avx_vnni",))
    assert not saturates("aarch64", ("asimd",))


def test_a_network_is_made_ready(network: Network) -> None:
    assert len(network.layers) == 2
    assert all(node.name for node in onnx.load(str(network.path)).graph.node)


def test_old_operator_sets_are_raised(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["picture", "kernel"], ["map"])]
    weights = {"kernel": convolution_weights()["kernel"]}
    inputs = {"picture": ("float32", ("N", 3, 8, 8))}
    path = save(tmp_path / "m.onnx", nodes, inputs, {"map": ("float32", ("N", 5, 6, 6))}, weights)
    model = onnx.load(str(path))
    model.opset_import[0].version = 11
    onnx.save(model, str(path))
    ready = prepare(path, tmp_path, pictures)
    assert onnx.load(str(ready.path)).opset_import[0].version >= 13
    assert StaticQuantizer(ready, 4, Quiet()).make(STATIC, tmp_path / "out.onnx").is_file()


def test_what_is_quantised_already_is_refused(network: Network, tmp_path: Path) -> None:
    made = StaticQuantizer(network, 4, Quiet()).make(STATIC, tmp_path / "int8.onnx")
    with pytest.raises(UnsupportedModel, match=r"quantised already .*QuantizeLinear"):
        prepare(made, tmp_path, pictures)


def test_nothing_to_quantise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="no convolution or matrix product"):
        prepare(aliases(tmp_path / "model.onnx"), tmp_path, pictures)


def test_an_operator_that_the_tools_lack_is_their_failure(tmp_path: Path) -> None:
    model = onnx.load(str(convolution(tmp_path / "model.onnx")))
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, str(tmp_path / "odd.onnx"))
    odd = prepare(tmp_path / "odd.onnx", tmp_path, pictures)
    with pytest.raises(UnsupportedModel, match="quantisation cannot handle this model: "):
        StaticQuantizer(odd, 4, Quiet()).make(STATIC, tmp_path / "out.onnx")
    with pytest.raises(UnsupportedModel, match="NNCF cannot handle this model: "):
        variants_nncf.make(odd, Recipe("nncf", "mixed"), tmp_path / "out.onnx", pictures=4)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
@pytest.mark.parametrize("weights", ["s7", "u8"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_static_quantisation(
    network: Network, tmp_path: Path, method: str, weights: str, per_channel: bool
) -> None:
    recipe = Recipe("onnxruntime", method, per_channel, weights)  # type: ignore[arg-type]
    made = StaticQuantizer(network, 16, Quiet()).make(recipe, tmp_path / "int8.onnx")
    assert "QuantizeLinear" in operators(made)
    check_answers(made, 0.25)
    assert not (network.folder / "augmented.onnx").exists()


def test_ranges_are_found_once_for_a_method(network: Network, tmp_path: Path) -> None:
    asked: list[int] = []

    def feeds(number: int) -> Iterator[dict[str, Array]]:
        asked.append(number)
        return pictures(number)

    counted = Network(network.path, network.folder, network.layers, feeds)
    static = StaticQuantizer(counted, 300, Quiet())
    for out in ("a.onnx", "b.onnx"):
        static.make(STATIC, tmp_path / out)
        static.make(Recipe("onnxruntime", "entropy"), tmp_path / out)
    assert asked == [300, 200]


def test_layers_are_left_out(network: Network, tmp_path: Path) -> None:
    static = StaticQuantizer(network, 8, Quiet())
    whole = static.make(STATIC, tmp_path / "whole.onnx")
    part = static.make(STATIC, tmp_path / "part.onnx", excluded=network.layers[:1])
    alone = static.make(STATIC, tmp_path / "alone.onnx", only=network.layers[:1])
    dequantized = [operators(path).count("DequantizeLinear") for path in (whole, part, alone)]
    assert dequantized[0] > max(dequantized[1:]) > 0


def test_a_method_of_another_tool_is_refused(network: Network, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="no method 'mixed'"):
        StaticQuantizer(network, 8, Quiet()).make(
            Recipe("onnxruntime", "mixed"), tmp_path / "out.onnx"
        )


@pytest.mark.parametrize("method", ["performance", "mixed"])
def test_nncf(network: Network, tmp_path: Path, method: str) -> None:
    recipe = Recipe("nncf", method, True, "s7")  # type: ignore[arg-type]
    made = variants_nncf.make(network, recipe, tmp_path / "int8.onnx", pictures=16)
    assert "QuantizeLinear" in operators(made)
    check_answers(made, 0.25)
    left = variants_nncf.make(
        network, recipe, tmp_path / "part.onnx", pictures=16, excluded=network.layers[:1]
    )
    assert operators(left).count("QuantizeLinear") < operators(made).count("QuantizeLinear")


def test_without_nncf(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtra, match=r"retinue\[quantize\]"):
        variants_nncf.make(network, Recipe("nncf", "mixed"), tmp_path / "out.onnx", pictures=4)


def test_nobody_is_told_of_the_use() -> None:
    variants_nncf.engine()
    assert sys.modules["openvino_telemetry"] is None


def test_onnx_runtime_tells_nobody_either(tmp_path: Path) -> None:
    """It would put an identity of the machine into the home folder, and send what it counts."""
    quiet = {"CI", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {k: v for k, v in os.environ.items() if k not in quiet and "PYTEST" not in k}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    script = "from retinue.runtimes.onnxruntime import RUNTIME; import os; "
    script += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    command = [sys.executable, "-B", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_tool_is_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = pytest.raises(UnsupportedModel, match="the tool cannot handle this model: boom")
    with refused as caught, foreign("the tool", tmp_path):
        print("talk")
        warnings.warn("talk", stacklevel=1)
        logging.getLogger().error("talk")
        assert tempfile.gettempdir() == str(tmp_path)
        raise ZeroDivisionError("boom\nmore")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert capsys.readouterr() == ("", "")
    assert tempfile.gettempdir() != str(tmp_path)
    assert not logging.root.manager.disable
    for mine in (InvalidRequest("no"), OSError(28, "full"), KeyboardInterrupt()):
        with pytest.raises(type(mine)), foreign("the tool", tmp_path):
            raise mine
