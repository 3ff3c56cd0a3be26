"""NanoDet's converted graph against TensorFlow.js: see benchmarks/reference/README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from retinue.models.registry import Registry

GOLDEN = Path(__file__).with_name("fixtures") / "nanodet_golden.npz"
STEP = 29
OUTPUTS = ["Identity", "Identity_1", "Identity_2", "Identity_3", "Identity_4", "Identity_5"]


def picture() -> np.ndarray:
    """Return benchmarks/reference's pattern, normalised: integers first, alike in any language."""
    y, x, c = np.ogrid[:416, :416, :3]
    pattern = ((x * (3 + c) + y * (5 + 2 * c)) ^ (x * y >> 4)) & 255
    scaled = (pattern - np.array([103.53, 116.28, 123.675])) / np.array([57.375, 57.12, 58.395])
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)


def open_model(model_cache: Registry) -> ort.InferenceSession:
    path = model_cache.get("nanodet-g-416").path
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_every_output_agrees(model_cache: Registry) -> None:
    found = open_model(model_cache).run(OUTPUTS, {"images": picture()})
    with np.load(GOLDEN) as golden:
        for name, values in zip(OUTPUTS, found, strict=True):
            assert list(values.shape) == golden[f"{name}.shape"].tolist()
            np.testing.assert_allclose(values.reshape(-1)[::STEP], golden[name], atol=1e-4)


def test_outputs_are_scores_and_distances_from_fine_to_coarse(model_cache: Registry) -> None:
    shapes = {tensor.name: tensor.shape for tensor in open_model(model_cache).get_outputs()}
    cells = [2704, 676, 169]
    assert [shapes[name] for name in OUTPUTS] == [
        *(["batch", count, 80] for count in cells),
        *(["batch", count, 44] for count in cells),
    ]


def test_rows_of_a_batch_do_not_mix(model_cache: Registry) -> None:
    session = open_model(model_cache)
    batch = np.concatenate([picture(), -picture(), picture()[..., ::-1], picture() / 2])
    together = session.run(OUTPUTS, {"images": batch})
    for row in range(4):
        alone = session.run(OUTPUTS, {"images": batch[row : row + 1]})
        for many, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(many[row], one[0], atol=1e-4)


def test_nothing_superfluous_is_left(model_cache: Registry) -> None:
    """Pads, scales and all but the outputs' own transposes are gone."""
    graph = onnx.load(model_cache.get("nanodet-g-416").path).graph
    ops = [node.op_type for node in graph.node]
    assert ops.count("Transpose") == len(OUTPUTS)
    assert "Pad" not in ops
    assert ops.count("Add") == 4
