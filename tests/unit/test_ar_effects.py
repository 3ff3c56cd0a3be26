"""Skin and eyes: where they are changed, what is left alone, and what colours become."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retinue.apps.ar.effects import blend
from retinue.apps.ar.effects.eyes import draw_iris, eyes
from retinue.apps.ar.effects.live import (
    MIRROR,
    NORMALS,
    axes,
    curve,
    depths,
    eye_shown,
    facing,
    in_space,
    usable,
)
from retinue.apps.ar.effects.makeup import EYE, LIPS, MOUTH, makeup, sides
from retinue.apps.ar.face.canonical import VERTICES
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.spec import (
    EyesPart,
    MakeupPart,
)
from retinue.testing.ar import Head, pose

from .ar_skin import CAMERA, HEIGHT, WIDTH, changed, face, gray, skin


def inside(shown: Face, ring: tuple[int, ...] | list[int]) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    outline = np.rint(shown.landmarks[list(ring), :2] - 0.5).astype(np.int32)
    cv2.fillPoly(mask, [outline], 255)
    return mask > 0


def grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    kernel = np.ones((2 * pixels + 1,) * 2, np.uint8)
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


# The live face


def test_the_mesh_is_its_own_mirror_image() -> None:
    assert (MIRROR[MIRROR] == np.arange(468)).all()
    assert np.allclose(VERTICES[MIRROR] * (-1, 1, 1), VERTICES, atol=1e-3)
    assert sides((33, 133)) == ([33, 133], [263, 362])
    assert NORMALS[4, 2] > 0.9


def test_landmarks_in_space_are_seen_where_they_are_in_the_picture() -> None:
    for points in (468, 478):
        shown = face(points, yaw=25, pitch=-10, roll=15, at=(12.0, 3.0, 45.0))
        live = in_space(shown, CAMERA)
        assert live.shape == (points, 3)
        assert np.allclose(CAMERA.project(live), shown.landmarks[:, :2], atol=0.02)
        # A canonical head is found where it is.
        posed = VERTICES @ shown.pose.rotation.T + shown.pose.translation
        assert np.allclose(live[:468], posed, atol=1e-3)
        assert len(depths(shown)) == points


def test_sides_that_turn_away_are_known() -> None:
    shown = face(yaw=60)
    assert facing(shown, 234) > 0.5 or facing(shown, 454) > 0.5
    assert min(facing(shown, 234), facing(shown, 454)) < -0.2


def test_axes_follow_the_roll_and_never_turn_over() -> None:
    along, up = axes(face(roll=90))
    assert np.allclose(along, (0, 1), atol=1e-6)
    assert np.allclose(up, (1, 0), atol=1e-6)
    assert axes(face(yaw=88))[0][0] > 0.9


def test_a_curve_goes_through_its_points() -> None:
    points = np.array([(0, 0), (4, 1), (6, 5), (2, 7)], np.float32)
    assert np.allclose(curve(points, 3)[::3], points)
    assert np.allclose(curve(points, 5, closed=True)[::5], points)
    assert len(curve(points, 5, closed=True)) == 20


def test_what_is_no_face_is_left_out() -> None:
    shown = face()
    assert usable(shown)
    broken = shown.landmarks.copy()
    broken[7, 1] = np.nan
    far = shown.landmarks + 1e7
    flat = np.zeros_like(shown.landmarks)
    for points in (broken, far.astype(np.float32), flat):
        assert not usable(Face(1, 1.0, points, shown.pose))
    assert not usable(face(opacity=0.0))


# Blending


def truth(b: float, s: float, mode: str) -> float:
    """As the module's documentation has it."""
    formulas = {
        "normal": s,
        "multiply": b * s,
        "screen": b + s - b * s,
        "overlay": 2 * b * s if b <= 0.5 else 1 - 2 * (1 - b) * (1 - s),
        "soft_light": (1 - 2 * s) * b**2 + 2 * s * b,
    }
    return formulas[mode]


@pytest.mark.parametrize("mode", ["normal", "multiply", "screen", "overlay", "soft_light"])
def test_pictures_blend_as_the_formulas_say(mode: Any) -> None:
    random = np.random.default_rng(3)
    base = random.integers(0, 256, (40, 50, 3), np.uint8)
    over = random.integers(0, 256, (40, 50, 4), np.uint8)
    over[:10, :, 3], over[10:20, :, 3] = 0, 255
    seen = over.astype(float) / 255
    drawn = over.copy()
    drawn[..., :3] = np.rint(seen[..., :3] * seen[..., 3:] * 255)
    made = base.copy()
    blend.over(made, drawn, mode)
    b, a = base / 255, seen[..., 3:]
    mixed = np.vectorize(truth, excluded=[2])(b, seen[..., :3], mode)
    assert np.abs(made - ((1 - a) * b + a * mixed) * 255).max() < 3.1
    assert (made[:10] == base[:10]).all()


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_mixing_stays_between_both(old: int, new: int, mask: int, opacity: float) -> None:
    pixels, target = np.full((3, 4, 3), old, np.uint8), np.full((3, 4, 3), new, np.uint8)
    blend.mix(pixels, target, np.full((3, 4), mask, np.uint8), opacity)
    share = mask / 255 * opacity
    assert abs(float(pixels[0, 0, 0]) - (old + share * (new - old))) <= 1.6
    assert min(old, new) - 1 <= int(pixels[1, 1, 1]) <= max(old, new) + 1


def test_a_colour_keeps_the_light_of_what_it_covers() -> None:
    pixels = np.repeat(np.linspace(60, 180, 100).astype(np.uint8)[None, :, None], 3, 2)
    pixels = np.repeat(pixels, 20, 0)
    before = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    blend.tint(pixels, np.full((20, 100), 255, np.uint8), "#a03050", "normal", 1.0, before)
    after = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(float)
    assert np.corrcoef(before[0], after[0])[0, 1] > 0.999
    middle_ = pixels[0, 50].astype(float)
    assert np.allclose(middle_, (0xA0, 0x30, 0x50), atol=4)


# Make-up


def makeup_part(region: str, **keys: Any) -> MakeupPart:
    return MakeupPart.model_validate(
        {"kind": "makeup", "region": region, "color": "#c02030", **keys}
    )


@pytest.mark.parametrize("region", ["lips", "eyelids", "eyeliner", "brows", "cheeks"])
def test_make_up_stays_on_its_region(region: str) -> None:
    shown = face()
    frame = skin()
    makeup(frame, shown, makeup_part(region), 1.0, True)
    touched = changed(skin(), frame)
    assert 40 < touched.sum() < 0.2 * WIDTH * HEIGHT
    outline = np.ascontiguousarray(shown.landmarks[:, :2], np.float32)
    hull = inside(shown, cv2.convexHull(outline, returnPoints=False).ravel())
    assert not (touched & ~grown(hull, 2)).any()
    rows, columns = np.nonzero(touched)
    top, bottom = rows.mean(), columns.mean()
    assert abs(bottom - shown.landmarks[4, 0]) < 3
    places = {"lips": 14, "eyelids": 159, "eyeliner": 159, "brows": 105, "cheeks": 50}
    assert abs(top - shown.landmarks[places[region], 1]) < 0.12 * shown.eye_distance


def test_lips_take_the_colour_and_teeth_and_eyes_do_not() -> None:
    head = Head(pose(at=(0.0, 0.0, 30.0)))
    opened = VERTICES.astype(float).copy()
    lower = [i for i in range(468) if opened[i, 1] < -4.3]
    opened[lower, 1] -= 1.5
    head = Head(head.pose, opened)
    shown = Face(1, 1.0, head.seen(CAMERA), head.pose)
    frame = gray()
    makeup(frame, shown, makeup_part("lips"), 1.0, False)
    mouth, lips = inside(shown, MOUTH), inside(shown, LIPS)
    assert not changed(gray(), frame)[~grown(~mouth, 4)].any()
    assert changed(gray(), frame)[~grown(~(lips & ~mouth), 4)].all()
    frame = gray()
    makeup(frame, shown, makeup_part("eyelids"), 1.0, False)
    makeup(frame, shown, makeup_part("eyeliner"), 1.0, False)
    assert not changed(gray(), frame)[~grown(~inside(shown, EYE), 3)].any()


def test_edges_are_soft() -> None:
    frame = gray()
    shown = face()
    makeup(frame, shown, makeup_part("lips", color="#000000", blend="multiply"), 1.0, False)
    column = frame[:, round(float(shown.landmarks[17, 0])), 0].astype(int)
    steps = np.abs(np.diff(column))
    assert 0 < steps.max() < 110
    assert column.min() < 10


def test_gloss_adds_light_to_the_lower_lip_alone() -> None:
    plain, glossy, shown = gray(), gray(), face()
    makeup(plain, shown, makeup_part("lips"), 1.0, True)
    makeup(glossy, shown, makeup_part("lips", finish="gloss"), 1.0, True)
    brighter = (glossy.astype(int) - plain).max(axis=-1) > 4
    assert brighter.any()
    assert not (brighter & ~grown(inside(shown, LIPS), 2)).any()
    simple = gray()
    makeup(simple, shown, makeup_part("lips", finish="gloss"), 1.0, False)
    assert (simple == plain).all()


def test_opacity_and_fading_faces_scale_it() -> None:
    sums = []
    for opacity in (1.0, 0.5, 0.0):
        frame = gray()
        makeup(frame, face(opacity=opacity), makeup_part("lips"), 1.0, False)
        sums.append(np.abs(frame.astype(int) - 128).sum())
    assert sums[2] == 0
    assert sums[1] == pytest.approx(sums[0] / 2, rel=0.1)


def test_gloss_does_not_shine_in_the_dark() -> None:
    part = makeup_part("lips", finish="gloss", blend="overlay", color="#9c0f2e")
    for level, brightest in ((20, 80), (150, 256)):
        frame = gray(level)
        makeup(frame, face(), part, 1.0, True)
        assert frame[changed(gray(level), frame)].max() < brightest
    assert frame.max() > 180


def test_the_hidden_cheek_is_not_painted() -> None:
    shown = face(yaw=65)
    frame = gray()
    makeup(frame, shown, makeup_part("cheeks"), 1.0, False)
    touched = changed(gray(), frame)
    near, far = (50, 280) if facing(shown, 50) > facing(shown, 280) else (280, 50)
    column = np.nonzero(touched)[1].mean()
    assert abs(column - shown.landmarks[near, 0]) < abs(column - shown.landmarks[far, 0])


@pytest.mark.parametrize("at", [(-22.0, 0.0, 30.0), (0.0, 19.0, 30.0), (90.0, 0.0, 30.0)])
@pytest.mark.parametrize("region", ["lips", "eyelids", "eyeliner", "brows", "cheeks"])
def test_half_a_face_and_none_in_the_frame_are_no_error(
    region: str, at: tuple[float, float, float]
) -> None:
    frame = gray()
    makeup(frame, face(at=at), makeup_part(region, finish="gloss"), 1.0, True)
    eyes(frame, face(478, at=at), EyesPart(kind="eyes"), draw_iris(EyesPart(kind="eyes")), 1.0)


@pytest.mark.parametrize("away", [9.0, 500.0])
def test_very_large_and_very_small_faces_are_no_error(away: float) -> None:
    for region in ("lips", "eyelids", "eyeliner", "brows", "cheeks"):
        frame = gray()
        makeup(frame, face(at=(0.0, 0.0, away)), makeup_part(region, finish="gloss"), 1.0, True)


# Eyes


def test_irises_lie_inside_the_lids() -> None:
    shown = face(478)
    points = shown.landmarks.copy()
    for first in (468, 473):
        radius = 0.066 * shown.eye_distance
        points[first + 1 : first + 5, :2] = points[first, :2] + radius * np.array(
            [(1, 0), (0, -1), (-1, 0), (0, 1)]
        )
    for number, marks in enumerate((points, points[:468])):
        one = Face(1, 1.0, marks, shown.pose)
        frame = gray(150)
        part = EyesPart(kind="eyes", color="#ff0000", size=1.4)
        eyes(frame, one, part, draw_iris(part), 1.0)
        touched = changed(gray(150), frame)
        for side in (0, 1):
            opening = inside(one, sides(EYE)[side])
            assert (touched & opening).sum() > 30, number
            touched &= ~grown(opening, 3)
        assert not touched.any()


def test_closed_eyes_show_nothing_and_lights_stay() -> None:
    shown = face()
    points = shown.landmarks.copy()
    for side in (0, 1):
        ring = sides(EYE)[side]
        points[ring[9:], :2] = points[ring[1:8][::-1], :2]
    frame = gray()
    part = EyesPart(kind="eyes")
    eyes(frame, Face(1, 1.0, points, shown.pose), part, draw_iris(part), 1.0)
    assert not changed(gray(), frame).any()
    bright = gray(250)
    eyes(bright, shown, part, draw_iris(part), 1.0)
    assert not changed(gray(250), bright).any()


def closed(shown: Face, share: float) -> Face:
    """A face whose lids are that far open."""
    points = shown.landmarks.copy()
    for side in (0, 1):
        ring = sides(EYE)[side]
        for upper, lower in zip(ring[1:8], ring[9:][::-1], strict=True):
            points[upper] = points[lower] + share * (points[upper] - points[lower])
    return Face(1, 1.0, points, shown.pose)


def test_lids_that_networks_leave_a_gap_between_are_not_painted() -> None:
    """A third of the open eye's height is what they find between closed lids."""
    shown, part = face(), EyesPart(kind="eyes")
    sums = []
    for share in (0.25, 0.65, 1.0):
        frame = gray()
        eyes(frame, closed(shown, share), part, draw_iris(part), 1.0)
        sums.append(changed(gray(), frame).sum())
    assert sums[0] == 0
    assert 0 < sums[1] < sums[2]


@pytest.mark.parametrize("yaw", [50, -50])
def test_the_eye_behind_the_nose_is_not_painted(yaw: float) -> None:
    shown, iris = face(yaw=yaw), EyesPart(kind="eyes")
    far = 0 if facing(shown, 130) < facing(shown, 359) else 1
    assert eye_shown(shown, far) == 0
    assert eye_shown(shown, 1 - far) == 1
    for paint in ("eyelids", "eyeliner", "iris"):
        frame = gray()
        if paint == "iris":
            eyes(frame, shown, iris, draw_iris(iris), 1.0)
        else:
            makeup(frame, shown, makeup_part(paint), 1.0, False)
        touched = changed(gray(), frame)
        assert touched.any()
        assert not (touched & inside(shown, sides(EYE)[far])).any()
        assert not touched[:, int(shown.landmarks[sides((33,))[far][0], 0])].any()


def test_eyes_that_look_into_the_camera_are_both_shown() -> None:
    for turned in ({}, {"yaw": 20}, {"yaw": -20}, {"pitch": 30}, {"pitch": -30}):
        assert min(eye_shown(face(**turned), side) for side in (0, 1)) == pytest.approx(1, abs=0.01)


def test_a_drawn_iris_is_round_and_has_its_pupil() -> None:
    slit = draw_iris(EyesPart(kind="eyes", pupil="slit", color="#c8d020"))
    whole = draw_iris(EyesPart(kind="eyes", color="#c8d020"))
    assert (slit == draw_iris(EyesPart(kind="eyes", pupil="slit", color="#c8d020"))).all()
    assert slit[0, 0, 3] == 0
    assert slit[64, 64, 3] == 255
    assert slit[64, 64, :3].max() < 30
    assert slit[100, 64, :3].max() < 30 < whole[105, 64, :3].max()
    assert slit[64, 94, :3].max() > 100
