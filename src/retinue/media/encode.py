"""From RGB pixels to the bytes of an image file."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray


def _check(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"pixels must be (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")
    return np.ascontiguousarray(pixels)


def encode_jpeg(pixels: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encode RGB pixels as a JPEG file.

    Colours keep their full resolution (4:4:4): thin coloured lines and labels stay sharp.

    Args:
        pixels: (H, W, 3) uint8, RGB, no side longer than 65,500 pixels.
        quality: 1..100.

    Raises:
        ValueError: another shape or dtype, a side that is too long, or a quality out of range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1..100, not {quality}")
    return bytes(simplejpeg.encode_jpeg(_check(pixels), quality=quality, colorspace="RGB"))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode RGB pixels as a PNG file, without loss.

    Args:
        pixels: (H, W, 3) uint8, RGB.

    Raises:
        ValueError: another shape or dtype.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(_check(pixels), cv2.COLOR_RGB2BGR))
    return data.tobytes()
