"""Finds the pixels that triangles cover."""

from __future__ import annotations

from retinue.apps.ar.render.kernels._compile import apart, compiled, inner
from retinue.apps.ar.render.kernels._types import (
    AT_ONCE,
    F32,
    F64,
    I32,
    I64,
    MASK,
    U32,
    Look,
    Mesh,
    Pixels,
    Three,
)
from retinue.apps.ar.render.kernels.shading import Corner, looked_up, mixed, shade


@inner
def _owns(dx: int, dy: int) -> int:
    """Return 0 where an edge owns the pixels that it hits: left and upper ones do; else -1."""
    return 0 if dy < 0 or (dy == 0 and dx > 0) else -1


@inner
def _area(corners: I64, i: int, j: int, k: int) -> int:
    """Return twice a triangle's area, positive where it turns right as it is seen."""
    x, y = corners[i, 0], corners[i, 1]
    return int(
        (corners[j, 0] - x) * (corners[k, 1] - y) - (corners[k, 0] - x) * (corners[j, 1] - y)
    )


@apart
def _kept(
    carried: F32, corner: Corner, share: Three, surface: F64, texels: U32, levels: I64, wrap: int
) -> bool:
    """Say whether a masked pixel is there."""
    alpha = mixed(carried, corner, share, 9)
    if levels.shape[0]:
        alpha *= looked_up(carried, corner, share, texels, levels, wrap)[3]
    return bool(alpha >= surface[9])


@apart
def _scan(
    mesh: Mesh,
    look: Look,
    t: int,
    corner: Corner,
    area: int,
    number: int,
    depth: F32,
    owner: I32,
    fragments: I32,
    count: int,
    image: Pixels,
) -> int:
    """Do what `cover` does with one triangle; return how many fragments wait."""
    _, corners, nearness, carried = mesh
    _, surface, texels, levels, flags = look
    i, j, k = corner
    ax, ay, bx, by = corners[i, 0], corners[i, 1], corners[j, 0], corners[j, 1]
    cx, cy = corners[k, 0], corners[k, 1]
    # Pixels whose middle lies within: 128 of 256 steps are half a pixel.
    left, top = max(0, (min(ax, bx, cx) + 127) >> 8), max(0, (min(ay, by, cy) + 127) >> 8)
    right = min(depth.shape[1] - 1, (max(ax, bx, cx) - 128) >> 8)
    x, y = (left << 8) + 128, (top << 8) + 128
    ra = (cx - bx) * (y - by) - (cy - by) * (x - bx) + _owns(cx - bx, cy - by)
    rb = (ax - cx) * (y - cy) - (ay - cy) * (x - cx) + _owns(ax - cx, ay - cy)
    rc = (bx - ax) * (y - ay) - (by - ay) * (x - ax) + _owns(bx - ax, by - ay)
    ni, nj, nk = nearness[i] / area, nearness[j] / area, nearness[k] / area
    for row in range(top, min(depth.shape[0] - 1, (max(ay, by, cy) - 128) >> 8) + 1):
        ea, eb, ec = ra, rb, rc
        for column in range(left, right + 1):
            near = ea * ni + eb * nj + ec * nk
            if (ea | eb | ec) >= 0 and near > depth[row, column]:
                share = (ea * ni / near, eb * nj / near, ec * nk / near)
                if number == AT_ONCE:
                    fragments[count, 0], fragments[count, 1] = row, column
                    fragments[count, 2] = t
                    count += 1
                    if count == fragments.shape[0]:
                        shade(fragments, count, mesh, look, image)
                        count = 0
                elif flags[1] != MASK or _kept(
                    carried, corner, share, surface, texels, levels, flags[2]
                ):
                    depth[row, column] = near
                    if number >= 0:
                        owner[row, column] = number + t
            ea, eb, ec = ea - ((cy - by) << 8), eb - ((ay - cy) << 8), ec - ((by - ay) << 8)
        ra, rb, rc = ra + ((cx - bx) << 8), rb + ((ax - cx) << 8), rc + ((bx - ax) << 8)
    return count


@compiled
def cover(
    mesh: Mesh,
    look: Look,
    number: int,
    depth: F32,
    owner: I32,
    fragments: I32,
    image: Pixels,
) -> None:
    """Find the pixels of triangles that are nearer than what is there.

    Args:
        mesh: Triangles with a vertex whose nearness is 0 are left out.
        look: Its surface.
        number: Of the first triangle, to be written to ``owner``; `HIDES` for depth alone,
            `AT_ONCE` to shade each pixel where it is found, which leaves depth as it is.
        depth: (H, W) of 1 / depth.
        owner: (H, W): number of the triangle that is seen.
        fragments: (F, 3) room for what is shaded at once.
        image: (H, W, 4).
    """
    triangles, corners, nearness, _ = mesh
    sign, count = look[4][3], 0
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        if nearness[i] == 0.0 or nearness[j] == 0.0 or nearness[k] == 0.0:
            continue
        area = _area(corners, i, j, k)
        if area == 0 or area * sign < 0:
            continue
        if area < 0:
            j, k, area = k, j, -area
        count = _scan(mesh, look, t, (i, j, k), area, number, depth, owner, fragments, count, image)
    shade(fragments, count, mesh, look, image)


@compiled
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
