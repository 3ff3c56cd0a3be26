"""Laying what was drawn over the frame."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.render.compiled import loops
from retinue.apps.ar.render.scene import View

Pixels = NDArray[np.uint8]
_FEW: Final = 0.2
"""Up to this share of half-transparent pixels, each is looked up."""


def composite(frame: Pixels, drawn: Pixels, view: View) -> None:
    """Lay a drawn region over the frame, in place.

    Args:
        frame: (H, W, 3) uint8 RGB.
        drawn: (h, w, 4) uint8 with premultiplied alpha, of the view's region; it is brought to the
            region's size if it was drawn at another scale.
        view: Where the region lies; what is outside of the frame is left out.
    """
    if drawn.shape[:2] != (view.height, view.width):
        smaller = drawn.shape[0] > view.height
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        size = (view.width, view.height)
        drawn = np.asarray(cv2.resize(drawn, size, interpolation=how), np.uint8)
    height, width = frame.shape[:2]
    left, top = max(0, view.x), max(0, view.y)
    right, bottom = min(width, view.x + view.width), min(height, view.y + view.height)
    if left >= right or top >= bottom:
        return
    inside = drawn[top - view.y : bottom - view.y, left - view.x : right - view.x]
    compiled = loops()
    if compiled is not None:
        compiled.lay(frame[top:bottom, left:right], inside)
    else:
        lay(frame[top:bottom, left:right], inside)


def lay(below: Pixels, drawn: Pixels) -> None:
    """Lay one picture over another, in place; `kernels.lay` is a compiled twin.

    Args:
        below: (H, W, 3).
        drawn: (H, W, 4), premultiplied.
    """
    alpha = np.ascontiguousarray(drawn[..., 3])
    # Only what was touched costs anything more.
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not len(rows):
        return
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    below, drawn, alpha = below[box], drawn[box], np.ascontiguousarray(alpha[box])
    partial = np.flatnonzero((alpha > 0) & (alpha < 255))
    if len(partial) > _FEW * alpha.size:
        mixed = _mixed(below, drawn, alpha[..., None])
        np.copyto(below, mixed)
        return
    at = np.divmod(partial, alpha.shape[1])
    mixed = _mixed(below[at], drawn[at], alpha[at][:, None])
    np.copyto(below, drawn[..., :3], where=(alpha == 255)[..., None])
    below[at] = mixed


def _mixed(below: Pixels, drawn: Pixels, alpha: Pixels) -> Pixels:
    kept = below * (255 - alpha.astype(np.uint16)) + 127
    return np.asarray(np.minimum(drawn[..., :3] + kept // 255, 255), np.uint8)
