"""Local features: whether two pictures show the same thing, in some position.

ORB corners (E. Rublee et al., ICCV 2011) are matched by Lowe's ratio test, and the matches that one
similarity transform (turn, scale, shift) explains are counted: many only where the same object or
picture is in both.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Features: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.uint8]]"

CORNERS: Final = 300
SIDE: Final = 256
RATIO: Final = 0.8
TOLERANCE_PX: Final = 5.0
LEAST: Final = 4
BORDER: Final = 31
"""Pixels from the edge within which ORB looks for no corners."""


def features(pixels: Pixels) -> Features:
    """Return corners (N, 2) float32, x and y, and their descriptors (N, 32) uint8.

    Args:
        pixels: (H, W, 3) uint8 RGB; the longer side is reduced to 256 pixels.
    """
    scale = SIDE / max(pixels.shape[:2])
    if scale < 1:
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    if min(pixels.shape[:2]) <= 2 * BORDER:
        # OpenCV fails on a picture so thin that its pyramid has no pixels.
        return np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    finder = cv2.ORB_create(nfeatures=CORNERS, fastThreshold=10)  # type: ignore[attr-defined]
    corners, descriptors = finder.detectAndCompute(grey, None)
    if descriptors is None:
        return np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8)
    points = np.array([corner.pt for corner in corners], np.float32)
    return points, np.asarray(descriptors, np.uint8)


def inliers(query: Features, item: Features) -> int:
    """Return at how many different places matches agree with one similarity transform.

    Of unlike pictures there are seldom more than 4, of a copy that is turned, scaled or cropped
    more than 10.
    """
    if min(len(query[0]), len(item[0])) < LEAST:
        return 0
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(query[1], item[1], k=2)
    good = [m[0] for m in pairs if len(m) == 2 and m[0].distance < RATIO * m[1].distance]
    if len(good) < LEAST:
        return 0
    there = query[0][[match.queryIdx for match in good]]
    here = item[0][[match.trainIdx for match in good]]
    # RANSAC draws at random; the same pictures must always give the same count.
    cv2.setRNGSeed(0)
    _, mask = cv2.estimateAffinePartial2D(there, here, ransacReprojThreshold=TOLERANCE_PX)
    if mask is None:
        return 0
    agree = mask[:, 0] > 0
    return min(_places(there[agree]), _places(here[agree]))


def _places(points: NDArray[np.float32]) -> int:
    # Unlike pictures agree in a corner that many match, or that is found at several scales.
    return len(np.unique(np.round(points / TOLERANCE_PX), axis=0))
