"""Drawing detections on a picture, with labels that can be read."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from retinue.core.types import Detections, Image

Color = tuple[int, int, int]
Box = tuple[int, int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_GOLDEN = 0.618033988749895
_SHADES = ((0.90, 0.95), (0.65, 1.0), (0.95, 0.70))


@lru_cache(maxsize=4096)
def class_color(class_id: int) -> Color:
    """Return a class's colour (R, G, B), each 0..255; always the same one for the same id.

    Hues follow the golden ratio, so that neighbouring ids lie far apart, and three shades take
    turns, so that many classes stay distinguishable.
    """
    saturation, value = _SHADES[class_id % len(_SHADES)]
    r, g, b = colorsys.hsv_to_rgb((0.02 + class_id * _GOLDEN) % 1.0, saturation, value)
    return round(r * 255), round(g * 255), round(b * 255)


def text_color(background: Color) -> Color:
    """Return black or white, whichever has the larger contrast ratio (WCAG 2.1, 1.4.3)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in background)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # The ratios to black and to white, (L + .05) / .05 and 1.05 / (L + .05), meet here.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


@lru_cache(maxsize=32)
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes in pixels, scaled with the picture so that labels stay readable in a page."""

    line: int
    font: Font
    margin: int

    @classmethod
    def of(cls, width: int, height: int) -> _Style:
        side = (width * height) ** 0.5
        size = max(11, round(side / 36))
        return cls(max(2, round(side / 250)), _font(size), max(2, round(size / 5)))


def draw_detections(
    image: Image, detections: Detections, classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw boxes and labels.

    The best detection is drawn last and so lies on top. A label sits above its box; where there is
    no room, or a better detection's label, it sits inside the box or below it. It never leaves the
    picture.

    Args:
        image: The picture; its pixels may be smaller than the original.
        detections: In pixels of the upright original.
        classes: Names by class id; an id without a name is labelled "class <id>".

    Returns:
        A copy of ``image.pixels``, (H, W, 3) uint8 RGB, with the drawing on it.
    """
    height, width = image.pixels.shape[:2]
    canvas = PillowImage.fromarray(image.pixels)
    draw = ImageDraw.Draw(canvas)
    style = _Style.of(width, height)
    scale = np.array([width / image.width, height / image.height] * 2)
    boxes = np.nan_to_num(detections.boxes.astype(np.float64) * scale)
    boxes = np.rint(boxes.clip(0, [width - 1, height - 1] * 2)).astype(int)
    order = np.argsort(detections.scores, kind="stable")
    for i in order:
        box = _ordered(boxes[i])
        draw.rectangle(box, outline=class_color(int(detections.class_ids[i])), width=style.line)
    labels: list[_Label] = []
    for i in order[::-1]:
        class_id = int(detections.class_ids[i])
        known = 0 <= class_id < len(classes)
        name = classes[class_id] if known else f"class {class_id}"
        text = _shortened(draw, f"{name} {detections.scores[i]:.2f}", style, width)
        frame, origin = _measured(draw, text, style)
        place = _placed(_ordered(boxes[i]), frame, (width, height), [label.box for label in labels])
        labels.append(_Label(place, origin, text, class_color(class_id)))
    for label in reversed(labels):
        draw.rectangle(label.box, fill=label.color)
        at = (label.box[0] + label.origin[0], label.box[1] + label.origin[1])
        draw.text(at, label.text, font=style.font, fill=text_color(label.color))
    return np.array(canvas)


@dataclass(frozen=True, slots=True)
class _Label:
    box: Box
    origin: tuple[float, float]
    text: str
    color: Color


def _ordered(box: NDArray[np.int_]) -> Box:
    x1, y1, x2, y2 = (int(v) for v in box)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _measured(
    draw: ImageDraw.ImageDraw, text: str, style: _Style
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return a label's (width, height), and where its text starts in it."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=style.font)
    # All labels of a picture have the height of "Ag", whatever letters they hold.
    _, high, _, low = draw.textbbox((0, 0), "Ag", font=style.font)
    top, bottom = min(top, high), max(bottom, low)
    size = round(right - left) + 2 * style.margin, round(bottom - top) + 2 * style.margin
    return size, (style.margin - left, style.margin - top)


def _placed(box: Box, label: tuple[int, int], size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Return where a label lies: the first free place among above, inside, below its box."""
    w, h = label
    x = max(0, min(box[0], size[0] - w))
    above, inside, under, below = box[1] - h + 1, box[1], box[3] - h + 1, box[3]
    places = [
        (x, y, x + w - 1, y + h - 1) for y in (above, inside, under, below) if 0 <= y <= size[1] - h
    ]
    for place in places:
        if not any(_overlap(place, other) for other in taken):
            return place
    y = max(0, min(box[1], size[1] - h))
    return places[0] if places else (x, y, x + w - 1, y + h - 1)


def _overlap(a: Box, b: Box) -> bool:
    # Labels above and inside one box share its line, which is no overlap.
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _shortened(draw: ImageDraw.ImageDraw, text: str, style: _Style, width: int) -> str:
    room = width - 2 * style.margin
    if draw.textlength(text, font=style.font) <= room:
        return text
    while len(text) > 1 and draw.textlength(text + "…", font=style.font) > room:
        text = text[:-1]
    return text + "…"
