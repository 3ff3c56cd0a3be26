"""What tests of 2D effects share: faces before a camera, and pictures of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.values import Face
from retinue.testing.ar import Head, pose

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 640, 480
CAMERA = Camera.from_fov(WIDTH, HEIGHT)


def face(points: int = 468, opacity: float = 1.0, **angles: Any) -> Face:
    where = pose(**({"at": (0.0, 0.0, 30.0)} | angles))
    return Face(1, 1.0, Head(where).seen(CAMERA, points), where, opacity=opacity)


def gray(level: int = 128) -> Pixels:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def skin() -> Pixels:
    """A picture that is nowhere the same."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return np.stack([90 + x // 8, 60 + y // 8, 110 + (x + y) // 16], -1).astype(np.uint8)


def changed(before: Pixels, after: Pixels) -> NDArray[np.bool_]:
    return np.asarray((before != after).any(axis=-1))
