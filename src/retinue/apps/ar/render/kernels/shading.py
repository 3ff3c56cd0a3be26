"""Shades pixels that are known to be seen."""

from __future__ import annotations

import numpy as np

from retinue.apps.ar.render.kernels._compile import compiled, inner
from retinue.apps.ar.render.kernels._light import light, unit
from retinue.apps.ar.render.kernels._texture import texel
from retinue.apps.ar.render.kernels._types import (
    AT_PIXELS,
    BLEND,
    F32,
    F64,
    I32,
    I64,
    U32,
    UNLIT,
    Four,
    Look,
    Mesh,
    Pixels,
    Six,
    Three,
)

Corner = tuple[int, int, int]


@inner
def mixed(carried: F32, corner: Corner, share: Three, column: int) -> float:
    """Return what a pixel has of a column that vertices carry."""
    return float(
        share[0] * carried[corner[0], column]
        + share[1] * carried[corner[1], column]
        + share[2] * carried[corner[2], column]
    )


@inner
def looked_up(
    carried: F32, corner: Corner, share: Three, texels: U32, levels: I64, wrap: int
) -> Four:
    """Return a pixel's texel."""
    u, v = mixed(carried, corner, share, 10), mixed(carried, corner, share, 11)
    return texel(texels, levels, u, v, mixed(carried, corner, share, 12), wrap)


@inner
def _shares(corners: I64, nearness: F64, corner: Corner, row: int, column: int) -> Three:
    """Return how much of each corner a pixel's middle has, in space."""
    i, j, k = corner
    ax, ay, bx, by = corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1]
    cx, cy = corners[k, 0], corners[k, 1]
    x, y = (column << 8) + 128, (row << 8) + 128
    a = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) * nearness[i]
    b = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) * nearness[j]
    c = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * nearness[k]
    whole = 1.0 / (a + b + c)
    return a * whole, b * whole, c * whole


@inner
def _lit(studio: F64, surface: F64, lighting: int, m: Six) -> Six:
    """Return gain and shine from what the pixel has of both, or of normal and view."""
    if lighting == AT_PIXELS:
        return light(studio, surface, unit(m[0], m[1], m[2]), unit(m[3], m[4], m[5]))
    return m


@inner
def _byte(studio: F64, linear: float, alpha: float) -> int:
    """Return linear light as sRGB, premultiplied."""
    s = np.sqrt(min(1.0, max(0.0, linear)))
    srgb = 12.92 * s * s
    if s >= studio[52]:
        srgb = (((studio[51] * s + studio[50]) * s + studio[49]) * s + studio[48]) * s + studio[47]
    return int(min(1.0, srgb) * alpha * 255.0 + 0.5)


@inner
def _lay(studio: F64, image: Pixels, row: int, column: int, color: Three, alpha: float) -> None:
    over = int(alpha * 255.0 + 0.5)
    if over == 255:
        for k in range(3):
            image[row, column, k] = _byte(studio, color[k], 1.0)
        image[row, column, 3] = 255
    elif over > 0:
        rest = 255 - over
        for k in range(3):
            kept = (image[row, column, k] * rest + 127) // 255
            image[row, column, k] = _byte(studio, color[k], alpha) + kept
        image[row, column, 3] = over + (image[row, column, 3] * rest + 127) // 255


@compiled
def shade(fragments: I32, count: int, mesh: Mesh, look: Look, image: Pixels) -> None:
    """Shade pixels and lay each over what is there.

    Args:
        fragments: (F, 3): row, column, triangle.
        count: How many of them there are.
        mesh: Whose.
        look: Its surface.
        image: (H, W, 4).
    """
    triangles, corners, nearness, carried = mesh
    studio, surface, texels, levels, flags = look
    lighting, blended = flags[0], flags[1] == BLEND
    glow = 0.0 if lighting == UNLIT else 1.0
    for f in range(count):
        row, column, t = fragments[f, 0], fragments[f, 1], fragments[f, 2]
        at = (triangles[t, 0], triangles[t, 1], triangles[t, 2])
        share = _shares(corners, nearness, at, row, column)
        red, green, blue, tint, cut = surface[0], surface[1], surface[2], surface[3], 1.0
        if flags[4]:
            red, green = mixed(carried, at, share, 6), mixed(carried, at, share, 7)
            blue, tint = mixed(carried, at, share, 8), mixed(carried, at, share, 9)
        if levels.shape[0]:
            seen = looked_up(carried, at, share, texels, levels, flags[2])
            # Textures are roots of light.
            red, green = red * seen[0] * seen[0], green * seen[1] * seen[1]
            blue, cut = blue * seen[2] * seen[2], seen[3]
        m = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
        if lighting != UNLIT:
            a, b = mixed(carried, at, share, 0), mixed(carried, at, share, 1)
            c, d = mixed(carried, at, share, 2), mixed(carried, at, share, 3)
            e, g = mixed(carried, at, share, 4), mixed(carried, at, share, 5)
            m = _lit(studio, surface, lighting, (a, b, c, d, e, g))
        red, green = red * m[0] + glow * surface[6], green * m[1] + glow * surface[7]
        blue = blue * m[2] + glow * surface[8]
        alpha, whole = 1.0, 1.0
        if blended:
            alpha = 1.0 - (1.0 - tint) * (1.0 - min(1.0, max(m[3], m[4], m[5])))
            whole = 1.0 / max(alpha, 1e-6)
            red, green, blue, alpha = red * tint, green * tint, blue * tint, alpha * cut
        color = ((red + m[3]) * whole, (green + m[4]) * whole, (blue + m[5]) * whole)
        _lay(studio, image, row, column, color, alpha * surface[10])
