"""Models on heads: the invisible head, anchors, animations, what is drawn together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retinue.apps.ar.effects.asset import anchor_matrix, local_matrix
from retinue.apps.ar.effects.live import in_space
from retinue.apps.ar.effects.occluder import OVAL, head, occluder
from retinue.apps.ar.effects.region import Boxes, scenes
from retinue.apps.ar.face.canonical import TRIANGLES, VERTICES
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.load import Assets
from retinue.apps.ar.filters.spec import ModelPart
from retinue.apps.ar.filters.stage import Stage
from retinue.apps.ar.render.scene import Draw, Geometry, Material, Renderer

from .ar_worn import CAMERA, HEIGHT, RED, WIDTH, changed, face, gray, on, worn


class Plate:
    """A model of one square, x and y from -1 to 1, that faces the front."""

    triangles = 2
    animations = ("up",)

    def __init__(self, color: tuple[float, float, float] = (1.0, 0.0, 0.0)) -> None:
        corners = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], np.float32)
        self.geometry = Geometry(corners, np.array([(0, 1, 2), (0, 2, 3)], np.int32))
        self.material = Material((*color, 1.0), unlit=True, double_sided=True)
        self.asked: list[dict[str, Any]] = []

    def length(self, animation: str) -> float:
        return 2.0

    def draws(self, matrix: NDArray[np.float64], seconds: float, **asked: Any) -> list[Draw]:
        self.asked.append({"seconds": seconds, **asked})
        return [Draw(self.geometry, self.material, matrix)]


def plate(**keys: Any) -> dict[str, Any]:
    return {"kind": "model", "file": "x.glb", "scale": 1.0, **keys}


# The invisible head


def test_the_head_is_closed_and_faces_outwards() -> None:
    geometry, follows, weights = head()
    points, faces = geometry.positions, geometry.triangles
    assert len(points) == len(follows) == len(weights)
    assert 0 <= weights.min() <= weights.max() <= 1
    sides = np.concatenate([faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    seen = {tuple(side) for side in sides.tolist()}
    assert len(seen) == len(sides)
    open_ = {side for side in seen if side[::-1] not in seen}
    # The skull is open where the face closes it; ears have poles of several vertices.
    outline = {tuple(np.round(points[i], 3)) for side in open_ for i in side}
    face_ = {tuple(np.round(VERTICES[i], 3)) for i in OVAL}
    assert face_ <= outline
    corners = points[faces].astype(float)
    volume = (np.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]).sum() / 6
    front = VERTICES[TRIANGLES].astype(float)
    volume += (np.cross(front[:, 0], front[:, 1]) * front[:, 2]).sum() / 6
    assert 2500 < volume < 5500, "cubic centimetres: a head has about 4000"


def test_the_head_has_a_persons_measures() -> None:
    points = head()[0].positions
    skull = points[np.abs(points[:, 0]) < 7.7]
    assert 11 < skull[:, 1].max() < 13.5
    assert -14.5 < skull[:, 2].min() < -12
    assert 8 < np.abs(points[:, 0]).max() < 9.5


def test_the_head_follows_a_face_that_is_wider() -> None:
    shown = face()
    wide = shown.landmarks.copy()
    wide[:, 0] = WIDTH / 2 + 1.2 * (wide[:, 0] - WIDTH / 2)
    spans = []
    for points in (shown.landmarks, wide):
        one = Face(1, 1.0, points, shown.pose)
        draws = occluder(one, in_space(one, CAMERA))
        assert [draw.material for draw in draws] == [None, None]
        assert draws[1].positions is not None
        spans.append(np.ptp(draws[1].positions[:, 0]))
    assert spans[1] == pytest.approx(1.2 * spans[0], rel=0.05)


def test_what_is_behind_the_head_is_hidden(drawing: Renderer) -> None:
    for occlusion, hidden in ((True, True), (False, False)):
        frame = gray()
        behind = worn(
            plate(position=[0, 0, -14.5], scale=14.0),
            occlusion=occlusion,
            assets=[Assets(model=Plate())],
        )
        on(frame, [face()], behind, drawing)
        assert tuple(frame[HEIGHT // 2, WIDTH // 2]) == ((120,) * 3 if hidden else RED)
        x, y = CAMERA.project((12.0, 0.0, 54.5)).astype(int)
        assert tuple(frame[y, x]) == RED
    front = gray()
    on(
        front,
        [face()],
        worn(plate(position=[0, 0, 9.0]), occlusion=True, assets=[Assets(model=Plate())]),
        drawing,
    )
    assert tuple(front[HEIGHT // 2, WIDTH // 2]) == RED


@pytest.mark.parametrize("yaw", [0.0, 35.0, -50.0])
def test_what_touches_the_skin_is_seen(drawing: Renderer, yaw: float) -> None:
    """A plate just before the forehead, as a patch of a model that lies on it."""
    frame = gray()
    part = plate(anchor=151, position=[0, 0, 0.15], scale=0.8)
    shown = face(yaw=yaw)
    on(frame, [shown], worn(part, occlusion=True, assets=[Assets(model=Plate())]), drawing)
    x, y = shown.landmarks[151, :2].astype(int)
    assert tuple(frame[y, x]) == RED


# Models


def test_a_model_stands_where_the_file_says(drawing: Renderer) -> None:
    shown = face(yaw=20, pitch=5, roll=10, at=(3.0, -2.0, 45.0))
    frame = gray()
    part = plate(position=[0, 8, 4], scale=0.5)
    times = on(frame, [shown], worn(part, assets=[Assets(model=Plate())]), drawing)
    place = shown.pose.rotation @ (0, 8, 4) + shown.pose.translation
    rows, columns = np.nonzero(changed(frame))
    x, y = CAMERA.project(place)
    assert abs(columns.mean() + 0.5 - x) < 0.7
    assert abs(rows.mean() + 0.5 - y) < 0.7
    assert set(times) == {"render", "composite"}


def test_turns_go_about_x_then_y_then_z() -> None:
    part = ModelPart.model_validate(plate(rotation=[90, 90, 0], scale=2.0, position=[1, 2, 3]))
    made = local_matrix(part) @ (0, 1, 0, 1)
    assert np.allclose(made, (1 + 2, 2, 3, 1))


def test_a_landmark_carries_a_model_and_the_head_turns_it() -> None:
    shown = face(yaw=30)
    moved = shown.landmarks.copy()
    moved[14, :2] += (5, 9)
    one = Face(1, 1.0, moved, shown.pose)
    live = in_space(one, CAMERA)
    part = ModelPart.model_validate(plate(anchor=14))
    made = anchor_matrix(part, one, live)
    assert np.allclose(made[:3, :3], shown.pose.rotation)
    assert np.allclose(CAMERA.project(made[:3, 3]), moved[14, :2], atol=1e-2)
    iris = anchor_matrix(ModelPart.model_validate(plate(anchor=468)), one, live)
    assert np.allclose(iris[:3, 3], live[[33, 133]].mean(axis=0), atol=1e-5)


def test_models_are_asked_for_their_animation_and_morphs(drawing: Renderer) -> None:
    looping, played = Plate(), Plate()
    stage = Stage(
        worn(
            plate(animation="up", morphs={"open": "mouth_open"}),
            plate(show={"when": "smile", "play": "up"}),
            assets=[Assets(model=looping), Assets(model=played)],
        ),
        drawing,
    )
    for seconds, smile in ((0.0, 0.0), (4.5, 0.0), (5.0, 1.0), (5.5, 1.0)):
        one = face(coefficients={"mouth_open": 0.4, "smile": smile})
        stage.apply(gray(), [one], CAMERA, seconds)
    asked = looping.asked[1]
    assert asked == {"seconds": 0.5, "weights": {"open": 0.4}, "animation": "up"}
    assert [each["seconds"] for each in played.asked] == [0.0, 0.5]
    assert played.asked[0]["animation"] == "up"


def test_a_late_machine_gets_the_simple_model_and_fewer_pixels(drawing: Renderer) -> None:
    both = worn(
        plate(position=[0, 8, 4], scale=3.0),
        assets=[Assets(model=Plate(), simple=Plate((0.0, 0.0, 1.0)))],
    )
    frame = gray()
    on(frame, [face()], both, drawing, assets="simple", scale=0.5)
    rows, columns = np.nonzero(changed(frame))
    assert tuple(frame[int(rows.mean()), int(columns.mean())]) == (0, 0, 255)


def test_a_fading_face_is_half_seen(drawing: Renderer) -> None:
    frame = gray(0)
    on(frame, [face(opacity=0.5)], worn(plate(position=[0, 0, 9], scale=2.0),
       assets=[Assets(model=Plate())]), drawing)  # fmt: skip
    assert 110 < frame[HEIGHT // 2, WIDTH // 2, 0] < 145


def test_nearer_faces_hide_those_behind(drawing: Renderer) -> None:
    near = face(1, at=(-3.0, 0.0, 30.0))
    far = face(2, at=(3.0, 0.0, 60.0))
    frame = gray()
    on(frame, [near, far], worn(plate(position=[0, 0, 9], scale=3.0), occlusion=True,
       assets=[Assets(model=Plate())]), drawing)  # fmt: skip
    x, y = CAMERA.project((3.0, 0.0, 51.0)).astype(int)
    left, _ = CAMERA.project((-3.0, 0.0, 21.0)).astype(int)
    assert tuple(frame[y, left]) == RED
    hidden = frame[y, x - 4 : x + 4]
    assert (hidden == 120).all() or (hidden == RED).all(axis=-1).any()


def test_boxes_that_meet_are_drawn_together() -> None:
    draws: list[Draw] = []
    made = scenes([(draws, (0, 0, 10, 10)), (draws, (20, 0, 30, 10)), (draws, (8, 2, 22, 8))])
    assert [scene.box for scene in made] == [(0, 0, 30, 10)]
    assert len(scenes([(draws, (0, 0, 10, 10)), (draws, (10, 0, 20, 10))])) == 2


def test_boxes_hold_what_is_seen() -> None:
    boxes, one = Boxes(), Plate()
    sideways = np.array([(0, 0, 1, 0), (0, 1, 0, 0), (-1, 0, 0, 0), (0, 0, 0, 1.0)])
    for z, wanted in ((20.0, None), (-5.0, "none"), (1.5, "whole")):
        matrix = sideways.copy() if wanted == "whole" else np.eye(4)
        matrix[2, 3] = z
        box = boxes.of([Draw(one.geometry, one.material, matrix)], CAMERA)
        if wanted == "none":
            assert box is None
        elif wanted == "whole":
            assert box == (0, 0, WIDTH, HEIGHT)
        else:
            half = CAMERA.matrix[0, 0] / 20
            assert box is not None
            assert box[0] <= WIDTH / 2 - half <= box[0] + 4
    assert boxes.of([Draw(one.geometry, None, np.eye(4))], CAMERA) is None
