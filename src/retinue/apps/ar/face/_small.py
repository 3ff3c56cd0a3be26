"""Arithmetic on matrices that are too small for NumPy to be fast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def invert(matrix: NDArray[np.floating]) -> tuple[NDArray[np.float64], float]:
    """Return the inverse of a (3, 3) matrix and its determinant; where that is 0, zeros."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    first, second, third = e * i - f * h, f * g - d * i, d * h - e * g
    determinant = a * first + b * second + c * third
    if not abs(determinant) > 0:
        return np.zeros((3, 3)), 0.0
    one = 1.0 / determinant
    rows = (
        (first * one, (c * h - b * i) * one, (b * f - c * e) * one),
        (second * one, (a * i - c * g) * one, (c * d - a * f) * one),
        (third * one, (b * g - a * h) * one, (a * e - b * d) * one),
    )
    return np.array(rows), float(determinant)
