"""How far two answers to one picture are the same answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retinue.core.types import Detections, Embedding, Outcome, Scores


def agreement(a: Outcome, b: Outcome, *, conf: float = 0.3, iou: float = 0.5) -> float:
    """Return how far two outcomes say the same, in [0, 1]; 1 is the same answer. Symmetric.

    - Detections: the share of both sides' boxes with a score of at least ``conf`` that have a
      partner: a box of the other side of the same class that overlaps it by ``iou`` and has at
      least *half* of ``conf``, so that a score that wobbles around the bound is no disagreement.
      Pairs are made greedily, best sum of scores first; a box has one partner. No boxes on
      either side: 1.
    - Scores: Ruzicka's similarity, the sum of the smaller over the sum of the larger of each two;
      for probabilities it is 1 - d / (1 + d), d their total variation distance.
    - Embeddings: their cosine, 0 where it is negative; two zero vectors agree, one and another
      do not.
    - Two failures agree when they have the same code; a failure and an answer never do.
    - An answer that holds a number that is not finite agrees with nothing.

    Args:
        a: An outcome.
        b: The outcome of the same input from another model of the same task.
        conf: Score from which on a box counts, in (0, 1].
        iou: Overlap from which on two boxes are the same, in (0, 1].

    Raises:
        ValueError: the answers are of different kinds or lengths, or of a kind that has no
            agreement.
    """
    if a.error is not None or b.error is not None:
        return float(a.error is not None and b.error is not None and a.error.code == b.error.code)
    match a.value, b.value:
        case Detections() as one, Detections() as other:
            return _of_detections(one, other, conf, iou)
        case Scores(values=p), Scores(values=q):
            return _overlap(*_same_length(p, q))
        case Embedding(vector=p), Embedding(vector=q):
            return _cosine(*_same_length(p, q))
    kinds = f"{type(a.value).__name__} and {type(b.value).__name__}"
    raise ValueError(f"{kinds} have no agreement: give two answers of one task")


def telling(a: Outcome, b: Outcome, *, conf: float = 0.3) -> bool:
    """Return whether the agreement of two outcomes tells anything of their models.

    It does not where two detectors found nothing: of rare objects, a blind one agrees with a good
    one nearly always.

    Args:
        a: An outcome.
        b: The outcome of the same input from another model of the same task.
        conf: Score from which on a box counts, as in `agreement`.
    """
    match a.value, b.value:
        case Detections() as one, Detections() as other:
            # Of a score that is no number this is not so, either.
            return not ((one.scores < conf).all() and (other.scores < conf).all())
    return True


def _same_length(
    p: NDArray[np.float32], q: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if p.shape != q.shape:
        raise ValueError(f"answers of {len(p)} and {len(q)} numbers have no agreement")
    return p.astype(np.float64), q.astype(np.float64)


def _overlap(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        return 0.0
    larger = float(np.maximum(p, q).sum())
    return _clipped(float(np.minimum(p, q).sum()) / larger) if larger > 0 else float((p == q).all())


def _cosine(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        return 0.0
    norms = float(np.linalg.norm(p) * np.linalg.norm(q))
    return _clipped(float(p @ q) / norms) if norms > 0 else float((p == q).all())


def _clipped(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _of_detections(a: Detections, b: Detections, conf: float, iou: float) -> float:
    for side in (a, b):
        if not (np.isfinite(side.boxes).all() and np.isfinite(side.scores).all()):
            return 0.0
    total = int((a.scores >= conf).sum() + (b.scores >= conf).sum())
    if total == 0:
        return 1.0
    return _matched(_kept(a, conf / 2), _kept(b, conf / 2), conf, iou) / total


def _kept(found: Detections, conf: float) -> Detections:
    chosen = found.scores >= conf
    return Detections(found.boxes[chosen], found.scores[chosen], found.class_ids[chosen])


def _matched(a: Detections, b: Detections, conf: float, iou: float) -> int:
    """Return how many boxes with a score of ``conf``, of both sides, have a partner."""
    overlap = _iou(a.boxes.astype(np.float64), b.boxes.astype(np.float64))
    strong_a, strong_b = a.scores >= conf, b.scores >= conf
    fits = (overlap >= iou) & (a.class_ids[:, None] == b.class_ids)
    i, j = np.nonzero(fits & (strong_a[:, None] | strong_b))
    # The last two keys make the order the same when the sides are swapped: what ties in all of
    # them is (i, j) and (j, i), and those two do not compete for a box.
    order = np.lexsort((abs(i - j), i + j, -overlap[i, j], -(a.scores[i] + b.scores[j])))
    free_a, free_b = [True] * len(a), [True] * len(b)
    matched = 0
    for x, y in zip(i[order].tolist(), j[order].tolist(), strict=True):
        if free_a[x] and free_b[y]:
            free_a[x] = free_b[y] = False
            matched += int(strong_a[x]) + int(strong_b[y])
    return matched


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    corner = np.maximum(a[:, None, :2], b[:, :2])
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - corner
    shared = np.prod(np.maximum(sides, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1] - shared
    overlap: NDArray[np.float64] = np.zeros_like(shared)
    np.divide(shared, union, out=overlap, where=union > 0)
    return overlap
