"""MediaPipe's models, pulled and converted, against MediaPipe: benchmarks/reference/README.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retinue.core.protocols import Runtime
from retinue.core.settings import Execution
from retinue.core.types import Image
from retinue.models import _face_parts, blazeface, face_mesh, segmentation
from retinue.models.card import Card
from retinue.models.loading import load_model
from retinue.models.registry import Registry
from retinue.runtimes import onnxruntime, openvino

GOLDEN = Path(__file__).with_name("fixtures") / "mediapipe_golden.npz"
CARDS = {
    card.name: card
    for family in (blazeface.MODEL, face_mesh.MODEL, segmentation.MODEL)
    for card in family.cards
}
ENGINES = {"onnxruntime": onnxruntime.OnnxRuntime, "openvino": openvino.OpenVino}
LOW = {"blazeface-short-range": -1.0, "blazeface-full-range": -1.0}


def pattern(card: Card) -> np.ndarray:
    """Return benchmarks/reference's pattern: integers only, alike in any language."""
    y, x, c = np.ogrid[: card.input.height, : card.input.width, :3]
    return (((x * (3 + c) + y * (5 + 2 * c)) ^ (x * y >> 4)) & 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pulled(model_cache: Registry) -> Callable[[str], Path]:
    return lambda name: model_cache.pull(CARDS[name]).path


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CARDS)
def test_every_output_agrees(name: str, engine: str, pulled: Callable[[str], Path]) -> None:
    runtime: Runtime = ENGINES[engine](pulled(name))
    low = LOW.get(name, 0.0)
    picture = low + pattern(CARDS[name]).astype(np.float32) * ((1 - low) / 255)
    row = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)
    found = runtime.run({"images": row})
    runtime.close()
    with np.load(GOLDEN) as golden:
        wanted = {
            key.partition("/")[2]: golden[key] for key in golden if key.startswith(f"{name}/")
        }
    assert set(found) == set(wanted)
    for output, values in found.items():
        flat = values.reshape(-1)
        sampled = flat[:: 1 + flat.size // 1500]
        atol = 2e-3
        if name.startswith("selfie"):
            # Of small probabilities the logarithm tells more; ONNX Runtime's are within 1e-7.
            sampled, wanted[output] = (np.log(v + 1e-5) for v in (sampled, wanted[output]))
            atol = 2e-2
        np.testing.assert_allclose(sampled, wanted[output], rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", CARDS)
def test_the_catalogue_s_cards_load_and_answer(name: str, model_cache: Registry) -> None:
    model = load_model(model_cache.pull(CARDS[name]), Execution(threads=1))
    pixels = pattern(CARDS[name])
    height, width = pixels.shape[:2]
    alone, again = model.predict([Image(pixels, width, height)] * 2)
    assert type(alone.unwrap()) is type(again.unwrap())
    model.close()


def test_the_attention_model_s_parts_lie_on_the_mesh(model_cache: Registry) -> None:
    """The tables fit the network: what is found again is near what it replaces, on a drawn face."""
    model = load_model(model_cache.pull(CARDS["face-mesh-attention"]), Execution(threads=1))
    assert isinstance(model, face_mesh.FaceMesh)
    outputs = model.run([model.preprocess(Image(drawn_face(), 192, 192)).tensors])[0]
    mesh = outputs["output_mesh_identity"].reshape(468, 3)[:, :2]
    groups = {
        "lips": _face_parts.LIPS,
        "left_eye": _face_parts.LEFT_EYE,
        "right_eye": _face_parts.RIGHT_EYE,
    }
    for part, places in groups.items():
        again = outputs[f"output_{part}"].reshape(-1, 2)
        moved = np.linalg.norm(again - mesh[list(places)], axis=1)
        assert np.median(moved) < 6, part
    model.close()


def drawn_face() -> np.ndarray:
    """Return a face of a few ellipses, 192 x 192."""
    y, x = np.mgrid[:192, :192].astype(np.float64)
    picture = np.full((192, 192, 3), 90.0)

    def ellipse(cx: float, cy: float, rx: float, ry: float, color: tuple[int, int, int]) -> None:
        inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
        picture[inside] = color

    ellipse(96, 96, 50, 64, (222, 178, 150))
    for cx in (77, 115):
        ellipse(cx, 66, 12, 3, (90, 60, 40))
        ellipse(cx, 80, 10, 5, (250, 250, 250))
        ellipse(cx, 80, 4.5, 4.5, (60, 40, 30))
    ellipse(96, 104, 8, 10, (200, 150, 125))
    ellipse(96, 128, 18, 6, (170, 70, 70))
    return picture.astype(np.uint8)
