"""What a face does, in numbers from 0 to 1, by geometry alone: no trained blendshapes.

The landmarks are brought into the canonical face's coordinates by the affine map that fits best on
the 33 vertices that expressions hardly move. That takes out where the head is and how it is turned,
and most of a person's proportions; what is measured is in the canonical face's centimetres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face._small import invert
from retinue.apps.ar.face.canonical import BASIS, BASIS_WEIGHTS, VERTICES
from retinue.apps.ar.face.values import Pose
from retinue.core.errors import InvalidRequest

F64 = NDArray[np.float64]
Points = Mapping[int, Sequence[float]]

NAMES: Final = (
    "mouth_open",
    "smile",
    "blink_left",
    "blink_right",
    "brow_raise",
    "yaw",
    "pitch",
    "roll",
)

# Vertices, upper ones with those below them. Sides are the subject's: its left is the right one of
# an unmirrored picture.
_INNER_LIPS: Final = ((13, 14), (82, 87), (312, 317))
_LEFT_LIDS: Final = ((386, 374), (385, 380), (387, 373))
_RIGHT_LIDS: Final = ((159, 145), (158, 153), (160, 144))
_LEFT_CORNERS: Final = ((362, 263),)
_RIGHT_CORNERS: Final = ((33, 133),)
_MOUTH: Final = (61, 291, 13, 14)
_EYES: Final = (33, 133, 263, 362)
_BROWS: Final = (70, 63, 105, 66, 107, 300, 293, 334, 296, 336)
_PAIRS: Final = (*_INNER_LIPS, *_LEFT_LIDS, *_RIGHT_LIDS)
_USED: Final = sorted({*_MOUTH, *_EYES, *_BROWS, *(vertex for pair in _PAIRS for vertex in pair)})

# Where a measure counts as 0, and by how much more it is 1, in canonical centimetres; of the lids,
# in widths of the eye.
_MOUTH_REST, _MOUTH_RANGE = 0.65, 2.6
_LIDS_OPEN, _LIDS_CLOSED = 0.225, 0.11
_WIDTH_RANGE, _LIFT_RANGE = 1.2, 0.9
_BROW_REST, _BROW_RANGE = 0.3, 0.8

_ROOTS: Final[F64] = np.sqrt(BASIS_WEIGHTS.astype(np.float64))
_KNOWN: Final[F64] = np.column_stack([VERTICES[BASIS], np.ones(len(BASIS))]).astype(np.float64)
_TO_AFFINE: Final = np.asarray(np.linalg.pinv(_KNOWN * _ROOTS[:, None]) * _ROOTS, np.float64)


def coefficients(
    landmarks: NDArray[np.floating], pose: Pose, *, mirrored: bool = False
) -> dict[str, float]:
    """Measure an expression.

    Args:
        landmarks: (N, 3), N >= 468, in pixels.
        pose: Of the head; it gives the angles.
        mirrored: Whether the picture is a mirror's: the subject's left eye is then on its left.

    Returns:
        By name: "mouth_open", "smile", "blink_left" and "blink_right" (the subject's), and
        "brow_raise" in [0, 1], 0 for the canonical face; "yaw", "pitch" and "roll" in degrees,
        those of the pose.

    Raises:
        InvalidRequest: the landmarks' shape is another.
    """
    if landmarks.ndim != 2 or len(landmarks) < len(VERTICES) or landmarks.shape[1] != 3:
        raise InvalidRequest(f"landmarks must be (468 or more, 3), not {landmarks.shape}")
    distance = float(np.linalg.norm(pose.translation))
    points = _localise(landmarks, distance)
    left = _opening(points, _LEFT_LIDS) / max(_opening(points, _LEFT_CORNERS), _TINY)
    right = _opening(points, _RIGHT_LIDS) / max(_opening(points, _RIGHT_CORNERS), _TINY)
    if mirrored:
        left, right = right, left
    span = _LIDS_OPEN - _LIDS_CLOSED
    measures = {
        "mouth_open": (_opening(points, _INNER_LIPS) - _MOUTH_REST) / _MOUTH_RANGE,
        "smile": _smile(points) - _CANONICAL_SMILE,
        "blink_left": (_LIDS_OPEN - left) / span,
        "blink_right": (_LIDS_OPEN - right) / span,
        "brow_raise": (_brows(points) - _CANONICAL_BROWS - _BROW_REST) / _BROW_RANGE,
    }
    yaw, pitch, roll = pose.angles()
    found = {name: min(max(value, 0.0), 1.0) for name, value in measures.items()}
    return {**found, "yaw": yaw, "pitch": pitch, "roll": roll}


def _localise(landmarks: NDArray[np.floating], distance: float) -> Points:
    """Return the vertices that are used, in the canonical face's coordinates.

    Args:
        landmarks: (N, 3).
        distance: Centimetres to the face: what is nearer looks larger, and is made smaller.
    """
    known = landmarks[BASIS].astype(np.float64)
    used = landmarks[_USED].astype(np.float64)
    affine = _TO_AFFINE @ known
    scale = abs(invert(affine[:3])[1]) ** (1 / 3)
    if not scale > 0 or not distance > 0:
        return _CANONICAL
    for points in (known, used):
        points -= affine[3]
        points[:, :2] *= 1 + points[:, 2:] / (scale * distance)
    affine = _TO_AFFINE @ known
    local = (used - affine[3]) @ invert(affine[:3])[0]
    return dict(zip(_USED, local.tolist(), strict=True))


def _opening(points: Points, pairs: tuple[tuple[int, int], ...]) -> float:
    """Return the mean distance between vertices and those below them."""
    return sum(math.dist(points[one], points[other]) for one, other in pairs) / len(pairs)


def _smile(points: Points) -> float:
    """Return how wide the mouth is, and how far its corners are above its middle."""
    left, right, upper, lower = (points[vertex] for vertex in _MOUTH)
    lift = (left[1] + right[1]) / 2 - 0.75 * upper[1] - 0.25 * lower[1]
    return ((right[0] - left[0]) / _WIDTH_RANGE + lift / _LIFT_RANGE) / 2


def _brows(points: Points) -> float:
    brows = sum(points[vertex][1] for vertex in _BROWS) / len(_BROWS)
    return brows - sum(points[vertex][1] for vertex in _EYES) / len(_EYES)


_TINY: Final = 1e-9
_CANONICAL: Final[Points] = dict(zip(_USED, VERTICES[_USED].tolist(), strict=True))
_CANONICAL_SMILE: Final = _smile(_CANONICAL)
_CANONICAL_BROWS: Final = _brows(_CANONICAL)
