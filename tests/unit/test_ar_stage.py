"""A whole filter on a frame: paint, order, triggers, several faces, quality."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from retinue.apps.ar import filters
from retinue.apps.ar.effects.live import in_space
from retinue.apps.ar.effects.paint import Paint, skin_light, triangles
from retinue.apps.ar.face.canonical import TRIANGLES
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.load import Assets
from retinue.apps.ar.filters.spec import PaintPart
from retinue.apps.ar.filters.stage import Stage
from retinue.apps.ar.governor import Quality
from retinue.apps.ar.render.scene import Renderer, Texture, View
from retinue.core.errors import InvalidRequest

from .ar_worn import CAMERA, HEIGHT, RED, WIDTH, Pixels, changed, face, gray, on, worn

# Paint


def picture(color: tuple[int, int, int, int] = (255, 0, 0, 255), side: int = 64) -> Texture:
    return Texture(np.full((side, side, 4), color, np.uint8), "clamp")


def test_paint_covers_the_face_but_not_eyes_and_mouth(drawing: Renderer) -> None:
    frame, shown = gray(), face()
    part = {"kind": "paint", "file": "x.png", "shading": 0.0}
    on(frame, [shown], worn(part, assets=[Assets(texture=picture())]), drawing)
    for mark, painted in ((4, True), (50, True), (151, True), (280, True)):
        x, y = shown.landmarks[mark, :2].astype(int)
        assert (tuple(frame[y, x]) == RED) == painted
    eye = shown.landmarks[[159, 145], :2].mean(axis=0).astype(int)
    assert tuple(frame[eye[1], eye[0]]) == (120,) * 3
    low, high = shown.landmarks[:, :2].min(axis=0), shown.landmarks[:, :2].max(axis=0)
    rows, columns = np.nonzero(changed(frame))
    assert abs(columns.min() - low[0]) < 2
    assert abs(rows.max() - high[1]) < 2
    assert len(triangles(("eyes", "mouth"))) == len(TRIANGLES) > len(triangles(()))


@pytest.mark.parametrize(
    ("mode", "level"),
    [("multiply", 56.0), ("screen", 184.0), ("overlay", 113.0), ("soft_light", 116.7)],
)
def test_paint_mixes_with_the_skin(drawing: Renderer, mode: str, level: float) -> None:
    frame, shown = gray(), face()
    part = {"kind": "paint", "file": "x.png", "blend": mode}
    on(frame, [shown], worn(part, assets=[Assets(texture=picture((120, 120, 120, 255)))]), drawing)
    x, y = shown.landmarks[50, :2].astype(int)
    assert frame[y, x, 0] == pytest.approx(level, abs=3)


def test_paint_is_lit_as_the_skin_is(drawing: Renderer) -> None:
    frame = gray()
    frame[:, : WIDTH // 2] = 60
    frame[:, WIDTH // 2 :] = 180
    shown = face()
    light = skin_light(frame, shown)
    assert light[234] < 0.7 < 1.2 < light[454]
    for shading, wanted in ((0.8, True), (0.0, False)):
        made = frame.copy()
        part = {"kind": "paint", "file": "x.png", "shading": shading}
        paint = worn(part, assets=[Assets(texture=picture((128, 128, 128, 255)))])
        on(made, [shown], paint, drawing)
        (dark, _), (bright, row) = (shown.landmarks[i, :2].astype(int) for i in (50, 280))
        difference = int(made[row, bright, 0]) - int(made[row, dark, 0])
        assert (difference > 50) == wanted


def test_the_far_side_of_a_turned_face_is_hidden(drawing: Renderer) -> None:
    """Seen from the side, the nose covers the other cheek: paint shows what is in front."""
    shown = face(yaw=60)
    texture = picture((0, 0, 255, 255))
    texture.pixels[:, :32] = (255, 0, 0, 255)
    frame = gray()
    part = {"kind": "paint", "file": "x.png", "shading": 0.0}
    on(frame, [shown], worn(part, assets=[Assets(texture=texture)]), drawing)
    red, blue = ((frame == color).all(axis=-1).sum() for color in (RED, (0, 0, 255)))
    assert red > 3 * blue or blue > 3 * red


def test_paint_under_make_up_is_mixed_before_it(drawing: Renderer) -> None:
    paint = {"kind": "paint", "file": "x.png", "shading": 0.0, "cover": ["mouth", "eyes"]}
    lips = {"kind": "makeup", "region": "lips", "color": "#00ff00", "blend": "screen"}
    shown = face()
    x, y = shown.landmarks[[0, 13], :2].mean(axis=0).astype(int)
    texture = Assets(texture=picture())
    first, last = gray(), gray()
    on(first, [shown], worn(paint, lips, assets=[texture, Assets()]), drawing)
    on(last, [shown], worn(lips, paint, assets=[Assets(), texture]), drawing)
    assert first[y, x, 1] > 200
    assert tuple(last[y, x]) == RED


def test_light_of_a_face_outside_of_the_frame_is_even() -> None:
    assert (skin_light(gray(), face(at=(300.0, 0.0, 40.0))) == 1).all()
    part = PaintPart(kind="paint", file="x.png")
    draw = Paint(part, picture()).draw(face(), in_space(face(), CAMERA), None, 0.5)
    assert draw is not None
    assert draw.opacity == 0.5


def test_only_what_is_painted_is_drawn() -> None:
    texture = picture((0, 0, 0, 0))
    part = PaintPart(kind="paint", file="x.png")
    shown = face()
    live = in_space(shown, CAMERA)
    assert Paint(part, texture).draw(shown, live, None, 1.0) is None
    texture.pixels[:10, 28:36] = 255
    draw = Paint(part, texture).draw(shown, live, skin_light(gray(), shown), 1.0)
    assert draw is not None
    assert 0 < len(draw.geometry.triangles) < 80
    assert draw.positions is not None
    assert draw.positions[:, 1].max() < live[168, 1]


# The whole


def test_the_background_needs_a_segmenter(drawing: Renderer) -> None:
    part = {"kind": "background", "mode": "color"}
    with pytest.raises(InvalidRequest, match="give a segmenter"):
        Stage(worn(part), drawing)


class Half:
    def small(self, frame: Pixels) -> NDArray[np.float32]:
        mask = np.zeros((32, 32), np.float32)
        mask[:, :16] = 1
        return mask


def test_the_background_changes_without_a_face_too(drawing: Renderer) -> None:
    part = {"kind": "background", "mode": "color", "color": "#ff0000"}
    frame = gray()
    times = Stage(worn(part), drawing, Half()).apply(frame, [], CAMERA, 0.0)
    assert tuple(frame[10, WIDTH - 10]) == RED
    assert tuple(frame[10, 10]) == (120,) * 3
    assert set(times) == {"segment", "background"}
    shown = {**part, "show": {"when": "smile"}}
    frame = gray()
    Stage(worn(shown), drawing, Half()).apply(frame, [face()], CAMERA, 0.0)
    assert (frame == 120).all()


def test_triggers_show_parts(drawing: Renderer) -> None:
    part = {"kind": "makeup", "region": "lips", "color": "#ff0000", "show": {"when": "mouth_open"}}
    stage = Stage(worn(part), drawing)
    seen = []
    for number, value in enumerate((0.0, 0.1, 0.9, 0.9, 0.9, 0.9, 0.0)):
        frame = gray()
        one = face(coefficients={"mouth_open": value})
        stage.apply(frame, [one], CAMERA, number / 10)
        seen.append(bool(changed(frame).any()))
    assert seen == [False, False, True, True, True, True, False]


def test_distortion_moves_what_comes_after(drawing: Renderer) -> None:
    shown = face()
    pull = {
        "kind": "distort",
        "points": [{"at": 4, "radius": 1.0, "strength": 1.0, "kind": "pull", "direction": [0, 1]}],
    }
    rows = []
    for parts in ([], [pull]):
        frame = gray()
        mark = {"kind": "sticker", "file": "x.png", "at": 4, "size": 0.1}
        on(frame, [shown], worn(*parts, mark, assets=[*(Assets() for _ in parts),
           Assets(texture=picture())]), drawing)  # fmt: skip
        rows.append(np.nonzero(changed(frame))[0].mean())
    assert rows[1] < rows[0] - 5


def test_what_is_no_face_changes_nothing(drawing: Renderer) -> None:
    shown = face()
    broken = shown.landmarks.copy()
    broken[0, 0] = np.nan
    frame = gray()
    parts = [
        {"kind": "makeup", "region": "lips", "color": "#ff0000"},
        {"kind": "eyes"},
        {"kind": "distort", "points": [{"at": 4, "radius": 1.0}]},
    ]
    on(frame, [Face(1, 1.0, broken, shown.pose), face(2, opacity=0.0)], worn(*parts), drawing)
    on(frame, [face(3, at=(0.0, 0.0, -20.0))], worn(*parts), drawing)
    assert (frame == 120).all()


@pytest.mark.parametrize("away", [12.0, 400.0])
@pytest.mark.parametrize("name", filters.names())
def test_every_built_in_filter_takes_faces_of_all_sizes_and_places(
    drawing: Renderer, name: str, away: float
) -> None:
    chosen = filters.load(name)
    stage = Stage(chosen, drawing, Half())
    places = [(0.0, 0.0), (0.5, 0.1), (-0.62, -0.4), (1.4, 0.0)]
    faces = [
        face(number, yaw=70 * x, roll=60 * y, at=(x * away, y * away, away))
        for number, (x, y) in enumerate(places)
    ]
    frame = gray()
    stage.apply(frame, faces, CAMERA, 0.0)
    stage.apply(frame, faces, CAMERA, 0.1, Quality(False, "simple", 0.5, False))


def test_the_view_of_a_scene_lies_in_the_frame(drawing: Renderer) -> None:
    view = View(CAMERA.matrix, 0, 0, WIDTH, HEIGHT)
    assert drawing.render([], view).shape == (HEIGHT, WIDTH, 4)
