"""Stickers, distortion and background: what they change, and what they leave alone."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retinue.apps.ar.effects.background import Background, cover
from retinue.apps.ar.effects.distort import Warp, distort, moved, warps
from retinue.apps.ar.effects.live import (
    axes,
    middle,
)
from retinue.apps.ar.effects.sticker import Pyramid, sticker
from retinue.apps.ar.filters.spec import (
    BackgroundPart,
    Point,
    StickerPart,
)

from .ar_skin import Pixels, changed, face, gray, skin

# Stickers


def sticker_part(**keys: Any) -> StickerPart:
    return StickerPart.model_validate({"kind": "sticker", "file": "x.png", "at": 4, **keys})


def test_a_sticker_has_its_size_and_place_and_follows_the_head() -> None:
    picture = np.zeros((40, 80, 4), np.uint8)
    picture[...] = (10, 250, 10, 255)
    for roll in (0.0, 90.0):
        shown, frame = face(roll=roll), gray()
        part = sticker_part(size=0.5, offset=[0.2, 0.3])
        sticker(frame, shown, part, Pyramid.of(picture), 1.0, 0.0)
        rows, columns = np.nonzero(changed(gray(), frame))
        unit = shown.eye_distance
        along, up = axes(shown)
        center = middle(shown.landmarks, (4,)) + unit * (0.2 * along + 0.3 * up)
        assert abs(columns.mean() + 0.5 - center[0]) < 1
        assert abs(rows.mean() + 0.5 - center[1]) < 1
        sizes = np.ptp(columns) + 1, np.ptp(rows) + 1
        wanted = (0.5 * unit, 0.25 * unit)[:: 1 if roll == 0 else -1]
        assert sizes == pytest.approx(wanted, abs=2)


def test_a_sticker_rises_fades_and_starts_over() -> None:
    picture = np.full((32, 32, 4), 255, np.uint8)
    part = sticker_part(size=0.2, rise=1.0, period=2.0)
    tops, weights = [], []
    for seconds in (0.4, 1.0, 1.6, 2.0, 2.4):
        frame = gray(0)
        sticker(frame, face(), part, Pyramid.of(picture), 1.0, seconds)
        weights.append(int(frame.max()))
        tops.append(int(np.nonzero(frame.max(axis=(1, 2)))[0].min()) if frame.any() else -1)
    assert tops[0] > tops[1] > tops[2]
    assert tops[3] == -1
    assert tops[4] == tops[0]
    assert weights[1] == 255 > weights[2]


def test_small_stickers_are_averaged() -> None:
    checker = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = np.dstack([checker] * 3 + [np.full_like(checker, 255)])
    frame = gray(0)
    sticker(frame, face(), sticker_part(size=0.1), Pyramid.of(picture), 1.0, 0.0)
    seen = frame[changed(gray(0), frame)]
    assert np.abs(np.median(seen) - 127) < 12


# Distortion


def point(**keys: Any) -> Point:
    return Point.model_validate({"at": 4, "radius": 0.5, "strength": 1.0, **keys})


@pytest.mark.parametrize("kind", ["grow", "shrink", "pull"])
def test_a_warp_changes_its_circle_alone_and_does_not_fold(kind: str) -> None:
    shown = face()
    (warp,) = warps(shown, [point(kind=kind, direction=[1, 0.5])], 1.0)
    frame = skin()
    distort(frame, [warp])
    rows, columns = np.nonzero(changed(skin(), frame))
    away = np.hypot(columns + 0.5 - warp.x, rows + 0.5 - warp.y)
    assert away.max() <= warp.radius + 1
    assert len(away) > 0.25 * np.pi * warp.radius**2
    line = np.linspace(-1.2, 1.2, 400, dtype=np.float32) * warp.radius
    for across in (-0.4, 0.0, 0.4):
        other = np.full_like(line, across * warp.radius)
        x, y = line + warp.x, other + warp.y
        assert (np.diff(x + warp.offset(x, y)[0]) > 0).all()


def test_growing_makes_larger_and_shrinking_smaller() -> None:
    shown = face()
    areas = []
    for kind in ("grow", "shrink", None):
        frame = gray(0)
        x, y = (round(float(value)) for value in shown.landmarks[4, :2])
        cv2.circle(frame, (x, y), 12, (255, 255, 255), -1)
        distort(frame, warps(shown, [point(kind=kind)] if kind else [], 1.0))
        areas.append(int((frame[..., 0] > 127).sum()))
    assert areas[0] > 1.5 * areas[2] > 1.5 * 1.2 * areas[1]


def test_landmarks_go_with_the_picture() -> None:
    shown = face()
    points = [point(at=[159, 145], kind="grow"), point(at=152, kind="pull", direction=[0, -1])]
    local = warps(shown, points, 1.0)
    after = moved(shown, local)
    for index in (159, 133, 152, 33, 17):
        frame = gray(0)
        place = shown.landmarks[index, :2]
        cv2.circle(
            frame, tuple(np.rint((place - 0.5) * 16).astype(int)), 48, (255, 255, 255), -1,
            cv2.LINE_AA, shift=4,
        )  # fmt: skip
        distort(frame, local)
        weight = frame[..., 0].astype(float)
        center = np.array([(weight.sum(axis) * np.arange(weight.shape[1 - axis])).sum()
                           for axis in (0, 1)]) / weight.sum() + 0.5  # fmt: skip
        assert np.hypot(*(center - after.landmarks[index, :2])) < 1.5, index
    assert (after.landmarks[10] == shown.landmarks[10]).all()
    assert moved(shown, []) is shown


def test_directions_turn_with_the_head() -> None:
    (warp,) = warps(face(roll=90), [point(kind="pull", direction=[0, 1])], 1.0)
    assert warp.push[0] > 5
    assert abs(warp.push[1]) < 1e-6


def test_warps_at_the_edge_of_the_frame_are_no_error() -> None:
    frame = skin()
    distort(frame, [Warp(0.0, 0.0, 80.0, 0.4), Warp(700.0, 470.0, 90.0, push=(30.0, 0.0))])
    distort(frame, [Warp(-500.0, 0.0, 80.0, 0.4)])


# Background


class Still:
    """A segmenter whose answer is set."""

    def __init__(self, mask: NDArray[np.floating]) -> None:
        self.mask_, self.calls = mask.astype(np.float32), 0

    def small(self, frame: Pixels) -> NDArray[np.float32]:
        self.calls += 1
        return self.mask_


def half() -> NDArray[np.float32]:
    mask = np.zeros((64, 64), np.float32)
    mask[:, 32:] = 1
    return mask


def background(mode: str, **keys: Any) -> BackgroundPart:
    return BackgroundPart.model_validate({"kind": "background", "mode": mode, **keys})


@pytest.mark.parametrize("fine", [True, False])
def test_people_stay_and_what_is_behind_them_is_replaced(fine: bool) -> None:
    frame = gray(90)
    frame[:, 320:] = 200
    before = frame.copy()
    behind = Background(background("color", color="#0000ff"))
    behind.look(frame, Still(half()), 0.0, fine=fine)
    behind.apply(frame, 1.0, fine=fine)
    assert (frame[:, 350:] == before[:, 350:]).all()
    assert (frame[:, :290] == (0, 0, 255)).all()


def test_the_edge_follows_the_picture() -> None:
    """The mask is 12 pixels off; the frame knows better."""
    frame = gray(60)
    frame[:, 332:] = 200
    behind = Background(background("color", color="#ff0000"))
    behind.look(frame, Still(half()), 0.0, fine=True)
    behind.apply(frame, 1.0, fine=True)
    red = (frame == (255, 0, 0)).all(axis=-1)
    assert red[:, 300].all()
    assert not red[:, 336].any()


def test_a_mask_hardly_flickers_and_follows_what_moves() -> None:
    behind = Background(background("color", color="#000000"))
    frame = gray(200)
    behind.look(frame, Still(np.full((32, 32), 0.45)), 0.0, fine=True)
    behind.look(frame, Still(np.full((32, 32), 0.55)), 0.03, fine=True)
    assert behind._mask is not None
    assert behind._mask.mean() == pytest.approx(0.504, abs=0.02)
    behind.look(frame, Still(np.ones((32, 32))), 0.06, fine=True)
    assert behind._mask.min() == pytest.approx(1.0)
    behind.look(frame, Still(np.full((32, 32), 0.9)), 5.0, fine=True)
    assert behind._mask.max() == pytest.approx(0.9)


def test_with_less_quality_every_second_frame_is_segmented() -> None:
    behind, seen = Background(background("blur")), Still(half())
    for number in range(6):
        behind.look(gray(), seen, number / 30, fine=False)
    assert seen.calls == 3


def test_blur_keeps_people_sharp_and_does_not_smear_them() -> None:
    stripes = gray(40)
    stripes[:, ::8] = 120
    stripes[:, 320:] = (255, 0, 0)
    frame = stripes.copy()
    behind = Background(background("blur", strength=1.0))
    behind.look(frame, Still(half()), 0.0, fine=True)
    behind.apply(frame, 1.0, fine=True)
    assert (frame[:, 350:] == stripes[:, 350:]).all()
    # So strong a blur reaches 60 pixels, and would turn these red.
    left = frame[:, :285].astype(int)
    assert left[..., 0].std() < 0.25 * stripes[:, :285, 0].std()
    assert (left[..., 0] - left[..., 1]).max() < 20


def test_a_strength_between_mixes() -> None:
    frame = gray(100)
    behind = Background(background("color", color="#c8c8c8"))
    behind.look(frame, Still(np.zeros((16, 16))), 0.0, fine=True)
    behind.apply(frame, 0.5, fine=True)
    assert np.abs(frame.astype(int) - 150).max() <= 2


def test_a_picture_covers_the_frame_and_keeps_its_shape() -> None:
    picture = np.zeros((100, 400, 4), np.uint8)
    picture[..., 3] = 255
    picture[:, :100, 0] = picture[:, 300:, 0] = 255
    picture[:, 100:300, 1] = 255
    made = cover(picture, 200, 100)
    assert made.shape == (100, 200, 3)
    assert (made[..., 1] > 250).mean() > 0.98
    assert cover(picture[:, :, :], 1, 700).shape == (700, 1, 3)
