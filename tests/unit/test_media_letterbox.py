"""Letterbox, stretch and centre crop: geometry, and pixels against a slow twin."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PillowImage

from retinue.media.letterbox import Anchor, Letterbox, center_crop, stretch


def sample(name: str) -> np.ndarray:
    """A real photo that ships inside scikit-learn, whose slow import is avoided."""
    spec = importlib.util.find_spec("sklearn")
    assert spec
    assert spec.origin
    with PillowImage.open(Path(spec.origin).parent / "datasets" / "images" / name) as photo:
        return np.asarray(photo)


SIDES = st.integers(1, 20_000)
FRAMES = st.integers(1, 1_500)
ANCHORS = st.sampled_from(["center", "top_left"])
UNIT_BOXES = hnp.arrays(np.float64, (5, 4), elements=st.floats(-0.5, 1.5))


def slow_bilinear(pixels: np.ndarray, out_h: int, out_w: int) -> np.ndarray:
    """Bilinear resizing, pixel by pixel: the centre i + .5 comes from (i + .5) / scale."""
    height, width = pixels.shape[:2]
    result = np.zeros((out_h, out_w, 3))
    for row in range(out_h):
        for column in range(out_w):
            y = (row + 0.5) * height / out_h - 0.5
            x = (column + 0.5) * width / out_w - 0.5
            y0, x0 = int(np.floor(y)), int(np.floor(x))
            for yy, weight_y in ((y0, 1 - (y - y0)), (y0 + 1, y - y0)):
                for xx, weight_x in ((x0, 1 - (x - x0)), (x0 + 1, x - x0)):
                    pixel = pixels[min(max(yy, 0), height - 1), min(max(xx, 0), width - 1)]
                    result[row, column] += weight_y * weight_x * pixel
    return result


@given(SIDES, SIDES, FRAMES, FRAMES, ANCHORS, UNIT_BOXES)
@example(1, 10_000, 416, 416, "center", np.array([[0.0, 0.0, 1.0, 1.0]]))
@example(10_000, 1, 416, 416, "top_left", np.array([[0.0, 0.0, 1.0, 1.0]]))
def test_boxes_come_back(
    width: int, height: int, out_w: int, out_h: int, anchor: Anchor, unit: np.ndarray
) -> None:
    box = Letterbox.fit(width, height, out_w, out_h, anchor)
    boxes = unit * ([width, height] * 2)
    assert np.abs(box.to_original(box.from_original(boxes)) - boxes).max() < 1e-3
    inside = unit * ([out_w, out_h] * 2)
    assert np.abs(box.from_original(box.to_original(inside)) - inside).max() < 1e-3


@given(SIDES, SIDES, FRAMES, FRAMES, ANCHORS)
@example(1, 10_000, 416, 416, "center")
@example(10_000, 1, 416, 416, "center")
def test_content_fills_the_frame_and_stays_inside(
    width: int, height: int, out_w: int, out_h: int, anchor: Anchor
) -> None:
    box = Letterbox.fit(width, height, out_w, out_h, anchor)
    assert 1 <= box.content_width <= out_w
    assert 1 <= box.content_height <= out_h
    assert box.content_width == out_w or box.content_height == out_h
    right, bottom = out_w - box.left - box.content_width, out_h - box.top - box.content_height
    if anchor == "top_left":
        assert (box.left, box.top) == (0, 0)
    else:
        assert right - box.left in (0, 1)
        assert bottom - box.top in (0, 1)
    corners = box.from_original(np.array([[0, 0, width, height]]))
    want = [box.left, box.top, box.left + box.content_width, box.top + box.content_height]
    assert np.allclose(corners, [want])
    # The aspect ratio is kept to half a pixel, but for content thinner than one.
    scale = min(out_w / width, out_h / height)
    assert abs(box.content_width - max(1, width * scale)) <= 0.5 + 1e-6
    assert abs(box.content_height - max(1, height * scale)) <= 0.5 + 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(1, 24), ANCHORS)
def test_pixels_follow_the_geometry(
    width: int, height: int, out_w: int, out_h: int, anchor: Anchor
) -> None:
    rng = np.random.default_rng(width * 41 + height)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    box = Letterbox.fit(width, height, out_w, out_h, anchor)
    frame = box.apply(pixels, pad=7)
    assert frame.shape == (out_h, out_w, 3)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    bottom, right = box.top + box.content_height, box.left + box.content_width
    content = frame[box.top : bottom, box.left : right]
    twin = slow_bilinear(pixels, box.content_height, box.content_width)
    assert np.abs(content - twin).max() <= 1.5
    border = np.ones((out_h, out_w), bool)
    border[box.top : bottom, box.left : right] = False
    assert (frame[border] == 7).all()


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area"])
def test_extreme_pictures(size: tuple[int, int], interpolation: str) -> None:
    pixels = np.full((*size, 3), 200, np.uint8)
    frame = Letterbox.fit(size[1], size[0], 64, 48).apply(pixels, 0, interpolation)  # type: ignore[arg-type]
    assert frame.shape == (48, 64, 3)
    assert set(np.unique(frame)) <= {0, 200}


@pytest.mark.parametrize("anchor", ["center", "top_left"])
def test_a_square_is_found_where_it_is(anchor: Anchor) -> None:
    """A box drawn in the original is seen, in the frame, where `from_original` says."""
    pixels = np.zeros((300, 500, 3), np.uint8)
    pixels[100:180, 260:420] = 255
    box = Letterbox.fit(500, 300, 256, 256, anchor)
    frame = box.apply(pixels, pad=0)
    rows, columns = np.nonzero(frame[..., 0] > 127)
    seen = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    found = box.to_original(seen)
    assert found.dtype == np.float32
    assert np.abs(found - [[260, 100, 420, 180]]).max() <= 500 / 256


def test_geometry_is_that_of_the_original_when_pixels_are_fewer() -> None:
    photo = sample("china.jpg")
    box = Letterbox.fit(photo.shape[1], photo.shape[0], 160, 160)
    half = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    whole, scaled = (box.apply(p, interpolation="area") for p in (photo, half))
    assert np.abs(whole.astype(int) - scaled.astype(int)).mean() < 3


def test_area_averages_and_bilinear_does_not() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::8] = 255
    assert (stretch(stripes, 8, 8, "area") == 32).all()
    assert (stretch(stripes, 8, 8, "bilinear") == 0).all()
    enlarged = stretch(stripes, 100, 100, "area")
    assert (enlarged == stretch(stripes, 100, 100, "bilinear")).all()


def test_clip_and_dtypes() -> None:
    box = Letterbox.fit(100, 50, 200, 200)
    boxes = np.array([[-5, -5, 300, 20]], np.float32)
    clipped = box.clip(boxes)
    assert clipped.dtype == np.float32
    assert clipped.tolist() == [[0, 0, 100, 20]]
    assert box.to_original(np.array([[0, 50, 200, 150]])).tolist() == [[0, 0, 100, 50]]
    assert box.to_original(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ValueError, match="0 x 5 into 9 x 9"):
        Letterbox.fit(0, 5, 9, 9)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 32), st.integers(1, 32),
       st.floats(0.01, 1))  # fmt: skip
def test_center_crop_is_centred(h: int, w: int, out_h: int, out_w: int, crop: float) -> None:
    rows = np.broadcast_to(np.arange(h, dtype=np.uint8)[:, None, None], (h, w, 3))
    columns = np.broadcast_to(np.arange(w, dtype=np.uint8)[None, :, None], (h, w, 3))
    for ramp, side in ((rows, h), (columns, w)):
        got = center_crop(np.ascontiguousarray(ramp), out_h, out_w, crop)
        assert got.shape == (out_h, out_w, 3)
        assert abs(got.mean() - (side - 1) / 2) <= 1.01


def test_center_crop_is_resize_then_cut() -> None:
    photo = sample("china.jpg")
    got = center_crop(photo, 224, 224, 0.875, "area")
    height, width = photo.shape[:2]
    short = 256
    resized = stretch(photo, short, round(width * short / height), "area")
    left = (resized.shape[1] - 224) // 2  # Half a pixel beside the middle of the other.
    want = resized[16:240, left : left + 224]
    assert np.abs(got.astype(int) - want.astype(int)).mean() < 5
