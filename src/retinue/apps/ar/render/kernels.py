"""The compiled inner loops of the CPU rasteriser: place, cover, shade, smooth.

Numba compiles them when they are first used and keeps the result on disk, by the date of this file
alone: so all of them are in one file, and numbers from other files are arguments. Flags are small
integers, as compiled code knows no enumerations: see the constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Pixels = NDArray[np.uint8]
Three = tuple[float, float, float]

UNLIT: Final = 0
AT_VERTICES: Final = 1
AT_PIXELS: Final = 2
OPAQUE: Final = 0
MASK: Final = 1
BLEND: Final = 2
REPEAT: Final = 0
CLAMP: Final = 1
MIRROR: Final = 2
BOTH: Final = 0
FRONT: Final = 1
BACK: Final = -1
SUBPIXELS: Final = 256
"""Steps of a pixel to which corners are rounded, as graphics cards do."""
COLUMNS: Final = 13
"""Of what vertices carry: gain or normal, shine or view, factor, texture place, level."""


def _compiled(function: F) -> F:
    try:
        made = numba.njit(cache=True, error_model="numpy", nogil=True)(function)
    except RuntimeError:
        # No folder can be written for the cache: compile at each start.
        made = numba.njit(error_model="numpy", nogil=True)(function)
    return made  # type: ignore[return-value]


@_compiled
def _step(low: float, high: float, x: float) -> float:
    t = min(1.0, max(0.0, (x - low) / (high - low)))
    return t * t * (3.0 - 2.0 * t)


@_compiled
def _lamp(studio: F64, at: int, dx: float, dy: float, dz: float, w: float) -> float:
    towards = dx * studio[at] + dy * studio[at + 1] + dz * studio[at + 2]
    if towards <= 1e-4:
        return 0.0
    a, b = studio[at + 9], studio[at + 10]
    x = abs(dx * studio[at + 3] + dy * studio[at + 4] + dz * studio[at + 5]) / towards
    y = abs(dx * studio[at + 6] + dy * studio[at + 7] + dz * studio[at + 8]) / towards
    if x >= a + w or y >= b + w:
        return 0.0
    inside = (1.0 - _step(a - w, a + w, x)) * (1.0 - _step(b - w, b + w, y))
    return studio[at + 11] * inside * (a / (a + 0.5 * w)) * (b / (b + 0.5 * w))


@_compiled
def light(
    studio: F64, n: Three, v: Three, metallic: float, rough: float
) -> tuple[float, float, float, float, float, float]:
    """Return gain and shine, as the formula of `environment` has them."""
    facing = max(n[0] * v[0] + n[1] * v[1] + n[2] * v[2], 1e-3)
    w = studio[18] + studio[19] * rough
    dx, dy, dz = 2 * facing * n[0] - v[0], 2 * facing * n[1] - v[1], 2 * facing * n[2] - v[2]
    lamps = _lamp(studio, 23, dx, dy, dz, w) + _lamp(studio, 35, dx, dy, dz, w)
    wall = _step(-w, w, dy)
    r0 = 1.0 - rough
    edge = min(r0 * r0, 2.0 ** (-9.28 * facing)) * r0 + 0.0425 - 0.0275 * rough
    first = 1.04 - 0.572 * rough - 1.04 * edge
    second = 0.022 * rough - 0.04 + 1.04 * edge
    turned = n[0] * studio[15] + n[1] * studio[16] + n[2] * studio[17]
    key = max(0.0, (turned + studio[20]) / (1.0 + studio[20]))
    sky = 0.5 + 0.5 * n[1]
    plain, mirror = 1.0 - metallic, metallic * first
    share = plain * studio[21] * first + second
    la = studio[0] + (studio[3] - studio[0]) * wall + lamps
    lb = studio[1] + (studio[4] - studio[1]) * wall + lamps
    lc = studio[2] + (studio[5] - studio[2]) * wall + lamps
    da = studio[6] + (studio[9] - studio[6]) * sky + key * studio[12]
    db = studio[7] + (studio[10] - studio[7]) * sky + key * studio[13]
    dc = studio[8] + (studio[11] - studio[8]) * sky + key * studio[14]
    gain = plain * da + mirror * la, plain * db + mirror * lb, plain * dc + mirror * lc
    return gain[0], gain[1], gain[2], share * la, share * lb, share * lc


@_compiled
def place(positions: F32, matrix: F64, placed: F64) -> None:
    """Put (N, 3) vertices into camera space."""
    for i in range(positions.shape[0]):
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        for k in range(3):
            placed[i, k] = matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] * z + matrix[k, 3]


@_compiled
def carry(
    placed: F64,
    normals: F32,
    turn: F64,
    uv: F32,
    density: F32,
    colors: F32,
    surface: F64,
    lighting: int,
    studio: F64,
    carried: F32,
) -> None:
    """Fill in what vertices carry; empty arrays stand for what there is not.

    Args:
        placed: (N, 3) in camera space.
        normals: (N, 3).
        turn: (3, 3) to light space.
        uv: (N, 2).
        density: (N,).
        colors: (N, 4).
        surface: (14,) of `cpu`.
        lighting: Where light is computed.
        studio: Of `cpu`.
        carried: (N, `COLUMNS`), the answer.
    """
    for i in range(placed.shape[0]):
        x, y, z = placed[i, 0], placed[i, 1], placed[i, 2]
        lean = 1.0
        if lighting != UNLIT:
            a, b, c = normals[i, 0], normals[i, 1], normals[i, 2]
            nx = turn[0, 0] * a + turn[0, 1] * b + turn[0, 2] * c
            ny = turn[1, 0] * a + turn[1, 1] * b + turn[1, 2] * c
            nz = turn[2, 0] * a + turn[2, 1] * b + turn[2, 2] * c
            unit = 1.0 / max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-30)
            far = 1.0 / max(np.sqrt(x * x + y * y + z * z), 1e-30)
            n, v = (nx * unit, ny * unit, nz * unit), (-x * far, y * far, z * far)
            facing = n[0] * v[0] + n[1] * v[1] + n[2] * v[2]
            if surface[13] * facing < 0.0:
                n, facing = (-n[0], -n[1], -n[2]), -facing
            lean = min(1.0, max(studio[22], facing))
            found = (n[0], n[1], n[2], v[0], v[1], v[2])
            if lighting == AT_VERTICES:
                found = light(studio, n, v, surface[4], surface[5])
            carried[i, 0], carried[i, 1], carried[i, 2] = found[0], found[1], found[2]
            carried[i, 3], carried[i, 4], carried[i, 5] = found[3], found[4], found[5]
        for k in range(4):
            carried[i, 6 + k] = surface[k] * (colors[i, k] if colors.shape[0] else 1.0)
        if density.shape[0]:
            level = surface[11] + np.log2(max(density[i] * z, 1e-9)) - 0.5 * np.log2(lean)
            carried[i, 10], carried[i, 11] = uv[i, 0], uv[i, 1]
            carried[i, 12] = min(surface[12], max(0.0, level))


@_compiled
def project(placed: F64, seen: F64, corners: I64, nearness: F64) -> None:
    """Fill in pixels in steps of 1 / `SUBPIXELS`, (N, 2), and 1 / depth, (N,), or 0."""
    for i in range(placed.shape[0]):
        x, y, z = placed[i, 0], placed[i, 1], placed[i, 2]
        nearness[i] = 0.0
        if z > 1e-6:
            u = (seen[0, 0] * x + seen[0, 1] * y) / z + seen[0, 2]
            v = (seen[1, 0] * x + seen[1, 1] * y) / z + seen[1, 2]
            # Beyond this, products of corners would not fit into 64 bits.
            if abs(u) < 2e6 and abs(v) < 2e6:
                corners[i, 0] = np.int64(np.floor(u * SUBPIXELS + 0.5))
                corners[i, 1] = np.int64(np.floor(v * SUBPIXELS + 0.5))
                nearness[i] = 1.0 / z


@_compiled
def _fetch(
    texels: Pixels, at: int, width: int, height: int, u: float, v: float, wrap: int
) -> tuple[float, float, float, float]:
    """Look a level up between its texels; (r, g, b) are roots of linear light."""
    if wrap == REPEAT:
        u, v = u - np.floor(u), v - np.floor(v)
    elif wrap == MIRROR:
        u, v = (
            1.0 - abs(u - 2.0 * np.floor(u / 2.0) - 1.0),
            1.0 - abs(v - 2.0 * np.floor(v / 2.0) - 1.0),
        )
    else:
        u, v = min(1.0, max(0.0, u)), min(1.0, max(0.0, v))
    x, y = u * width - 0.5, v * height - 0.5
    left, top = int(np.floor(x)), int(np.floor(y))
    a, b = x - left, y - top
    right, low = left + 1, top + 1
    if wrap == REPEAT:
        left, right = (left + width) % width, right % width
        top, low = (top + height) % height, low % height
    else:
        left, right = max(0, left), min(width - 1, right)
        top, low = max(0, top), min(height - 1, low)
    first, second = at + 4 * (top * width + left), at + 4 * (top * width + right)
    third, fourth = at + 4 * (low * width + left), at + 4 * (low * width + right)
    p, q, r, s = (1 - a) * (1 - b) / 255, a * (1 - b) / 255, (1 - a) * b / 255, a * b / 255
    return (
        p * texels[first] + q * texels[second] + r * texels[third] + s * texels[fourth],
        p * texels[first + 1]
        + q * texels[second + 1]
        + r * texels[third + 1]
        + s * texels[fourth + 1],
        p * texels[first + 2]
        + q * texels[second + 2]
        + r * texels[third + 2]
        + s * texels[fourth + 2],
        p * texels[first + 3]
        + q * texels[second + 3]
        + r * texels[third + 3]
        + s * texels[fourth + 3],
    )


@_compiled
def _texel(
    texels: Pixels, levels: I64, u: float, v: float, level: float, wrap: int
) -> tuple[float, float, float, float]:
    lower = min(int(level), levels.shape[0] - 1)
    share = level - lower
    found = _fetch(texels, levels[lower, 0], levels[lower, 1], levels[lower, 2], u, v, wrap)
    if share <= 0.0 or lower + 1 >= levels.shape[0]:
        return found
    at, width, height = levels[lower + 1, 0], levels[lower + 1, 1], levels[lower + 1, 2]
    other = _fetch(texels, at, width, height, u, v, wrap)
    return (
        found[0] + share * (other[0] - found[0]),
        found[1] + share * (other[1] - found[1]),
        found[2] + share * (other[2] - found[2]),
        found[3] + share * (other[3] - found[3]),
    )


@_compiled
def _byte(studio: F64, linear: float, alpha: float) -> int:
    s = np.sqrt(min(1.0, max(0.0, linear)))
    srgb = 12.92 * s * s
    if s >= studio[52]:
        srgb = (((studio[51] * s + studio[50]) * s + studio[49]) * s + studio[48]) * s + studio[47]
    return int(min(1.0, srgb) * alpha * 255.0 + 0.5)


@_compiled
def _shade(
    studio: F64,
    surface: F64,
    carried: F32,
    corner: tuple[int, int, int],
    share: Three,
    texels: Pixels,
    levels: I64,
    flags: I64,
    pixel: Pixels,
) -> None:
    """Shade one pixel and lay it over what is there."""
    i, j, k = corner
    a, b, c = share
    lighting, alpha_mode = flags[0], flags[1]
    m = np.empty(COLUMNS)
    for column in range(COLUMNS if levels.shape[0] else 10):
        m[column] = a * carried[i, column] + b * carried[j, column] + c * carried[k, column]
    found = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
    if lighting == AT_VERTICES:
        found = (m[0], m[1], m[2], m[3], m[4], m[5])
    elif lighting == AT_PIXELS:
        p = 1.0 / max(np.sqrt(m[0] * m[0] + m[1] * m[1] + m[2] * m[2]), 1e-30)
        q = 1.0 / max(np.sqrt(m[3] * m[3] + m[4] * m[4] + m[5] * m[5]), 1e-30)
        n, v = (m[0] * p, m[1] * p, m[2] * p), (m[3] * q, m[4] * q, m[5] * q)
        found = light(studio, n, v, surface[4], surface[5])
    red, green, blue, tint, cut = m[6], m[7], m[8], m[9], 1.0
    if levels.shape[0]:
        t = _texel(texels, levels, m[10], m[11], m[12], flags[2])
        red, green, blue, cut = red * t[0] * t[0], green * t[1] * t[1], blue * t[2] * t[2], t[3]
    glow = 0.0 if lighting == UNLIT else 1.0
    red = red * found[0] + glow * surface[6]
    green = green * found[1] + glow * surface[7]
    blue = blue * found[2] + glow * surface[8]
    alpha, part = surface[10], 1.0
    if alpha_mode == BLEND:
        bright = min(1.0, max(found[3], found[4], found[5]))
        alpha = 1.0 - (1.0 - tint) * (1.0 - bright)
        part = 1.0 / max(alpha, 1e-6)
        red, green, blue = red * tint, green * tint, blue * tint
        alpha *= cut * surface[10]
    over = int(alpha * 255.0 + 0.5)
    if over == 0:
        return
    rest = 255 - over
    pixel[0] = _byte(studio, (red + found[3]) * part, alpha) + (pixel[0] * rest + 127) // 255
    pixel[1] = _byte(studio, (green + found[4]) * part, alpha) + (pixel[1] * rest + 127) // 255
    pixel[2] = _byte(studio, (blue + found[5]) * part, alpha) + (pixel[2] * rest + 127) // 255
    pixel[3] = over + (pixel[3] * rest + 127) // 255


@_compiled
def _kept(
    surface: F64,
    carried: F32,
    corner: tuple[int, int, int],
    share: Three,
    texels: Pixels,
    levels: I64,
    flags: I64,
) -> bool:
    """Say whether a masked pixel is there."""
    i, j, k = corner
    a, b, c = share
    alpha = a * carried[i, 9] + b * carried[j, 9] + c * carried[k, 9]
    if levels.shape[0]:
        u = a * carried[i, 10] + b * carried[j, 10] + c * carried[k, 10]
        v = a * carried[i, 11] + b * carried[j, 11] + c * carried[k, 11]
        level = a * carried[i, 12] + b * carried[j, 12] + c * carried[k, 12]
        alpha *= _texel(texels, levels, u, v, level, flags[2])[3]
    return alpha >= surface[9]


@_compiled
def _owns(dx: int, dy: int) -> int:
    """Return 0 where an edge owns the pixels that it hits: left and upper ones do; else -1."""
    return 0 if dy < 0 or (dy == 0 and dx > 0) else -1


@_compiled
def cover(
    triangles: I32,
    corners: I64,
    nearness: F64,
    carried: F32,
    surface: F64,
    texels: Pixels,
    levels: I64,
    flags: I64,
    number: int,
    studio: F64,
    depth: F32,
    owner: I32,
    image: Pixels,
) -> None:
    """Find the pixels of triangles that are nearer than what is there.

    Args:
        triangles: (M, 3).
        corners: (N, 2) of `project`.
        nearness: (N,) of `project`; triangles with a vertex of 0 are left out.
        carried: (N, `COLUMNS`) of `carry`.
        surface: (14,) of `cpu`.
        texels: Of all levels; empty without a texture.
        levels: (L, 3): start, width, height of each; empty without a texture.
        flags: Lighting, alpha mode, wrap, sign of the area of triangles that are drawn (0: both),
            and whether pixels are shaded at once, which leaves depth as it is.
        number: To be written to ``owner``; negative for depth alone.
        studio: Of `cpu`.
        depth: (H, W) of 1 / depth.
        owner: (H, W, 2): number and triangle.
        image: (H, W, 4).
    """
    height, width = depth.shape
    masked, sign, at_once = flags[1] == MASK, flags[3], flags[4]
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ni, nj, nk = nearness[i], nearness[j], nearness[k]
        if ni == 0.0 or nj == 0.0 or nk == 0.0:
            continue
        ax, ay, bx, by = corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1]
        cx, cy = corners[k, 0], corners[k, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0 or area * sign < 0:
            continue
        if area < 0:
            j, k, nj, nk = k, j, nk, nj
            bx, by, cx, cy, area = cx, cy, bx, by, -area
        # Pixels whose middle lies within: 128 of 256 steps are half a pixel.
        left, right = (
            max(0, (min(ax, bx, cx) + 127) >> 8),
            min(width - 1, (max(ax, bx, cx) - 128) >> 8),
        )
        top, low = (
            max(0, (min(ay, by, cy) + 127) >> 8),
            min(height - 1, (max(ay, by, cy) - 128) >> 8),
        )
        if left > right or top > low:
            continue
        x, y = (left << 8) + 128, (top << 8) + 128
        ra = (cx - bx) * (y - by) - (cy - by) * (x - bx) + _owns(cx - bx, cy - by)
        rb = (ax - cx) * (y - cy) - (ay - cy) * (x - cx) + _owns(ax - cx, ay - cy)
        rc = (bx - ax) * (y - ay) - (by - ay) * (x - ax) + _owns(bx - ax, by - ay)
        ni, nj, nk = ni / area, nj / area, nk / area
        for row in range(top, low + 1):
            ea, eb, ec = ra, rb, rc
            for column in range(left, right + 1):
                if (ea | eb | ec) >= 0:
                    near = ea * ni + eb * nj + ec * nk
                    if near > depth[row, column]:
                        share = (ea * ni / near, eb * nj / near, ec * nk / near)
                        if at_once:
                            _shade(
                                studio,
                                surface,
                                carried,
                                (i, j, k),
                                share,
                                texels,
                                levels,
                                flags,
                                image[row, column],
                            )
                        elif not masked or _kept(
                            surface, carried, (i, j, k), share, texels, levels, flags
                        ):
                            depth[row, column] = near
                            if number >= 0:
                                owner[row, column, 0] = number
                                owner[row, column, 1] = t
                ea -= (cy - by) << 8
                eb -= (ay - cy) << 8
                ec -= (by - ay) << 8
            ra += (cx - bx) << 8
            rb += (ax - cx) << 8
            rc += (bx - ax) << 8


@_compiled
def shade(
    triangles: I32,
    corners: I64,
    nearness: F64,
    carried: F32,
    surface: F64,
    texels: Pixels,
    levels: I64,
    flags: I64,
    number: int,
    studio: F64,
    owner: I32,
    image: Pixels,
) -> None:
    """Shade each pixel that `cover` gave to a number; see there."""
    for row in range(owner.shape[0]):
        for column in range(owner.shape[1]):
            if owner[row, column, 0] != number:
                continue
            t = owner[row, column, 1]
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            ax, ay, bx, by = corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1]
            cx, cy = corners[k, 0], corners[k, 1]
            x, y = (column << 8) + 128, (row << 8) + 128
            ea = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) * nearness[i]
            eb = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) * nearness[j]
            ec = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * nearness[k]
            whole = ea + eb + ec
            share = (ea / whole, eb / whole, ec / whole)
            _shade(
                studio,
                surface,
                carried,
                (i, j, k),
                share,
                texels,
                levels,
                flags,
                image[row, column],
            )


@_compiled
def smooth(
    drawn: Pixels, plane: Pixels, places: I32, stride: int, pad: int, reach: I32, made: Pixels
) -> None:
    """Do what `render.smooth` does; ``made`` is a copy of ``drawn``, and is changed."""
    for place_ in places:
        row, column = place_ // stride - pad, place_ % stride - pad
        at = np.int64(place_)
        n, s, w, e = (
            np.int64(plane[at - stride]),
            np.int64(plane[at + stride]),
            np.int64(plane[at - 1]),
            np.int64(plane[at + 1]),
        )
        nw, ne = np.int64(plane[at - stride - 1]), np.int64(plane[at - stride + 1])
        sw, se, m = (
            np.int64(plane[at + stride - 1]),
            np.int64(plane[at + stride + 1]),
            np.int64(plane[at]),
        )
        lies = abs(nw + sw - 2 * w) + 2 * abs(n + s - 2 * m) + abs(ne + se - 2 * e)
        stands = abs(nw + ne - 2 * n) + 2 * abs(w + e - 2 * m) + abs(sw + se - 2 * s)
        flat = lies >= stands
        first, second = (n, s) if flat else (w, e)
        upper = abs(first - m) >= abs(second - m)
        before = m + (first if upper else second)
        sign = -1 if upper else 1
        across, along = (sign * stride, 1) if flat else (sign, stride)
        spread = max(n, s, e, w, m) - min(n, s, e, w, m)
        x = min(256, abs(2 * (n + s + e + w) + nw + ne + sw + se - 12 * m) * 256 // (12 * spread))
        curve = ((768 - 2 * x) * x * x) >> 16
        most = (curve * curve) >> 9
        back, back_sum = _end(plane, at, across, -along, before, reach)
        ahead, ahead_sum = _end(plane, at, across, along, before, reach)
        end = back_sum if back < ahead else ahead_sum
        if (end - before < 0) != (2 * m - before < 0):
            most = max(most, 128 - 256 * min(back, ahead) // (back + ahead))
        down, right = (sign, 0) if flat else (0, sign)
        for k in range(4):
            mixed = (
                drawn[row, column, k] * (256 - most) + drawn[row + down, column + right, k] * most
            )
            made[row, column, k] = (mixed + 128) >> 8


@_compiled
def _end(
    plane: Pixels, at: int, across: int, along: int, before: int, reach: I32
) -> tuple[int, int]:
    limit = abs(before - 2 * np.int64(plane[at]))
    last, total = 0, before
    for step in reach:
        place_ = at + step * along
        total = np.int64(plane[place_]) + np.int64(plane[place_ + across])
        if 2 * abs(total - before) >= limit:
            return step + last, total
        last = step
    return 2 * reach[-1], total
