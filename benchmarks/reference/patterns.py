"""Pictures made of integers only, so that Python and JavaScript make the same bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NANODET_MEAN = (103.53, 116.28, 123.675)
NANODET_STD = (57.375, 57.12, 58.395)


def pattern(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Return (height, width, channels) uint8."""
    y, x, c = np.ogrid[:height, :width, :channels]
    return (((x * (3 + c) + y * (5 + 2 * c)) ^ (x * y >> 4)) & 255).astype(np.uint8)


def chw(picture: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (1, C, H, W) float32."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None].astype(np.float32))


def nanodet_input() -> NDArray[np.float32]:
    """Return (1, 3, 416, 416) float32, normalised."""
    return chw((pattern(416, 416) - np.array(NANODET_MEAN)) / np.array(NANODET_STD))


def efficientnet_input() -> NDArray[np.float32]:
    """Return (1, 3, 224, 224) float32, normalised."""
    return chw((pattern(224, 224) - np.array(127.0)) / 128.0)
