"""Accuracy of a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinue.measure.intervals import wilson


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right answers, with its confidence interval.

    Attributes:
        value: In [0, 1].
        low: Lower end of Wilson's interval.
        high: Upper end of it.
        correct: Right answers.
        total: Answers.
    """

    value: float
    low: float
    high: float
    correct: int
    total: int


def top_k(
    scores: NDArray[Any], labels: NDArray[Any], k: int = 1, confidence: float = 0.95
) -> Accuracy:
    """Return how often the true class is among the k best scores.

    Among equal scores the lower class id comes first, as a stable sort gives it; a model that
    answers the same for all classes is not right by that.

    Args:
        scores: (N, C) real; larger is better. Logits and probabilities give the same.
        labels: (N,) integers in [0, C).
        k: In [1, C].
        confidence: Of the interval, in (0, 1).

    Raises:
        ValueError: a shape or a value is out of range, or a score is NaN.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not len(labels):
        raise ValueError(f"need scores (N, C), labels (N,): {scores.shape}, {labels.shape}")
    classes = scores.shape[1]
    if not 1 <= k <= classes:
        raise ValueError(f"k must be 1..{classes}, not {k}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be 0..{classes - 1}: {labels.min()}..{labels.max()}")
    if np.isnan(scores).any():
        raise ValueError("scores contain NaN")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(classes) < labels[:, None]
    rank = (scores > own).sum(axis=1) + ((scores == own) & before).sum(axis=1)
    correct, total = int((rank < k).sum()), len(labels)
    low, high = wilson(correct, total, confidence)
    return Accuracy(correct / total, low, high, correct, total)
