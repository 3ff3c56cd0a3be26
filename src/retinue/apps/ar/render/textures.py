"""Textures as renderers keep them: square roots of linear light, with mipmaps."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@cache
def _linear() -> F32:
    srgb = np.arange(256) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)


def mipmaps(pixels: Pixels) -> list[Pixels]:
    """Return a texture's levels of detail.

    Colours are averaged in linear light and weighted by alpha. Transparent texels take the colour
    of what is near them, so that no dark seam shows where a texture is looked up between texels.

    Args:
        pixels: (H, W, 4) uint8, sRGB and straight alpha.

    Returns:
        Levels (h, w, 4) uint8, each half the size of the one before, to (1, 1): square roots of
        linear light, straight alpha.
    """
    alpha = pixels[..., 3:].astype(np.float32) / 255
    whole = np.concatenate([_linear()[pixels[..., :3]] * alpha, alpha], axis=2)
    levels = [whole]
    while max(whole.shape[:2]) > 1:
        height, width = (max(1, side >> 1) for side in whole.shape[:2])
        whole = np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
        levels.append(whole)
    near: F32 | None = None
    made = []
    for level in reversed(levels):
        near = _straight(level, near)
        made.append(_stored(near, level[..., 3]))
    return made[::-1]


def _straight(level: F32, coarser: F32 | None) -> F32:
    """Return (h, w, 3) colours, those of transparent texels from the next level."""
    alpha = level[..., 3:]
    color = level[..., :3] / np.maximum(alpha, 1e-6)
    if coarser is not None and not alpha.all():
        height, width = level.shape[:2]
        spread = np.asarray(cv2.resize(coarser, (width, height), interpolation=cv2.INTER_LINEAR))
        color = np.where(alpha > 0, color, spread.reshape(height, width, 3))
    return np.asarray(color, np.float32)


def _stored(color: F32, alpha: F32) -> Pixels:
    whole = np.dstack([np.sqrt(np.clip(color, 0, 1)), alpha])
    return np.asarray(np.rint(whole * 255), np.uint8)
