"""Two models on the same images: the difference, and how sure it is.

Images are drawn again with replacement, the same ones for both models, as often as ``resamples``
says (the paired bootstrap); an interval holds the middle ``confidence`` of what comes out (the
percentile interval). Pairing takes out what both models find hard alike, mostly the greater part
of the spread: the interval of the difference is the one to judge by, not the overlap of the two
models' own.

What it tells: how far the figure would move with *as many other images of the same kind*. What it
does not: anything about images of another kind; what average precision would be on many more
images (it falls with their number; the difference hardly does); and little below some 50 images.
An interval of no width means that no image made a difference, not
that none ever will: see `Paired.verdict`.

Source: B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retinue.core.types import Detections
from retinue.measure._curves import Curves
from retinue.measure.detection import Truth

Floats = NDArray[np.float64]
Weights = NDArray[np.int32]
Figures = Callable[[Weights], Floats]
"""From how often each image counts, (images, R), to both models' figures, (2, R)."""

_CELLS = 2**22  # numbers in one array of a chunk of resamples

# Of n images of which none shows it, an event has at most this over n of a share, at 95 %.
_RULE_OF_THREE = 3.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its interval.

    Attributes:
        value: Of all the images.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width: a smaller effect than this is not told from none."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Paired:
    """A figure of two models on the same images.

    Attributes:
        a: Of the first.
        b: Of the second.
        difference: b - a; negative where the second is worse.
        images: Number of images.
        resamples: Resamples that the intervals come from.
        differences: (resamples,) the difference in each.
    """

    a: Interval
    b: Interval
    difference: Interval
    images: int
    resamples: int
    differences: Floats = field(repr=False, compare=False)

    def worse_than(self, margin: float) -> float:
        """Return the share of resamples in which the second loses more than ``margin``."""
        return float((-self.differences > margin).mean())

    def verdict(self, margin: float) -> Literal["within", "beyond", "open"]:
        """Say whether these images tell that the second loses at most ``margin``.

        Where the second loses in no resample, the interval says too much: a loss that was seen in
        none of n images may still have a share of 3 / n (the rule of three), which is taken off
        its lower end. Two models that are equally right need 3 / margin images.

        Returns:
            "within" when the whole interval of the difference is above -margin, "beyond" when
            all of it is below, else "open": with these images it cannot be told.
        """
        if self.difference.high < -margin:
            return "beyond"
        loses = bool((self.differences < 0).any())
        unseen = 0.0 if loses else _RULE_OF_THREE / self.images
        return "within" if self.difference.low - unseen >= -margin else "open"


def paired_mean(
    a: NDArray[Any],
    b: NDArray[Any],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Paired:
    """Compare the means of a figure that each image has of its own (right or wrong, a cosine).

    Args:
        a: (N,) real: the first model's figure of each image.
        b: (N,) real: the second's, in the same order.
        resamples: At least 1.
        confidence: Of the intervals, two-sided, in (0, 1).
        seed: Equal seeds give equal intervals.

    Raises:
        ValueError: a shape or an argument is out of range, or a figure is not finite.
    """
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"need two arrays (N,) with N >= 1: {a.shape}, {b.shape}")
    both = np.stack([a, b]).astype(np.float64)
    if not np.isfinite(both).all():
        raise ValueError("a figure is not finite")

    def figures(weights: Weights) -> Floats:
        return np.asarray(both @ weights / weights.sum(axis=0))

    plan = _Plan(resamples, confidence, seed)
    return _paired(figures(plan.once(len(a))), plan.evaluate(figures, len(a), len(a)), len(a), plan)


def paired_map(
    a: Sequence[Detections],
    b: Sequence[Detections],
    truths: Sequence[Truth],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    max_detections: int = 100,
) -> Paired:
    """Compare two detectors by COCO's mean average precision (IoU .50:.95, all areas).

    The figures are those of `retinue.measure.detection.coco_map`, by its rules. Boxes are
    matched once; a resample only counts each image as often as it was drawn. A class that a
    resample has no truth of is left out of that resample's mean, as COCO does, and a resample
    without any truth is left out. A resample holds fewer *different* images, and average
    precision comes out higher for fewer: the resamples are moved so that their mean is the
    figure of all images.

    Args:
        a: What the first found in each image.
        b: What the second found, in the same order.
        truths: What is there.
        resamples: At least 1.
        confidence: Of the intervals, two-sided, in (0, 1).
        seed: Equal seeds give equal intervals.
        max_detections: The best detections of each class and image that count.

    Raises:
        ValueError: lengths differ, there is no true box at all, or an argument is out of range.
    """
    if not len(a) == len(b) == len(truths):
        raise ValueError(f"lengths differ: {len(a)}, {len(b)}, {len(truths)}")
    sides = [Curves(found, truths, max_detections) for found in (a, b)]

    def figures(weights: Weights) -> Floats:
        return np.stack([side.mean_ap(weights) for side in sides])

    plan = _Plan(resamples, confidence, seed)
    whole = figures(plan.once(len(truths)))
    drawn = plan.evaluate(figures, len(truths), max(side.longest for side in sides))
    drawn = drawn[:, ~np.isnan(drawn[0])]
    if drawn.size:
        drawn += whole - drawn.mean(axis=1, keepdims=True)
    return _paired(whole, drawn, len(truths), plan, limits=(0.0, 1.0))


@dataclass(frozen=True, slots=True)
class _Plan:
    resamples: int
    confidence: float
    seed: int

    def __post_init__(self) -> None:
        if self.resamples < 1 or not 0 < self.confidence < 1:
            values = f"{self.resamples}, {self.confidence}"
            raise ValueError(f"need resamples >= 1 and confidence within (0, 1): {values}")

    def once(self, images: int) -> Weights:
        """Return the weights (images, 1) of the images as they are."""
        return np.ones((images, 1), np.int32)

    def evaluate(self, figures: Figures, images: int, rows: int) -> Floats:
        """Return the figures (2, resamples), a chunk of at most `_CELLS` / ``rows`` at a time."""
        rng = np.random.default_rng(self.seed)
        chunk = max(1, _CELLS // max(rows, images))
        parts = []
        for start in range(0, self.resamples, chunk):
            size = min(chunk, self.resamples - start)
            drawn = rng.multinomial(images, np.full(images, 1 / images), size)
            parts.append(figures(np.ascontiguousarray(drawn.T, np.int32)))
        return np.concatenate(parts, axis=1)

    def interval(self, value: float, values: Floats) -> Interval:
        ends = (1 - self.confidence) / 2, (1 + self.confidence) / 2
        low, high = np.quantile(values, ends) if values.size else (value, value)
        return Interval(value, float(low), float(high))


def _paired(
    whole: Floats,
    drawn: Floats,
    images: int,
    plan: _Plan,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> Paired:
    """Put together the figures of all images (2, 1), within limits, and of the resamples (2, R)."""
    a, b = whole[:, 0].tolist()
    differences = drawn[1] - drawn[0]
    return Paired(
        plan.interval(a, np.clip(drawn[0], *limits)),
        plan.interval(b, np.clip(drawn[1], *limits)),
        plan.interval(b - a, differences),
        images,
        len(differences),
        differences,
    )
