"""Late interaction on 1-bit patch tokens: which parts of a picture are in another one.

The score of a picture for a query is the mean, over the query's patches, of the best similarity
that any of its own patches has to it: ColBERT's (O. Khattab, M. Zaharia, arXiv:2004.12832), on
signs; or the same the other way round, whichever is higher, so that a photo is found that is only a
part of the query. The similarity of two tokens of B bits is ``1 - 2 hamming / B``, in [-1, 1].
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint8]
Floats = NDArray[np.float32]

DEVIATIONS: Final = 2.0
MATCHED: Final = 0.25
"""Similarity from which a patch counts as matched.

Of pairs of random tokens of 128 bits one in 340 reaches it; of patches with the best of 49 others,
one in 7: a small box by itself says little.
"""


def distances(query: Tokens, items: Tokens) -> NDArray[np.uint16]:
    """Return (N, T, Q) uint16: how many bits of each patch of N items (N, T, B/8) differ from each
    patch of a query (Q, B/8)."""
    word: Any = np.uint64 if query.shape[-1] % 8 == 0 else np.uint8
    ours = np.ascontiguousarray(query).view(word)
    theirs = np.ascontiguousarray(items).view(word)
    total = np.zeros((*items.shape[:2], len(query)), np.uint16)
    for part in range(ours.shape[-1]):
        total += np.bitwise_count(theirs[..., None, part] ^ ours[:, part])
    return total


def interaction(differing: NDArray[np.uint16], bits: int) -> Floats:
    """Return (N,) float32: the late interaction's score, from `distances` of tokens of ``bits``."""
    nearest = np.minimum(
        differing.min(axis=1).mean(axis=1, dtype=np.float32),
        differing.min(axis=2).mean(axis=1, dtype=np.float32),
    )
    return np.asarray(1 - nearest * (2 / bits), np.float32)


def outstanding(values: Floats) -> Floats:
    """Return by how much each value exceeds what is usual among them; 0 where it does not.

    Usual is the median and twice the spread (the median absolute deviation, scaled to a standard
    deviation): patches of any two pictures match a little, only those of the same match far better.
    """
    median = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - median))
    return np.asarray(np.maximum(values - median - DEVIATIONS * spread, 0), np.float32)


def matched_regions(
    differing: NDArray[np.uint16], bits: int, grid: tuple[int, int], width: int, height: int
) -> list[list[float]]:
    """Return which parts of one item match the query.

    Args:
        differing: (T, Q), of `distances`.
        bits: Of a token.
        grid: (rows, columns) of the item's patches; rows * columns = T.
        width: Of the item's original, in pixels.
        height: Of the item's original, in pixels.

    Returns:
        Boxes [x1, y1, x2, y2, strength] in pixels of the original, strongest first: connected
        patches that a patch of the query matches, strength being the best of them.
    """
    best = 1 - differing.min(axis=1).reshape(grid) * (2 / bits)
    # What is strong for this very picture: half-way to its best patch.
    bound = max(MATCHED, float(best.mean() + best.max()) / 2)
    mask = (best >= bound).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    across, down = width / grid[1], height / grid[0]
    regions = []
    for label in range(1, count):
        left, top, columns, rows = boxes[label, :4].tolist()
        edges = (left * across, top * down, (left + columns) * across, (top + rows) * down)
        strength = float(best[labels == label].max())
        regions.append([*(round(edge, 1) for edge in edges), strength])
    return sorted(regions, key=lambda region: -region[4])[:8]
