"""Looks textures up: bilinear, and between two levels where a pixel lies between them."""

from __future__ import annotations

from typing import Any

import numpy as np

from retinue.apps.ar.render.kernels._compile import inner
from retinue.apps.ar.render.kernels._types import (
    F32,
    I32,
    MIRROR,
    REPEAT,
    SEEN,
    TEXEL,
    TILE,
)

F: Any = np.float32
N: Any = np.uint64
INT: Any = np.int32
# Rows of places: the level; its start, width and height; the four texels around, first where they
# are and then what they are; shares to the right and down.
_SIZE, _AROUND, _RIGHT, _DOWN = 1, 4, 8, 9


@inner
def _levels(last: int, tile: F32, places: I32, count: int) -> bool:
    """Find each pixel's level, and how much it has of the next one; say whether any has."""
    top, some = F(last), 0
    for f in range(N(count)):
        at = N((TEXEL + 2) * TILE) + f
        level = min(np.floor(tile[at]), top)
        share = min(F(1.0), max(F(0.0), F(2.0) * (tile[at] - level) - F(0.5)))
        whole = share >= F(1.0) and level < top
        places[f] = INT(level + F(1.0) if whole else level)
        share = F(0.0) if whole else share
        tile[at] = share
        some |= INT(share * F(1024.0))
    return some != 0


@inner
def _sizes(levels: I32, later: int, places: I32, count: int) -> None:
    """Look up where each pixel's level, or the next one, starts, and its width and height."""
    last = levels.shape[1] - 1
    for f in range(N(count)):
        level = N(min(places[f] + later, last))
        for k in range(3):
            places[N((_SIZE + k) * TILE) + f] = levels[k, level]


@inner
def _wrapped(place: float, wrap: int) -> Any:
    """Bring a place into the texture, from 0 to 1."""
    if wrap == REPEAT:
        return place - np.floor(place)
    if wrap == MIRROR:
        return F(1.0) - abs(place - F(2.0) * np.floor(place * F(0.5)) - F(1.0))
    return min(F(1.0), max(F(0.0), place))


@inner
def _sides(place: float, size: float, repeats: bool) -> tuple[Any, Any, Any]:
    """Return the texels on both sides of a place, and the share of the second in 256 steps."""
    # Steps of a texel's 256th, as graphics cards take them.
    step = np.floor(place * size * F(256.0) + F(0.5)) - F(128.0)
    before = np.floor(step * F(1.0 / 256.0))
    share, after, last = step - before * F(256.0), before + F(1.0), size - F(1.0)
    low, high = (last, F(0.0)) if repeats else (F(0.0), last)
    return low if before < F(0.0) else before, high if after > last else after, share


@inner
def _around(wrap: int, tile: F32, places: I32, count: int) -> None:
    """Find the four texels around each pixel's place."""
    repeats = wrap == REPEAT
    for f in range(N(count)):
        start, width = places[N(_SIZE * TILE) + f], places[N((_SIZE + 1) * TILE) + f]
        height = places[N((_SIZE + 2) * TILE) + f]
        u = _wrapped(tile[N(TEXEL * TILE) + f], wrap)
        v = _wrapped(tile[N((TEXEL + 1) * TILE) + f], wrap)
        left, right, across = _sides(u, F(width), repeats)
        top, low, down = _sides(v, F(height), repeats)
        first, second = INT(top) * width + start, INT(low) * width + start
        places[N(_AROUND * TILE) + f] = first + INT(left)
        places[N((_AROUND + 1) * TILE) + f] = first + INT(right)
        places[N((_AROUND + 2) * TILE) + f] = second + INT(left)
        places[N((_AROUND + 3) * TILE) + f] = second + INT(right)
        places[N(_RIGHT * TILE) + f], places[N(_DOWN * TILE) + f] = INT(across), INT(down)


@inner
def _fetch(texels: I32, places: I32, count: int) -> None:
    for f in range(N(count)):
        for k in range(4):
            at = N((_AROUND + k) * TILE) + f
            places[at] = texels[N(places[at])]


@inner
def _byte(texel: int, number: int) -> Any:
    return F(INT((texel >> 8 * number) & 255))


@inner
def _between(later: int, tile: F32, places: I32, count: int) -> None:
    """Mix the texels around; roots of linear light, weighted by what a pixel has of the level."""
    for f in range(N(count)):
        one, two = places[N(_AROUND * TILE) + f], places[N((_AROUND + 1) * TILE) + f]
        three = places[N((_AROUND + 2) * TILE) + f]
        four = places[N((_AROUND + 3) * TILE) + f]
        a, b = places[N(_RIGHT * TILE) + f], places[N(_DOWN * TILE) + f]
        both = (a * b + 128) >> 8
        p, q, r = F(INT(256 - a - b + both)), F(INT(a - both)), F(INT(b - both))
        s = F(INT(both))
        share = tile[N((TEXEL + 2) * TILE) + f]
        weight = (share if later else F(1.0) - share) * F(1.0 / 65280.0)
        for k in range(4):
            # 1 is 255 * 256, and all sums are whole numbers.
            mixed = p * _byte(one, k) + q * _byte(two, k) + r * _byte(three, k) + s * _byte(four, k)
            at = N((SEEN + k) * TILE) + f
            tile[at] = tile[at] + weight * mixed if later else weight * mixed


@inner
def look_up(texels: I32, levels: I32, wrap: int, tile: F32, places: I32, count: int) -> None:
    """Make texels of the places and levels in a tile's rows from `TEXEL` on, in those of `SEEN`."""
    mixes = _levels(levels.shape[1] - 1, tile, places, count)
    for later in range(2):
        if later == 0 or mixes:
            _sizes(levels, later, places, count)
            _around(wrap, tile, places, count)
            _fetch(texels, places, count)
            _between(later, tile, places, count)
