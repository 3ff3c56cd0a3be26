"""Looks textures up."""

from __future__ import annotations

from typing import Any

import numpy as np

from retinue.apps.ar.render.kernels._compile import inner
from retinue.apps.ar.render.kernels._types import I64, MIRROR, REPEAT, U32, Four


@inner
def _lanes(texel: Any) -> Any:
    """Spread four bytes over four lanes of 16 bits."""
    low = (texel & 0xFF) | (texel & 0xFF00) << 8
    return low | (texel & 0xFF0000) << 16 | (texel & 0xFF000000) << 24


@inner
def _fetch(texels: U32, at: int, width: int, height: int, u: float, v: float, wrap: int) -> int:
    """Look a level up between its texels, as lanes; 1 is 255 * 256."""
    if wrap == REPEAT:
        u, v = u - np.floor(u), v - np.floor(v)
    elif wrap == MIRROR:
        u = 1.0 - abs(u - 2.0 * np.floor(u / 2.0) - 1.0)
        v = 1.0 - abs(v - 2.0 * np.floor(v / 2.0) - 1.0)
    else:
        u, v = min(1.0, max(0.0, u)), min(1.0, max(0.0, v))
    # Steps of a texel's 256th, as graphics cards take them.
    x, y = int(u * width * 256.0 + 0.5) - 128, int(v * height * 256.0 + 0.5) - 128
    left, top, a, b = x >> 8, y >> 8, x & 255, y & 255
    right, low = left + 1, top + 1
    if wrap == REPEAT:
        left, right = width - 1 if left < 0 else left, 0 if right >= width else right
        top, low = height - 1 if top < 0 else top, 0 if low >= height else low
    else:
        left, right = max(0, left), min(width - 1, right)
        top, low = max(0, top), min(height - 1, low)
    first, second = at + top * width, at + low * width
    s = (a * b + 128) >> 8
    found = (256 - a - b + s) * _lanes(np.int64(texels[first + left]))
    found += (a - s) * _lanes(np.int64(texels[first + right]))
    found += (b - s) * _lanes(np.int64(texels[second + left]))
    return int(found + s * _lanes(np.int64(texels[second + right])))


@inner
def texel(texels: U32, levels: I64, u: float, v: float, level: float, wrap: int) -> Four:
    """Look a texture up; (r, g, b) are roots of linear light."""
    lower = min(int(level), levels.shape[0] - 1)
    share = min(1.0, max(0.0, 2.0 * (level - lower) - 0.5))
    if share >= 1.0 and lower + 1 < levels.shape[0]:
        lower, share = lower + 1, 0.0
    one = _fetch(texels, levels[lower, 0], levels[lower, 1], levels[lower, 2], u, v, wrap)
    p = (1.0 - share) / 65280.0
    r, g = p * (one & 0xFFFF), p * ((one >> 16) & 0xFFFF)
    b, a = p * ((one >> 32) & 0xFFFF), p * ((one >> 48) & 0xFFFF)
    if share > 0.0:
        lower = min(lower + 1, levels.shape[0] - 1)
        two = _fetch(texels, levels[lower, 0], levels[lower, 1], levels[lower, 2], u, v, wrap)
        p = share / 65280.0
        r, g = r + p * (two & 0xFFFF), g + p * ((two >> 16) & 0xFFFF)
        b, a = b + p * ((two >> 32) & 0xFFFF), a + p * ((two >> 48) & 0xFFFF)
    return r, g, b, a
