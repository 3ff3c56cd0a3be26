"""Other shapes of a face: local warps, summed, looked up by one remap of their region.

Growing and shrinking are the local scaling of A. Gustafsson, "Interactive image warping" (1993),
with a smoother fall-off; none folds the picture at strength 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from retinue.apps.ar.effects.live import F32, Patch, Pixels, axes, middle
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.spec import Point

# The most of each kind that still keeps neighbours apart, with some room.
_MOST: Final = {"grow": 0.45, "shrink": -0.45, "pull": 0.3}
_ROUNDS: Final = 5
STEP: Final = 4
"""Pixels between two places where the map is computed: it changes slowly."""


@dataclass(frozen=True, slots=True)
class Warp:
    """One local warp in the picture.

    Attributes:
        x: Of its middle in pixels.
        y: Of its middle.
        radius: Pixels.
        scale: Where it scales: the share of the way to the middle that is taken off there.
        push: Where it pulls: (dx, dy) pixels, at the middle.
    """

    x: float
    y: float
    radius: float
    scale: float = 0.0
    push: tuple[float, float] = (0.0, 0.0)

    def offset(self, x: F32, y: F32) -> tuple[F32, F32]:
        """Return from where, beside themselves, places take what they show."""
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        inside = np.maximum(0, 1 - (dx * dx + dy * dy) / np.float32(self.radius**2))
        fall = inside * inside
        if self.scale:
            fall *= np.float32(-self.scale)
            return fall * dx, fall * dy
        return fall * np.float32(-self.push[0]), fall * np.float32(-self.push[1])


def warps(face: Face, points: Sequence[Point], strength: float) -> list[Warp]:
    """Return a part's warps on a face.

    Args:
        face: Whose landmarks are where it is seen.
        points: Of the part.
        strength: In [0, 1], of all.
    """
    unit = face.eye_distance
    along, up = axes(face)
    found = []
    for point in points:
        amount = _MOST[point.kind] * point.strength * strength * face.opacity
        x, y = middle(face.landmarks, point.at)
        radius = point.radius * unit
        if not amount or radius < 1:
            continue
        if point.kind == "pull":
            way = point.direction[0] * along + point.direction[1] * up
            way *= amount * radius / float(np.hypot(*way))
            found.append(Warp(float(x), float(y), radius, push=(float(way[0]), float(way[1]))))
        else:
            found.append(Warp(float(x), float(y), radius, amount))
    return found


def distort(frame: Pixels, local: Sequence[Warp]) -> None:
    """Warp a frame in place, where the warps are."""
    if not local:
        return
    ends = np.array(
        [(w.x + s * w.radius, w.y + s * w.radius) for w in local for s in (-1, 1)], np.float64
    )
    patch = Patch.around(frame, ends, 1)
    if patch is None:
        return
    height, width = patch.size
    step = STEP if max(height, width) > 16 * STEP else 1
    rows, columns = max(2, height // step), max(2, width // step)
    y, x = (
        (np.arange(count, dtype=np.float32) + 0.5) * np.float32(side / count) + start
        for count, side, start in ((rows, height, patch.y), (columns, width, patch.x))
    )
    offset_x, offset_y = np.zeros((2, rows, columns), np.float32)
    for warp in local:
        (top, bottom), (left, right) = _span(y, warp.y, warp), _span(x, warp.x, warp)
        if top >= bottom or left >= right:
            continue
        dx, dy = warp.offset(x[None, left:right], y[top:bottom, None])
        offset_x[top:bottom, left:right] += dx
        offset_y[top:bottom, left:right] += dy
    _look_up(frame, patch, offset_x, offset_y)


def _span(places: F32, center: float, warp: Warp) -> tuple[int, int]:
    low, high = np.searchsorted(places, (center - warp.radius, center + warp.radius))
    return int(low), int(high)


def _look_up(frame: Pixels, patch: Patch, offset_x: F32, offset_y: F32) -> None:
    height, width = patch.size
    if offset_x.shape != (height, width):
        offset_x, offset_y = (
            np.asarray(cv2.resize(part, (width, height)), np.float32)
            for part in (offset_x, offset_y)
        )
    # What is looked up lies within the warps' own circles, but for the frame's edges.
    offset_x += np.arange(width, dtype=np.float32)
    offset_y += np.arange(height, dtype=np.float32)[:, None]
    # With four channels OpenCV's remap takes a third of the time that it does with three.
    padded = cv2.cvtColor(patch.pixels, cv2.COLOR_RGB2RGBA)
    shown = cv2.remap(padded, offset_x, offset_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    patch.pixels[:] = cv2.cvtColor(shown, cv2.COLOR_RGBA2RGB)


def moved(face: Face, local: Sequence[Warp]) -> Face:
    """Return the face with its landmarks where the warped picture shows them."""
    if not local:
        return face
    points = face.landmarks.copy()
    start: F32 = points[:, :2].T.copy()
    center, push = (
        np.array(values, np.float32).T[..., None]
        for values in ([(w.x, w.y) for w in local], [w.push for w in local])
    )
    flat = np.array([1 / w.radius**2 for w in local], np.float32)[:, None]
    scale = np.array([w.scale for w in local], np.float32)[:, None]
    now = start
    # A place p shows what was at p + offset(p): find the p that shows the landmark.
    for _ in range(_ROUNDS):
        away = now[:, None] - center
        inside = np.maximum(0, 1 - (away[0] ** 2 + away[1] ** 2) * flat)
        now = start + (inside * inside * (scale * away + push)).sum(axis=1)
    points[:, :2] = now.T
    return replace(face, landmarks=points)
