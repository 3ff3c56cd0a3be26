"""Landmarks without jitter at rest and without lag in motion.

`OneEuro` is the filter of Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass
Filter for Noisy Input in Interactive Systems" (CHI 2012). `LandmarkFilter` adds what is known of
faces. Most of the network's noise and of a face's motion is common to all points, so a frame is
taken apart into an affine map of the canonical face (twelve numbers) and what is left in the face's
own coordinates, which is its shape and its expression. The map goes through a filter that knows
velocity, a g-h filter (Benedict and Bordner 1962), critically damped, whose cutoff grows with speed
and with a lasting error as far as they stand out of the noise, which is measured as it goes; it has
no lag at constant speed. The rest goes through a One-Euro filter.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face._small import invert
from retinue.apps.ar.face.canonical import EYE_DISTANCE_CM, VERTICES
from retinue.core.errors import InvalidRequest

F64 = NDArray[np.float64]
Floating = NDArray[np.floating]

MAX_GAP_S: Final = 0.5
"""Seconds without a frame after which a filter starts anew: a velocity says nothing then."""
MAX_JUMP: Final = 0.75
"""Eye distances between prediction and frame at which the landmarks are taken for another place."""

_TO_AFFINE: Final = np.linalg.pinv(
    np.column_stack([VERTICES.astype(np.float64), np.ones(len(VERTICES))])
).astype(np.float32)
_RADIUS_CM: Final = 6.0
"""What the affine map's slopes are multiplied with, so that all of it counts alike in pixels."""
_MIN_VOLUME: Final = 1e-6
"""Of the map's determinant in eye distances: below, the landmarks lie in a plane."""
_SAME_UNIT: Final = 0.1
"""The eye distance, which speeds are measured in, is kept until it changed by this share."""
_NOISE: Final = 0.002
"""Of the affine map, in eye distances, that the settings are for; with more, thresholds grow."""
_MAX_NOISE: Final = 8.0
_NEW_S: Final = 1.0
_AVERAGING: Final = 0.1
"""Of one over the time since the start: a cutoff that takes the mean of what came so far."""
_NOISE_UP_S: Final = 2.0
_NOISE_DOWN_S: Final = 1.0


def _share(cutoff: float, seconds: float) -> float:
    """Return how much of a new value a low pass of a cutoff in Hz takes after some seconds."""
    turn = cutoff * 2 * math.pi * seconds
    return turn / (turn + 1)


class OneEuro:
    """The One-Euro filter on arrays; each element has its own cutoff.

    Args:
        min_cutoff: Hz, at rest.
        beta: Hz for a speed of one scale a second.
        derivative_cutoff: Hz, for the speed itself.
        dead_zone: Speed in scales a second that is taken for noise.
    """

    def __init__(
        self,
        min_cutoff: float,
        beta: float,
        derivative_cutoff: float = 1.0,
        *,
        dead_zone: float = 0.0,
    ) -> None:
        if min(min_cutoff, derivative_cutoff) <= 0 or min(beta, dead_zone) < 0:
            raise InvalidRequest("cutoffs must be above 0, beta and the dead zone at least 0")
        self._min, self._beta = min_cutoff, beta
        self._derivative, self._dead = derivative_cutoff, dead_zone
        self.reset()

    def reset(self) -> None:
        """Forget all values: the next one is returned as it is."""
        self._seconds: float | None = None
        self._scale = 1.0
        self._raw: Floating = np.zeros(0)
        self._smooth, self._speed = self._raw, self._raw

    def update(self, values: Floating, seconds: float, scale: float = 1.0) -> Floating:
        """Return the smoothed values, of the same shape and, if that is a float's, dtype.

        Args:
            values: Of any shape. A shape other than the last starts anew.
            seconds: Of the frame. The same as the last answers what was answered; earlier, or
                more than `MAX_GAP_S` later, starts anew.
            scale: What speeds are measured in, in the values' unit, such as the eye distance.
        """
        new = np.array(values, _float_of(values))
        gap = None if self._seconds is None else seconds - self._seconds
        if gap is None or not 0 <= gap <= MAX_GAP_S or new.shape != self._raw.shape:
            self._raw, self._smooth, self._speed = new, new.copy(), np.zeros_like(new)
            self._seconds, self._scale = seconds, scale
            return new.copy()
        if gap > 0:
            # In place: on a thousand numbers, allocation is most of the time.
            change = new - self._raw
            change *= 1 / (gap * scale)
            change -= self._speed
            change *= _share(self._derivative, gap)
            self._speed += change
            turn = np.abs(self._speed, out=change)
            if self._dead:
                np.maximum(np.subtract(turn, self._dead, out=turn), 0, out=turn)
            turn *= self._beta * 2 * math.pi * gap
            turn += self._min * 2 * math.pi * gap
            turn /= turn + 1
            turn *= new - self._smooth
            self._smooth += turn
            self._seconds, self._scale, self._raw = seconds, scale, new
        return self._smooth.copy()

    def predict(self, ahead: float) -> Floating:
        """Return the values some seconds after the last update, at constant velocity.

        Raises:
            InvalidRequest: there was no update yet.
        """
        if self._seconds is None:
            raise InvalidRequest("nothing was smoothed yet; call update first")
        return self._smooth + self._speed * (self._scale * ahead)


def _float_of(values: NDArray[np.floating]) -> np.dtype[Any]:
    return values.dtype if values.dtype in (np.float32, np.float64) else np.dtype(np.float64)


class _Steady:
    """A critically damped g-h filter whose cutoff follows what stands out of the noise.

    Values are in eye distances.

    Args:
        cutoff: Hz at rest.
        by_speed: Hz for a speed of 1 a second above `dead_speed`.
        dead_speed: Speed that is taken for noise.
        by_error: Hz for a lasting error of 1 above `dead_error`.
        dead_error: Error that is taken for noise.
    """

    def __init__(
        self,
        cutoff: float,
        by_speed: float,
        dead_speed: float,
        by_error: float,
        dead_error: float,
    ) -> None:
        self._cutoff = cutoff
        self._by_speed, self._dead_speed = by_speed, dead_speed
        self._by_error, self._dead_error = by_error, dead_error
        self.start(np.zeros(0))

    def start(self, values: F64) -> None:
        self.values, self._raw, self._age = values, values, 0.0
        self.velocity = np.zeros_like(values)
        self._speed, self._error, self._rate = (np.zeros_like(values) for _ in range(3))
        self._variance = np.full_like(values, _NOISE**2)
        self.noise = np.ones_like(values)

    def update(self, new: F64, gap: float) -> F64:
        self._age += gap
        rate = (new - self._raw) / gap
        bend = (rate - self._rate) * gap
        noise = self._measure(bend, gap)
        self._raw, self._rate = new, rate
        self._speed = self._speed + _share(1.0, gap) * (rate - self._speed)
        expected = self.values + self.velocity * gap
        error = new - expected
        self._error = self._error + _share(1.5, gap) * (error - self._error)
        moving = np.maximum(np.abs(self._speed) - self._dead_speed * noise, 0)
        behind = np.maximum(np.abs(self._error) - self._dead_error * noise, 0)
        cutoff = self._cutoff + (self._by_speed * moving + self._by_error * behind) / noise
        keep = np.exp(cutoff * (-2 * math.pi * gap))
        # A new face's first values are averaged: none of them is better than the others.
        first = math.exp(-2 * math.pi * _AVERAGING * gap / self._age) if self._age < _NEW_S else 1.0
        self.values = expected + (1 - np.minimum(keep, first) ** 2) * error
        self.velocity = self.velocity + (1 - keep) ** 2 / gap * error
        return self.values

    def rescale(self, factor: float) -> None:
        """Go over to another unit: what was 1 is now `factor`."""
        self.values, self._raw = self.values * factor, self._raw * factor
        self.velocity, self._rate = self.velocity * factor, self._rate * factor
        self._speed, self._error = self._speed * factor, self._error * factor

    def _measure(self, bend: F64, gap: float) -> F64:
        """Return each value's noise in units of `_NOISE`, from its second difference.

        Motion bends too, but not for long: the measure rises slowly and falls fast.
        """
        variance = bend * bend / 6
        rising = variance > self._variance
        slow, fast = 1 - math.exp(-gap / _NOISE_UP_S), 1 - math.exp(-gap / _NOISE_DOWN_S)
        self._variance += np.where(rising, slow, fast) * (variance - self._variance)
        self.noise = np.clip(np.sqrt(self._variance) / _NOISE, 1.0, _MAX_NOISE)
        return self.noise


class LandmarkFilter:
    """Smooths the landmarks of one face, and tells where they will be."""

    def __init__(self) -> None:
        self._motion = _Steady(0.06, 20.0, 0.05, 700.0, 0.0025)
        self._shape = OneEuro(0.3, 100.0, 3.0, dead_zone=0.1)
        self.reset()

    def reset(self) -> None:
        """Forget the face: the next landmarks are returned as they are."""
        self._seconds: float | None = None
        self._eye = 1.0
        self._local: Floating = np.zeros((0, 3), np.float32)
        self._shape.reset()

    @property
    def velocity(self) -> F64:
        """(3,) float64: pixels a second that the canonical face's origin moves with."""
        if self._seconds is None:
            return np.zeros(3)
        return self._motion.velocity[9:] * self._eye

    def update(self, landmarks: NDArray[np.floating], seconds: float) -> NDArray[np.float32]:
        """Return the smoothed landmarks.

        Args:
            landmarks: (N, 3), N >= 468, in pixels; N may change between frames.
            seconds: Of the frame. The same as the last answers what was answered; earlier, or
                more than `MAX_GAP_S` later, starts anew.

        Returns:
            (N, 3) float32.

        Raises:
            InvalidRequest: the landmarks' shape is another.
        """
        if landmarks.ndim != 2 or len(landmarks) < len(VERTICES) or landmarks.shape[1] != 3:
            raise InvalidRequest(f"landmarks must be (468 or more, 3), not {landmarks.shape}")
        points = landmarks.astype(np.float32)
        gap = None if self._seconds is None else seconds - self._seconds
        same = gap is not None and len(points) == len(self._local)
        if same and gap == 0:
            return self.predict(0.0)
        affine = (_TO_AFFINE @ points[: len(VERTICES)]).astype(np.float64)
        eye = math.dist(points[33].tolist(), points[263].tolist())
        inverse, volume = invert(affine[:3])
        if not abs(volume) * EYE_DISTANCE_CM**3 > _MIN_VOLUME * eye**3:
            self.reset()
            return points
        local = points @ inverse.astype(np.float32)
        local -= (affine[3] @ inverse).astype(np.float32)
        new = affine.ravel()
        new[:9] *= _RADIUS_CM
        if gap is None or not 0 <= gap <= MAX_GAP_S or self._jumped(new, eye, gap):
            self.reset()
            self._motion.start(new / eye)
        elif gap > 0:
            if abs(eye / self._eye - 1) < _SAME_UNIT:
                eye = self._eye
            else:
                self._motion.rescale(self._eye / eye)
            self._motion.update(new / eye, gap)
        self._seconds, self._eye = seconds, eye
        self._local = self._shape.update(
            local, seconds, EYE_DISTANCE_CM * self._motion.noise.mean()
        )
        return self.predict(0.0)

    def predict(self, ahead: float) -> NDArray[np.float32]:
        """Return the (N, 3) float32 landmarks some seconds after the last update.

        The face moves on, turns and nears with constant velocity; its expression stays.

        Raises:
            InvalidRequest: there was no update yet.
        """
        if not len(self._local):
            raise InvalidRequest("nothing was smoothed yet; call update first")
        affine = (self._motion.values + self._motion.velocity * ahead) * self._eye
        slopes = affine[:9].reshape(3, 3) / _RADIUS_CM
        moved = self._local @ slopes.astype(np.float32)
        moved += affine[9:].astype(np.float32)
        return np.asarray(moved, np.float32)

    def _jumped(self, new: F64, eye: float, gap: float) -> bool:
        motion = self._motion
        expected = (motion.values + motion.velocity * gap) * self._eye
        return bool(np.abs(new - expected).max() > MAX_JUMP * eye)
