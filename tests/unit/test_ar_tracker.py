"""Following faces, in scripted scenes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.coefficients import NAMES
from retinue.apps.ar.face.tracker import Tracker
from retinue.core.errors import InvalidRequest
from retinue.testing.ar import Actor, Head, Scene, SceneDetector, SceneMesh, pose

from .ar_followed import FPS, Stage, between, ids, still


def test_a_face_is_found_at_once_and_where_it_is() -> None:
    stage = Stage(still(yaw=10.0, pitch=5.0, roll=20.0, at=(4.0, -3.0, 45.0)))
    (face,) = stage.at(0)
    assert face.id == 1 and face.score == 1 and face.opacity == 1 and face.seconds == 0
    assert face.landmarks.shape == (468, 3) and face.landmarks.dtype == np.float32
    assert np.abs(face.landmarks - stage.truth()).max() < 0.1
    assert face.pose.angles() == pytest.approx((10, 5, 20), abs=0.5)
    assert face.pose.translation == pytest.approx((4, -3, 45), abs=0.2)
    assert set(face.coefficients) == set(NAMES)
    assert set(stage.tracker.timings_ms) == {"detect", "mesh", "pose"}
    assert all(value > 0 for value in stage.tracker.timings_ms.values())


def test_no_face_and_the_detector_rests_between_looks() -> None:
    stage = Stage()
    assert all(not faces for faces in stage.play(0, 2))
    assert 20 < stage.near.calls < 32, "every frame at first, then ten times a second"
    assert stage.mesh.calls == 0


def test_the_detector_rests_while_a_face_is_followed() -> None:
    one = Stage(still(), max_faces=1)
    one.play(0, 2)
    assert one.near.calls == 1
    more = Stage(still(), max_faces=2)
    more.play(0, 2)
    assert 4 <= more.near.calls <= 5, "twice a second"


def test_it_appears_fades_in_leaves_fades_out_and_comes_back_as_another() -> None:
    stage = Stage(between(0.5, 1.5, still()), between(3, 4, still()))
    played = stage.play(0, 4)
    assert not any(played[:14])
    first = next(i for i, faces in enumerate(played) if faces)
    assert 15 <= first <= 19
    opacity = [faces[0].opacity for faces in played[first:45]]
    assert opacity[0] == pytest.approx(1 / FPS / 0.15, abs=0.01)
    assert all(0 <= after - before < 0.25 for before, after in itertools.pairwise(opacity))
    assert opacity[5] == pytest.approx(1)
    gone = [faces[0].opacity for faces in played[45:60] if faces]
    assert len(gone) == 4 and sorted(gone, reverse=True) == gone and gone[0] < 1
    assert not any(played[50:90])
    assert ids(played[-1]) == [2]


def test_a_face_that_is_hidden_for_a_moment_keeps_its_id() -> None:
    visible = still(at=(3.0, 0.0, 45.0))
    stage = Stage(lambda seconds: None if 1 <= seconds < 1.5 else visible(seconds))
    played = stage.play(0, 2.5)
    assert ids(played[10]) == ids(played[-1]) == [1]
    assert not played[40]
    assert played[-1][0].opacity == 1


def test_faces_that_cross_keep_their_ids() -> None:
    def walk(direction: float, depth: float) -> Actor:
        return lambda t: Head(pose(at=(direction * (14 * t - 14), 0.0, depth)))

    stage = Stage(walk(1, 45), walk(-1, 60))
    played = stage.play(0, 2)
    left, right = sorted(played[5], key=lambda face: face.pose.translation[0])
    assert {left.id, right.id} == {1, 2}
    assert len(played[30]) < 2 or min(face.opacity for face in played[30]) < 0.9
    after = {face.id: face.pose.translation[0] for face in played[-1]}
    assert after[left.id] > 5 and after[right.id] < -5


def test_twenty_faces_are_four_and_always_the_same() -> None:
    crowd = [
        still(at=(18.0 * (i % 5 - 2), 22.0 * (i // 5 - 1.5), 85.0 + (i == 7))) for i in range(20)
    ]
    crowd[11] = still(at=(-18.0, 11.0, 60.0))
    stage = Stage(*crowd, max_faces=4)
    played = stage.play(0, 1)
    assert all(ids(faces) == [1, 2, 3, 4] for faces in played)
    assert stage.near.calls == 1
    assert min(face.pose.translation[2] for face in played[0]) == pytest.approx(60, abs=1), (
        "the largest is among them"
    )


def test_a_cut_ends_the_old_face_and_shows_the_new_one_at_once() -> None:
    stage = Stage(
        between(0, 1, still(at=(-8.0, 0.0, 45.0))),
        between(1, 2, still(yaw=20.0, at=(-6.0, 1.0, 45.0))),
        cuts=(1.0,),
    )
    played = stage.play(0, 2)
    assert ids(played[29]) == [1] and ids(played[30]) == [2]
    assert played[30][0].opacity == 1
    assert np.abs(played[30][0].landmarks - played[-1][0].landmarks).max() < 0.2, (
        "nothing of the other scene is smoothed into this one"
    )


def test_a_head_that_turns_away_fades_and_never_snaps() -> None:
    def turning(t: float) -> Head:
        return Head(pose(yaw=100 * np.sin(np.pi * t / 3), at=(0.0, 0.0, 45.0)))

    stage = Stage(turning)
    played = stage.play(0, 3)
    opacity = [faces[0].opacity if faces else 0.0 for faces in played]
    steps = np.abs(np.diff(opacity))
    assert steps.max() <= 1 / FPS / 0.15 + 1e-6
    assert opacity[10] == 1 and min(opacity) == 0 and opacity[-1] == 1
    at_46 = next(i for i in range(90) if 100 * np.sin(np.pi * i / 90) > 46)
    assert 0.2 < opacity[at_46] < 0.9


def test_a_head_that_was_gone_stays_so_until_it_is_well_turned_back() -> None:
    # As the network has it: of a profile it says less than of a head half turned.
    stage = Stage(lambda t: Head(pose(yaw=float(np.interp(t, (0, 1, 2, 3), (0, 52, 40, 30))))))
    opacity = [faces[0].opacity if faces else 0.0 for faces in stage.play(0, 3.5)]
    assert opacity[5] == 1 and max(opacity[35:60]) == 0 and opacity[-1] == 1


def test_the_yaw_that_fades_is_the_one_that_the_camera_sees() -> None:
    stage = Stage(still(yaw=38.0, at=(0.0, 0.0, 45.0)), still(yaw=-22.0, at=(-18.0, 0.0, 40.0)))
    faces = stage.at(0)
    shown = {round(face.pose.translation[0], -1): face.opacity for face in faces}
    assert shown[0] == 1 and 0.3 < shown[-20] < 0.7


def test_half_a_face_at_the_edge_is_followed_and_lost_beyond() -> None:
    stage = Stage(lambda t: Head(pose(at=(min(20 * t, 44.0), 0.0, 45.0))))
    played = stage.play(0, 4)
    half = 49
    edge = Head(pose(at=(32.7, 0.0, 45.0))).seen(stage.scene.camera)
    assert stage.scene.inside(edge) == pytest.approx(0.5, abs=0.1)
    assert ids(played[half]) == [1]
    assert not played[-1]


def test_a_face_of_20_pixels() -> None:
    tiny = still(at=(0.0, 0.0, 175.0))
    assert np.ptp(tiny(0).seen(Camera.from_fov(320, 240))[:, 1]) == pytest.approx(20, abs=2)  # type: ignore[union-attr]
    near = Stage(tiny)
    assert not any(near.play(0, 0.2))
    stage = Stage(tiny)
    both = Tracker(stage.near, stage.mesh, full_range=stage.far)
    (face,) = both.update(stage.scene.frame(0), 0)
    assert np.abs(face.landmarks - stage.truth())[:, :2].max() < 0.5
    assert face.pose.translation[2] == pytest.approx(175, rel=0.05)


def test_a_small_face_is_found_beside_a_large_one() -> None:
    stage = Stage(still(at=(-8.0, 0.0, 40.0)), between(1, 9, still(at=(50.0, -20.0, 150.0))))
    tracker = Tracker(stage.near, stage.mesh, full_range=stage.far)
    counts = [len(tracker.update(stage.scene.frame(i / 30), i / 30)) for i in range(75)]
    assert counts[20] == 1 and counts[-1] == 2


def test_in_a_mirror_the_sides_are_exchanged() -> None:
    plain = Stage(still())
    mirror = Stage(still(), mirrored=True)
    shut = plain.scene.heads()[0].seen(plain.scene.camera)[:, :3].copy()
    for upper, lower in ((386, 374), (385, 380), (387, 373)):
        shut[upper] = shut[lower]

    class Winking(SceneMesh):
        def read(self, crop: np.ndarray) -> tuple[np.ndarray, float]:
            landmarks, score = super().read(crop)
            for upper, lower in ((386, 374), (385, 380), (387, 373)):
                landmarks[upper] = landmarks[lower]
            return landmarks, score

    for stage, eye, other in (
        (plain, "blink_left", "blink_right"),
        (mirror, "blink_right", "blink_left"),
    ):
        stage.tracker.mesh = Winking(stage.scene)
        (face,) = stage.at(0)
        assert face.coefficients[eye] == 1 and face.coefficients[other] == 0


def test_irregular_times_are_followed_without_lag() -> None:
    stage = Stage(lambda t: Head(pose(at=(10 * np.sin(t), 0.0, 45.0))), noise=0.001)
    times = np.cumsum(np.random.default_rng(0).choice([0.004, 0.02, 0.05, 0.11], 60))
    for seconds in times:
        (face,) = stage.at(float(seconds))
        off = (face.landmarks - stage.truth())[:, :2].mean(axis=0)
        assert np.abs(off).max() < 0.025 * face.eye_distance
    assert face.id == 1
    (again,) = stage.at(float(times[-1]))
    assert again.landmarks == pytest.approx(face.landmarks), "the same frame twice"


def test_time_that_runs_backwards_is_another_video() -> None:
    stage = Stage(still())
    stage.play(0, 0.5)
    (face,) = stage.at(0.1)
    assert face.id == 2 and face.opacity == 1


def test_a_pause_keeps_the_face_where_it_was_but_not_elsewhere() -> None:
    stage = Stage(lambda t: Head(pose(at=(0.0 if t < 20 else 15.0, 0.0, 45.0))))
    assert ids(stage.at(0)) == [1]
    assert ids(stage.at(10)) == [1]
    assert ids(stage.at(30)) == [2]


def test_another_size_of_frames_is_another_scene() -> None:
    stage = Stage(still())
    stage.play(0, 0.2)
    larger = Scene([still()], 640, 480)
    tracker = stage.tracker
    tracker._near, tracker.mesh = SceneDetector(larger), SceneMesh(larger)
    (face,) = tracker.update(larger.frame(0.3), 0.3)
    assert face.id == 2 and face.opacity == 1
    assert tracker.camera is not None and tracker.camera.width == 640


def test_a_given_camera_is_for_its_size_alone() -> None:
    stage = Stage(still(), camera=Camera.from_fov(640, 480))
    with pytest.raises(InvalidRequest, match="320x240 pixels, but the camera is for 640x480"):
        stage.at(0)


def test_the_mesh_may_be_exchanged_between_frames() -> None:
    stage = Stage(still(at=(2.0, 0.0, 45.0)))
    stage.play(0, 0.3)
    stage.tracker.mesh = SceneMesh(stage.scene, 478)
    (face,) = stage.at(0.3)
    assert face.id == 1 and face.landmarks.shape == (478, 3) and face.opacity == 1
    truth = stage.scene.heads()[0].seen(stage.scene.camera, 478)
    assert np.abs(face.landmarks - truth).max() < 0.2
    stage.tracker.mesh = stage.mesh
    assert stage.at(0.34)[0].landmarks.shape == (468, 3)


def test_two_instances_of_the_mesh_share_the_faces() -> None:
    actors = [still(at=(x, 0.0, 60.0)) for x in (-20.0, 0.0, 20.0)]
    alone, shared = Stage(*actors), Stage(*actors)
    twin = shared.tracker.twin = SceneMesh(shared.scene)
    for seconds in (0.0, 1 / FPS, 2 / FPS):
        expected, faces = alone.at(seconds), shared.at(seconds)
        assert ids(faces) == ids(expected) == [1, 2, 3]
        for one, other in zip(faces, expected, strict=True):
            assert np.array_equal(one.landmarks, other.landmarks)
    # New faces are looked at twice, one after the other; of three that are followed, it has one.
    assert twin.calls == 2 and twin.calls + shared.mesh.calls == alone.mesh.calls


def test_prediction_says_where_the_face_will_be() -> None:
    def actor(t: float) -> Head:
        return Head(pose(at=(12 * t - 8, 0.0, 45.0)))

    errors = {}
    for predict in (0.0, 0.05):
        stage = Stage(actor, predict_s=predict)
        face = stage.play(0, 1)[-1][0]
        stage.scene.seconds = 29 / FPS + 0.05
        errors[predict] = np.abs((face.landmarks - stage.truth())[:, 0]).mean()
    assert errors[0.05] < 0.3 * errors[0.0]


def test_smoothing_calms_and_can_be_left_out() -> None:
    def tremble(smoothing: bool) -> float:
        stage = Stage(still(), noise=0.004, smoothing=smoothing)
        seen = np.array([faces[0].landmarks[:, :2] for faces in stage.play(0, 2)[15:]])
        return float(seen.std(axis=0).mean())

    assert tremble(True) < 0.4 * tremble(False)


def test_a_score_that_drops_fades_the_face() -> None:
    def actor(t: float) -> Head:
        return Head(pose(), score=1.0 if t < 1 else 0.6)

    played = Stage(actor).play(0, 2)
    assert played[29][0].opacity == 1
    assert 0.05 < played[-1][0].opacity < 0.5
