"""Class-wise non-maximum suppression, and what comes before it: choosing candidates."""

from __future__ import annotations

import itertools
import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MIN_SCORE: Final = 0.01
"""Below this no detection is reported; applications choose their own, higher threshold."""

MAX_CANDIDATES: Final = 1000
"""The best candidates of one image that suppression looks at (as the mmdetection heads do)."""


def candidates(scores: Floats, *, logits: bool = False) -> tuple[Ints, Floats]:
    """Choose the best scores of one image, cheaply.

    Args:
        scores: Any shape, float32: a score for every pair of a cell and a class.
        logits: Whether they are logits, to be passed through the logistic function.

    Returns:
        Indices into ``scores.ravel()`` and their scores as probabilities: those of at least
        `MIN_SCORE`, best first (equal ones in index order), at most `MAX_CANDIDATES`.
    """
    flat = scores.ravel()
    floor = math.log(MIN_SCORE / (1 - MIN_SCORE)) if logits else MIN_SCORE
    kept = np.flatnonzero(flat >= np.float32(floor))
    values = flat[kept]
    if len(values) > MAX_CANDIDATES:
        # Tens of thousands may pass: finding the last score that counts spares sorting the rest.
        last = np.partition(values, -MAX_CANDIDATES)[-MAX_CANDIDATES]
        best = np.flatnonzero(values >= last)
        kept, values = kept[best], values[best]
    order = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
    values = values[order]
    return kept[order].astype(np.int64, copy=False), sigmoid(values) if logits else values


def sigmoid(values: Floats) -> Floats:
    """Return the logistic function of float32 values, without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * values), np.float32)


def nms(boxes: Floats, scores: Floats, class_ids: Ints, iou: float, max_detections: int) -> Ints:
    """Drop every box that overlaps a better one of its class too much.

    Greedy suppression as in R. Girshick's R-CNN (2014), one class at a time, by OpenCV's
    ``NMSBoxes``. One class at a time, boxes of different classes never meet; the usual trick of
    moving each class away by an offset compares all classes with each other, which is slower
    from a few hundred boxes on.

    Args:
        boxes: (N, 4) float32, x1 y1 x2 y2, finite, with x2 > x1 and y2 > y1.
        scores: (N,) float32, above 0.
        class_ids: (N,) int64.
        iou: A box is dropped when its IoU (computed in float32) with a kept one is above this.
        max_detections: The best so many are kept, over all classes.

    Returns:
        Indices of the kept boxes, best score first; among equal scores the lower index first,
        in suppression as in the answer.
    """
    if len(boxes) == 0:
        return np.empty(0, np.int64)
    by_class = np.argsort(class_ids, kind="stable")
    corners = boxes[by_class].astype(np.float64)
    corners[:, 2:] -= corners[:, :2]
    sorted_scores = scores[by_class]
    cuts = np.flatnonzero(np.diff(class_ids[by_class])) + 1
    edges = [0, *cuts.tolist(), len(boxes)]
    kept: list[Ints] = []
    for start, stop in itertools.pairwise(edges):
        if stop - start == 1:
            kept.append(np.array([start]))
            continue
        group = cv2.dnn.NMSBoxes(
            corners[start:stop],  # type: ignore[arg-type]
            sorted_scores[start:stop],  # type: ignore[arg-type]
            0.0,
            iou,
        )
        kept.append(np.asarray(group, np.int64).ravel() + start)
    chosen = by_class[np.concatenate(kept)]
    order = np.lexsort((chosen, -scores[chosen]))[:max_detections]
    return chosen[order].astype(np.int64, copy=False)
