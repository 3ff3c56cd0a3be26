"""Shades pixels that are known to be seen.

Many at once: each step is a loop over some hundred pixels whose values lie in a row of memory, so
that the compiler makes vector instructions of it. What vertices carry is linear in the picture once
it is divided by depth, so a triangle's pixels need a sum and a product for each value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retinue.apps.ar.render.kernels._compile import compiled, inner
from retinue.apps.ar.render.kernels._light import light, unit
from retinue.apps.ar.render.kernels._texture import look_up
from retinue.apps.ar.render.kernels._types import (
    AT_PIXELS,
    BLEND,
    DEPTH,
    F32,
    FACTOR,
    I32,
    I64,
    LIGHT,
    OWNS,
    SEEN,
    SHADES,
    TEXEL,
    TILE,
    UNLIT,
    Corner,
    Layers,
    Look,
    Mesh,
    Pixels,
    X,
    Y,
)

F: Any = np.float32
N: Any = np.uint64
_ALPHA = 3


@inner
def _fill(tile: F32, row: int, count: int, value: float) -> None:
    for f in range(N(count)):
        tile[N(row * TILE) + f] = F(value)


@inner
def _planes(
    mesh: Mesh, corner: Corner, first: int, last: int, slopes: tuple[float, ...], tile: F32,
    start: int, count: int,
) -> None:  # fmt: skip
    """Fill in some columns of what vertices carry, for a run of pixels of one triangle."""
    _, _, nearness, carried = mesh
    i, j, k = corner
    bx, by, cx, cy = slopes
    at = N(start)
    for column in range(first, last):
        own = carried[i, column] * nearness[i]
        to_b = carried[j, column] * nearness[j] - own
        to_c = carried[k, column] * nearness[k] - own
        base, right, down = F(own), F(to_b * bx + to_c * cx), F(to_b * by + to_c * cy)
        row = N(column * TILE)
        for f in range(N(count)):
            here = at + f
            x, y = tile[N(X * TILE) + here], tile[N(Y * TILE) + here]
            tile[row + here] = (base + right * x + down * y) * tile[N(DEPTH * TILE) + here]


@inner
def _run(
    fragments: I32, at: int, mesh: Mesh, corner: Corner, flags: I64, textured: bool, tile: F32,
    start: int, count: int,
) -> None:  # fmt: skip
    """Mix what the corners of one triangle carry, for a run of its pixels."""
    _, corners, nearness, _ = mesh
    i, j, k = corner
    ax, ay = corners[i, 0] / 256.0, corners[i, 1] / 256.0
    x1, y1 = corners[j, 0] / 256.0 - ax, corners[j, 1] / 256.0 - ay
    x2, y2 = corners[k, 0] / 256.0 - ax, corners[k, 1] / 256.0 - ay
    inverse = 1.0 / (x1 * y2 - x2 * y1)
    slopes = (y2 * inverse, -x2 * inverse, -y1 * inverse, x1 * inverse)
    to_b, to_c = nearness[j] - nearness[i], nearness[k] - nearness[i]
    base = F(nearness[i])
    right = F(to_b * slopes[0] + to_c * slopes[2])
    down = F(to_b * slopes[1] + to_c * slopes[3])
    left, top = F(0.5 - ax), F(0.5 - ay)
    for f in range(N(count)):
        here = N(start) + f
        y, x = F(fragments[0, N(at) + f]) + top, F(fragments[1, N(at) + f]) + left
        tile[N(X * TILE) + here], tile[N(Y * TILE) + here] = x, y
        tile[N(DEPTH * TILE) + here] = F(1.0) / (base + right * x + down * y)
    if flags[0] != UNLIT:
        _planes(mesh, corner, LIGHT, LIGHT + 6, slopes, tile, start, count)
    if flags[3]:
        _planes(mesh, corner, FACTOR, FACTOR + 4, slopes, tile, start, count)
    if textured:
        _planes(mesh, corner, TEXEL, TEXEL + 3, slopes, tile, start, count)


@inner
def _light_up(studio: F32, surface: F32, tile: F32, count: int) -> None:
    """Make gain and shine of normal and view."""
    for f in range(N(count)):
        a, b, c = tile[f], tile[N(TILE) + f], tile[N(2 * TILE) + f]
        d, e, g = tile[N(3 * TILE) + f], tile[N(4 * TILE) + f], tile[N(5 * TILE) + f]
        m = light(studio, surface, unit(a, b, c), unit(d, e, g))
        tile[f], tile[N(TILE) + f], tile[N(2 * TILE) + f] = m[0], m[1], m[2]
        tile[N(3 * TILE) + f], tile[N(4 * TILE) + f], tile[N(5 * TILE) + f] = m[3], m[4], m[5]


@inner
def _colors(surface: F32, glow: float, blended: bool, tile: F32, count: int) -> None:
    """Make linear colours, not premultiplied, and alpha, of light, factor and texel."""
    red, green, blue = F(glow * surface[6]), F(glow * surface[7]), F(glow * surface[8])
    opacity, one, least = F(surface[10]), F(1.0), F(1e-6)
    for f in range(N(count)):
        tint, cut = tile[N(9 * TILE) + f], tile[N((SEEN + 3) * TILE) + f]
        a, b = tile[N(SEEN * TILE) + f], tile[N((SEEN + 1) * TILE) + f]
        c = tile[N((SEEN + 2) * TILE) + f]
        # Textures are roots of light.
        r = tile[N(6 * TILE) + f] * a * a * tile[f] + red
        g = tile[N(7 * TILE) + f] * b * b * tile[N(TILE) + f] + green
        p = tile[N(8 * TILE) + f] * c * c * tile[N(2 * TILE) + f] + blue
        x, y, z = tile[N(3 * TILE) + f], tile[N(4 * TILE) + f], tile[N(5 * TILE) + f]
        alpha, whole = one, one
        if blended:
            alpha = one - (one - tint) * (one - min(one, max(x, y, z)))
            whole = one / max(alpha, least)
            r, g, p, alpha = r * tint, g * tint, p * tint, alpha * cut
        tile[f], tile[N(TILE) + f] = (r + x) * whole, (g + y) * whole
        tile[N(2 * TILE) + f], tile[N(3 * TILE) + f] = (p + z) * whole, alpha * opacity


@inner
def _encode(studio: F32, tile: F32, count: int) -> None:
    """Make sRGB of linear light, premultiplied, from 0 to 255."""
    a, b, c, d, e = F(studio[47]), F(studio[48]), F(studio[49]), F(studio[50]), F(studio[51])
    threshold, line = F(studio[52]), F(12.92)
    zero, half, one, most = F(0.0), F(0.5), F(1.0), F(255.0)
    for f in range(N(count)):
        alpha = tile[N(_ALPHA * TILE) + f]
        alpha = alpha if alpha < F(254.5 / 255.0) else one
        for k in range(3):
            at = N(k * TILE) + f
            s = np.sqrt(min(one, max(zero, tile[at])))
            curve = (((e * s + d) * s + c) * s + b) * s + a
            srgb = curve if s >= threshold else line * s * s
            tile[at] = min(one, srgb) * alpha * most + half
        tile[N(_ALPHA * TILE) + f] = alpha * most + half


@inner
def _lay(fragments: I32, at: int, tile: F32, count: int, image: Pixels) -> None:
    for f in range(N(count)):
        row, column = N(fragments[0, N(at) + f]), N(fragments[1, N(at) + f])
        over = int(tile[N(_ALPHA * TILE) + f])
        if over == 255:
            for k in range(3):
                image[row, column, k] = int(tile[N(k * TILE) + f])
            image[row, column, 3] = 255
        elif over > 0:
            rest = 255 - over
            for k in range(4):
                kept = (image[row, column, k] * rest + 127) // 255
                image[row, column, k] = int(tile[N(k * TILE) + f]) + kept


@inner
def _gather(
    fragments: I32, at: int, count: int, mesh: Mesh, look: Look, tile: F32, places: I32
) -> None:
    """Fill a tile: what the vertices of pixels carry, and their texels."""
    triangles = mesh[0]
    _, surface, texels, levels, flags = look
    textured = levels.shape[1] > 0
    f = 0
    while f < count:
        t, first = fragments[2, at + f], f
        while f < count and fragments[2, at + f] == t:
            f += 1
        corner = (triangles[t, 0], triangles[t, 1], triangles[t, 2])
        _run(fragments, at + first, mesh, corner, flags, textured, tile, first, f - first)
    for row in range(4):
        if not flags[3]:
            _fill(tile, FACTOR + row, count, surface[row])
        if not textured:
            _fill(tile, SEEN + row, count, 1.0)
    if textured:
        look_up(texels, levels, flags[2], tile, places, count)


@inner
def _claim(
    fragments: I32, at: int, cutoff: float, owned: bool, number: int, layers: Layers, count: int
) -> None:
    """Write depths, and owners, of pixels that a mask lets be and that are nearer."""
    depth, owner, _, tile, _, _ = layers
    for f in range(N(count)):
        alpha = tile[N((FACTOR + 3) * TILE) + f] * tile[N((SEEN + 3) * TILE) + f]
        row, column = N(fragments[0, N(at) + f]), N(fragments[1, N(at) + f])
        near = F(1.0) / tile[N(DEPTH * TILE) + f]
        if alpha >= cutoff and near > depth[row, column]:
            depth[row, column] = near
            if owned:
                owner[row, column] = number + fragments[2, N(at) + f]


@compiled
def shade(mesh: Mesh, look: Look, mode: int, number: int, total: int, layers: Layers) -> None:
    """Finish pixels that `raster.cover` left waiting, as its mode has it.

    Args:
        mesh: Whose.
        look: Its surface.
        mode: As `raster.cover` had it.
        number: Likewise.
        total: How many pixels wait.
        layers: What is drawn on.
    """
    studio, surface, _, _, flags = look
    _, _, fragments, tile, places, image = layers
    glow = 0.0 if flags[0] == UNLIT else 1.0
    for at in range(0, total, TILE):
        count = min(TILE, total - at)
        _gather(fragments, at, count, mesh, look, tile, places)
        if mode < SHADES:
            _claim(fragments, at, surface[9], mode == OWNS, number, layers, count)
            continue
        if flags[0] == UNLIT:
            for row in range(6):
                _fill(tile, LIGHT + row, count, 1.0 if row < 3 else 0.0)
        elif flags[0] == AT_PIXELS:
            _light_up(studio, surface, tile, count)
        _colors(surface, glow, flags[1] == BLEND, tile, count)
        _encode(studio, tile, count)
        _lay(fragments, at, tile, count, image)
