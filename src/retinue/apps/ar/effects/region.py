"""Which parts of a frame are drawn: boxes around what is seen, one where they overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.effects.live import NEAREST
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.render.scene import Draw, Geometry

Box = tuple[int, int, int, int]

_CORNERS: Final = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)])
_KEPT: Final = 256
_FEW: Final = 4096
"""Vertices that are looked at one by one; the box around more of them is larger than it must be."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What is drawn in one pass.

    Attributes:
        draws: All of it.
        box: (x1, y1, x2, y2) in pixels, inside the frame.
    """

    draws: list[Draw]
    box: Box


class Boxes:
    """Finds the boxes of draws in the picture; it remembers those of meshes that do not change."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Geometry, NDArray[np.float64]]] = {}

    def _outline(self, draw: Draw) -> NDArray[np.floating]:
        """Return points with the same box: all vertices, or the corners of many."""
        positions = draw.geometry.positions if draw.positions is None else draw.positions
        if len(positions) <= _FEW:
            return positions
        if draw.positions is not None:
            return _corners(positions)
        known = self._known.get(id(draw.geometry))
        if known is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = (draw.geometry, _corners(positions))
            self._known[id(draw.geometry)] = known
        return known[1]

    def of(self, draws: Sequence[Draw], camera: Camera, margin: int = 2) -> Box | None:
        """Return the box of all that is seen of draws; None where that is nothing.

        Args:
            draws: What draws depth alone is not seen.
            camera: That they are seen by.
            margin: Pixels around.
        """
        whole = (0, 0, camera.width, camera.height)
        found = []
        for draw in draws:
            if draw.material is None:
                continue
            seen = self._outline(draw) @ draw.matrix[:3, :3].T + draw.matrix[:3, 3]
            if seen[:, 2].max() <= NEAREST:
                continue
            if seen[:, 2].min() <= NEAREST:
                return whole
            found.append(camera.project(seen))
        if not found:
            return None
        places = np.concatenate(found)
        low, high = np.floor(places.min(axis=0)) - margin, np.ceil(places.max(axis=0)) + margin
        x1, y1 = max(0, int(low[0])), max(0, int(low[1]))
        x2, y2 = min(whole[2], int(high[0])), min(whole[3], int(high[1]))
        return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def _corners(positions: NDArray[np.float32]) -> NDArray[np.float64]:
    low, high = positions.min(axis=0), positions.max(axis=0)
    return np.asarray(low + _CORNERS * (high - low), np.float64)


def scenes(faces: Sequence[tuple[list[Draw], Box]]) -> list[Scene]:
    """Join faces whose boxes overlap: they may hide one another."""
    joined: list[Scene] = []
    for draws, box in faces:
        scene = Scene(draws, box)
        apart = []
        for other in joined:
            if _overlap(other.box, scene.box):
                a, b = other.box, scene.box
                around = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
                scene = Scene([*other.draws, *scene.draws], around)
            else:
                apart.append(other)
        joined = [*apart, scene]
    return joined


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
