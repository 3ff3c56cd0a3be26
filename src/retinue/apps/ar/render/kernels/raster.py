"""Finds the pixels that triangles cover."""

from __future__ import annotations

from retinue.apps.ar.render.kernels._compile import compiled, inner
from retinue.apps.ar.render.kernels._types import (
    I64,
    MASK,
    OWNS,
    SHADES,
    Corner,
    Layers,
    Look,
    Mesh,
)


@inner
def _owns(dx: int, dy: int) -> int:
    """Return 0 where an edge owns the pixels that it hits: left and upper ones do; else -1."""
    return 0 if dy < 0 or (dy == 0 and dx > 0) else -1


@inner
def _wide(corners: I64, corner: Corner, columns: int) -> tuple[int, int]:
    """Return the columns whose middle a triangle's box has: the first and the last."""
    a, b, c = corners[corner[0], 0], corners[corner[1], 0], corners[corner[2], 0]
    # 128 of 256 steps are half a pixel.
    return max(0, (min(a, b, c) + 127) >> 8), min(columns - 1, (max(a, b, c) - 128) >> 8)


@inner
def _high(corners: I64, corner: Corner, first: int, last: int) -> tuple[int, int]:
    """Return the rows likewise."""
    a, b, c = corners[corner[0], 1], corners[corner[1], 1], corners[corner[2], 1]
    return max(first, (min(a, b, c) + 127) >> 8), min(last - 1, (max(a, b, c) - 128) >> 8)


@inner
def _facing(mesh: Mesh, corner: Corner, sign: int) -> tuple[int, Corner]:
    """Return twice a triangle's area, and its corners so that it is positive; 0 if not drawn."""
    i, j, k = corner
    _, corners, nearness, _ = mesh
    x, y = corners[i, 0], corners[i, 1]
    area = (corners[j, 0] - x) * (corners[k, 1] - y) - (corners[k, 0] - x) * (corners[j, 1] - y)
    if area * sign < 0 or nearness[i] == 0.0 or nearness[j] == 0.0 or nearness[k] == 0.0:
        return 0, corner
    if area < 0:
        return -area, (i, k, j)
    return area, corner


@compiled
def cover(
    mesh: Mesh,
    look: Look,
    mode: int,
    number: int,
    sign: int,
    start: int,
    first: int,
    last: int,
    layers: Layers,
) -> tuple[int, int]:
    """Find the pixels of triangles.

    Pixels whose texture is to be looked at are not finished here: they wait for `shading.shade`.
    It is a function of its own, called from Python, as Numba compiles what is called once more
    into each caller.

    Args:
        mesh: Triangles with a vertex whose nearness is 0 are left out.
        look: Its surface.
        mode: `HIDES` writes the depth of those that are nearer than what is there, `OWNS` their
            triangle's number too; `SHADES` shades those that a triangle owns, `SHADES_NEARER` all
            that are nearer, and leaves depth as it is.
        number: Of the first triangle.
        sign: Of the area of triangles that are drawn; 0 for both.
        start: The triangle to begin with.
        first: Row from which on pixels are looked at.
        last: Row before which they are.
        layers: What is drawn on.

    Returns:
        The triangle to go on with, and how many pixels wait in the layers' fragments.
    """
    triangles, corners, nearness, _ = mesh
    depth, owner, fragments, _, _, _ = layers
    count, room, owned = 0, fragments.shape[1], mode == SHADES
    waits = mode >= SHADES or look[4][1] == MASK
    for t in range(start, triangles.shape[0]):
        corner = (triangles[t, 0], triangles[t, 1], triangles[t, 2])
        top, bottom = _high(corners, corner, first, last)
        left, right = _wide(corners, corner, depth.shape[1])
        if top > bottom or left > right:
            continue
        area, (i, j, k) = _facing(mesh, corner, sign)
        if area == 0:
            continue
        if waits and count + (right - left + 1) * (bottom - top + 1) > room:
            return t, count
        ax, ay, bx, by = corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1]
        cx, cy = corners[k, 0], corners[k, 1]
        x, y = (left << 8) + 128, (top << 8) + 128
        ra = (cx - bx) * (y - by) - (cy - by) * (x - bx) + _owns(cx - bx, cy - by)
        rb = (ax - cx) * (y - cy) - (ay - cy) * (x - cx) + _owns(ax - cx, ay - cy)
        rc = (bx - ax) * (y - ay) - (by - ay) * (x - ax) + _owns(bx - ax, by - ay)
        da, db, dc = (cy - by) << 8, (ay - cy) << 8, (by - ay) << 8
        ni, nj, nk = nearness[i] / area, nearness[j] / area, nearness[k] / area
        step = da * ni + db * nj + dc * nk
        for row in range(top, bottom + 1):
            ea, eb, ec = ra, rb, rc
            near = ea * ni + eb * nj + ec * nk
            entered = False
            for column in range(left, right + 1):
                if (ea | eb | ec) >= 0:
                    entered = True
                    held = owner[row, column] == number + t if owned else False
                    seen = held or (not owned and near > depth[row, column])
                    if seen and waits:
                        fragments[0, count], fragments[1, count] = row, column
                        fragments[2, count] = t
                        count += 1
                    elif seen:
                        depth[row, column] = near
                        if mode == OWNS:
                            owner[row, column] = number + t
                elif entered:
                    break
                ea, eb, ec, near = ea - da, eb - db, ec - dc, near - step
            ra, rb, rc = ra + ((cx - bx) << 8), rb + ((ax - cx) << 8), rc + ((bx - ax) << 8)
    return triangles.shape[0], count
