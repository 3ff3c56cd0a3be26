"""EfficientNet-Lite0 for search: small random weights against NumPy; the constants that ship."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers import efficientnet_lite
from retinue.models.importers.efficientnet_lite import convert
from retinue.models.importers.efficientnet_search import (
    BEST,
    CLASS_SHARE,
    IMPORTER,
    LAYER,
    Constants,
    extend,
    load_constants,
)
from retinue.testing.legacy_pth import save

REPEATS = (1, 2, 2, 3, 3, 4, 1)
WIDTHS = (2, 3, 4, 5, 6, 7, 8)
SIDE, POOLED, CLASSES, MIDDLE, BITS, WORDS = 60, 9, 14, 12, 16, 5


def small_state() -> dict[str, np.ndarray]:
    """Return random weights of the architecture's shape, with batch norms that change nothing."""
    random = np.random.default_rng(7)
    state: dict[str, np.ndarray] = {}

    def conv(name: str, norm: str, out: int, into: int, kernel: int) -> None:
        shape = (out, into, kernel, kernel)
        scale = 2 / np.sqrt(into * kernel**2)
        state[f"{name}.weight"] = random.normal(0, scale, shape).astype(np.float32)
        for part in ("weight", "running_var"):
            state[f"{norm}.{part}"] = np.ones(out, np.float32)
        for part in ("bias", "running_mean"):
            state[f"{norm}.{part}"] = np.zeros(out, np.float32)

    conv("_conv_stem", "_bn0", 2, 3, 3)
    before, index = 2, 0
    for count, width in zip(REPEATS, WIDTHS, strict=True):
        for _ in range(count):
            name, inner = f"_blocks.{index}.", before
            if index:
                inner = 2 * before
                conv(f"{name}_expand_conv", f"{name}_bn0", inner, before, 1)
            conv(f"{name}_depthwise_conv", f"{name}_bn1", inner, 1, 3)
            conv(f"{name}_project_conv", f"{name}_bn2", width, inner, 1)
            before, index = width, index + 1
    conv("_conv_head", "_bn1", POOLED, before, 1)
    state["_fc.weight"] = random.normal(size=(CLASSES, POOLED)).astype(np.float32)
    state["_fc.bias"] = random.normal(size=CLASSES).astype(np.float32)
    return state


def small_constants() -> Constants:
    random = np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    words = normal(CLASSES, WORDS)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    return Constants(
        pooled_weight=normal(POOLED, 4),
        pooled_bias=normal(4),
        class_weight=normal(CLASSES, 3),
        class_bias=normal(3),
        token_weight=normal(BITS, MIDDLE),
        token_bias=normal(BITS),
        class_vectors=words,
    )


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "RESOLUTIONS", {(16, 4): SIDE})


def run(model: onnx.ModelProto, names: list[str], x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(names, {"images": x})]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_outputs_agree_with_the_formulas() -> None:
    plain = convert(small_state())
    info = onnx.helper.make_tensor_value_info(LAYER, onnx.TensorProto.FLOAT, None)
    plain.graph.output.append(info)
    x = np.random.default_rng(1).normal(size=(3, 3, SIDE, SIDE)).astype(np.float32)
    names = ["embedding", "probabilities", LAYER]
    pooled, chances, maps = (v.astype(np.float64) for v in run(plain, names, x))
    c = small_constants()
    features = unit(np.sqrt(pooled) @ c.pooled_weight + c.pooled_bias)
    kinds = unit(np.sqrt(chances) @ c.class_weight + c.class_bias)
    embedding = unit(np.concatenate([features, CLASS_SHARE * kinds], axis=1))
    assert maps.shape == (3, MIDDLE, 4, 4)
    tokens = [
        [
            c.token_weight @ np.sqrt(picture[:, y : y + 2, x : x + 2].mean((1, 2))) + c.token_bias
            for y in (0, 2)
            for x in (0, 2)
        ]
        for picture in maps
    ]
    semantic = []
    for row in chances:
        best = np.argsort(-row)[:BEST]
        semantic.append(sum(np.sqrt(row[i]) * c.class_vectors[i] for i in best))
    model = extend(convert(small_state()), c)
    assert [output.name for output in model.graph.output] == ["embedding", "tokens", "semantic"]
    found = run(model, ["embedding", "tokens", "semantic"], x)
    expected = (embedding, np.array(tokens), unit(np.array(semantic)))
    for actual, truth in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, truth, rtol=1e-4, atol=1e-4)
    alone = run(model, ["embedding", "tokens", "semantic"], x[1:2])
    for one, many in zip(alone, found, strict=True):
        np.testing.assert_allclose(one[0], many[1], rtol=1e-4, atol=1e-5)


def test_a_vector_of_zeros_stays_one() -> None:
    """So that it is the item's error later, and no NaN."""
    c = small_constants()
    c = replace(c, class_vectors=np.zeros_like(c.class_vectors))
    x = np.zeros((1, 3, SIDE, SIDE), np.float32)
    (semantic,) = run(extend(convert(small_state()), c), ["semantic"], x)
    assert semantic.tolist() == [[0] * WORDS]


@pytest.mark.parametrize("field", ["pooled_weight", "class_vectors", "token_weight"])
def test_constants_of_another_network(field: str) -> None:
    c = small_constants()
    axis = 1 if field == "token_weight" else 0
    other = replace(c, **{field: np.concatenate([getattr(c, field)] * 2, axis=axis)})
    with pytest.raises(UnsupportedModel, match="not EfficientNet-Lite0's"):
        extend(convert(small_state()), other)


def test_a_network_without_the_layer() -> None:
    model = convert(small_state())
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["other" if name == LAYER else name for name in names]
    with pytest.raises(UnsupportedModel, match="no layer"):
        extend(model, small_constants())


def test_the_constants_that_ship() -> None:
    c = load_constants()
    shapes = [getattr(c, field.name).shape for field in fields(Constants)]
    assert shapes == [(1280, 192), (192,), (1000, 64), (64,), (128, 672), (128,), (1000, 256)]
    for field in fields(Constants):
        values = getattr(c, field.name)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    np.testing.assert_allclose(np.linalg.norm(c.class_vectors, axis=1), 1, atol=2e-3)


def test_other_weights_are_refused_by_the_importer(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(save(small_state()))
    with pytest.raises(UnsupportedModel, match="12 features in the middle, 9 pooled"):
        IMPORTER({"w.pth": tmp_path / "w.pth"}, tmp_path / "model.onnx")
    with pytest.raises(ModelCorrupt, match=r"one \.pth file"):
        IMPORTER({"readme.md": tmp_path / "w.pth"}, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
