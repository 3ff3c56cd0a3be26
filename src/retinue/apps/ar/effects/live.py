"""The live face in space and in the picture: what effects share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.canonical import TRIANGLES, VERTICES
from retinue.apps.ar.face.values import Face

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Pixels = NDArray[np.uint8]

FAR_AWAY: Final = 1e5
"""Pixels: a landmark beyond is no face's."""
NEAREST: Final = 1.0
"""Centimetres: what is nearer to the camera is not drawn."""

_AWAY: Final = np.linalg.norm(
    VERTICES[:, None].astype(np.float64) * (-1, 1, 1) - VERTICES[None], axis=-1
)
MIRROR: Final[NDArray[np.intp]] = _AWAY.argmin(axis=1)
"""(468,): the vertex on the other side of the face; itself on the middle line."""


def _normals() -> F64:
    corners = VERTICES.astype(np.float64)[TRIANGLES]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    summed = np.zeros(VERTICES.shape)
    for corner in range(3):
        np.add.at(summed, TRIANGLES[:, corner], across)
    return np.asarray(summed / np.linalg.norm(summed, axis=1, keepdims=True), np.float64)


NORMALS: Final[F64] = _normals()
"""(468, 3): of the canonical face, outwards."""

_IRISES: Final = np.array([[33, 133]] * 5 + [[263, 362]] * 5)
"""By iris landmark, the corners of its eye."""


def iris_corners(landmark: int) -> list[int]:
    """Return the corners of the eye of an iris landmark."""
    corners: list[int] = _IRISES[landmark - len(VERTICES)].tolist()
    return corners


def usable(face: Face) -> bool:
    """Return whether a face can be drawn on: finite, of some size, and before the camera."""
    points = face.landmarks
    return bool(
        face.opacity > 0
        and np.isfinite(points).all()
        and np.abs(points[:, :2]).max() < FAR_AWAY
        and face.eye_distance > 1
        and face.pose.translation[2] > NEAREST
    )


def depths(face: Face) -> F64:
    """Return (N,) centimetres from the camera's plane: where the canonical head has them.

    Landmarks tell little of depth; the pose tells all that drawing needs.
    """
    pose = face.pose
    z = VERTICES @ pose.rotation[2] + pose.translation[2]
    if len(face.landmarks) > len(z):
        z = np.concatenate([z, z[_IRISES].mean(axis=1)])
    return np.asarray(np.maximum(z, NEAREST), np.float64)


def in_space(face: Face, camera: Camera) -> F32:
    """Return (N, 3) landmarks in camera space: seen where they are in the picture."""
    z = depths(face)[:, None]
    rays = camera.rays(face.landmarks[:, :2])
    return np.hstack([rays * z, z]).astype(np.float32)


def facing(face: Face, vertex: int) -> float:
    """Return the cosine between a vertex' normal and the way to the camera; below 0 is hidden."""
    pose = face.pose
    place = pose.rotation @ VERTICES[vertex] + pose.translation
    normal = pose.rotation @ NORMALS[vertex]
    return float(-(normal @ place) / np.linalg.norm(place))


def turned_to_us(face: Face, vertex: int, low: float = 0.05, high: float = 0.35) -> float:
    """Return how far what lies at a vertex is to be shown, in [0, 1]: it goes softly."""
    share = min(1.0, max(0.0, (facing(face, vertex) - low) / (high - low)))
    return share * share * (3 - 2 * share)


def eye_shown(face: Face, side: int) -> float:
    """Return how far an eye is to be shown, in [0, 1]: from the side the nose hides the far one.

    Args:
        face: Whose.
        side: 0 for the eye on the picture's left, 1 for the other.
    """
    return turned_to_us(face, (130, 359)[side], 0.1, 0.35)


def axes(face: Face) -> tuple[F64, F64]:
    """Return unit vectors in the picture: to the right of the head's up, and that up itself.

    They are the pose's: seen from the side, the eyes' line says nothing of the roll.
    """
    up = np.asarray(face.pose.rotation[:2, 1], np.float64)
    length = float(np.hypot(*up))
    up = up / length if length > 1e-6 else np.array([0.0, -1.0])
    return np.array([-up[1], up[0]]), up


def middle(points: NDArray[np.float32], at: Sequence[int]) -> NDArray[np.float64]:
    """Return the (2,) middle of landmarks; of irises that are not known, their eyes'."""
    known: list[int] = []
    for index in at:
        known += [index] if index < len(points) else iris_corners(index)
    return np.asarray(points[known, :2].mean(axis=0, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A part of a frame.

    Attributes:
        x: Of its left edge in the frame's pixels.
        y: Of its top edge.
        pixels: (h, w, 3) uint8, a view into the frame.
    """

    x: int
    y: int
    pixels: Pixels

    @classmethod
    def around(cls, frame: Pixels, points: NDArray[np.floating], margin: float) -> Self | None:
        """Return the box of points and a margin, inside the frame; None where nothing is left."""
        height, width = frame.shape[:2]
        low = np.floor(points[:, :2].min(axis=0) - margin)
        high = np.ceil(points[:, :2].max(axis=0) + margin)
        x1, y1 = (max(0, int(value)) for value in low)
        x2, y2 = min(width, int(high[0])), min(height, int(high[1]))
        if x2 - x1 < 1 or y2 - y1 < 1:
            return None
        return cls(x1, y1, frame[y1:y2, x1:x2])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.pixels.shape[:2]
        return height, width

    def fixed(self, points: NDArray[np.floating], scale: float = 1.0) -> NDArray[np.int32]:
        """Return (N, 1, 2) in the patch, as OpenCV's drawing takes it with ``shift=4``.

        OpenCV counts from the first pixel's centre.
        """
        local = (points[:, :2].astype(np.float64) - (self.x, self.y)) * scale - 0.5
        return np.rint(local * 16).astype(np.int32).reshape(-1, 1, 2)


def curve(points: NDArray[np.floating], steps: int = 4, *, closed: bool = False) -> F32:
    """Return a smooth curve through (N, 2) points: Catmull-Rom, ``steps`` pieces between two."""
    return np.asarray(_spline(len(points), steps, closed) @ points[:, :2], np.float32)


@cache
def _spline(count: int, steps: int, closed: bool) -> F32:
    """Return the matrix from points to their curve: it is linear in them."""
    p = np.eye(count)
    if closed:
        whole = np.concatenate([p[-1:], p, p[:2]])
    else:
        whole = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    a, b, c, d = (whole[i : len(whole) - 3 + i, None] for i in range(4))
    t = (np.arange(steps) / steps)[None, :, None]
    made = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    flat = made.reshape(-1, count)
    return (flat if closed else np.concatenate([flat, p[-1:]])).astype(np.float32)


def soften(mask: Pixels, sigma: float) -> Pixels:
    """Blur a mask; a sigma below a third of a pixel changes nothing."""
    if sigma < 0.34:
        return mask
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma), np.uint8)
