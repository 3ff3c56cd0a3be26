"""Face paint: a picture on the live mesh, lit as the skin under it is."""

from __future__ import annotations

from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.effects.live import F32, MIRROR, Patch, Pixels
from retinue.apps.ar.effects.makeup import EYE, MOUTH
from retinue.apps.ar.face.canonical import TRIANGLES, UV, VERTICES
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.spec import PaintPart
from retinue.apps.ar.render.scene import Draw, Geometry, Material, Texture

_CELLS: Final = 40
"""Pixels of the longer side of the picture that the skin's light is read from."""
_DARKEST, _LIGHTEST = 0.45, 1.7
# Linear light is about this power of sRGB's values.
_GAMMA: Final = 2.2


@cache
def triangles(cover: tuple[str, ...]) -> NDArray[np.int32]:
    """Return the mesh's triangles, without those that span the openings.

    Args:
        cover: Openings whose triangles stay: "eyes", "mouth".
    """
    kept = TRIANGLES
    eye = set(EYE)
    rings = {
        "eyes": (eye, set(MIRROR[list(eye)].tolist())),
        "mouth": (set(MOUTH),),
    }
    for name, openings in rings.items():
        if name in cover:
            continue
        for ring in openings:
            inside = np.isin(kept, list(ring)).all(axis=1)
            kept = kept[~inside]
    return np.ascontiguousarray(kept)


def _painted(kept: NDArray[np.int32], texture: Texture) -> NDArray[np.int32]:
    """Return the triangles in whose box the picture is not wholly transparent."""
    height, width = texture.pixels.shape[:2]
    sums = cv2.integral((texture.pixels[..., 3] > 0).astype(np.uint8))
    # One pixel around, for what is looked up between pixels and smaller.
    reach = (1 + width // 128, 1 + height // 128)
    corners = UV[kept] * (width, height)
    low = np.floor(corners.min(axis=1)).astype(np.intp) - reach
    high = np.ceil(corners.max(axis=1)).astype(np.intp) + reach
    (x1, y1), (x2, y2) = (np.clip(ends, 0, (width, height)).T for ends in (low, high))
    seen = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    return np.asarray(kept[seen > 0], np.int32)


class Paint:
    """A part's picture, ready to be drawn on faces.

    Args:
        part: How.
        texture: Its picture.
    """

    def __init__(self, part: PaintPart, texture: Texture) -> None:
        self.part = part
        self._material = Material(texture=texture, alpha_mode="blend", unlit=True)
        kept = _painted(triangles(tuple(sorted(part.cover))), texture)
        # A region as small as the paint is drawn.
        self._used, again = np.unique(kept, return_inverse=True)
        corners = np.ascontiguousarray(again.reshape(-1, 3), np.int32)
        self._geometry = Geometry(VERTICES[self._used], corners, uv=UV[self._used])

    def draw(self, face: Face, live: F32, light: F32 | None, strength: float) -> Draw | None:
        """Return the painted face; None where the picture shows nothing at all.

        Args:
            face: Whose.
            live: (N, 3) its landmarks in camera space.
            light: (468,) of `skin_light`; None for paint that keeps its own colours.
            strength: In [0, 1], beside the part's own opacity.
        """
        if not len(self._used):
            return None
        positions = np.ascontiguousarray(live[self._used], np.float32)
        opacity = strength * self.part.opacity * face.opacity
        colors: F32 | None = None
        if light is not None and self.part.shading:
            shade = (1 + self.part.shading * (light[self._used] - 1)) ** np.float32(_GAMMA)
            colors = np.ones((len(self._used), 4), np.float32)
            colors[:, :3] = shade[:, None]
        return Draw(
            self._geometry,
            self._material,
            np.eye(4),
            positions=positions,
            colors=colors,
            opacity=opacity,
        )


def skin_light(frame: Pixels, face: Face) -> F32:
    """Return (468,): how light the skin is around each vertex, 1 for the face's mean.

    Only what changes slowly over the face counts, so that brows and lips do not show.
    """
    points = face.landmarks[: len(VERTICES), :2]
    patch = Patch.around(frame, points, 0)
    if patch is None or min(patch.size) < 4:
        return np.ones(len(VERTICES), np.float32)
    height, width = patch.size
    scale = min(1.0, _CELLS / max(height, width))
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    # Some pixels of each cell are enough for what is blurred.
    finer = tuple(min(3 * cells, side) for cells, side in zip(size, (width, height), strict=True))
    small = cv2.resize(patch.pixels, finer, interpolation=cv2.INTER_NEAREST)
    small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    gray = cv2.GaussianBlur(small, (0, 0), _CELLS / 14)
    local = (points - (patch.x, patch.y)) * (size[0] / width, size[1] / height) - 0.5
    columns, rows = (
        np.clip(np.rint(local[:, axis]), 0, size[axis] - 1).astype(np.intp) for axis in (0, 1)
    )
    levels = gray[rows, columns].astype(np.float32)
    levels /= max(float(levels.mean()), 1.0)
    return np.asarray(np.clip(levels, _DARKEST, _LIGHTEST), np.float32)
