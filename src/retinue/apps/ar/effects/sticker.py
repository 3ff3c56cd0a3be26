"""Flat pictures that face the camera and move with the head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.effects.blend import over
from retinue.apps.ar.effects.live import Patch, Pixels, axes, middle
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.assets import premultiply
from retinue.apps.ar.filters.spec import StickerPart


@dataclass(frozen=True, slots=True, eq=False)
class Pyramid:
    """A picture in halves of its size, so that a small one is smooth.

    Attributes:
        levels: (h, w, 4) uint8 each, alpha premultiplied, the whole first.
    """

    levels: tuple[Pixels, ...]

    @classmethod
    def of(cls, pixels: Pixels) -> Self:
        """Build it from straight alpha."""
        levels = [premultiply(pixels)]
        while min(levels[-1].shape[:2]) >= 16:
            height, width = levels[-1].shape[:2]
            size = ((width + 1) // 2, (height + 1) // 2)
            half = cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA)
            levels.append(np.asarray(half, np.uint8))
        return cls(tuple(levels))

    def at(self, width: float) -> Pixels:
        """Return the smallest level that is at least so wide; the whole, where none is."""
        for level in reversed(self.levels):
            if level.shape[1] >= width:
                return level
        return self.levels[0]


def sticker(
    frame: Pixels,
    face: Face,
    part: StickerPart,
    pyramid: Pyramid,
    strength: float,
    elapsed: float,
) -> None:
    """Put a sticker on a frame, in place.

    Args:
        frame: (H, W, 3) uint8 RGB.
        face: Whose landmarks are where it is seen.
        part: What, where, how large.
        pyramid: Of its picture.
        strength: In [0, 1], beside the part's own opacity.
        elapsed: Seconds since it is there, for what moves by itself.
    """
    lift, faded = _rise(part, elapsed)
    opacity = strength * faded * part.opacity * face.opacity
    if opacity <= 0:
        return
    corners = _corners(face, part, pyramid, lift, elapsed)
    patch = Patch.around(frame, corners, 1)
    if patch is None:
        return
    height, width = patch.size
    picture = pyramid.at(float(np.linalg.norm(corners[1] - corners[0])))
    high, wide = picture.shape[:2]
    local = corners - (patch.x, patch.y)
    right, down = (local[1] - local[0]) / wide, (local[2] - local[0]) / high
    # OpenCV's pixels are at whole numbers, ours half a pixel further.
    start = local[0] + right / 2 + down / 2 - 0.5
    drawn = cv2.warpAffine(
        picture,
        np.stack([right, down, start], axis=1),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    if opacity < 1:
        drawn = cv2.convertScaleAbs(drawn, alpha=opacity)
    over(patch.pixels, np.asarray(drawn, np.uint8))


def _rise(part: StickerPart, elapsed: float) -> tuple[float, float]:
    """Return how far it has risen, in eye distances, and how far it has faded in."""
    if not part.rise:
        return 0.0, 1.0
    share = (elapsed / part.period + part.phase) % 1.0
    return part.rise * share, min(1.0, 5 * share, 3 * (1 - share))


def _corners(
    face: Face, part: StickerPart, pyramid: Pyramid, lift: float, elapsed: float
) -> NDArray[np.float64]:
    """Return (3, 2): where the picture's top left, top right and bottom left corners are."""
    unit = face.eye_distance
    along, up = axes(face)
    center = middle(face.landmarks, part.at)
    center = center + unit * (part.offset[0] * along + (part.offset[1] + lift) * up)
    if not part.turn:
        along, up = np.array([1.0, 0.0]), np.array([0.0, -1.0])
    angle = math.radians(part.angle + part.spin * elapsed)
    cosine, sine = math.cos(angle), math.sin(angle)
    right, down = cosine * along - sine * up, -sine * along - cosine * up
    height, width = pyramid.levels[0].shape[:2]
    half = unit * part.size / 2
    right, down = half * right, half * height / width * down
    return np.stack([center - right - down, center + right - down, center - right + down])
