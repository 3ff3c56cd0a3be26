"""Smooths the steps along edges, in place of multisampling, which is slow in software.

As T. Lottes' FXAA 3 (NVIDIA, 2011) does: where neighbours differ much, the edge is followed to
both of its ends, and the pixel takes as much of its neighbour across the edge as the edge, were it
a line from end to end, would cover of it. All is integer arithmetic, so that it is the same
everywhere; `kernels` has a compiled twin.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.pair import Pair
from retinue.apps.ar.render.compiled import loops

Pixels = NDArray[np.uint8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]

LEAST: Final = 24
"""Differences below this are no edge, and those a little above it less of one. Outlines are in
alpha, which counts for more than what is inside of them, so that fine drawing in textures stays
sharp."""
REACH: Final = np.array([1, 2, 3, 4, 5, 6, 8, 10, 13, 16], np.int32)
"""Pixels along an edge at which its end is looked for."""
_CROSS: Final = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
PAD: Final = 17


def find(drawn: Pixels) -> tuple[I16, I32, int]:
    """Find pixels at edges.

    Args:
        drawn: (H, W, 4) uint8.

    Returns:
        What edges are found in, int16, padded and flat; the places of edge pixels in it, (N,)
        int32; and how long its rows are.
    """
    height, width = drawn.shape[:2]
    gray, alpha = cv2.cvtColor(drawn, cv2.COLOR_RGBA2GRAY), cv2.extractChannel(drawn, 3)
    plane = cv2.addWeighted(gray, 0.35, alpha, 0.65, 0)
    spread = cv2.subtract(cv2.dilate(plane, _CROSS), cv2.erode(plane, _CROSS))
    rows, columns = np.divmod(np.flatnonzero(spread > LEAST), width)
    inside = (rows > 0) & (rows < height - 1) & (columns > 0) & (columns < width - 1)
    padded = cv2.copyMakeBorder(plane, PAD, PAD, PAD, PAD, cv2.BORDER_REPLICATE)
    stride = width + 2 * PAD
    places = (rows[inside] + PAD) * stride + columns[inside] + PAD
    return np.asarray(padded, np.int16).ravel(), places.astype(np.int32), stride


def smooth(drawn: Pixels, pair: Pair | None = None) -> Pixels:
    """Smooth a picture's edges, in place if that can be.

    Args:
        drawn: (H, W, 4) uint8, premultiplied, C-contiguous; not to be used any more.
        pair: Threads that may do it.

    Returns:
        What it became.
    """
    plane, places, stride = find(drawn)
    compiled = loops()
    if compiled is None:
        return _smoothed(drawn, plane, places, stride)
    done = np.empty((len(places), 4), np.uint8)

    def find_part(part: slice) -> None:
        rest = stride, PAD, LEAST, REACH
        compiled.smooth(drawn, plane, places[part], *rest, done[part])

    if pair is None:
        find_part(slice(None))
    else:
        half = len(places) // 2
        pair.share([partial(find_part, part) for part in (slice(half), slice(half, None))])
    compiled.put(drawn, places, stride, PAD, done)
    return drawn


def _smoothed(drawn: Pixels, plane: I16, places: I32, stride: int) -> Pixels:
    """Do what `kernels.smooth` does, without Numba."""
    if not len(places):
        return drawn
    across, along, before, middle, most, ramp = _edges(plane, places, stride)
    ends = [_end(plane, places, across, step, before) for step in (-along, along)]
    (back, back_sum), (ahead, ahead_sum) = ends
    nearer = back < ahead
    end = np.where(nearer, back_sum, ahead_sum)
    # The edge bends towards this pixel's side where its end is lighter and it is darker, or so.
    bends = ((end - before) < 0) != ((2 * middle - before) < 0)
    share = np.where(bends, 128 - 256 * np.minimum(back, ahead) // (back + ahead), 0)
    share = (np.maximum(share, most) * ramp >> 8)[:, None]
    rows, columns = np.divmod(places, stride)
    at = (rows - PAD) * drawn.shape[1] + columns - PAD
    side = np.where(np.abs(across) == 1, across, np.sign(across) * drawn.shape[1])
    flat = drawn.reshape(-1, 4)
    mixed = flat[at].astype(np.int32) * (256 - share) + flat[at + side] * share
    made = flat.copy()
    made[at] = (mixed + 128) >> 8
    return made.reshape(drawn.shape)


def _edges(plane: I16, at: I32, stride: int) -> tuple[I32, I32, I32, I32, I32, I32]:
    """Return, by pixel: the step across its edge and along it, the sum of it and its neighbour
    across, its own value, the share that it takes at least as it stands out alone, and how much of
    an edge it is."""
    around = [
        plane[at + row * stride + column].astype(np.int32)
        for row in (-1, 0, 1)
        for column in (-1, 0, 1)
    ]
    nw, n, ne, w, m, e, sw, s, se = around
    lies = np.abs(nw + sw - 2 * w) + 2 * np.abs(n + s - 2 * m) + np.abs(ne + se - 2 * e)
    stands = np.abs(nw + ne - 2 * n) + 2 * np.abs(w + e - 2 * m) + np.abs(sw + se - 2 * s)
    flat = lies >= stands
    first, second = np.where(flat, n, w), np.where(flat, s, e)
    unit = np.where(flat, np.int32(stride), np.int32(1))
    upper = np.abs(first - m) >= np.abs(second - m)
    across = np.where(upper, -unit, unit).astype(np.int32)
    before = m + np.where(upper, first, second)
    spread = np.maximum.reduce([n, s, e, w, m]) - np.minimum.reduce([n, s, e, w, m])
    alone = np.abs(2 * (n + s + e + w) + nw + ne + sw + se - 12 * m)
    x = np.minimum(256, alone * 256 // (12 * spread))
    curve = ((768 - 2 * x) * x * x) >> 16
    least = (curve * curve) >> 9
    ramp = np.minimum(256, 4 * (spread - LEAST))
    return across, np.where(flat, np.int32(1), np.int32(stride)), before, m, least, ramp


def _end(plane: I16, at: I32, across: I32, along: I32, before: I32) -> tuple[I32, I32]:
    """Return how far away an edge ends, in half pixels, and the sum of both sides there."""
    middle = plane[at].astype(np.int32)
    # A quarter of the step across, doubled as sums of two are compared.
    limit = np.abs(before - 2 * middle)
    far = np.full(len(at), 2 * REACH[-1], np.int32)
    there = before.copy()
    left = np.arange(len(at))
    last = 0
    for reach in REACH:
        place = at[left] + reach * along[left]
        total = plane[place].astype(np.int32) + plane[place + across[left]]
        there[left] = total
        ended = 2 * np.abs(total - before[left]) >= limit[left]
        far[left[ended]] = reach + last
        left = left[~ended]
        last = reach
        if not len(left):
            break
    return far, there
