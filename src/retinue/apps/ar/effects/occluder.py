"""The invisible head: it hides what is behind it and is not seen itself.

The face is the live mesh. The skull goes on from the face's outline to the back of the head, whose
shape is an ellipsoid of a grown-up's measures; each ear is a flat one. All follow the person's own
outline, so that there is no gap and a wide face has a wide head.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.effects.live import F32, F64
from retinue.apps.ar.face.canonical import TRIANGLES, VERTICES
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.render.scene import Draw, Geometry

OVAL: Final = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""The face's outline, clockwise as the picture is seen, from the middle of the forehead."""
SET_BACK_CM: Final = 0.25
"""How far the invisible face lies behind the real one, so that what touches the skin is seen."""

# Centimetres in the canonical face's coordinates: a head 15 wide, 19 long, its top 12 above.
_MIDDLE: Final = np.array([0.0, 2.0, -3.0])
_SKULL: Final = np.array([0.0, 3.6, -4.2])
_SKULL_RADII: Final = np.array([7.6, 8.7, 9.2])
_BACK: Final = np.array([0.0, 0.05, -1.0])
_RINGS: Final = 12
_EAR: Final = np.array([7.75, 0.5, -3.5])
_EAR_RADII: Final = np.array([0.55, 2.9, 1.6])
_EAR_TURN: Final = 20.0
_EAR_AT: Final = 454


@cache
def face_geometry() -> Geometry:
    """Return the face's triangles at rest."""
    return Geometry(VERTICES, TRIANGLES)


@cache
def head() -> tuple[Geometry, NDArray[np.intp], F64]:
    """Return skull and ears.

    Returns:
        Triangles in canonical coordinates; by vertex, the face's vertex that it follows; and by
        how much, in [0, 1].
    """
    skull, follows, weights = _skull()
    ear, ear_triangles = _ear()
    parts = [(skull, _skull_triangles(len(OVAL))), (ear, ear_triangles)]
    parts.append((ear * (-1, 1, 1), ear_triangles[:, ::-1]))
    starts = np.cumsum([0, *(len(points) for points, _ in parts)])
    triangles = [
        triangles + start for (_, triangles), start in zip(parts, starts[:-1], strict=True)
    ]
    mirrored = OVAL[-OVAL.index(_EAR_AT)]
    sides = [np.full(len(ear), side) for side in (_EAR_AT, mirrored)]
    geometry = Geometry(
        np.concatenate([points for points, _ in parts]).astype(np.float32),
        np.ascontiguousarray(np.concatenate(triangles), np.int32),
    )
    return (
        geometry,
        np.concatenate([follows, *sides]),
        np.concatenate([weights, np.ones(2 * len(ear))]),
    )


def _skull() -> tuple[F64, NDArray[np.intp], F64]:
    outline = VERTICES[list(OVAL)].astype(np.float64) - _MIDDLE
    radius = np.linalg.norm(outline, axis=1, keepdims=True)
    start, end = outline / radius, _BACK / np.linalg.norm(_BACK)
    angle = np.arccos(np.clip(start @ end, -1, 1))[:, None]
    rings, weights = [], []
    for ring in range(_RINGS):
        share = ring / _RINGS
        way = np.sin((1 - share) * angle) * start + np.sin(share * angle) * end
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        goal = min(1.0, share / 0.4) ** 2 * (3 - 2 * min(1.0, share / 0.4))
        reach = (1 - goal) * radius + goal * _reach(way)[:, None]
        rings.append(_MIDDLE + way * reach)
        weights.append(np.full(len(OVAL), 1 - share))
    pole = _MIDDLE + end * _reach(end[None])[:, None]
    follows = np.concatenate([np.tile(OVAL, _RINGS), [OVAL[0]]])
    return np.concatenate([*rings, pole]), follows, np.concatenate([*weights, [0.0]])


def _reach(way: F64) -> F64:
    """Return how far it is from the middle to the skull, along (N, 3) unit vectors."""
    a = way / _SKULL_RADII
    b = (_MIDDLE - _SKULL) / _SKULL_RADII
    square, cross, rest = (a * a).sum(axis=1), a @ b, b @ b - 1
    return np.asarray((-cross + np.sqrt(cross**2 - square * rest)) / square)


def _skull_triangles(around: int) -> NDArray[np.int64]:
    ring, place = np.meshgrid(np.arange(_RINGS - 1), np.arange(around), indexing="ij")
    a, b = ring * around + place, ring * around + (place + 1) % around
    sides = np.stack([a, b, a + around, b, b + around, a + around], -1).reshape(-1, 3)
    last = (_RINGS - 1) * around + np.arange(around)
    pole = np.full(around, _RINGS * around)
    return np.concatenate([sides, np.stack([last, np.roll(last, -1), pole], -1)])


def _ear(rows: int = 7, columns: int = 10) -> tuple[F64, NDArray[np.int64]]:
    """Return the ear on the picture's right: an ellipsoid that stands out to the back."""
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, rows), np.arange(columns) * 2 * np.pi / columns, indexing="ij"
    )
    ball = np.stack(
        [np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], -1
    )
    turn = np.radians(_EAR_TURN)
    about_y = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    points = (ball.reshape(-1, 3) * _EAR_RADII) @ about_y.T + _EAR
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = row * columns + column, row * columns + (column + 1) % columns
    faces = np.stack([a, b, a + columns, b, b + columns, a + columns], -1).reshape(-1, 3)
    # Those at the poles that have no area.
    sides = points[faces[:, 1:]] - points[faces[:, :1]]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    return points, faces[area > 1e-9]


def occluder(face: Face, live: F32, *, whole: bool = True) -> list[Draw]:
    """Return what hides things, as draws of depth alone.

    Args:
        face: Whose.
        live: (N, 3) its landmarks in camera space.
        whole: With skull and ears; else the face alone.
    """
    still = np.eye(4)
    vertices = live[: len(VERTICES)]
    # Along the rays: the outline in the picture stays.
    back = (1 + SET_BACK_CM / vertices[:, 2:]).astype(np.float32)
    draws = [Draw(face_geometry(), None, still, positions=vertices * back)]
    if whole:
        geometry, follows, weights = head()
        pose = face.pose
        rest = geometry.positions @ pose.rotation.T + pose.translation
        posed = VERTICES @ pose.rotation.T + pose.translation
        own = rest + weights[:, None] * (vertices - posed)[follows]
        own *= 1 + SET_BACK_CM / pose.translation[2]
        draws.append(Draw(geometry, None, still, positions=own.astype(np.float32)))
    return draws
