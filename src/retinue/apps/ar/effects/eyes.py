"""Other irises: a picture or a drawn one, clipped by the eyelids, under the eye's own lights."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from retinue.apps.ar.effects.blend import mix, rgb
from retinue.apps.ar.effects.live import (
    F32,
    Patch,
    Pixels,
    axes,
    curve,
    eye_shown,
    middle,
    turned_to_us,
)
from retinue.apps.ar.effects.makeup import EYE, sides
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.spec import EyesPart

SIDE: Final = 128
"""Pixels of a drawn iris."""
IRIS_RADIUS: Final = 0.066
"""Eye distances: an iris where it was not measured; 11.7 mm across is nearly everyone's."""
_WHITE: Final = 170.0
_FIRST: Final = 468
_LID_AT: Final = 159
_LIDS: Final = (159, 145)
_LIGHTS = np.clip((np.arange(256) - 185.0) / 45, 0, 1)
LIGHTS: Final[Pixels] = np.rint(255 * (1 - _LIGHTS)).astype(np.uint8)
"""By luminance, how far the new iris covers it: lights that are mirrored in the eye stay."""


def draw_iris(part: EyesPart, side: int = SIDE) -> Pixels:
    """Return (side, side, 4) uint8, straight alpha: an iris of a colour, with fibres and a pupil.

    Deterministic: the same part gives the same pixels.
    """
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side * 2 - 1
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    fibres = np.zeros_like(radius)
    random = np.random.default_rng(7)
    for count, weight in ((23, 0.5), (41, 0.3), (67, 0.2)):
        phase, sway = random.uniform(0, 2 * np.pi, 2)
        fibres += weight * np.cos(count * angle + phase + 1.5 * np.sin(3 * angle + sway) * radius)
    base = rgb(part.color)
    light = 0.82 + 0.22 * fibres * np.clip(radius * 1.6, 0, 1)
    # Lighter around the pupil, dark at the rim, shaded by the upper lid.
    light += 0.2 * np.exp(-(((radius - 0.45) / 0.2) ** 2))
    light *= 1 - 0.75 * np.clip((radius - 0.74) / 0.26, 0, 1) ** 1.5
    light *= 1 - 0.35 * np.clip(-y - 0.1, 0, 1)
    made = np.clip(base * light[..., None] + 0.08 * np.clip(light - 0.9, 0, 1)[..., None], 0, 1)
    if part.pupil == "slit":
        # Where two circles meet: pointed above and below.
        inside = 0.17 - np.abs(x) - 0.17 * np.clip(np.abs(y) / 0.86, 0, 2) ** 2.2
    else:
        inside = 0.38 - radius
    pupil = np.clip(inside * side / 3 + 0.5, 0, 1)[..., None]
    made = made * (1 - pupil) + 0.015 * pupil
    # A window's light, without which an eye looks dull.
    spot = 0.8 * np.clip(2.2 - np.hypot(x + 0.27, y + 0.34) / 0.075, 0, 1)[..., None]
    made = made * (1 - spot) + spot
    alpha = np.clip((1 - radius) * side / 5, 0, 1)
    return np.asarray(np.rint(np.dstack([made, alpha]) * 255), np.uint8)


def eyes(frame: Pixels, face: Face, part: EyesPart, picture: Pixels, strength: float) -> None:
    """Put irises into a face's eyes, in place.

    Args:
        frame: (H, W, 3) uint8 RGB.
        face: Whose landmarks are where it is seen.
        part: What.
        picture: (h, w, 4) uint8, straight alpha, of an iris that touches its edges.
        strength: In [0, 1], beside the part's own opacity.
    """
    for side in (0, 1):
        share = turned_to_us(face, sides((_LID_AT,))[side][0]) * eye_shown(face, side)
        opacity = strength * share * part.opacity * face.opacity
        if opacity > 0:
            _eye(frame, face, part.size, picture, side, opacity)


def _eye(
    frame: Pixels, face: Face, size: float, picture: Pixels, side: int, opacity: float
) -> None:
    points = face.landmarks
    opening = points[sides(EYE)[side]]
    patch = Patch.around(frame, opening, 2)
    if patch is None:
        return
    center, across, up = _iris(face, side)
    lids = points[sides(_LIDS)[side], :2]
    opacity *= _open(float(np.linalg.norm(lids[0] - lids[1])), float(np.hypot(*up)))
    if opacity <= 0:
        return
    across, up = across * size, up * size
    height, width = patch.size
    drawn = cv2.warpAffine(
        picture,
        _placed(picture, patch, center, across, up),
        (width, height),
        flags=cv2.INTER_AREA if np.hypot(*across) * 2 < picture.shape[1] / 2 else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )
    mask = np.zeros((height, width), np.uint8)
    outline = patch.fixed(curve(opening, closed=True))
    cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, shift=4)
    gray = np.asarray(cv2.cvtColor(patch.pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    lights = cv2.LUT(gray, LIGHTS)
    shown = cv2.multiply(cv2.GaussianBlur(mask, (3, 3), 0), lights, scale=1 / 255)
    shown = cv2.multiply(shown, drawn[..., 3], scale=1 / 255)
    # As bright as the white around it lets it be.
    light = _light(gray, mask)
    target = np.asarray(cv2.convertScaleAbs(drawn[..., :3], alpha=light), np.uint8)
    mix(patch.pixels, target, np.asarray(shown, np.uint8), opacity)


def _open(gap: float, radius: float) -> float:
    """Return how far an iris is shown between lids that are nearly closed, in [0, 1].

    Networks leave a gap of half an iris' radius between lids that are closed.
    """
    return min(1.0, max(0.0, (gap - 0.6 * radius) / (0.3 * radius)))


def _light(gray: Pixels, mask: Pixels) -> float:
    """Return how bright an eye is, in [0.3, 1]: its white against one in good light."""
    inside = gray[mask > 127]
    if not inside.size:
        return 1.0
    white = float(np.sort(inside)[int(0.8 * len(inside))])
    return min(1.0, max(0.3, white / _WHITE))


def _iris(face: Face, side: int) -> tuple[F32, F32, F32]:
    """Return an iris' middle, and its half axes in the picture: to the right, and up."""
    points = face.landmarks
    along, above = (axis.astype(np.float32) for axis in axes(face))
    if len(points) > _FIRST:
        ring = points[_FIRST + 5 * side : _FIRST + 5 * side + 5, :2]
        # The network's ring is wide and high alike but where the head is turned.
        wide = float(np.linalg.norm(ring[1] - ring[3])) / 2
        high = float(np.linalg.norm(ring[2] - ring[4])) / 2
        return ring[0], along * max(wide, 0.5), above * max(high, 0.5)
    radius = IRIS_RADIUS * face.eye_distance
    center = middle(points, sides(_LIDS)[side]).astype(np.float32)
    turned = max(0.3, float(np.linalg.norm(face.pose.rotation[:2, 0])))
    return center, along * radius * turned, above * radius


def _placed(picture: Pixels, patch: Patch, center: F32, across: F32, up: F32) -> F32:
    """Return the (2, 3) map from a picture's pixels to a patch's, as OpenCV counts them."""
    height, width = picture.shape[:2]
    local = center - (patch.x, patch.y) - 0.5
    right, down = 2 * across / width, -2 * up / height
    start = local - right * (width - 1) / 2 - down * (height - 1) / 2
    return np.stack([right, down, start], axis=1).astype(np.float32)
