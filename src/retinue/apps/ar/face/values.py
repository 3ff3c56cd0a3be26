"""What is known of a face in one frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

FRONTAL = np.diag([1.0, -1.0, -1.0])
"""Rotation of a face that looks straight into the camera: its y is up and its z towards us."""


def _none() -> Mapping[str, float]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """Where a head is: ``X_camera = rotation @ X_canonical + translation``.

    The camera looks along z, x is to the right and y down, all in centimetres.

    Attributes:
        rotation: (3, 3) float64.
        translation: (3,) float64.
        error: Weighted root mean square of the reprojection's errors, in pixels.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    error: float = 0.0

    def angles(self) -> tuple[float, float, float]:
        """Return (yaw, pitch, roll) in degrees, all 0 where the face's axes are the camera's.

        Positive yaw turns the face towards the picture's right side, positive pitch up, positive
        roll turns it clockwise as the picture is seen. The order is yaw, then pitch, then roll:
        ``rotation = Rz(roll) @ Ry(-yaw) @ Rx(-pitch) @ FRONTAL`` with the camera's axes.
        """
        turned = self.rotation @ FRONTAL
        pitch = math.degrees(math.atan2(turned[2, 1], turned[2, 2]))
        yaw = math.degrees(math.asin(max(-1.0, min(1.0, -turned[2, 0]))))
        roll = math.degrees(math.atan2(turned[1, 0], turned[0, 0]))
        return -yaw, -pitch, roll

    def matrix(self) -> NDArray[np.float64]:
        """Return the (4, 4) matrix from canonical to camera coordinates."""
        whole = np.eye(4)
        whole[:3, :3], whole[:3, 3] = self.rotation, self.translation
        return whole


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face of one frame.

    Attributes:
        id: Stable as long as the face is followed; never given again in a session.
        score: That it is a face at all, in [0, 1].
        landmarks: (468, 3) or (478, 3) float32, smoothed; x and y in pixels of the upright frame,
            z in the same unit, smaller is nearer. The last ten are the irises: centre, right, top,
            left and bottom, of the eye on the picture's left first.
        pose: Of the head.
        coefficients: By name, each in [0, 1] but "yaw", "pitch" and "roll", in degrees: geometric
            measures of what the face does, not trained blendshapes.
        opacity: In [0, 1]: how much of a filter is shown; it fades at extreme angles and where a
            face comes or goes.
        seconds: Of the frame, from the first.
    """

    id: int
    score: float
    landmarks: NDArray[np.float32]
    pose: Pose
    coefficients: Mapping[str, float] = field(default_factory=_none)
    opacity: float = 1.0
    seconds: float = 0.0

    @property
    def eye_distance(self) -> float:
        """Pixels between the outer corners of the eyes, along the picture and into it."""
        return float(np.linalg.norm(self.landmarks[33] - self.landmarks[263]))
