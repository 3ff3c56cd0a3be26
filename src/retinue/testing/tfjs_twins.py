"""TensorFlow's operators on pictures, slow and obvious, in (N, H, W, C): what an importer must do.

Written from TensorFlow's documentation; loops over output pixels, double precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from retinue.core.types import Array

Pair = tuple[int, int]


def extent(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Return (output size, padding before) of one axis; ``kernel`` includes its dilation."""
    if padding == "VALID":
        return (size - kernel) // stride + 1, 0
    out = math.ceil(size / stride)
    return out, max((out - 1) * stride + kernel - size, 0) // 2


def _taps(
    size: Pair, kernel: Pair, strides: Pair, dilations: Pair, padding: str
) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield (output row, output column, kernel row, kernel column, input row, input column)."""
    (height, top), (width, left) = (
        extent(s, (k - 1) * d + 1, stride, padding)
        for s, k, stride, d in zip(size, kernel, strides, dilations, strict=True)
    )
    for y, x, i, j in itertools.product(*map(range, (height, width, *kernel))):
        row = y * strides[0] - top + i * dilations[0]
        column = x * strides[1] - left + j * dilations[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            yield y, x, i, j, row, column


def _out(size: Pair, kernel: Pair, strides: Pair, dilations: Pair, padding: str) -> Pair:
    height, width = (
        extent(s, (k - 1) * d + 1, stride, padding)[0]
        for s, k, stride, d in zip(size, kernel, strides, dilations, strict=True)
    )
    return height, width


def _pair(values: Sequence[int]) -> Pair:
    return values[0], values[1]


def conv2d(
    x: Array,
    filters: Array,
    strides: Pair = (1, 1),
    padding: str = "SAME",
    dilations: Pair = (1, 1),
) -> Array:
    """Convolve (N, H, W, I) with (h, w, I, O)."""
    size, kernel = _pair(x.shape[1:3]), _pair(filters.shape[:2])
    out = np.zeros((len(x), *_out(size, kernel, strides, dilations, padding), filters.shape[3]))
    for y, xx, i, j, row, column in _taps(size, kernel, strides, dilations, padding):
        out[:, y, xx] += x[:, row, column].astype(np.float64) @ filters[i, j]
    return out


def depthwise(
    x: Array,
    filters: Array,
    strides: Pair = (1, 1),
    padding: str = "SAME",
    dilations: Pair = (1, 1),
) -> Array:
    """Convolve each channel of (N, H, W, I) by itself with (h, w, I, M): (N, H', W', I * M)."""
    size, kernel = _pair(x.shape[1:3]), _pair(filters.shape[:2])
    shape = _out(size, kernel, strides, dilations, padding)
    out = np.zeros((len(x), *shape, *filters.shape[2:]))
    for y, xx, i, j, row, column in _taps(size, kernel, strides, dilations, padding):
        out[:, y, xx] += x[:, row, column, :, None].astype(np.float64) * filters[i, j]
    return out.reshape(*out.shape[:3], -1)


def conv2d_transpose(
    x: Array, filters: Array, size: Pair, strides: Pair, padding: str = "SAME"
) -> Array:
    """Return the gradient of a convolution: (N, H', W', I) and (h, w, O, I) to (N, *size, O)."""
    out = np.zeros((len(x), *size, filters.shape[2]))
    kernel = _pair(filters.shape[:2])
    for y, xx, i, j, row, column in _taps(size, kernel, strides, (1, 1), padding):
        out[:, row, column] += x[:, y, xx].astype(np.float64) @ filters[i, j].T
    return out


def pool(x: Array, kernel: Pair, strides: Pair, padding: str, mean: bool) -> Array:
    """Take the largest or the mean of the pixels that a window holds; padding does not count."""
    size = _pair(x.shape[1:3])
    windows: dict[Pair, list[Array]] = {}
    for y, xx, _, _, row, column in _taps(size, kernel, strides, (1, 1), padding):
        windows.setdefault((y, xx), []).append(x[:, row, column])
    out = np.zeros((len(x), *_out(size, kernel, strides, (1, 1), padding), x.shape[3]))
    for (y, xx), values in windows.items():
        out[:, y, xx] = np.mean(values, 0) if mean else np.max(values, 0)
    return out


def _positions(before: int, after: int, align_corners: bool, half_pixel: bool) -> list[float]:
    if align_corners:
        return [i * (before - 1) / (after - 1) if after > 1 else 0.0 for i in range(after)]
    if half_pixel:
        return [(i + 0.5) * before / after - 0.5 for i in range(after)]
    return [i * before / after for i in range(after)]


def resize_bilinear(
    x: Array, size: Pair, align_corners: bool = False, half_pixel: bool = False
) -> Array:
    """Resize (N, H, W, C) to ``size`` between the four nearest pixels."""
    out = np.zeros((len(x), *size, x.shape[3]))
    rows = _positions(x.shape[1], size[0], align_corners, half_pixel)
    columns = _positions(x.shape[2], size[1], align_corners, half_pixel)
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        row, column = (min(max(row, 0), x.shape[1] - 1), min(max(column, 0), x.shape[2] - 1))
        top, left = math.floor(row), math.floor(column)
        bottom, right = min(top + 1, x.shape[1] - 1), min(left + 1, x.shape[2] - 1)
        a, b = row - top, column - left
        upper = x[:, top, left] * (1 - b) + x[:, top, right] * b
        lower = x[:, bottom, left] * (1 - b) + x[:, bottom, right] * b
        out[:, i, j] = upper * (1 - a) + lower * a
    return out


def resize_nearest(
    x: Array, size: Pair, align_corners: bool = False, half_pixel: bool = False
) -> Array:
    """Resize (N, H, W, C) to ``size`` by the nearest pixel, as TensorFlow rounds."""

    def source(before: int, after: int) -> list[int]:
        corners = align_corners and after > 1
        step = Fraction(before - 1, after - 1) if corners else Fraction(before, after)
        shift = Fraction(1, 2) if half_pixel else Fraction(0)
        places = [(i + shift) * step for i in range(after)]
        if align_corners:
            places = [place + Fraction(1, 2) for place in places]
        return [min(math.floor(place), before - 1) for place in places]

    rows, columns = source(x.shape[1], size[0]), source(x.shape[2], size[1])
    return np.stack([np.stack([x[:, r, c] for c in columns], 1) for r in rows], 1)


def depth_to_space(x: Array, block: int) -> Array:
    """Move channels into block x block pixels."""
    n, height, width, channels = x.shape
    deep = channels // block**2
    out = np.zeros((n, height * block, width * block, deep), x.dtype)
    for y, xx in itertools.product(range(height * block), range(width * block)):
        first = (y % block * block + xx % block) * deep
        out[:, y, xx] = x[:, y // block, xx // block, first : first + deep]
    return out


def space_to_depth(x: Array, block: int) -> Array:
    """Move block x block pixels into channels."""
    n, height, width, channels = x.shape
    out = np.zeros((n, height // block, width // block, channels * block**2), x.dtype)
    for y, xx in itertools.product(range(height), range(width)):
        first = (y % block * block + xx % block) * channels
        out[:, y // block, xx // block, first : first + channels] = x[:, y, xx]
    return out


def space_to_batch(x: Array, block: Pair, pads: Sequence[Pair]) -> Array:
    """Deal the pixels of a block out to pictures: (N * b * b, H / b, W / b, C)."""
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    parts = [
        padded[:, i :: block[0], j :: block[1]] for i in range(block[0]) for j in range(block[1])
    ]
    return np.concatenate(parts)


def batch_to_space(x: Array, block: Pair, crops: Sequence[Pair]) -> Array:
    """Undo `space_to_batch`."""
    parts = np.split(x, block[0] * block[1])
    n, height, width, channels = parts[0].shape
    out = np.zeros((n, height * block[0], width * block[1], channels), x.dtype)
    for at, part in enumerate(parts):
        out[:, at // block[1] :: block[0], at % block[1] :: block[1]] = part
    (top, bottom), (left, right) = crops
    return out[:, top : out.shape[1] - bottom, left : out.shape[2] - right]


def suppress(boxes: Array, scores: Array, limit: int, iou: float, least: float) -> list[int]:
    """Return the kept indices, best first; boxes are (y1, x1, y2, x2)."""
    kept: list[int] = []
    for at in np.argsort(-scores, kind="stable").tolist():
        if (
            len(kept) < limit
            and scores[at] > least
            and all(_overlap(boxes[at], boxes[other]) <= iou for other in kept)
        ):
            kept.append(at)
    return kept


def _overlap(a: Array, b: Array) -> float:
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(height, 0.0) * max(width, 0.0)
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / total) if total > 0 else 0.0
