"""What is behind people: blurred, replaced by a picture, or by a colour.

The network's mask is small. It is smoothed over time where it hardly changes, so that edges do not
flicker, and brought to the frame's edges by a guided filter (K. He, J. Sun, X. Tang, "Guided Image
Filtering", 2013; on a quarter of the frame as in "Fast Guided Filter", 2015).
"""

from __future__ import annotations

from typing import Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.effects.blend import mix, rgb
from retinue.apps.ar.effects.live import F32, Pixels
from retinue.apps.ar.filters.spec import BackgroundPart

SMALL, HALF = 320, 640
"""Pixels of the longer side of what the filter and the blur work on, and of alpha."""
_RADIUS: Final = 6
_EPSILON: Final = 3e-4
_STILL: Final = 0.35
"""Share of a new mask that is taken where it hardly differs from the last."""
_LOW, _HIGH = 0.12, 0.88
"""The filtered alpha is stretched, so that inside and outside are 1 and 0."""
_REST_S: Final = 0.5


class Segmenter(Protocol):
    """Tells people from what is behind them."""

    def small(self, frame: Pixels) -> NDArray[np.float32]:
        """Return (h, w) in [0, 1], 1 for people; it covers the whole frame."""
        ...


class Background:
    """The background of one stream of frames.

    Args:
        part: What to do with it.
        picture: (h, w, 4) uint8 for "replace".
    """

    def __init__(self, part: BackgroundPart, picture: Pixels | None = None) -> None:
        self._part, self._picture = part, picture
        self._mask: F32 | None = None
        self._seconds = 0.0
        self._fitted: Pixels | None = None
        self._skipped = False

    def look(self, frame: Pixels, segmenter: Segmenter, seconds: float, *, fine: bool) -> None:
        """Take a frame's mask.

        Args:
            frame: (H, W, 3) uint8 RGB, as the camera gave it.
            segmenter: Finds people.
            seconds: Of the frame.
            fine: Else every second frame keeps the last one's.
        """
        stale = self._mask is None or not 0 <= seconds - self._seconds <= _REST_S
        if not fine and not stale and not self._skipped:
            self._skipped = True
            return
        self._skipped = False
        new = np.asarray(segmenter.small(frame), np.float32)
        last = self._mask
        if stale or last is None or last.shape != new.shape:
            self._mask = new.copy()
        else:
            change = np.abs(new - last)
            share = np.minimum(1.0, _STILL + (1 - _STILL) * change / 0.35)
            self._mask = last + share * (new - last)
        self._seconds = seconds

    def apply(self, frame: Pixels, strength: float, *, fine: bool) -> None:
        """Change the background of the frame that was looked at, in place.

        Args:
            frame: (H, W, 3) uint8 RGB.
            strength: In [0, 1], beside the part's own opacity.
            fine: Whether alpha follows the frame's edges.
        """
        amount = strength * self._part.opacity
        if amount <= 0 or self._mask is None:
            return
        half = _reduced(frame, HALF)
        small = _reduced(half, SMALL)
        size = (small.shape[1], small.shape[0])
        mask = np.asarray(cv2.resize(self._mask, size, interpolation=cv2.INTER_LINEAR), np.float32)
        alpha = _guided(small, mask, half) if fine else _stretched(mask.copy())
        if amount < 1:
            alpha = 1 - amount * (1 - alpha)
        _put(frame, self._behind(frame, small, mask), alpha)

    def _behind(self, frame: Pixels, small: Pixels, mask: F32) -> Pixels:
        part = self._part
        if part.mode == "blur":
            return _blurred(small, mask, part.strength, frame)
        if self._fitted is None or self._fitted.shape != frame.shape:
            if part.mode == "replace" and self._picture is not None:
                self._fitted = cover(self._picture, frame.shape[1], frame.shape[0])
            else:
                color = np.rint(rgb(part.color) * 255).astype(np.uint8)
                self._fitted = np.ascontiguousarray(np.broadcast_to(color, frame.shape))
        return self._fitted


def _stretched(alpha: F32) -> F32:
    alpha -= np.float32(_LOW)
    alpha *= np.float32(1 / (_HIGH - _LOW))
    return np.asarray(np.clip(alpha, 0, 1, out=alpha), np.float32)


def _reduced(frame: Pixels, longest: int) -> Pixels:
    shrink = min(1.0, longest / max(frame.shape[:2]))
    height, width = (max(1, round(side * shrink)) for side in frame.shape[:2])
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _put(frame: Pixels, behind: Pixels, alpha: F32) -> None:
    """Keep the frame where alpha is 1, and put ``behind`` where it is 0; alpha is smaller."""
    height, width = frame.shape[:2]
    share = np.asarray(cv2.convertScaleAbs(alpha, alpha=255), np.uint8)
    kept = _around(share, height, width)
    (rows, columns), people = kept, frame[kept]
    if people.size:
        gone = cv2.resize(cv2.bitwise_not(share), (width, height), interpolation=cv2.INTER_LINEAR)
        mix(people, behind[kept], np.asarray(gone, np.uint8)[kept])
    for outside in (
        (slice(0, rows.start), slice(None)),
        (slice(rows.stop, None), slice(None)),
        (rows, slice(0, columns.start)),
        (rows, slice(columns.stop, None)),
    ):
        frame[outside] = behind[outside]


def _around(share: Pixels, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of a frame outside of which a smaller mask is 0."""
    found = []
    for axis, side in ((1, height), (0, width)):
        where = np.flatnonzero(share.any(axis=axis))
        if not len(where):
            return slice(0, 0), slice(0, 0)
        scale = side / share.shape[1 - axis]
        found.append(
            slice(max(0, int((where[0] - 1) * scale)), min(side, int((where[-1] + 2) * scale) + 1))
        )
    return found[0], found[1]


def _guided(small: Pixels, mask: F32, half: Pixels) -> F32:
    """Return alpha of the size of ``half``: near each place, a line of luminance fits the mask."""
    guide = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    guide *= np.float32(1 / 255)
    window = (2 * _RADIUS + 1,) * 2

    def mean(values: NDArray[np.floating]) -> F32:
        return np.asarray(cv2.blur(values, window, borderType=cv2.BORDER_REFLECT), np.float32)

    of_guide, of_mask = mean(guide), mean(mask)
    slope = mean(guide * mask) - of_guide * of_mask
    slope /= mean(guide * guide) - of_guide * of_guide + np.float32(_EPSILON)
    rest = of_mask - slope * of_guide
    size = (half.shape[1], half.shape[0])
    lines = (mean(slope) * np.float32(1 / 255), mean(rest))
    wide = [np.asarray(cv2.resize(line, size)) for line in lines]
    alpha = wide[0] * cv2.cvtColor(half, cv2.COLOR_RGB2GRAY)
    return _stretched(np.asarray(alpha + wide[1], np.float32))


def _blurred(small: Pixels, mask: F32, strength: float, frame: Pixels) -> Pixels:
    """Blur what is behind people; they do not bleed into it."""
    sigma = strength * 0.03
    # As small as the blur leaves nothing to be seen of.
    small = _reduced(small, round(min(SMALL, 2.5 / max(sigma, 1e-3))))
    size = (small.shape[1], small.shape[0])
    mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.float32)
    sigma = max(0.5, sigma * max(size))
    weight = np.clip((1 - mask) * 1.15 - 0.1, 0.004, 1).astype(np.float32)
    planes = [plane * weight for plane in cv2.split(small)]
    soft = [_soft(plane, sigma) for plane in (*planes, weight)]
    inverse = 1 / soft[3]
    made = cv2.merge([cv2.convertScaleAbs(plane * inverse) for plane in soft[:3]])
    size = (frame.shape[1], frame.shape[0])
    return np.asarray(cv2.resize(made, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _soft(plane: NDArray[np.floating], sigma: float) -> F32:
    """Return about a Gaussian blur: three box blurs, whose time does not grow with sigma."""
    side = 2 * round((np.sqrt(4 * sigma**2 + 1) - 1) / 2) + 1
    for _ in range(3):
        plane = np.asarray(cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT))
    return np.asarray(plane, np.float32)


def cover(picture: Pixels, width: int, height: int) -> Pixels:
    """Return a picture that covers a size, cut at the sides that are too long; on black.

    Args:
        picture: (h, w, 4) uint8, straight alpha.
        width: Wanted.
        height: Wanted.
    """
    high, wide = picture.shape[:2]
    scale = max(width / wide, height / high)
    part_wide, part_high = min(wide, width / scale), min(high, height / scale)
    left, top = int((wide - part_wide) / 2), int((high - part_high) / 2)
    part = picture[top : top + max(1, round(part_high)), left : left + max(1, round(part_wide))]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted = np.asarray(cv2.resize(part, (width, height), interpolation=how))
    seen = fitted[..., :3].astype(np.uint16) * fitted[..., 3:] // 255
    return np.ascontiguousarray(seen, np.uint8)
