"""Face Mesh: which output is which landmark, in whose pixels."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.core.errors import ConfigError, InvalidTensor
from retinue.core.types import Image, Landmarks, TensorSpec
from retinue.models import _face_parts as parts
from retinue.models.card import Card
from retinue.models.face_mesh import FACE_MESH, FACE_MESH_ATTENTION, FaceMesh
from retinue.testing.function_runtime import FunctionRuntime

MESH = np.arange(1404, dtype=np.float32) / 10
SIZES = {"lips": 160, "left_eye": 142, "right_eye": 142, "left_iris": 10, "right_iris": 10}
STARTS = {name: 1000.0 * (at + 1) for at, name in enumerate(SIZES)}


def model(card: Card = FACE_MESH, presence: float = 2.0, **without: bool) -> FaceMesh:
    """A network whose outputs tell where they came from."""
    rows = {"mesh": MESH.reshape(1, 1, -1), "flag": np.full((1, 1, 1), presence, np.float32)}
    for name, size in SIZES.items():
        if card is FACE_MESH_ATTENTION and name not in without:
            values = STARTS[name] + np.arange(size, dtype=np.float32)
            rows[f"output_{name}"] = values.reshape(1, 1, -1)
    outputs = tuple(TensorSpec(n, "float32", (1, *row.shape)) for n, row in rows.items())
    picture = TensorSpec("images", "float32", (1, 3, 192, 192))
    return FaceMesh(card, "v", FunctionRuntime((picture,), outputs, lambda row: rows))


CROP = np.zeros((192, 192, 3), np.uint8)


def test_the_mesh_alone() -> None:
    mesh = model()
    points, score = mesh.read(CROP)
    assert (mesh.points, mesh.size) == (468, 192)
    np.testing.assert_array_equal(points, MESH.reshape(468, 3))
    assert score == pytest.approx(1 / (1 + np.exp(-2)))
    assert model(presence=-60).read(CROP)[1] == pytest.approx(0)


def test_parts_found_again_replace_x_and_y_only() -> None:
    attention = model(FACE_MESH_ATTENTION)
    points, _ = attention.read(CROP)
    assert attention.points == 478
    mesh = MESH.reshape(468, 3)
    places = {"lips": parts.LIPS, "left_eye": parts.LEFT_EYE, "right_eye": parts.RIGHT_EYE}
    again = {place for group in places.values() for place in group}
    for name, group in places.items():
        wanted = STARTS[name] + np.arange(SIZES[name]).reshape(-1, 2)
        np.testing.assert_array_equal(points[list(group), :2], wanted)
    rest = sorted(set(range(468)) - again)
    np.testing.assert_array_equal(points[rest], mesh[rest])
    np.testing.assert_array_equal(points[:468, 2], mesh[:, 2])


def test_irises_lie_as_deep_as_the_eye_around_them() -> None:
    points, _ = model(FACE_MESH_ATTENTION).read(CROP)
    mesh = MESH.reshape(468, 3)
    sides = {"left": (468, parts.LEFT_CONTOUR), "right": (473, parts.RIGHT_CONTOUR)}
    for side, (start, contour) in sides.items():
        wanted = STARTS[f"{side}_iris"] + np.arange(10).reshape(5, 2)
        np.testing.assert_array_equal(points[start : start + 5, :2], wanted)
        np.testing.assert_allclose(points[start : start + 5, 2], mesh[list(contour), 2].mean())


def test_the_tables_are_of_different_landmarks() -> None:
    assert [len(group) for group in (parts.LIPS, parts.LEFT_EYE, parts.RIGHT_EYE)] == [80, 71, 71]
    together = [*parts.LIPS, *parts.LEFT_EYE, *parts.RIGHT_EYE]
    assert len(set(together)) == len(together)
    assert (min(together), max(together)) == (0, 466 + 1)


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_answers_are_in_pixels_of_the_original(resize: str) -> None:
    taken = FACE_MESH.model_copy(
        update={"input": FACE_MESH.input.model_copy(update={"resize": resize})}
    )
    pixels = np.zeros((48, 96, 3), np.uint8)
    (outcome,) = model(taken).predict([Image(pixels, 960, 480)])
    found = outcome.unwrap()
    assert isinstance(found, Landmarks)
    x, y, z = MESH.reshape(468, 3).T
    across = 960 / 192
    down = across if resize == "letterbox" else 480 / 192
    top = 48 if resize == "letterbox" else 0
    wanted = np.stack([x * across, (y - top) * down, z * across], axis=1)
    np.testing.assert_allclose(found.points, wanted, rtol=1e-4, atol=1e-3)


def test_a_crop_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidTensor, match=r"reads crops of \(192, 192, 3\), not \(96, 192, 3\)"):
        model().read(CROP[:96])


def test_the_outputs_must_be_there() -> None:
    with pytest.raises(ConfigError, match="'output_right_iris'"):
        model(FACE_MESH_ATTENTION, right_iris=True)
    specs = (TensorSpec("mesh", "float32", (1, 100)), TensorSpec("flag", "float32", (1, 1)))
    picture = TensorSpec("images", "float32", (1, 3, 192, 192))
    with pytest.raises(ConfigError, match="1404 float32 numbers, the landmarks"):
        FaceMesh(FACE_MESH, "v", FunctionRuntime((picture,), specs, lambda row: {}))
