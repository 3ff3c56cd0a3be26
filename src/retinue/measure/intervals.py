"""Confidence intervals."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion: (low, high), in [0, 1].

    Unlike the textbook interval it keeps its coverage near 0 and 1 and for few trials.
    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927), 209-212.

    Args:
        successes: In [0, total].
        total: At least 1.
        confidence: In (0, 1); two-sided.

    Raises:
        ValueError: an argument is out of range.
    """
    if total < 1 or not 0 <= successes <= total or not 0 < confidence < 1:
        message = f"{successes} of {total} at confidence {confidence}"
        raise ValueError(f"need 0 <= successes <= total, total >= 1, 0 < confidence < 1: {message}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / total
    center = p + z * z / (2 * total)
    spread = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    norm = 1 + z * z / total
    # At the ends the interval touches 0 or 1 exactly; rounding would leave it a hair off.
    low = 0.0 if successes == 0 else (center - spread) / norm
    high = 1.0 if successes == total else (center + spread) / norm
    return low, high
