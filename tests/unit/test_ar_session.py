"""A session: tracking, drawing, budget and time together, on scenes of posed canonical faces."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinue.apps.ar import filters
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.governor import LADDER
from retinue.apps.ar.media.frames import Frame
from retinue.apps.ar.run import as_json, stream
from retinue.apps.ar.session import Session
from retinue.apps.ar.settings import ArSettings
from retinue.core.errors import InvalidRequest
from retinue.testing.ar import Head, Scene, SceneDetector, SceneMesh, pose


class Networks:
    """The scene's own."""

    def __init__(self, scene: Scene) -> None:
        self.detector, self.far_detector = SceneDetector(scene), None
        self.mesh, self.iris_mesh = SceneMesh(scene), SceneMesh(scene, 478)
        self._twins = {mesh: SceneMesh(scene, mesh.points) for mesh in (self.mesh, self.iris_mesh)}

    def twin(self, mesh: SceneMesh) -> SceneMesh:
        return self._twins[mesh]

    def close(self) -> None:
        raise AssertionError("they are another's")


class Clock:
    """A clock that goes forward by so much at each look."""

    def __init__(self, step: float) -> None:
        self.step, self.now = step, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def scene() -> Scene:
    return Scene([lambda seconds: Head(pose(at=(4 * np.sin(seconds), 0, 45)))])


def session(scene: Scene, worn: str = "", **options: Any) -> Session:
    chosen = filters.load(worn) if worn else None
    return Session(chosen, networks=Networks(scene), **options)  # type: ignore[arg-type]


def test_a_face_is_followed_and_drawn_on(scene: Scene) -> None:
    with session(scene, "crown") as opened:
        for number in range(5):
            frame = scene.frame(number / 30)
            before = frame.copy()
            done = opened.apply(frame, number / 30)
            assert (frame == before).all()
            assert [face.id for face in done.faces] == [1]
            changed = (done.pixels != frame).any(axis=2)
            top = done.faces[0].landmarks[10, :2]
            assert changed[: int(top[1])].any() and not changed[int(top[1]) + 120 :].any()
        assert opened.summary()["frames"] == 5 and opened.renderer
        assert {"mesh", "pose", "total"} <= set(done.timings_ms)


def test_without_a_filter_pictures_stay_as_they_are(scene: Scene) -> None:
    with session(scene) as opened:
        frame = scene.frame(0)
        done = opened.apply(frame, 0)
        assert (done.pixels == frame).all() and done.pixels is not frame
        assert opened.apply(frame, 0, copy=False).pixels is frame
        assert opened.renderer == ""


def test_a_filter_may_be_changed_between_frames(scene: Scene) -> None:
    with session(scene) as opened:
        opened.apply(scene.frame(0), 0)
        opened.wear(filters.load("crown"))
        frame = scene.frame(0.1)
        done = opened.apply(frame, 0.1)
        assert (done.pixels != frame).any() and done.faces[0].id == 1
        opened.wear(None)
        assert (opened.apply(frame, 0.2).pixels == frame).all()


def test_less_is_done_when_frames_are_late_and_only_before_a_camera(scene: Scene) -> None:
    for live, level in ((True, len(LADDER) - 1), (False, 0)):
        slow = Clock(0.05)
        with session(scene, clock=slow, live=live) as opened:
            for number in range(200):
                opened.apply(scene.frame(number / 30), number / 30)
            assert opened.governor.level == level
            assert opened.summary()["in_budget"] == 0


def test_irises_are_found_where_a_filter_needs_them(scene: Scene) -> None:
    with session(scene, "cat-eyes") as opened:
        done = opened.apply(scene.frame(0), 0)
        assert done.faces[0].landmarks.shape == (478, 3)


def test_time_goes_forward(scene: Scene) -> None:
    with session(scene) as opened:
        opened.apply(scene.frame(1), 1.0)
        with pytest.raises(InvalidRequest, match="forward"):
            opened.apply(scene.frame(1), 0.5)
        with pytest.raises(InvalidRequest, match="forward"):
            opened.apply(scene.frame(1), float("nan"))
        opened.reset()
        assert opened.apply(scene.frame(0), 0.0).faces[0].id == 2


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_what_is_no_frame(scene: Scene, frame: Any) -> None:
    with session(scene) as opened, pytest.raises(InvalidRequest, match="uint8"):
        opened.apply(frame, 0)


def test_a_frame_that_cannot_be_written_is_copied(scene: Scene) -> None:
    frame = scene.frame(0)
    frame.setflags(write=False)
    with session(scene, "crown") as opened:
        done = opened.apply(frame, 0, copy=False)
        assert (done.pixels != frame).any()


def test_a_calibration_is_for_one_size(scene: Scene) -> None:
    with session(scene, camera=Camera.from_fov(640, 480)) as opened:
        opened.apply(scene.frame(0), 0)
        with pytest.raises(InvalidRequest, match="calibration"):
            opened.apply(np.zeros((100, 100, 3), np.uint8), 1)


def test_the_field_of_view_is_the_settings(scene: Scene) -> None:
    with session(scene, ar=ArSettings(fov=40)) as opened:
        with pytest.raises(InvalidRequest, match="camera is known"):
            _ = opened.camera
        opened.apply(scene.frame(0), 0)
        assert opened.camera.matrix[1, 1] == pytest.approx(240 / np.tan(np.radians(20)))


def test_a_stream_gives_each_frame_to_all_takers_until_one_has_enough(scene: Scene) -> None:
    class Taker:
        def __init__(self, most: int) -> None:
            self.most, self.seen = most, 0

        def write(self, pixels: np.ndarray, frame: Frame) -> bool:
            self.seen += 1
            return self.seen < self.most

    frames = (
        Frame(number, number / 30, scene.frame(number / 30), damaged=number == 1)
        for number in range(10)
    )
    takers = [Taker(100), Taker(4)]
    with session(scene) as opened:
        lines = [
            as_json(frame, done) for frame, done in stream(frames, opened, takers, show_debug=True)
        ]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert [taker.seen for taker in takers] == [4, 4]
    assert [line.get("damaged", False) for line in lines] == [False, True, False, False]
    (face,) = lines[0]["faces"]
    assert set(face) == {"id", "score", "landmarks", "pose", "triggers"}
    assert set(face["pose"]) == {"yaw", "pitch", "roll"} and len(face["landmarks"]) == 468


def test_a_paced_stream_gives_no_frame_before_its_time(scene: Scene) -> None:
    frames = [Frame(number, 5 + number / 20, scene.frame(0)) for number in range(3)]
    begin = time.monotonic()
    with session(scene) as opened:
        assert len(list(stream(frames, opened, [], paced=True))) == 3
    assert time.monotonic() - begin >= 0.1


def test_a_filter_being_edited_is_read_again(scene: Scene, tmp_path: Path) -> None:
    from retinue.apps.ar.job import _reload

    folder = filters.new("mine", tmp_path)
    watched = filters.Watched(folder, every=0)
    with session(scene) as opened:
        opened.wear(watched.filter)
        first = opened.worn
        file = folder / "filter.toml"
        good = file.read_text()
        file.write_text("not toml [")
        _reload(opened, watched)
        assert opened.worn is first and watched.problem
        file.write_text(good + "\n# changed\n")
        _reload(opened, watched)
        assert opened.worn is not first and not watched.problem
