"""The square around a face that the mesh network sees, and the ways there and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import InvalidRequest

MARGIN: Final = 1.5
"""Side of the square, in units of the face's longer side, as the network was trained."""
_AVERAGED: Final = 3
"""Pixels of the frame for one of the crop from which on the frame is averaged first."""
_LEFT_EYE, _RIGHT_EYE = 33, 263
"""Landmarks: the outer corners, by the picture's sides."""


@dataclass(frozen=True, slots=True)
class Roi:
    """A turned square in a frame.

    Attributes:
        x: Of its middle in pixels of the frame.
        y: Of its middle.
        size: Of its side in pixels.
        angle: Radians, clockwise as the picture is seen: where the eyes' line points.

    Raises:
        InvalidRequest: a figure is not finite, or the side is not above 0.
    """

    x: float
    y: float
    size: float
    angle: float = 0.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x, self.y, self.size, self.angle))) or self.size <= 0:
            raise InvalidRequest(f"{self} is no square of a frame; its side must be above 0")

    @classmethod
    def of_detection(cls, box: NDArray[np.floating], keypoints: NDArray[np.floating]) -> Self:
        """Return the square of a face that a detector found.

        Args:
            box: (4,) x1 y1 x2 y2 in pixels.
            keypoints: (K, 2) pixels, K >= 2: the eye on the picture's left, then the other.

        Raises:
            InvalidRequest: the box has no area, or is not finite.
        """
        x1, y1, x2, y2 = (float(value) for value in box)
        angle = _angle(keypoints[0], keypoints[1])
        return cls((x1 + x2) / 2, (y1 + y2) / 2, max(x2 - x1, y2 - y1) * MARGIN, angle)

    @classmethod
    def of_landmarks(cls, landmarks: NDArray[np.floating]) -> Self:
        """Return the square of a face whose landmarks are known from the last frame.

        It is around their upright box, also where the head is tilted: so the network was used
        where it was made, and it finds the same face again with the least difference so.

        Args:
            landmarks: (N, 2 or more), N >= 468, in pixels.

        Raises:
            InvalidRequest: the landmarks lie all in one place, or are not finite.
        """
        angle = _angle(landmarks[_LEFT_EYE], landmarks[_RIGHT_EYE])
        x1, y1 = (float(low) for low in landmarks[:, :2].min(axis=0))
        x2, y2 = (float(high) for high in landmarks[:, :2].max(axis=0))
        return cls((x1 + x2) / 2, (y1 + y2) / 2, max(x2 - x1, y2 - y1) * MARGIN, angle)

    def moved(self, x: float, y: float) -> Roi:
        """Return the same square elsewhere: x pixels to the right, y down."""
        return Roi(self.x + x, self.y + y, self.size, self.angle)

    def near(self, other: Roi, share: float) -> bool:
        """Return whether a corner of the other square is at most `share` of the side away."""
        apart = math.hypot(self.x - other.x, self.y - other.y)
        turn = math.remainder(self.angle - other.angle, math.tau)
        # Corners lie at 0.71 of the side from the middle.
        return (
            apart + 0.71 * (abs(self.size - other.size) + abs(turn) * self.size)
            <= share * self.size
        )

    def to_frame(self, pixels: int) -> NDArray[np.float64]:
        """Return the (2, 3) float64 matrix from the crop's to the frame's pixels.

        Args:
            pixels: Side of the crop. In the crop, as in the frame, (0, 0) is the corner of the
                first pixel.
        """
        scale = self.size / pixels
        cosine, sine = math.cos(self.angle) * scale, math.sin(self.angle) * scale
        half = pixels / 2
        return np.array(
            [
                [cosine, -sine, self.x - (cosine - sine) * half],
                [sine, cosine, self.y - (sine + cosine) * half],
            ]
        )

    def to_crop(self, pixels: int) -> NDArray[np.float64]:
        """Return the (2, 3) float64 matrix from the frame's to the crop's pixels."""
        scale = pixels / self.size
        cosine, sine = math.cos(self.angle) * scale, math.sin(self.angle) * scale
        half = pixels / 2
        return np.array(
            [
                [cosine, sine, half - cosine * self.x - sine * self.y],
                [-sine, cosine, half + sine * self.x - cosine * self.y],
            ]
        )

    def crop(self, frame: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
        """Cut the square out.

        Args:
            frame: (H, W, 3) uint8.
            pixels: Side of the crop.

        Returns:
            (pixels, pixels, 3) uint8, bilinear; black beyond the frame. A square that is much
            larger than the crop is averaged first: sampling alone would make noise of its detail.
        """
        matrix = self.to_frame(pixels)
        if self.size >= _AVERAGED * pixels:
            frame, matrix = self._averaged(frame, matrix, int(self.size / pixels / 1.5))
        # OpenCV's pixels have their centres at whole numbers.
        matrix[:, 2] += (matrix[:, 0] + matrix[:, 1] - 1) / 2
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(frame, matrix, (pixels, pixels), flags=flags), np.uint8)

    def _averaged(
        self, frame: NDArray[np.uint8], matrix: NDArray[np.float64], factor: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return the part of the frame around the square, smaller, and the matrix into it."""
        reach = self.size * (abs(math.cos(self.angle)) + abs(math.sin(self.angle))) / 2
        height, width = frame.shape[:2]
        left, right = _whole(self.x - reach, self.x + reach, width, factor)
        top, bottom = _whole(self.y - reach, self.y + reach, height, factor)
        if right <= left or bottom <= top:
            return frame, matrix
        part = frame[top:bottom, left:right]
        size = ((right - left) // factor, (bottom - top) // factor)
        small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        matrix[:, 2] -= left, top
        return small, matrix / factor

    def landmarks_to_frame(
        self, landmarks: NDArray[np.float32], pixels: int
    ) -> NDArray[np.float32]:
        """Return (N, 3) landmarks of the crop as those of the frame; depth is scaled alike."""
        matrix = self.to_frame(pixels)
        whole = np.empty_like(landmarks)
        whole[:, :2] = landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        whole[:, 2] = landmarks[:, 2] * (self.size / pixels)
        return whole


def _angle(left: NDArray[np.floating], right: NDArray[np.floating]) -> float:
    return math.atan2(float(right[1] - left[1]), float(right[0] - left[0]))


def _whole(low: float, high: float, size: int, factor: int) -> tuple[int, int]:
    """Return a range inside 0 to size that holds a whole number of blocks."""
    start = max(math.floor(low), 0)
    stop = min(math.ceil(high), size)
    return start, start + (stop - start) // factor * factor
