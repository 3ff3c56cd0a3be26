"""A face that is followed, and the rules by which boxes, faces and pictures are told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face.roi import MARGIN, Roi
from retinue.apps.ar.face.smoothing import LandmarkFilter
from retinue.apps.ar.face.values import Pose

FADE_S: Final = 0.15
"""Seconds from nothing to all of a filter, and back."""
REMEMBERED_S: Final = 1.0
"""Seconds after which a face that comes back is another one."""
FADE_YAW: Final = (42.0, 49.0)
"""Degrees between which a head that turns away fades out, as the mesh network has them: it says 42
of one at 52 degrees and 49 of one at 65, and less again of a profile."""
BACK_YAW: Final = 38.0
"""Degrees below which one that was gone comes back."""
FADE_SCORE: Final = (0.5, 0.8)
HELD: Final = 0.015
"""Share of its side by which the square may be off before it is moved. A square that trembles with
the landmarks that it came from makes them tremble: at rest, holding it nearly halves the jitter
that smoothing leaves."""
_MAX_LEAD: Final = 0.25
_SAME_PLACE, _SAME_SIZE = 0.5, 2.0
_DOUBLE_PLACE, _DOUBLE_SIZE = 0.35, 1.6
_BACK: Final = 0.6
_THUMB: Final = 16
_CUT_CORRELATION: Final = 0.5
_CUT_CONTRAST: Final = 6.0


class Seen(NamedTuple):
    """What the network found: landmarks of the frame, their score, and the square around them."""

    landmarks: NDArray[np.float32]
    score: float
    place: Roi


@dataclass(slots=True, eq=False)
class Track:
    """One face over time.

    Attributes:
        id: Of the face.
        roi: Where the network looks next.
        landmarks: (N, 3) float32, of the frame, smoothed.
        score: Of the last time it was seen.
        seen: Seconds of the frame that it was last seen in.
        lost: Whether it was missed since.
        opacity: In [0, 1].
        turned: Whether it turned away so far that it was gone.
        pose: None before the first.
        coefficients: Of the last time it was seen.
        place: The square around the landmarks as they came from the network.
        velocity: Pixels a second, to the right and down.
        surprise: How far it was from where it was expected, in sizes.
        smooth: Its landmarks' filter.
    """

    id: int
    roi: Roi
    landmarks: NDArray[np.float32]
    score: float
    seen: float
    lost: bool = False
    opacity: float = 0.0
    turned: bool = False
    pose: Pose | None = None
    coefficients: Mapping[str, float] = field(default_factory=dict)
    place: Roi = field(init=False)
    velocity: tuple[float, float] = (0.0, 0.0)
    surprise: float = 0.0
    smooth: LandmarkFilter = field(default_factory=LandmarkFilter)
    _before: tuple[NDArray[np.float32], float, Roi, tuple[float, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.place = self.roi
        self._before = (self.landmarks, self.seen, self.place, self.velocity)

    def see(self, seen: Seen, seconds: float) -> None:
        """Take what the network found in this frame."""
        expected = self.expected(seconds)
        landmarks, score, place = seen
        self.surprise = math.hypot(place.x - expected.x, place.y - expected.y) / place.size
        self.surprise += abs(math.log(place.size / expected.size))
        self._before = (self.landmarks, self.seen, self.place, self.velocity)
        gap = seconds - self.seen
        self.landmarks = self.smooth.update(landmarks, seconds)
        x, y, _ = self.smooth.velocity.tolist()
        self.place, self.velocity = place, (x, y)
        self.score, self.seen, self.lost = score, seconds, False
        ahead = place.moved(*self._lead(gap))
        if not self.roi.near(ahead, HELD):
            self.roi = ahead

    def unsee(self) -> None:
        """Take the last `see` back: it was another face. This one is lost."""
        self.landmarks, self.seen, self.place, self.velocity = self._before
        self.smooth.reset()
        self.lost = True

    def expected(self, seconds: float) -> Roi:
        """Return the square where the face should be at a time."""
        return self.place.moved(*self._lead(seconds - self.seen))

    def _lead(self, gap: float) -> tuple[float, float]:
        x, y = (speed * max(gap, 0.0) for speed in self.velocity)
        longest = _MAX_LEAD * self.place.size
        factor = min(1.0, longest / max(math.hypot(x, y), 1e-9))
        return x * factor, y * factor

    def fade(self, seconds: float, at_once: bool) -> None:
        """Move the opacity towards what the face's state asks for.

        Args:
            seconds: Since the last frame.
            at_once: Whether it jumps: the first frame of a scene has what it has.
        """
        wanted = 0.0
        if self.pose is not None:
            yaw = _yaw(self.pose)
            self.turned = yaw >= FADE_YAW[1] or (self.turned and yaw > BACK_YAW)
            if not self.lost and not self.turned:
                wanted = _ramp(yaw, FADE_YAW[1], FADE_YAW[0]) * _ramp(self.score, *FADE_SCORE)
        if at_once:
            self.opacity = wanted
            return
        step = seconds / FADE_S
        self.opacity += min(max(wanted - self.opacity, -step), step)


def _yaw(pose: Pose) -> float:
    """Return the degrees of yaw that the camera sees, without their sign.

    Of a head at the picture's edge they are against the ray to it, not the camera's axis.
    """
    towards = -pose.translation @ pose.rotation
    return abs(math.degrees(math.atan2(float(towards[0]), float(towards[2]))))


def _ramp(value: float, nothing: float, all_of_it: float) -> float:
    share = min(max((value - nothing) / (all_of_it - nothing), 0.0), 1.0)
    return share * share * (3 - 2 * share)


def same(one: Roi, other: Roi, place: float = _SAME_PLACE, size: float = _SAME_SIZE) -> bool:
    """Return whether two squares are around one face: near each other, and of a size."""
    small, large = sorted((one.size, other.size))
    apart = math.hypot(one.x - other.x, one.y - other.y) * MARGIN
    return large <= size * small and apart < place * small


def doubles(tracks: list[Track]) -> list[Track]:
    """Return the tracks that look at another one's face: of two, the one that jumped to it."""
    out: list[Track] = []
    for i, one in enumerate(tracks):
        for other in tracks[i + 1 :]:
            if one in out or other in out:
                continue
            if same(one.place, other.place, _DOUBLE_PLACE, _DOUBLE_SIZE):
                out.append(max(one, other, key=lambda track: (track.surprise, track.id)))
    return out


def came_back(track: Track, place: Roi, seconds: float) -> float | None:
    """Return how far a detection is from where a lost face is expected, None where too far."""
    gone = seconds - track.seen
    expected = track.expected(seconds)
    small, large = sorted((expected.size, place.size))
    apart = math.hypot(expected.x - place.x, expected.y - place.y) / large * MARGIN
    reach = _BACK + (gone if gone <= REMEMBERED_S else 0.0)
    return apart if large <= _SAME_SIZE * small and apart < reach else None


class CutDetector:
    """Tells a cut between two scenes from what moves within one, by a picture of 16 x 16.

    A light that goes on or off is no cut: the pictures are compared by their correlation.
    """

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None

    def reset(self) -> None:
        """Forget the last frame."""
        self._last = None

    def update(self, frame: NDArray[np.uint8]) -> bool:
        """Return whether a frame, (H, W, 3), is of another scene than the one before."""
        rows, columns = (max(side // (2 * _THUMB), 1) for side in frame.shape[:2])
        sampled = np.ascontiguousarray(frame[::rows, ::columns])
        small = cv2.resize(sampled, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
        blocks = np.asarray(small, np.float32)
        thumb = (blocks - blocks.mean(axis=(0, 1))).ravel()
        last, self._last = self._last, thumb
        if last is None:
            return False
        size = len(thumb)
        own, before = float(thumb @ thumb) / size, float(last @ last) / size
        both = float(thumb @ last) / size
        change = own + before - 2 * both
        correlation = both / max(math.sqrt(own * before), 1e-9)
        return correlation < _CUT_CORRELATION and change > _CUT_CONTRAST**2
