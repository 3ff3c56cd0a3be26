"""A head's pose from its landmarks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.pose import solve
from retinue.apps.ar.face.values import FRONTAL, Pose
from retinue.core.errors import InvalidRequest
from retinue.testing.ar import Head, pose

CAMERA = Camera.from_fov(1280, 720)


def apart(one: Pose, other: Pose) -> float:
    """Degrees between two rotations."""
    cosine = (np.trace(one.rotation @ other.rotation.T) - 1) / 2
    return math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))


poses = st.builds(
    lambda yaw, pitch, roll, x, y, z: pose(yaw, pitch, roll, (x * z, y * z, z)),
    st.floats(-65, 65),
    st.floats(-40, 40),
    st.floats(-180, 180),
    st.floats(-0.7, 0.7),
    st.floats(-0.5, 0.5),
    st.floats(20, 300),
)


@given(poses)
@settings(deadline=None, max_examples=60)
def test_exact_landmarks_give_the_pose(truth: Pose) -> None:
    found = solve(Head(truth).seen(CAMERA), CAMERA)
    assert apart(found, truth) < 1
    off = np.linalg.norm(found.translation - truth.translation)
    assert off < 0.1 + 0.01 * np.linalg.norm(truth.translation)
    assert found.error < 1.5
    assert np.linalg.det(found.rotation) == pytest.approx(1)


@given(poses, st.floats(-8, 8), st.floats(-8, 8), st.floats(-5, 5))
@settings(deadline=None, max_examples=40)
def test_the_last_pose_leads_to_the_same_answer(
    truth: Pose, yaw: float, pitch: float, near: float
) -> None:
    landmarks = Head(truth).seen(CAMERA)
    turn = pose(yaw, pitch).rotation @ FRONTAL
    last = Pose(truth.rotation @ turn, truth.translation * (1 + near / 50))
    warm, fresh = solve(landmarks, CAMERA, last), solve(landmarks, CAMERA)
    assert apart(warm, fresh) < 0.05
    assert warm.translation == pytest.approx(fresh.translation, rel=2e-3, abs=0.02)


def test_the_rotation_stays_one_over_a_thousand_frames() -> None:
    found = None
    for i in range(1000):
        truth = pose(30 * math.sin(i / 20), 10 * math.sin(i / 31), 5.0, (5.0, 2.0, 45.0))
        found = solve(Head(truth).seen(CAMERA), CAMERA, found)
    assert found is not None
    assert found.rotation @ found.rotation.T == pytest.approx(np.eye(3), abs=1e-9)
    assert apart(found, truth) < 1


@pytest.mark.parametrize("yaw", [-35.0, -15.0, 15.0, 35.0])
@pytest.mark.parametrize("pitch", [-20.0, 0.0, 20.0])
def test_it_does_not_take_the_mirror_image_in_depth(yaw: float, pitch: float) -> None:
    """Far away there is hardly any perspective, and only depth tells the two apart."""
    truth = pose(yaw, pitch, 0.0, (10.0, 5.0, 400.0))
    random = np.random.default_rng(1)
    landmarks = Head(truth).seen(CAMERA)
    landmarks[:, :2] += random.normal(0, 0.3, (468, 2)).astype(np.float32)
    assert apart(solve(landmarks, CAMERA), truth) < 12
    mirrored = Pose(pose(-yaw, -pitch).rotation, truth.translation)
    assert apart(solve(landmarks, CAMERA, mirrored), truth) < 12


def test_it_holds_24_cm_off_the_axis_at_40_cm() -> None:
    random = np.random.default_rng(0)
    for side in (-24.0, 24.0):
        for yaw in (-30.0, 0.0, 30.0):
            truth = pose(yaw, 0.0, 0.0, (side, 0.0, 40.0))
            landmarks = Head(truth).seen(CAMERA)
            eyes = np.linalg.norm(landmarks[33] - landmarks[263])
            landmarks += random.normal(0, 0.005 * eyes, landmarks.shape).astype(np.float32)
            found = solve(landmarks, CAMERA)
            assert apart(found, truth) < 2
            assert found.translation == pytest.approx(truth.translation, rel=0.02, abs=0.3)


def test_a_useless_guess_is_not_believed() -> None:
    truth = pose(20.0, 10.0, 0.0, (3.0, 2.0, 50.0))
    landmarks = Head(truth).seen(CAMERA)
    for guess in (
        pose(180.0, 0.0, 90.0, (0.0, 0.0, 2.0)),
        pose(-100.0, 0.0, 0.0, (200.0, 0.0, 50.0)),
        Pose(FRONTAL, np.array([0.0, 0.0, 1e6])),
    ):
        assert apart(solve(landmarks, CAMERA, guess), truth) < 1


def test_landmarks_of_the_iris_model_are_taken_too() -> None:
    truth = pose(5.0)
    assert apart(solve(Head(truth).seen(CAMERA, 478), CAMERA), truth) < 1


def test_pixels_that_are_not_square() -> None:
    camera = Camera(1280, 720, np.array([[900.0, 0, 600], [0, 700.0, 380], [0, 0, 1]]))
    truth = pose(15.0, -10.0, 5.0, (3.0, 2.0, 50.0))
    assert apart(solve(Head(truth).seen(camera), camera), truth) < 1.5


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((10, 3), np.float32), r"must be \(468 or more, 3\)"),
        (np.zeros((468, 2), np.float32), r"must be \(468 or more, 3\)"),
        (np.zeros((468, 3), np.float32), "all in one place"),
        (np.full((468, 3), np.nan, np.float32), "not finite"),
    ],
)
def test_what_are_no_landmarks_is_refused(landmarks: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        solve(landmarks, CAMERA)


def test_a_face_of_a_few_pixels_has_a_pose() -> None:
    truth = pose(20.0, 0.0, 0.0, (0.0, 0.0, 3000.0))
    found = solve(Head(truth).seen(CAMERA), CAMERA)
    assert apart(found, truth) < 10 and found.translation[2] == pytest.approx(3000, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_junk_gives_a_pose_with_a_large_error(seed: int) -> None:
    landmarks = np.random.default_rng(seed).uniform(0, 700, (468, 3)).astype(np.float32)
    found = solve(landmarks, CAMERA)
    assert np.isfinite(found.rotation).all() and found.translation[2] > 0
    assert found.error > 50
