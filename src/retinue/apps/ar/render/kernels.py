"""The compiled inner loops of the CPU rasteriser: place, cover, shade, smooth, lay.

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
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Pixels = NDArray[np.uint8]
Texels = NDArray[np.int64]
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
HIDES: Final = -1
AT_ONCE: Final = -2
SUBPIXELS: Final = 256
"""Steps of a pixel to which corners are rounded, as graphics cards do."""
COLUMNS: Final = 13
"""Of what vertices carry: gain or normal, shine or view, factor, texture place, level."""


def _compiled(function: F) -> F:
    # "_nrt": nothing is allocated here, and counting references to arrays takes a third of the
    # time. A Numba that knows no such option goes on without.
    options: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}
    try:
        return _made(function, options)
    except (KeyError, TypeError):
        return _made(function, {"error_model": "numpy", "nogil": True})


def _made(function: F, options: dict[str, Any]) -> F:
    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # No folder can be written for the cache: compile at each start.
        made = numba.njit(**options)(function)
    return made  # type: ignore[no-any-return]


@_compiled
def _step(half: float, share: float, x: float) -> float:
    """Return a smooth step from -half to half; share is 1 / (2 half)."""
    t = min(1.0, max(0.0, (x + half) * share))
    return t * t * (3.0 - 2.0 * t)


@_compiled
def _lamp(studio: F64, at: int, d: Three, half: float, share: float) -> float:
    towards = d[0] * studio[at] + d[1] * studio[at + 1] + d[2] * studio[at + 2]
    if towards <= 1e-4:
        return 0.0
    a, b = studio[at + 9], studio[at + 10]
    x = abs(d[0] * studio[at + 3] + d[1] * studio[at + 4] + d[2] * studio[at + 5])
    y = abs(d[0] * studio[at + 6] + d[1] * studio[at + 7] + d[2] * studio[at + 8])
    if x >= (a + half) * towards or y >= (b + half) * towards:
        return 0.0
    near = 1.0 / towards
    return (1.0 - _step(half, share, x * near - a)) * (1.0 - _step(half, share, y * near - b))


@_compiled
def light(
    studio: F64, surface: F64, n: Three, v: Three
) -> tuple[float, float, float, float, float, float]:
    """Return gain and shine, as the formula of `environment` has them."""
    metallic, rough, w, across = surface[4], surface[5], surface[14], surface[15]
    facing = max(n[0] * v[0] + n[1] * v[1] + n[2] * v[2], 1e-3)
    double = 2.0 * facing
    d = (double * n[0] - v[0], double * n[1] - v[1], double * n[2] - v[2])
    lamps = surface[16] * _lamp(studio, 23, d, w, across)
    lamps += surface[17] * _lamp(studio, 35, d, w, across)
    wall = _step(w, across, d[1])
    r0 = 1.0 - rough
    power = 1.0 - 0.201 * facing
    for _ in range(5):
        power *= power
    edge = min(r0 * r0, power) * r0 + 0.0425 - 0.0275 * rough
    first = 1.04 - 0.572 * rough - 1.04 * edge
    second = 0.022 * rough - 0.04 + 1.04 * edge
    turned = n[0] * studio[15] + n[1] * studio[16] + n[2] * studio[17]
    key = max(0.0, (turned + studio[20]) * studio[53])
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
        surface: Of `cpu`.
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
                found = light(studio, surface, n, v)
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
def _lanes(texel: int) -> int:
    """Spread four bytes over four lanes of 16 bits."""
    low = (texel & 0xFF) | (texel & 0xFF00) << 8
    return low | (texel & 0xFF0000) << 16 | (texel & 0xFF000000) << 24


@_compiled
def _fetch(texels: Texels, at: int, width: int, height: int, u: float, v: float, wrap: int) -> int:
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
    found = (256 - a - b + s) * _lanes(texels[first + left])
    found += (a - s) * _lanes(texels[first + right])
    found += (b - s) * _lanes(texels[second + left])
    return int(found + s * _lanes(texels[second + right]))


@_compiled
def _texel(
    texels: Texels, levels: I64, u: float, v: float, level: float, wrap: int
) -> tuple[float, float, float, float]:
    """Look a texture up; (r, g, b) are roots of linear light."""
    lower = min(int(level), levels.shape[0] - 1)
    share = level - lower
    one = _fetch(texels, levels[lower, 0], levels[lower, 1], levels[lower, 2], u, v, wrap)
    p = (1.0 - share) / 65280.0
    r, g = p * (one & 0xFFFF), p * ((one >> 16) & 0xFFFF)
    b, a = p * ((one >> 32) & 0xFFFF), p * ((one >> 48) & 0xFFFF)
    if share > 0.0 and lower + 1 < levels.shape[0]:
        at, width, height = levels[lower + 1, 0], levels[lower + 1, 1], levels[lower + 1, 2]
        two = _fetch(texels, at, width, height, u, v, wrap)
        p = share / 65280.0
        r, g = r + p * (two & 0xFFFF), g + p * ((two >> 16) & 0xFFFF)
        b, a = b + p * ((two >> 32) & 0xFFFF), a + p * ((two >> 48) & 0xFFFF)
    return r, g, b, a


@_compiled
def _byte(studio: F64, linear: float, alpha: float) -> int:
    s = np.sqrt(min(1.0, max(0.0, linear)))
    srgb = 12.92 * s * s
    if s >= studio[52]:
        srgb = (((studio[51] * s + studio[50]) * s + studio[49]) * s + studio[48]) * s + studio[47]
    return int(min(1.0, srgb) * alpha * 255.0 + 0.5)


@_compiled
def shade(
    fragments: I32,
    count: int,
    triangles: I32,
    corners: I64,
    nearness: F64,
    carried: F32,
    surface: F64,
    texels: Texels,
    levels: I64,
    flags: I64,
    studio: F64,
    image: Pixels,
) -> None:
    """Shade pixels and lay each over what is there.

    Args:
        fragments: (F, 3): row, column, triangle.
        count: How many of them there are.
        triangles: And what follows: as `cover` has it.
    """
    lighting, blended, wrap, textured = flags[0], flags[1] == BLEND, flags[2], levels.shape[0] > 0
    glow = 0.0 if lighting == UNLIT else 1.0
    for f in range(count):
        row, column, t = fragments[f, 0], fragments[f, 1], fragments[f, 2]
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by = corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1]
        cx, cy = corners[k, 0], corners[k, 1]
        x, y = (column << 8) + 128, (row << 8) + 128
        a = ((cx - bx) * (y - by) - (cy - by) * (x - bx)) * nearness[i]
        b = ((ax - cx) * (y - cy) - (ay - cy) * (x - cx)) * nearness[j]
        c = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) * nearness[k]
        whole = 1.0 / (a + b + c)
        a, b, c = a * whole, b * whole, c * whole
        red, green = (
            a * carried[i, 6] + b * carried[j, 6] + c * carried[k, 6],
            a * carried[i, 7] + b * carried[j, 7] + c * carried[k, 7],
        )
        blue, tint = (
            a * carried[i, 8] + b * carried[j, 8] + c * carried[k, 8],
            a * carried[i, 9] + b * carried[j, 9] + c * carried[k, 9],
        )
        cut = 1.0
        if textured:
            s0, s1 = (
                a * carried[i, 10] + b * carried[j, 10] + c * carried[k, 10],
                a * carried[i, 11] + b * carried[j, 11] + c * carried[k, 11],
            )
            look = _texel(
                texels,
                levels,
                s0,
                s1,
                a * carried[i, 12] + b * carried[j, 12] + c * carried[k, 12],
                wrap,
            )
            red, green, blue = (
                red * look[0] * look[0],
                green * look[1] * look[1],
                blue * look[2] * look[2],
            )
            cut = look[3]
        p, q, r = 0.0, 0.0, 0.0
        if lighting != UNLIT:
            ga, gb, gc = (
                a * carried[i, 0] + b * carried[j, 0] + c * carried[k, 0],
                a * carried[i, 1] + b * carried[j, 1] + c * carried[k, 1],
                a * carried[i, 2] + b * carried[j, 2] + c * carried[k, 2],
            )
            p, q, r = (
                a * carried[i, 3] + b * carried[j, 3] + c * carried[k, 3],
                a * carried[i, 4] + b * carried[j, 4] + c * carried[k, 4],
                a * carried[i, 5] + b * carried[j, 5] + c * carried[k, 5],
            )
            if lighting == AT_PIXELS:
                unit = 1.0 / max(np.sqrt(ga * ga + gb * gb + gc * gc), 1e-30)
                far = 1.0 / max(np.sqrt(p * p + q * q + r * r), 1e-30)
                n = (ga * unit, gb * unit, gc * unit)
                ga, gb, gc, p, q, r = light(studio, surface, n, (p * far, q * far, r * far))
            red, green, blue = red * ga, green * gb, blue * gc
        red, green, blue = (
            red + glow * surface[6],
            green + glow * surface[7],
            blue + glow * surface[8],
        )
        alpha, part = surface[10], 1.0
        if blended:
            alpha = 1.0 - (1.0 - tint) * (1.0 - min(1.0, max(p, q, r)))
            part = 1.0 / max(alpha, 1e-6)
            red, green, blue = red * tint, green * tint, blue * tint
            alpha *= cut * surface[10]
        over = int(alpha * 255.0 + 0.5)
        if over == 255:
            image[row, column, 0] = _byte(studio, (red + p) * part, 1.0)
            image[row, column, 1] = _byte(studio, (green + q) * part, 1.0)
            image[row, column, 2] = _byte(studio, (blue + r) * part, 1.0)
            image[row, column, 3] = 255
        elif over > 0:
            rest = 255 - over
            image[row, column, 0] = (
                _byte(studio, (red + p) * part, alpha) + (image[row, column, 0] * rest + 127) // 255
            )
            image[row, column, 1] = (
                _byte(studio, (green + q) * part, alpha)
                + (image[row, column, 1] * rest + 127) // 255
            )
            image[row, column, 2] = (
                _byte(studio, (blue + r) * part, alpha)
                + (image[row, column, 2] * rest + 127) // 255
            )
            image[row, column, 3] = over + (image[row, column, 3] * rest + 127) // 255


@_compiled
def _kept(
    surface: F64,
    carried: F32,
    corner: tuple[int, int, int],
    share: Three,
    texels: Texels,
    levels: I64,
    wrap: int,
) -> bool:
    """Say whether a masked pixel is there."""
    i, j, k = corner
    a, b, c = share
    alpha = a * carried[i, 9] + b * carried[j, 9] + c * carried[k, 9]
    if levels.shape[0]:
        u = a * carried[i, 10] + b * carried[j, 10] + c * carried[k, 10]
        v = a * carried[i, 11] + b * carried[j, 11] + c * carried[k, 11]
        level = a * carried[i, 12] + b * carried[j, 12] + c * carried[k, 12]
        alpha *= _texel(texels, levels, u, v, level, wrap)[3]
    return bool(alpha >= surface[9])


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
    texels: Texels,
    levels: I64,
    flags: I64,
    studio: F64,
    image: Pixels,
    number: int,
    depth: F32,
    owner: I32,
    fragments: I32,
) -> None:
    """Find the pixels of triangles that are nearer than what is there.

    Args:
        triangles: (M, 3).
        corners: (N, 2) of `project`.
        nearness: (N,) of `project`; triangles with a vertex of 0 are left out.
        carried: (N, `COLUMNS`) of `carry`.
        surface: Of `cpu`.
        texels: Of all levels; empty without a texture.
        levels: (L, 3): start, width, height of each; empty without a texture.
        flags: Lighting, alpha mode, wrap, and the sign of the area of triangles that are drawn;
            0 for both.
        studio: Of `cpu`.
        image: (H, W, 4).
        number: Of the first triangle, to be written to ``owner``; `HIDES` for depth alone,
            `AT_ONCE` to shade each pixel where it is found, which leaves depth as it is.
        depth: (H, W) of 1 / depth.
        owner: (H, W): number of the triangle that is seen.
        fragments: (F, 3) room for what is shaded at once.
    """
    height, width = depth.shape
    masked, sign, count = flags[1] == MASK, flags[3], 0
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
        left, top = (min(ax, bx, cx) + 127) >> 8, (min(ay, by, cy) + 127) >> 8
        right, low = (max(ax, bx, cx) - 128) >> 8, (max(ay, by, cy) - 128) >> 8
        left, top = max(0, left), max(0, top)
        right, low = min(width - 1, right), min(height - 1, low)
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
                        if number == AT_ONCE:
                            fragments[count, 0] = row
                            fragments[count, 1] = column
                            fragments[count, 2] = t
                            count += 1
                            if count == fragments.shape[0]:
                                shade(
                                    fragments,
                                    count,
                                    triangles,
                                    corners,
                                    nearness,
                                    carried,
                                    surface,
                                    texels,
                                    levels,
                                    flags,
                                    studio,
                                    image,
                                )
                                count = 0
                        elif not masked or _kept(
                            surface,
                            carried,
                            (i, j, k),
                            (ea * ni / near, eb * nj / near, ec * nk / near),
                            texels,
                            levels,
                            flags[2],
                        ):
                            depth[row, column] = near
                            if number >= 0:
                                owner[row, column] = number + t
                ea -= (cy - by) << 8
                eb -= (ay - cy) << 8
                ec -= (by - ay) << 8
            ra += (cx - bx) << 8
            rb += (ax - cx) << 8
            rc += (bx - ax) << 8
    shade(
        fragments,
        count,
        triangles,
        corners,
        nearness,
        carried,
        surface,
        texels,
        levels,
        flags,
        studio,
        image,
    )


@_compiled
def collect(owner: I32, draws: I32, starts: I64, fragments: I32) -> None:
    """Sort the pixels that triangles own by draw.

    Args:
        owner: (H, W) of `cover`; negative for none.
        draws: (T, 2): by triangle, the draw that it is of, and which it is there.
        starts: (D + 1,) zeros; then where each draw's begin.
        fragments: (H * W, 3): row, column, triangle.
    """
    height, width = owner.shape
    for row in range(height):
        for column in range(width):
            if owner[row, column] >= 0:
                starts[draws[owner[row, column], 0] + 1] += 1
    for number in range(1, starts.shape[0]):
        starts[number] += starts[number - 1]
    for row in range(height):
        for column in range(width):
            t = owner[row, column]
            if t >= 0:
                number = draws[t, 0]
                at = starts[number]
                starts[number] += 1
                fragments[at, 0] = row
                fragments[at, 1] = column
                fragments[at, 2] = draws[t, 1]
    for number in range(starts.shape[0] - 1, 0, -1):
        starts[number] = starts[number - 1]
    starts[0] = 0


@_compiled
def smooth(
    drawn: Pixels,
    plane: I16,
    places: I32,
    stride: int,
    pad: int,
    edge: int,
    reach: I32,
    made: Pixels,
) -> None:
    """Do what `render.smooth` does; ``made`` is a copy of ``drawn``, and is changed."""
    for place_ in places:
        row, column = place_ // stride - pad, place_ % stride - pad
        at = int(place_)
        n, s, w, e = (
            plane[at - stride],
            plane[at + stride],
            plane[at - 1],
            plane[at + 1],
        )
        nw, ne = plane[at - stride - 1], plane[at - stride + 1]
        sw, se, m = (
            plane[at + stride - 1],
            plane[at + stride + 1],
            plane[at],
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
        most = most * min(256, 4 * (spread - edge)) >> 8
        down, right = (sign, 0) if flat else (0, sign)
        for k in range(4):
            mixed = (
                drawn[row, column, k] * (256 - most) + drawn[row + down, column + right, k] * most
            )
            made[row, column, k] = (mixed + 128) >> 8


@_compiled
def _end(plane: I16, at: int, across: int, along: int, before: int, reach: I32) -> tuple[int, int]:
    limit = abs(before - 2 * plane[at])
    last, total = 0, before
    for step in reach:
        place_ = at + step * along
        total = plane[place_] + plane[place_ + across]
        if 2 * abs(total - before) >= limit:
            return step + last, total
        last = step
    return 2 * reach[-1], total


@_compiled
def lay(below: Pixels, drawn: Pixels) -> None:
    """Do what `composite.lay` does."""
    for row in range(below.shape[0]):
        for column in range(below.shape[1]):
            alpha = int(drawn[row, column, 3])
            if alpha == 0:
                continue
            rest = 255 - alpha
            for k in range(3):
                kept = (below[row, column, k] * rest + 127) // 255
                below[row, column, k] = min(255, drawn[row, column, k] + kept)
