"""What was found, drawn over a frame: landmarks, the head's axes, ids, angles and times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.values import Face

AXIS_CM: Final = 7.0
AXES: Final = ((230, 60, 60), (60, 200, 80), (70, 120, 255))
"""Colours of x, y and z."""
POINT: Final = (90, 240, 220)
IRIS: Final = (255, 200, 40)
FONT: Final = cv2.FONT_HERSHEY_SIMPLEX


def draw(
    pixels: NDArray[np.uint8],
    faces: Iterable[Face],
    camera: Camera,
    timings_ms: Mapping[str, float],
) -> None:
    """Draw in place.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        faces: Of this frame.
        camera: That their poses belong to.
        timings_ms: By stage, written in the top left corner.
    """
    size = max(0.4, pixels.shape[0] / 1080)
    for face in faces:
        _points(pixels, face)
        _axes(pixels, face, camera)
        yaw, pitch, roll = face.pose.angles()
        left, top = face.landmarks[:, :2].min(axis=0)
        words = f"#{face.id} {face.score:.2f}  yaw {yaw:.0f} pitch {pitch:.0f} roll {roll:.0f}"
        _write(pixels, words, (int(left), int(top) - 8), size)
        shown = {n: v for n, v in face.coefficients.items() if n not in ("yaw", "pitch", "roll")}
        for row, (name, value) in enumerate(sorted(shown.items())):
            place = (int(face.landmarks[:, 0].max()) + 8, int(top) + int(26 * size * (row + 1)))
            _write(pixels, f"{name} {value:.2f}", place, 0.8 * size)
    for row, (stage, taken) in enumerate(timings_ms.items()):
        _write(pixels, f"{stage} {taken:.2f} ms", (10, int(30 * size * (row + 1))), size)


def _points(pixels: NDArray[np.uint8], face: Face) -> None:
    # Sixteenths of a pixel; OpenCV's centres are whole numbers, ours lie at a half.
    places = np.round((face.landmarks[:, :2] - 0.5) * 16).astype(int)
    radius = max(8, int(face.eye_distance / 100 * 16))
    for index, (x, y) in enumerate(places.tolist()):
        color = POINT if index < 468 else IRIS
        cv2.circle(pixels, (x, y), radius, color, -1, cv2.LINE_AA, shift=4)


def _axes(pixels: NDArray[np.uint8], face: Face, camera: Camera) -> None:
    ends = np.vstack([np.zeros(3), AXIS_CM * np.eye(3)]) + np.array([0.0, 0.0, 5.0])
    seen = ends @ face.pose.rotation.T + face.pose.translation
    if (seen[:, 2] <= 1).any():
        return
    places = np.round((camera.project(seen) - 0.5) * 16).astype(int).tolist()
    for end, color in zip(places[1:], AXES, strict=True):
        cv2.line(pixels, places[0], end, color, 3, cv2.LINE_AA, shift=4)


def _write(pixels: NDArray[np.uint8], words: str, place: tuple[int, int], size: float) -> None:
    # A thicker outline would be wider, and stand beside the letters: a shadow has their width.
    shadow = (place[0] + 1, place[1] + 1)
    cv2.putText(pixels, words, shadow, FONT, size, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(pixels, words, place, FONT, size, (255, 255, 255), 1, cv2.LINE_AA)
