"""Laying what was drawn over the frame."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.render.scene import View


def composite(frame: NDArray[np.uint8], drawn: NDArray[np.uint8], view: View) -> None:
    """Lay a drawn region over the frame, in place.

    Args:
        frame: (H, W, 3) uint8 RGB.
        drawn: (h, w, 4) uint8 with premultiplied alpha, of the view's region; enlarged if it was
            drawn at a smaller scale.
        view: Where the region lies; what is outside of the frame is left out.
    """
    if drawn.shape[:2] != (view.height, view.width):
        size = (view.width, view.height)
        drawn = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    height, width = frame.shape[:2]
    left, top = max(0, view.x), max(0, view.y)
    right, bottom = min(width, view.x + view.width), min(height, view.y + view.height)
    if left >= right or top >= bottom:
        return
    inside = drawn[top - view.y : bottom - view.y, left - view.x : right - view.x]
    alpha = inside[..., 3]
    # Only what was touched costs anything more.
    rows = np.flatnonzero(alpha.any(axis=1))
    if not len(rows):
        return
    columns = np.flatnonzero(alpha.any(axis=0))
    inside = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    y, x = top + int(rows[0]), left + int(columns[0])
    target = frame[y : y + inside.shape[0], x : x + inside.shape[1]]
    kept = cv2.cvtColor(255 - inside[..., 3], cv2.COLOR_GRAY2RGB)
    below = cv2.multiply(target, kept, scale=1 / 255)
    target[:] = cv2.add(below, np.ascontiguousarray(inside[..., :3]))
