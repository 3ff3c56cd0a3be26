"""Signs and orders of a head's angles."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.apps.ar.face.canonical import BASIS, BASIS_WEIGHTS, TRIANGLES, UV, VERTICES
from retinue.apps.ar.face.values import FRONTAL, Face, Pose

NOSE, TOP = 1, 10


def turned(yaw: float, pitch: float, roll: float) -> Pose:
    y, p, r = np.radians([-yaw, -pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return Pose(about_z @ about_y @ about_x @ FRONTAL, np.array([0.0, 0.0, 40.0]))


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, 0, 25), (-40, 15, -60)])
def test_angles_come_back(angles: tuple[float, float, float]) -> None:
    assert turned(*angles).angles() == pytest.approx(angles, abs=1e-9)


def test_positive_angles_turn_right_up_and_clockwise() -> None:
    forward = np.array([0.0, 0.0, 1.0])
    assert (turned(30, 0, 0).rotation @ forward)[0] > 0.4
    assert (turned(0, 20, 0).rotation @ forward)[1] < -0.3
    assert (turned(0, 0, 25).rotation @ [0.0, 1.0, 0.0])[0] > 0.4


def test_the_matrix_moves_points_as_the_pose_does() -> None:
    pose = turned(10, 20, 30)
    point = np.array([1.0, 2.0, 3.0])
    assert (pose.matrix() @ [*point, 1])[:3] == pytest.approx(
        pose.rotation @ point + pose.translation
    )


def test_the_canonical_face_is_whole_and_looks_along_z() -> None:
    assert VERTICES.shape == (468, 3) and UV.shape == (468, 2) and TRIANGLES.shape == (898, 3)
    assert len(BASIS) == len(BASIS_WEIGHTS) == 33
    assert VERTICES[TOP, 1] > VERTICES[NOSE, 1] and UV[TOP, 1] < UV[NOSE, 1]
    first, second, third = (VERTICES[TRIANGLES[:, i]] for i in range(3))
    assert (np.cross(second - first, third - first)[:, 2] > 0).mean() > 0.98
    with pytest.raises(ValueError, match="read-only"):
        VERTICES[0] = 0


def test_the_eye_distance_is_that_of_the_outer_corners() -> None:
    face = Face(1, 0.9, VERTICES * 10, turned(0, 0, 0))
    assert face.eye_distance == pytest.approx(88.917, abs=0.01)
