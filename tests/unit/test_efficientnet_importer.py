"""EfficientNet-Lite's importer: small random weights against a NumPy twin, real ones against
PyTorch."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers import efficientnet_lite
from retinue.models.importers.efficientnet_lite import IMPORTER, convert
from retinue.models.registry import Registry
from retinue.testing import tfjs_twins as twin
from retinue.testing.legacy_pth import save

GOLDEN = Path(__file__).with_name("fixtures") / "efficientnet_lite0_golden.npz"
# Repeats, kernel and stride of the seven stages, as published.
STAGES = [(1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1)]
WIDTHS = (16, 24, 40, 80, 112, 192, 320)
VARIANTS = {
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
    "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
}


def rounded(width: int, factor: float) -> int:
    new = max(8, int(width * factor + 4) // 8 * 8)
    return new + 8 if new < 0.9 * width * factor else new


def small_state(
    widths: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8),
    repeats: tuple[int, ...] = tuple(stage[0] for stage in STAGES),
    stem: int = 2,
    head: int = 9,
    classes: int = 3,
    expansion: int = 2,
) -> dict[str, np.ndarray]:
    """Return random weights of the architecture's shape."""
    rng = np.random.default_rng(7)
    state: dict[str, np.ndarray] = {}

    def conv(name: str, norm: str, out: int, into: int, kernel: int) -> None:
        shape = (out, into, kernel, kernel)
        scale = 1 / np.sqrt(into * kernel**2)
        state[f"{name}.weight"] = rng.normal(0, scale, shape).astype(np.float32)
        state[f"{norm}.weight"] = rng.uniform(0.5, 1.5, out).astype(np.float32)
        state[f"{norm}.bias"] = rng.normal(size=out).astype(np.float32)
        state[f"{norm}.running_mean"] = rng.normal(size=out).astype(np.float32)
        state[f"{norm}.running_var"] = rng.uniform(0.001, 1, out).astype(np.float32)
        state[f"{norm}.num_batches_tracked"] = np.array(3, np.int64)

    conv("_conv_stem", "_bn0", stem, 3, 3)
    before, index = stem, 0
    for count, width, (_, kernel, _) in zip(repeats, widths, STAGES, strict=True):
        for _ in range(count):
            name, inner = f"_blocks.{index}.", before
            if index:
                inner = before * expansion
                conv(f"{name}_expand_conv", f"{name}_bn0", inner, before, 1)
            conv(f"{name}_depthwise_conv", f"{name}_bn1", inner, 1, kernel)
            conv(f"{name}_project_conv", f"{name}_bn2", width, inner, 1)
            before, index = width, index + 1
    conv("_conv_head", "_bn1", head, before, 1)
    state["_fc.weight"] = rng.normal(size=(classes, head)).astype(np.float32)
    state["_fc.bias"] = rng.normal(size=classes).astype(np.float32)
    return state


def network(state: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The architecture on (N, H, W, 3), unfolded, in double precision: slow and obvious."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        part = {
            k: state[f"{name}.{k}"].astype(np.float64)
            for k in ("weight", "bias", "running_mean", "running_var")
        }
        normal = (x - part["running_mean"]) / np.sqrt(part["running_var"] + 1e-3)
        return normal * part["weight"] + part["bias"]

    def conv(x: np.ndarray, name: str, stride: int = 1) -> np.ndarray:
        return twin.conv2d(x, state[name].transpose(2, 3, 1, 0), (stride, stride))

    def deep(x: np.ndarray, name: str, stride: int) -> np.ndarray:
        return twin.depthwise(x, state[name].transpose(2, 3, 0, 1), (stride, stride))

    x = np.clip(norm(conv(x, "_conv_stem.weight", 2), "_bn0"), 0, 6)
    index = 0
    for repeats, _, first in STAGES:
        for repeat in range(repeats):
            name, before, stride = f"_blocks.{index}.", x, first if repeat == 0 else 1
            if index:
                x = np.clip(norm(conv(x, f"{name}_expand_conv.weight"), f"{name}_bn0"), 0, 6)
            x = np.clip(norm(deep(x, f"{name}_depthwise_conv.weight", stride), f"{name}_bn1"), 0, 6)
            x = norm(conv(x, f"{name}_project_conv.weight"), f"{name}_bn2")
            if repeat:
                x = x + before
            index += 1
    x = np.clip(norm(conv(x, "_conv_head.weight"), "_bn1"), 0, 6)
    embedding = x.mean((1, 2))
    logits = embedding @ state["_fc.weight"].T + state["_fc.bias"]
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True), embedding


def session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_small_weights_agree_with_the_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On pictures of 29 x 29: odd sizes on the way, where SAME pads one side more."""
    monkeypatch.setattr(efficientnet_lite, "RESOLUTIONS", {(16, 4): 29})
    state = small_state()
    (tmp_path / "w.pth").write_bytes(save(state, reversed_strides=True))
    IMPORTER({"p/w.pth": tmp_path / "w.pth"}, tmp_path / "model.onnx")
    x = np.random.default_rng(1).normal(size=(3, 3, 29, 29)).astype(np.float32)
    found = session(tmp_path / "model.onnx").run(["probabilities", "embedding"], {"images": x})
    for actual, expected in zip(found, network(state, x.transpose(0, 2, 3, 1)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_same_weights_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "RESOLUTIONS", {(16, 4): 29})
    (tmp_path / "w.pth").write_bytes(save(small_state()))
    for name in ("a.onnx", "b.onnx"):
        IMPORTER({"w.pth": tmp_path / "w.pth"}, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_told_apart(variant: str) -> None:
    """Stages scale; the first and the last one's depth, the stem and the head do not."""
    width, depth, side = VARIANTS[variant]
    repeats = tuple(
        count if at in (0, 6) else ceil(count * depth) for at, (count, _, _) in enumerate(STAGES)
    )
    widths = tuple(rounded(w, width) for w in WIDTHS)
    model = convert(small_state(widths, repeats, expansion=1))
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert [sizes[0].dim_param, *(d.dim_value for d in sizes[1:])] == ["batch", 3, side, side]


def test_weights_of_something_else() -> None:
    with pytest.raises(UnsupportedModel, match="0 blocks"):
        convert({"a": np.zeros(3, np.float32)})
    with pytest.raises(UnsupportedModel, match="16 blocks in 7 stages"):
        convert(small_state())


def test_missing_and_misshapen_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "RESOLUTIONS", {(16, 4): 29})
    state = small_state()
    for name, change, error, message in (
        ("_fc.bias", None, UnsupportedModel, "no '_fc.bias'"),
        ("_bn1.weight", np.zeros(4, np.float32), ModelCorrupt, "_bn1"),
        ("_conv_head.weight", np.zeros((9, 8), np.float32), UnsupportedModel, "_conv_head"),
        ("_conv_head.weight", np.zeros((9, 5, 1, 1), np.float32), ModelCorrupt, "5 channels"),
        ("_fc.weight", np.zeros((3, 4), np.float32), ModelCorrupt, "9 features"),
        ("_fc.weight", np.zeros((3, 9), np.int64), UnsupportedModel, "int64"),
    ):
        damaged = dict(state)
        if change is None:
            del damaged[name]
        else:
            damaged[name] = change
        with pytest.raises(error, match=message):
            convert(damaged)


def picture() -> np.ndarray:
    """Return benchmarks/reference's pattern, normalised: integers first, alike in any language."""
    y, x, c = np.ogrid[:224, :224, :3]
    pattern = ((x * (3 + c) + y * (5 + 2 * c)) ^ (x * y >> 4)) & 255
    return np.ascontiguousarray(((pattern - 127.0) / 128.0).transpose(2, 0, 1)[None], np.float32)


def test_lite0_agrees_with_pytorch(model_cache: Registry) -> None:
    """See benchmarks/reference/efficientnet_golden.py."""
    found = session(model_cache.get("efficientnet-lite0").path)
    probabilities, embedding = found.run(["probabilities", "embedding"], {"images": picture()})
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(probabilities, golden["probabilities"], atol=1e-5)
        np.testing.assert_allclose(embedding, golden["embedding"], atol=1e-4)


def test_lite0_gives_each_row_of_a_batch_its_own_answer(model_cache: Registry) -> None:
    found = session(model_cache.get("efficientnet-lite0").path)
    batch = np.concatenate([picture(), -picture(), picture()[..., ::-1], picture() / 2])
    together = found.run(None, {"images": batch})
    for row in range(4):
        for many, one in zip(
            together, found.run(None, {"images": batch[row : row + 1]}), strict=True
        ):
            np.testing.assert_allclose(many[row], one[0], atol=1e-4)
