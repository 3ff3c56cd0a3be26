"""Precision over recall of one detector, for images that count several times or not at all.

COCO's evaluation (T.-Y. Lin et al., "Microsoft COCO", ECCV 2014; the rules are pycocotools')
taken apart: matching boxes with the truth, once, and counting, for many weightings of the images
at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinue.core.types import Detections
from retinue.measure.detection import Truth

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

# The very numbers that COCO's evaluators compare with, rounding errors included.
IOUS = np.minimum(np.linspace(0.5, 0.95, 10), 1 - 1e-10)
RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True)
class _Matched:
    """Detections of one class in one image, best first."""

    scores: Floats
    right: Flags  # (D, IoUs): on a true box
    ignored: Flags  # (D, IoUs): on a crowd, neither right nor wrong


@dataclass(frozen=True, slots=True)
class _Class:
    """Detections of one class in all images, best first."""

    truths: Ints  # (images,) true boxes of each image
    images: Ints  # (D,) where each detection is
    right: Flags  # (D, IoUs)
    ignored: Flags  # (D, IoUs)

    def ap(self, weights: NDArray[np.int32]) -> Floats:
        """Return the average precision for each weighting (images, R); NaN without a truth."""
        total = self.truths @ weights
        present = total > 0
        result = np.where(present, 0.0, np.nan)
        counted = weights[self.images]
        before = np.cumsum(counted, axis=0, dtype=np.int32)
        for at in range(len(IOUS)):
            # Precision peaks, and recall grows, at right detections only: the rest is not needed.
            hits = np.flatnonzero(self.right[:, at])
            if not len(hits):
                continue
            right = np.cumsum(counted[hits], axis=0, dtype=np.int32)
            seen = before[hits]
            ignored = np.flatnonzero(self.ignored[:, at])
            if len(ignored):
                crowds = np.cumsum(counted[ignored], axis=0, dtype=np.int32)
                known = np.searchsorted(ignored, hits)
                seen -= np.where(known[:, None] > 0, crowds[known - 1], 0)
            result += _area(right, seen, np.maximum(total, 1))
        return np.where(present, result / len(IOUS), np.nan)


def _area(right: NDArray[np.int32], seen: NDArray[np.int32], total: Ints) -> Floats:
    """Return the mean precision over COCO's recall levels.

    Args:
        right: (P, R) right detections up to each right one.
        seen: (P, R) detections up to it.
        total: (R,) true boxes.
    """
    precision = right / np.maximum(seen, 1)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.searchsorted(RECALLS, right / total, side="right")
    new = np.diff(reached, axis=0, prepend=0)
    return np.asarray((best * new).sum(axis=0) / len(RECALLS))


class Curves:
    """What is needed to compute the mean average precision of any weighting of the images."""

    def __init__(
        self, found: Sequence[Detections], truths: Sequence[Truth], max_detections: int
    ) -> None:
        """Match all detections.

        Raises:
            ValueError: there is no true box at all.
        """
        counts: dict[int, Ints] = {}
        for image, truth in enumerate(truths):
            for class_id in truth.class_ids[~_crowd(truth)].tolist():
                counts.setdefault(class_id, np.zeros(len(truths), np.int64))[image] += 1
        if not counts:
            raise ValueError("no true box in any image: average precision does not exist")
        matched: dict[int, list[tuple[int, _Matched]]] = defaultdict(list)
        for image, (detections, truth) in enumerate(zip(found, truths, strict=True)):
            for class_id in np.unique(detections.class_ids).tolist():
                if class_id in counts:
                    one = _match(detections, truth, class_id, max_detections)
                    matched[class_id].append((image, one))
        self._classes = [_merge(counts[c], matched[c]) for c in sorted(counts)]

    @property
    def longest(self) -> int:
        """Most detections of one class."""
        return max(len(one.images) for one in self._classes)

    def mean_ap(self, weights: NDArray[np.int32]) -> Floats:
        """Return the mean average precision (R,), NaN where no image with a truth counts.

        Args:
            weights: (images, R) how often each image counts.
        """
        total = np.zeros(weights.shape[1])
        classes = np.zeros(weights.shape[1])
        for one in self._classes:
            ap = one.ap(weights)
            total += np.nan_to_num(ap)
            classes += ~np.isnan(ap)
        return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)


def _crowd(truth: Truth) -> Flags:
    return np.zeros(len(truth.boxes), bool) if truth.crowd is None else truth.crowd


def _merge(truths: Ints, parts: list[tuple[int, _Matched]]) -> _Class:
    if not parts:
        nothing = np.zeros((0, len(IOUS)), bool)
        return _Class(truths, np.zeros(0, np.int64), nothing, nothing)
    images = np.concatenate([np.full(len(part.scores), image) for image, part in parts])
    order = np.argsort(-np.concatenate([part.scores for _, part in parts]), kind="stable")
    right = np.concatenate([part.right for _, part in parts])
    ignored = np.concatenate([part.ignored for _, part in parts])
    return _Class(truths, images[order], right[order], ignored[order])


def _match(detections: Detections, truth: Truth, class_id: int, most: int) -> _Matched:
    """Give detections, best first, the free true box that they overlap most, for each IoU."""
    chosen = np.flatnonzero(detections.class_ids == class_id)
    scores = detections.scores[chosen].astype(np.float64)
    order = np.argsort(-scores, kind="stable")[:most]
    # The evaluator is given widths that were computed in the detections' own precision.
    boxes = detections.boxes[chosen[order]]
    found = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)
    true = truth.boxes.astype(np.float64)[truth.class_ids == class_id]
    true[:, 2:] -= true[:, :2]
    crowd = _crowd(truth)[truth.class_ids == class_id]
    # Of equal overlaps the later true box is taken: turned round, argmax finds it.
    overlap = _iou(found, true[~crowd][::-1], crowd=False)
    crowded = _iou(found, true[crowd], crowd=True).max(axis=1, initial=0.0)
    right = np.zeros((len(found), len(IOUS)), bool)
    free = np.ones((len(IOUS), overlap.shape[1]), bool)
    bounds = np.arange(len(IOUS))
    for i in np.flatnonzero(overlap.max(axis=1, initial=0.0) >= IOUS[0]):
        fits = np.where(free & (overlap[i] >= IOUS[:, None]), overlap[i], 0.0)
        best = fits.argmax(axis=1)
        right[i] = fits[bounds, best] > 0
        free[bounds[right[i]], best[right[i]]] = False
    return _Matched(scores[order], right, ~right & (crowded[:, None] >= IOUS))


def _iou(found: Floats, true: Floats, *, crowd: bool) -> Floats:
    """Return the overlaps (D, N) of x, y, width, height; for crowds the share of the found box."""
    ends = np.minimum((found[:, :2] + found[:, 2:])[:, None], true[:, :2] + true[:, 2:])
    sides = np.maximum(ends - np.maximum(found[:, None, :2], true[:, :2]), 0)
    shared = sides[..., 0] * sides[..., 1]
    own = (found[:, 2] * found[:, 3])[:, None]
    union = own if crowd else own + true[:, 2] * true[:, 3] - shared
    overlap: Floats = np.zeros_like(shared)
    np.divide(shared, union, out=overlap, where=shared > 0)
    return overlap
