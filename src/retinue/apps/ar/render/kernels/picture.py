"""Finishes pictures: smooth edges, and one laid over another."""

from __future__ import annotations

from retinue.apps.ar.render.kernels._compile import compiled, inner
from retinue.apps.ar.render.kernels._types import I16, I32, Pixels


@inner
def _edge(plane: I16, at: int, stride: int, edge: int) -> tuple[bool, int, int, int, int]:
    """Look at a pixel.

    Returns:
        Whether its edge lies (or stands); -1 where it is above or left of it, 1 else; the sum of
        both of its sides; the share that the pixel takes at least; and how much of an edge it is.
    """
    n, s, w, e = plane[at - stride], plane[at + stride], plane[at - 1], plane[at + 1]
    nw, ne = plane[at - stride - 1], plane[at - stride + 1]
    sw, se, m = plane[at + stride - 1], plane[at + stride + 1], plane[at]
    lies = abs(nw + sw - 2 * w) + 2 * abs(n + s - 2 * m) + abs(ne + se - 2 * e)
    stands = abs(nw + ne - 2 * n) + 2 * abs(w + e - 2 * m) + abs(sw + se - 2 * s)
    flat = lies >= stands
    first, second = (n, s) if flat else (w, e)
    upper = abs(first - m) >= abs(second - m)
    spread = max(n, s, e, w, m) - min(n, s, e, w, m)
    x = min(256, abs(2 * (n + s + e + w) + nw + ne + sw + se - 12 * m) * 256 // (12 * spread))
    curve = ((768 - 2 * x) * x * x) >> 16
    ramp = min(256, 4 * (spread - edge))
    return flat, -1 if upper else 1, m + (first if upper else second), (curve * curve) >> 9, ramp


@inner
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


@compiled
def smooth(
    drawn: Pixels,
    plane: I16,
    places: I32,
    stride: int,
    pad: int,
    edge: int,
    reach: I32,
    done: Pixels,
) -> None:
    """Find what `render.smooth` makes of pixels: ``done``, (N, 4), one a place."""
    for number, place in enumerate(places):
        row, column, at = place // stride - pad, place % stride - pad, int(place)
        flat, sign, before, most, ramp = _edge(plane, at, stride, edge)
        across, along = (sign * stride, 1) if flat else (sign, stride)
        back, back_sum = _end(plane, at, across, -along, before, reach)
        ahead, ahead_sum = _end(plane, at, across, along, before, reach)
        end = back_sum if back < ahead else ahead_sum
        if (end - before < 0) != (2 * plane[at] - before < 0):
            most = max(most, 128 - 256 * min(back, ahead) // (back + ahead))
        most = most * ramp >> 8
        down, right = (sign, 0) if flat else (0, sign)
        for k in range(4):
            other = drawn[row + down, column + right, k] * most
            done[number, k] = (drawn[row, column, k] * (256 - most) + other + 128) >> 8


@compiled
def put(drawn: Pixels, places: I32, stride: int, pad: int, done: Pixels) -> None:
    """Write what `smooth` found."""
    for number, place in enumerate(places):
        row, column = place // stride - pad, place % stride - pad
        for k in range(4):
            drawn[row, column, k] = done[number, k]


@compiled
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
