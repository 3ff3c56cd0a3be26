"""Following faces where something is wrong: networks, frames, options."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.apps.ar.face.tracker import Tracker
from retinue.core.errors import InvalidRequest
from retinue.core.types import Detections
from retinue.testing.ar import SceneDetector, SceneMesh

from .ar_followed import Stage, between, still


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_network_that_answers_junk_has_no_face(value: float) -> None:
    class Broken(SceneMesh):
        def read(self, crop: np.ndarray) -> tuple[np.ndarray, float]:
            return np.full((468, 3), value, np.float32), 1.0

    stage = Stage(still())
    stage.play(0, 0.2)
    stage.tracker.mesh = Broken(stage.scene)
    assert not stage.play(0.2, 1)[-1]


def test_a_detector_without_keypoints_and_with_broken_boxes() -> None:
    class Bare(SceneDetector):
        def find(self, frame: np.ndarray) -> Detections:
            found = super().find(frame)
            broken = np.float32([[np.nan, 0, 5, 5], [9, 9, 9, 20], [50, 50, 40, 60]])
            boxes = np.concatenate([broken, found.boxes])
            count = len(boxes)
            return Detections(boxes, np.ones(count, np.float32), np.zeros(count, np.int64))

    stage = Stage(still(roll=10.0))
    tracker = Tracker(Bare(stage.scene), stage.mesh)
    (face,) = tracker.update(stage.scene.frame(0), 0)
    assert np.abs(face.landmarks - stage.truth()).max() < 0.1


def test_with_all_that_may_be_followed_nothing_more_is_looked_for() -> None:
    stage = Stage(
        still(at=(-9.0, 0.0, 45.0)), between(0, 0.3, still(at=(9.0, 0.0, 40.0))), max_faces=1
    )
    played = stage.play(0, 1)
    assert {face.id for faces in played[:9] for face in faces} == {1}
    assert sum(face.opacity > 0 for face in played[-1]) == 1
    before = stage.near.calls
    stage.play(1, 2)
    assert stage.near.calls == before


def test_a_mesh_that_is_no_face_is_dropped() -> None:
    class Scrambled(SceneMesh):
        def read(self, crop: np.ndarray) -> tuple[np.ndarray, float]:
            landmarks, score = super().read(crop)
            return np.random.default_rng(0).permutation(landmarks), score

    stage = Stage(still())
    stage.tracker.mesh = Scrambled(stage.scene)
    assert not any(stage.play(0, 0.2))


def test_reset_forgets_faces_but_never_gives_an_id_again() -> None:
    stage = Stage(still())
    stage.play(0, 0.2)
    stage.tracker.reset()
    (face,) = stage.at(0)
    assert face.id == 2 and face.opacity == 1


@pytest.mark.parametrize(
    ("frame", "seconds", "message"),
    [
        (np.zeros((4, 4), np.uint8), 0.0, "frame must be"),
        (np.zeros((4, 4, 4), np.uint8), 0.0, "frame must be"),
        (np.zeros((4, 4, 3), np.float32), 0.0, "frame must be"),
        (np.zeros((0, 4, 3), np.uint8), 0.0, "frame must be"),
        (None, 0.0, "frame must be"),
        (np.zeros((4, 4, 3), np.uint8), np.nan, "time must be"),
    ],
)
def test_what_is_no_frame_is_refused(frame: np.ndarray, seconds: float, message: str) -> None:
    stage = Stage()
    with pytest.raises(InvalidRequest, match=message):
        stage.tracker.update(frame, seconds)


@pytest.mark.parametrize("options", [{"max_faces": 0}, {"detect_every": -1}, {"predict_s": 2.0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="must be"):
        Stage(**options)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 400), (64, 64)])
def test_the_smallest_frames_and_odd_ones_have_no_face(shape: tuple[int, int]) -> None:
    stage, frame = Stage(), np.zeros((*shape, 3), np.uint8)
    for number, given in enumerate((frame, np.asfortranarray(frame))):
        assert stage.tracker.update(given, number / 10) == []


def test_a_light_that_goes_on_is_no_cut() -> None:
    (stage := Stage(still())).play(0, 0.2)
    dark = (stage.scene.frame(0.3) * 0.5).astype(np.uint8)
    assert not stage.tracker._cuts.update(dark)
