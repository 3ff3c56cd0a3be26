"""Drawing: inside the picture, at the right place, readable, the same every time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinue.core.types import Detections, Image
from retinue.media.draw import class_color, draw_detections, text_color


def detections(
    *boxes: tuple[float, float, float, float], ids: list[int] | None = None
) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.linspace(0.9, 0.5, n, dtype=np.float32),
        np.array(ids if ids is not None else range(n), np.int64),
    )


def grey(height: int, width: int, scale: int = 1) -> Image:
    pixels = np.full((height, width, 3), 128, np.uint8)
    return Image(pixels, width * scale, height * scale)


def luminance(color: tuple[int, int, int]) -> float:
    parts = [c / 255 for c in color]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def inked(drawn: np.ndarray, class_id: int) -> int:
    """Pixels nearer to the label's text than to its background (thin strokes are blended)."""
    ink, paper = text_color(class_color(class_id)), class_color(class_id)
    near, far = (np.abs(drawn.astype(int) - c).sum(axis=2) for c in (ink, paper))
    grey = np.abs(drawn.astype(int) - 128).max(axis=2) == 0
    return int(((near < far) & ~grey).sum())


def test_box_is_where_it_is_said_to_be() -> None:
    image = grey(200, 300)
    before = image.pixels.copy()
    drawn = draw_detections(image, detections((50, 80, 250, 180), ids=[3]), ["a", "b", "c", "d"])
    assert (image.pixels == before).all()
    color = class_color(3)
    for y, x in ((80, 240), (180, 150), (130, 50), (130, 250)):
        assert tuple(drawn[y, x]) == color
    assert (drawn[140:170, 60:240] == 128).all()
    assert (drawn[:60] == 128).all()


def test_boxes_of_the_original_are_drawn_on_scaled_pixels() -> None:
    whole = draw_detections(grey(100, 150), detections((25, 40, 125, 90)), ["thing"])
    scaled = draw_detections(grey(100, 150, 8), detections((200, 320, 1000, 720)), ["thing"])
    assert (whole == scaled).all()


@pytest.mark.parametrize("size", [(60, 80), (480, 640), (2000, 3000)])
def test_label_scales_with_the_picture(size: tuple[int, int]) -> None:
    height, width = size
    box = (width * 0.3, height * 0.4, width * 0.7, height * 0.9)
    drawn = draw_detections(grey(height, width), detections(box), ["thing"])
    above = drawn[: int(box[1])]
    label = (above == class_color(0)).all(axis=2)
    rows = np.flatnonzero(label.any(axis=1))
    assert len(rows) >= 11
    assert len(rows) / (width * height) ** 0.5 > 0.02
    # The text covers a readable share of its label, in a colour that contrasts with it.
    assert inked(above, 0) > 0.03 * label.sum()


@pytest.mark.parametrize("box", [(0, 0, 80, 80), (90, 90, 100, 100), (-50, -50, 500, 500)])
def test_label_stays_inside(box: tuple[float, float, float, float]) -> None:
    image = grey(100, 100)
    drawn = draw_detections(image, detections(box), ["thing"])
    label = (drawn == class_color(0)).all(axis=2)
    full = [row for row in label if row.sum() > 20]
    assert len(full) >= 4
    assert inked(drawn, 0) > 20


def test_long_names_are_cut() -> None:
    name = "a name that is much longer than the picture is wide, by far"
    drawn = draw_detections(grey(60, 90), detections((5, 30, 50, 50)), [name])
    assert drawn.shape == (60, 90, 3)
    assert (drawn == class_color(0)).all(axis=2).sum(axis=1).max() > 60


def test_labels_make_room_for_each_other() -> None:
    same = (40.0, 60.0, 300.0, 200.0)
    drawn = draw_detections(grey(240, 320), detections(same, same, same, ids=[1, 6, 12]), [])
    for class_id in (1, 6, 12):
        rows = (drawn == class_color(class_id)).all(axis=2).sum(axis=1)
        assert rows.max() > 30, class_id


def test_unknown_classes_no_detections_and_tiny_pictures() -> None:
    assert (draw_detections(grey(9, 9), detections(), []) == 128).all()
    draw_detections(grey(1, 1), detections((0, 0, 1, 1), ids=[999]), ["only"])
    draw_detections(grey(40, 40), detections((0, 0, 9, 9), ids=[-1]), ["only"])


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=True)),
    st.integers(1, 80),
    st.integers(1, 80),
)
def test_any_boxes_can_be_drawn(boxes: np.ndarray, height: int, width: int) -> None:
    found = Detections(boxes, np.ones(3, np.float32), np.arange(3))
    with np.errstate(all="ignore"):
        drawn = draw_detections(grey(height, width), found, ["a", "b"])
    assert drawn.shape == (height, width, 3)
    assert drawn.dtype == np.uint8


def test_eighty_classes_are_distinguishable_and_readable() -> None:
    colors = [class_color(i) for i in range(80)]
    assert len(set(colors)) == 80
    for one, other in itertools.pairwise(colors):
        assert np.abs(np.subtract(one, other)).sum() > 100
    for color in colors:
        a, b = sorted([luminance(color), luminance(text_color(color))])
        assert (b + 0.05) / (a + 0.05) >= 4.5
