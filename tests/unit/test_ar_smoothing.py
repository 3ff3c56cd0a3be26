"""Landmarks at rest and in motion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from retinue.apps.ar.face.smoothing import MAX_GAP_S, LandmarkFilter, OneEuro
from retinue.core.errors import InvalidRequest
from retinue.testing.ar import Head, Scene, pose

SCENE = Scene([], 640, 480)
FACE = Head(pose(at=(0.0, 0.0, 40.0))).seen(SCENE.camera)
EYES = float(np.linalg.norm(FACE[33] - FACE[263]))


def noisy(landmarks: np.ndarray, random: np.random.Generator, share: float = 0.004) -> np.ndarray:
    """Add noise of which most is common to all points, as a network's is."""
    common = random.normal(0, share * EYES, 3)
    own = random.normal(0, 0.5 * share * EYES, landmarks.shape)
    return (landmarks + common + own).astype(np.float32)


def play(
    truth: Callable[[float], np.ndarray], fps: float = 30, stop: float = 4, share: float = 0.004
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what was smoothed, what went in, and what was true."""
    random = np.random.default_rng(0)
    smooth = LandmarkFilter()
    rows = []
    for i in range(round(stop * fps)):
        exact = truth(i / fps)
        seen = noisy(exact, random, share)
        rows.append((smooth.update(seen, i / fps), seen, exact))
    out, seen, exact = (np.array(column) for column in zip(*rows, strict=True))
    return out, seen, exact


def rms(values: np.ndarray) -> float:
    return float(np.sqrt((values[..., :2] ** 2).sum(axis=-1).mean())) / EYES * 100


@pytest.mark.parametrize("fps", [24, 30, 60])
def test_a_face_at_rest_is_calm(fps: float) -> None:
    out, seen, _ = play(lambda t: FACE, fps, share=0.0025)
    start = round(fps)
    assert rms(out[start:] - out[start:].mean(axis=0)) < 0.35 * rms(seen - FACE)


@pytest.mark.parametrize("fps", [30, 60])
def test_a_pan_of_one_hertz_has_no_lag(fps: float) -> None:
    def pan(t: float) -> np.ndarray:
        return FACE + np.array([0.5 * EYES * np.sin(2 * np.pi * t), 0, 0], np.float32)

    out, _, exact = play(pan, fps, share=0.0)
    assert rms(out[fps:] - exact[fps:]) < 0.3


def test_a_slow_drift_has_no_lag_to_speak_of() -> None:
    out, _, exact = play(lambda t: FACE + np.array([0.05 * EYES * t, 0, 0], np.float32), share=0.0)
    assert rms(out[60:] - exact[60:]) < 0.4


def test_a_nod_has_little_lag() -> None:
    def nod(t: float) -> np.ndarray:
        where = pose(0.0, 15 * np.sin(2 * np.pi * t), 0.0, (0.0, 0.0, 40.0))
        return Head(where).seen(SCENE.camera)

    out, _, exact = play(nod, 30, share=0.0)
    assert rms(out[30:] - exact[30:]) < 1.2


def test_a_stop_does_not_overshoot_by_much() -> None:
    def stop(t: float) -> np.ndarray:
        u = min(max((t - 1) / 0.3, 0), 1)
        way = 0.5 * EYES * (6 * u**5 - 15 * u**4 + 10 * u**3)
        return FACE + np.array([way, 0, 0], np.float32)

    out, _, exact = play(stop, 60, share=0.0)
    assert np.abs(out - exact).max() < 0.025 * EYES


def test_lips_move_while_the_face_rests() -> None:
    lips = [14, 87, 317, 17]

    def talk(t: float) -> np.ndarray:
        face = FACE.copy()
        face[lips, 1] += 0.15 * EYES * np.sin(2 * np.pi * 2 * t) ** 2
        return face

    out, _, exact = play(talk, 30, share=0.0)
    assert rms(out[:, lips] - exact[:, lips]) < 3
    assert np.ptp(out[30:, 14, 1]) > 0.9 * 0.15 * EYES


def test_a_network_of_small_faces_trembles_more_and_is_smoothed_more() -> None:
    out, seen, _ = play(lambda t: FACE, 30, 8, share=0.02)
    late = out[150:]
    assert rms(late - late.mean(axis=0)) < 0.65 * rms(seen - FACE)


def test_a_jump_is_followed_at_once() -> None:
    smooth = LandmarkFilter()
    for i in range(10):
        smooth.update(FACE, i / 30)
    there = FACE + np.float32(2 * EYES)
    assert smooth.update(there, 10 / 30) == pytest.approx(there, abs=1e-2)
    assert smooth.velocity == pytest.approx(np.zeros(3))


def test_a_gap_or_a_step_back_in_time_starts_anew() -> None:
    moved = FACE + np.float32(0.1 * EYES)
    for later in (1 + MAX_GAP_S + 0.01, 0.5):
        smooth = LandmarkFilter()
        smooth.update(FACE, 0.97)
        smooth.update(FACE, 1.0)
        assert smooth.update(moved, later) == pytest.approx(moved, abs=1e-2)


def test_the_same_time_again_answers_the_same() -> None:
    smooth = LandmarkFilter()
    smooth.update(FACE, 0.0)
    first = smooth.update(FACE + np.float32(3), 0.1)
    assert smooth.update(FACE + np.float32(9), 0.1) == pytest.approx(first)


def test_more_points_or_fewer_between_frames() -> None:
    smooth = LandmarkFilter()
    more = Head(pose(at=(0.0, 0.0, 40.0))).seen(SCENE.camera, 478)
    for i in range(6):
        seen = more if i % 4 > 1 else FACE
        out = smooth.update(seen, i / 30)
        assert out.shape == seen.shape and out.dtype == np.float32
        assert out == pytest.approx(seen, abs=0.05)


def test_prediction_goes_on_with_constant_velocity() -> None:
    smooth = LandmarkFilter()
    with pytest.raises(InvalidRequest, match="nothing was smoothed"):
        smooth.predict(0.1)
    step = np.array([3, -1, 0], np.float32)
    for i in range(30):
        smooth.update(FACE + step * i, i / 30)
    assert smooth.velocity == pytest.approx(step * 30, abs=2)
    assert smooth.predict(0.1) == pytest.approx(FACE + step * 32, abs=0.6)


def test_flat_landmarks_pass_and_shapes_are_checked() -> None:
    smooth = LandmarkFilter()
    smooth.update(FACE, 0.0)
    flat = FACE * np.array([1, 1, 0], np.float32)
    assert smooth.update(flat, 0.1) == pytest.approx(flat)
    assert smooth.velocity == pytest.approx(np.zeros(3))
    with pytest.raises(InvalidRequest, match="must be"):
        smooth.update(FACE[:100], 0.2)


def test_a_face_that_comes_nearer_is_followed() -> None:
    def near(t: float) -> np.ndarray:
        return Head(pose(at=(3.0, 1.0, 60 - 10 * t))).seen(SCENE.camera)

    out, _, exact = play(near, 30, 3, share=0.0)
    assert rms(out[30:] - exact[30:]) < 0.8


# -- the plain One-Euro filter -------------------------------------------------------------------


def one_euro_twin(
    values: list[float], rate: float, low: float, beta: float, cut: float
) -> list[float]:
    """The paper's pseudocode, for one number."""

    def alpha(cutoff: float) -> float:
        tau = 1 / (2 * np.pi * cutoff)
        return 1 / (1 + tau * rate)

    out, raw, smooth, speed = [], values[0], values[0], 0.0
    for value in values:
        speed += alpha(cut) * ((value - raw) * rate - speed)
        smooth += alpha(low + beta * abs(speed)) * (value - smooth)
        raw = value
        out.append(smooth)
    return out


def test_one_euro_is_the_papers() -> None:
    random = np.random.default_rng(0)
    values = np.cumsum(random.normal(size=50)).tolist()
    smooth = OneEuro(1.0, 0.3, 0.7)
    out = [float(smooth.update(np.array([v]), i / 20)[0]) for i, v in enumerate(values)]
    assert out == pytest.approx(one_euro_twin(values, 20, 1.0, 0.3, 0.7))


def test_one_euro_predicts_and_resets() -> None:
    smooth = OneEuro(1.0, 10.0, 10.0)
    with pytest.raises(InvalidRequest, match="nothing was smoothed"):
        smooth.predict(0.1)
    for i in range(40):
        smooth.update(np.array([[2.0 * i]]), i / 20)
    assert smooth.predict(0.1) == pytest.approx(np.array([[82.0]]), abs=1)
    smooth.reset()
    assert smooth.update(np.array([[5.0]]), 2.0) == 5.0


def test_one_euro_by_scale_and_dead_zone() -> None:
    large, small = OneEuro(0.5, 5.0), OneEuro(0.5, 5.0)
    still = OneEuro(0.5, 5.0, dead_zone=100.0)
    plain = OneEuro(0.5, 0.0)
    for i in range(20):
        value = np.array([float(i % 3)])
        a, b = large.update(value * 10, i / 30, 10.0), small.update(value, i / 30)
        c, d = still.update(value, i / 30), plain.update(value, i / 30)
    assert a == pytest.approx(10 * b)
    assert c == pytest.approx(d)


@pytest.mark.parametrize("wrong", [(0.0, 1.0), (1.0, -1.0), (1.0, 1.0, 0.0)])
def test_one_euro_refuses_what_is_no_cutoff(wrong: tuple[float, ...]) -> None:
    with pytest.raises(InvalidRequest, match="cutoffs must be"):
        OneEuro(*wrong)
