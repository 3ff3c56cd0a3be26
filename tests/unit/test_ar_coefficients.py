"""Expressions, measured on the canonical face bent by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.canonical import VERTICES
from retinue.apps.ar.face.coefficients import NAMES, coefficients
from retinue.core.errors import InvalidRequest
from retinue.testing.ar import Head, pose

CAMERA = Camera.from_fov(1280, 720)
ANGLES = ("yaw", "pitch", "roll")
LEFT_LIDS = ((386, 374), (385, 380), (387, 373))
RIGHT_LIDS = ((159, 145), (158, 153), (160, 144))
BROWS = [70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285]


def jaw(v: np.ndarray) -> None:
    v[[14, 87, 317, 178, 402, 17, 84, 314, 15, 16, 152, 175, 199, 200, 18], 1] -= 2.5
    for corner, side in ((61, -1), (291, 1), (78, -1), (308, 1)):
        v[corner] += (-0.2 * side, -0.7, 0)


def smile(v: np.ndarray) -> None:
    for corner, side in ((61, -1), (291, 1), (78, -1), (308, 1)):
        v[corner] += (0.8 * side, 0.5, -0.3)


def shut(*pairs: tuple[int, int]) -> Callable[[np.ndarray], None]:
    def close(v: np.ndarray) -> None:
        for upper, lower in pairs:
            v[upper] = v[lower] + (0, 0.05, 0)

    return close


def brows(v: np.ndarray) -> None:
    v[BROWS, 1] += 1.1


def nothing(v: np.ndarray) -> None:
    pass


PLACES = [
    pose(),
    pose(25.0, 10.0, -20.0),
    pose(-30.0, -15.0, 40.0, (10.0, 5.0, 45.0)),
    pose(10.0, 0.0, 0.0, (22.0, 0.0, 40.0)),
]


def measure(
    bend: Callable[[np.ndarray], None], place: int, mirrored: bool = False
) -> dict[str, float]:
    vertices = VERTICES.copy()
    bend(vertices)
    head = Head(PLACES[place], vertices)
    return coefficients(head.seen(CAMERA), head.pose, mirrored=mirrored)


@pytest.mark.parametrize("place", range(len(PLACES)))
@pytest.mark.parametrize(
    ("bend", "moved", "least"),
    [
        (nothing, set(), 0.0),
        (jaw, {"mouth_open"}, 0.8),
        (smile, {"smile"}, 0.6),
        (shut(*LEFT_LIDS), {"blink_left"}, 0.9),
        (shut(*RIGHT_LIDS), {"blink_right"}, 0.9),
        (shut(*LEFT_LIDS, *RIGHT_LIDS), {"blink_left", "blink_right"}, 0.9),
        (brows, {"brow_raise"}, 0.8),
    ],
    ids=["canonical", "jaw", "smile", "left", "right", "both", "brows"],
)
def test_what_moves_is_measured_and_nothing_else(
    bend: Callable[[np.ndarray], None], moved: set[str], least: float, place: int
) -> None:
    found = measure(bend, place)
    assert tuple(found) == NAMES
    for name, value in found.items():
        if name in ANGLES:
            continue
        assert 0 <= value <= 1
        if name in moved:
            assert value > least, name
        else:
            assert value < 0.12, name


@pytest.mark.parametrize("place", range(len(PLACES)))
def test_angles_are_the_poses(place: int) -> None:
    found = measure(nothing, place)
    assert [found[name] for name in ANGLES] == pytest.approx(PLACES[place].angles())


def test_a_mirror_exchanges_the_eyes() -> None:
    left = shut(*LEFT_LIDS)
    assert measure(left, 0)["blink_left"] > 0.9
    found = measure(left, 0, mirrored=True)
    assert found["blink_left"] < 0.1 and found["blink_right"] > 0.9


def test_flat_or_wrong_landmarks() -> None:
    flat = coefficients(np.zeros((468, 3), np.float32), pose())
    assert all(flat[name] == 0 for name in NAMES if name not in ANGLES)
    with pytest.raises(InvalidRequest, match="must be"):
        coefficients(np.zeros((10, 3), np.float32), pose())
