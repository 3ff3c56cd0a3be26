"""Make-up: soft, anti-aliased regions between landmarks that take a colour and keep the light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from retinue.apps.ar.effects.blend import mix, tint
from retinue.apps.ar.effects.live import (
    F32,
    MIRROR,
    Patch,
    Pixels,
    axes,
    curve,
    eye_shown,
    soften,
    turned_to_us,
)
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.spec import MakeupPart

Ring = tuple[int, ...]

LIPS: Final[Ring] = (
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    *(375, 321, 405, 314, 17, 84, 181, 91, 146),
)
MOUTH: Final[Ring] = (
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    *(324, 318, 402, 317, 14, 87, 178, 88, 95),
)
"""The opening between the lips."""

# Of the eye on the picture's left; the other's are their mirror images.
EYE: Final[Ring] = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
"""The opening between the lids: from the outer corner over the upper lid and back below."""
_LASHES: Final[Ring] = EYE[:9]
_CREASE: Final[Ring] = (226, 113, 225, 224, 223, 222, 221, 189, 244)
_BROW: Final[Ring] = (46, 53, 52, 65, 55, 107, 66, 105, 63, 70)
_CHEEK: Final[Ring] = (116, 117, 118, 101, 36, 205, 187, 123)
_LID_AT, _CHEEK_AT, _BROW_AT = 159, 50, 105
_LOWER_LIP: Final = ((88, 91), (178, 181), (87, 84), (14, 17), (317, 314), (402, 405), (318, 321))

# In eye distances.
_LIP_EDGE, _LID_EDGE, _BROW_EDGE, _CHEEK_EDGE, _LINE = 0.008, 0.02, 0.014, 0.075, 0.026
_WING: Final = 0.075
MOST: Final = 320
"""Pixels of a mask's longer side; larger faces have masks that are enlarged."""
_SOFTEST: Final = 2.0
"""Pixels of a mask's blur: softer ones are drawn smaller and enlarged, which looks the same."""


def sides(ring: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return a ring of the eye on the picture's left, and its mirror image."""
    return list(ring), MIRROR[list(ring)].tolist()


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """A patch with a mask to draw into.

    Attributes:
        patch: Of the frame.
        scale: The mask's pixels for one of the frame's.
        mask: (h, w) uint8.
        within: (N, 2) outline beyond which nothing is coloured.
    """

    patch: Patch
    scale: float
    mask: Pixels
    within: F32 | None = None

    @classmethod
    def around(cls, frame: Pixels, points: F32, margin: float, sigma: float = 0.0) -> Area | None:
        """Return the patch around points, with an empty mask; None outside of the frame.

        Args:
            frame: (H, W, 3) uint8.
            points: (N, 2 or 3) pixels.
            margin: Pixels around them.
            sigma: Of the blur that is to come, in pixels.
        """
        patch = Patch.around(frame, points, margin)
        if patch is None:
            return None
        height, width = patch.size
        scale = min(1.0, MOST / max(height, width), _SOFTEST / max(sigma, 0.1))
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        return cls(patch, scale, np.zeros(shape, np.uint8))

    def fill(self, *outlines: F32, level: int = 255) -> None:
        """Fill what lies in an odd number of outlines."""
        fixed = [self.patch.fixed(outline, self.scale) for outline in outlines]
        cv2.fillPoly(self.mask, fixed, level, cv2.LINE_AA, shift=4)

    def soft(self, sigma: float) -> None:
        """Blur the mask; sigma is in the frame's pixels."""
        self.mask[:] = soften(self.mask, sigma * self.scale)

    def full(self) -> Pixels:
        """Return the mask at the patch's size."""
        height, width = self.patch.size
        mask = self.mask
        if mask.shape != (height, width):
            enlarged = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
            mask = np.asarray(enlarged, np.uint8)
        if self.within is not None:
            inside = np.zeros_like(mask)
            cv2.fillPoly(inside, [self.patch.fixed(self.within)], 255, cv2.LINE_AA, shift=4)
            mask = np.minimum(mask, inside)
        return mask


def makeup(frame: Pixels, face: Face, part: MakeupPart, strength: float, fine: bool) -> None:
    """Put make-up on a face, in place.

    Args:
        frame: (H, W, 3) uint8 RGB.
        face: Whose landmarks are where it is seen.
        part: What and where.
        strength: In [0, 1], beside the part's own opacity.
        fine: Whether the finish is drawn.
    """
    opacity = strength * part.opacity * face.opacity
    if opacity <= 0:
        return
    for area, share in _areas(frame, face, part):
        mask, pixels = area.full(), area.patch.pixels
        glossy = fine and part.finish == "gloss"
        need = glossy or part.blend == "normal"
        gray = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8) if need else None
        tint(pixels, mask, part.color, part.blend, opacity * share, gray)
        if glossy and gray is not None:
            glow = _glow(gray, mask)
            _gloss(pixels, gray, mask, glow, opacity * share)
            if part.region == "lips":
                _shine(area, face, mask, glow, opacity)


def _areas(frame: Pixels, face: Face, part: MakeupPart) -> list[tuple[Area, float]]:
    """Return the areas of a region with their masks, and how far each is turned to us."""
    points, unit = face.landmarks, face.eye_distance
    if part.region == "lips":
        area = _lips(frame, points, unit, part.size)
        return [(area, 1.0)] if area else []
    makers = {"eyelids": _lid, "eyeliner": _liner, "brows": _brow, "cheeks": _cheek}
    at = {"eyelids": _LID_AT, "eyeliner": _LID_AT, "brows": _BROW_AT, "cheeks": _CHEEK_AT}
    found = []
    for side in (0, 1):
        share = turned_to_us(face, sides((at[part.region],))[side][0])
        if part.region in ("eyelids", "eyeliner"):
            share *= eye_shown(face, side)
        if share <= 0:
            continue
        area = makers[part.region](frame, face, side, part.size)
        if area is not None:
            found.append((area, share))
    return found


def _lips(frame: Pixels, points: F32, unit: float, size: float) -> Area | None:
    edge = _LIP_EDGE * size * unit
    area = Area.around(frame, points[list(LIPS)], 3 * edge + 2, edge)
    if area is None:
        return None
    area.fill(curve(points[list(LIPS)], closed=True))
    area.soft(edge)
    # The mouth stays sharp: teeth take no colour.
    mouth = np.zeros_like(area.mask)
    inner = area.patch.fixed(curve(points[list(MOUTH)], closed=True), area.scale)
    cv2.fillPoly(mouth, [inner], 255, cv2.LINE_AA, shift=4)
    np.subtract(area.mask, np.minimum(area.mask, mouth), out=area.mask)
    return area


def _cut_eye(area: Area, points: F32, side: int) -> None:
    opening = curve(points[sides(EYE)[side]], closed=True)
    hole = np.zeros_like(area.mask)
    cv2.fillPoly(hole, [area.patch.fixed(opening, area.scale)], 255, cv2.LINE_AA, shift=4)
    np.subtract(area.mask, np.minimum(area.mask, hole), out=area.mask)


def _lid(frame: Pixels, face: Face, side: int, size: float) -> Area | None:
    """Shadow: all at the lashes, half above the crease."""
    points, edge = face.landmarks, _LID_EDGE * size * face.eye_distance
    lashes, crease = (points[sides(ring)[side], :2] for ring in (_LASHES, _CREASE))
    reach = lashes + (crease - lashes) * min(1.6, 0.9 * size)
    area = Area.around(frame, np.concatenate([lashes, reach]), 3 * edge + 2, edge)
    if area is None:
        return None
    near = lashes + (reach - lashes) * 0.55
    for top, level in ((reach, 150), (near, 255)):
        area.fill(np.concatenate([curve(lashes), curve(top)[::-1]]), level=level)
    area.soft(edge)
    _cut_eye(area, points, side)
    return area


def _liner(frame: Pixels, face: Face, side: int, size: float) -> Area | None:
    """A line along the upper lashes, thicker outwards, that ends in a wing."""
    points, unit = face.landmarks, face.eye_distance
    lashes = points[sides(_LASHES)[side], :2].astype(np.float32)
    along, up = axes(face)
    outwards = along if side else -along
    wing = (lashes[0] + unit * _WING * size * (0.9 * outwards + 0.55 * up)).astype(np.float32)
    edge = curve(lashes, 6)
    share = np.linspace(1, 0.15, len(edge), dtype=np.float32)[:, None]
    top = edge + (_LINE * size * unit) * share * up.astype(np.float32)
    area = Area.around(frame, np.concatenate([edge, top, wing[None]]), 3)
    if area is None:
        return None
    area.fill(np.concatenate([wing[None], top, edge[::-1]]))
    area.soft(max(0.5, 0.004 * unit))
    _cut_eye(area, points, side)
    return area


def _brow(frame: Pixels, face: Face, side: int, size: float) -> Area | None:
    points, edge = face.landmarks, _BROW_EDGE * size * face.eye_distance
    outline = points[sides(_BROW)[side], :2]
    area = Area.around(frame, outline, 3 * edge + 2, edge)
    if area is None:
        return None
    area.fill(curve(outline, closed=True))
    area.soft(edge)
    return area


def _cheek(frame: Pixels, face: Face, side: int, size: float) -> Area | None:
    points, edge = face.landmarks, _CHEEK_EDGE * face.eye_distance * size
    outline = points[sides(_CHEEK)[side], :2]
    center = outline.mean(axis=0)
    outline = center + (outline - center) * size * 0.85
    area = Area.around(frame, outline, 2.5 * edge, edge)
    if area is None:
        return None
    area.fill(curve(outline, closed=True))
    area.soft(edge)
    # What is softer than the way to the face's edge must not colour what is behind.
    whole = cv2.convexHull(np.ascontiguousarray(face.landmarks[:, :2], np.float32))
    return replace(area, within=np.asarray(whole, np.float32).reshape(-1, 2))


def _glow(gray: Pixels, mask: Pixels) -> int:
    """Return how light lights on a region are: white, but not in the dark."""
    mean = cv2.mean(gray, mask)[0] if cv2.countNonZero(mask) else 255.0
    return round(min(255.0, 38 + 2 * mean))


def _gloss(pixels: Pixels, gray: Pixels, mask: Pixels, glow: int, opacity: float) -> None:
    """Let what is already lighter than the rest shine."""
    reference = cv2.mean(gray, mask)[0] if cv2.countNonZero(mask) else 255.0
    levels = np.clip((np.arange(256) - 1.12 * reference) / max(0.45 * reference, 1), 0, 1)
    shine = np.rint(255 * 0.55 * levels**1.5).astype(np.uint8)
    weight = cv2.multiply(cv2.LUT(gray, shine), mask, scale=1 / 255)
    mix(pixels, np.maximum(pixels, np.uint8(glow)), np.asarray(weight, np.uint8), opacity)


def _shine(area: Area, face: Face, mask: Pixels, glow: int, opacity: float) -> None:
    """A soft light along the lower lip."""
    points, unit = face.landmarks, face.eye_distance
    pairs = np.array(_LOWER_LIP[1:-1])
    line = points[pairs[:, 0], :2] * 0.55 + points[pairs[:, 1], :2] * 0.45
    thick = float(np.linalg.norm(points[14, :2] - points[17, :2]))
    drawn = np.zeros(area.patch.size, np.uint8)
    width = max(1, round(0.16 * thick))
    path = area.patch.fixed(curve(line))
    cv2.polylines(drawn, [path], False, 150, width, cv2.LINE_AA, shift=4)
    drawn = soften(drawn, max(0.5, 0.018 * unit))
    weight = np.asarray(cv2.multiply(drawn, mask, scale=1 / 255), np.uint8)
    pixels = area.patch.pixels
    mix(pixels, np.maximum(pixels, np.uint8(glow)), weight, 0.75 * opacity)
