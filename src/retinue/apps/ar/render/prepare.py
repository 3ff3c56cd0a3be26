"""What both renderers do before they draw: the order of draws, the projection, what is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.render.environment import bend, density, detail, needs_pixels
from retinue.apps.ar.render.scene import Draw, Geometry, View
from retinue.core.errors import InvalidRequest

F64 = NDArray[np.float64]
MAX_SIDE = 8192
"""Longest side of a picture that is drawn."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Draws in the order in which they are drawn.

    Attributes:
        hidden: Depth alone.
        solid: Opaque and masked.
        seen_through: Blended or faded, from the farthest to the nearest.
    """

    hidden: list[Draw]
    solid: list[Draw]
    seen_through: list[Draw]


def plan(draws: Sequence[Draw]) -> Plan:
    """Sort draws; those without triangles or opacity are left out."""
    made = Plan([], [], [])
    for draw in draws:
        if not len(draw.geometry.triangles):
            continue
        if draw.material is None:
            made.hidden.append(draw)
        elif draw.opacity >= 1 and draw.material.alpha_mode != "blend":
            made.solid.append(draw)
        elif draw.opacity > 0:
            made.seen_through.append(draw)
    if len(made.seen_through) > 1:
        made.seen_through.sort(key=_distance, reverse=True)
    return made


def _distance(draw: Draw) -> float:
    positions = draw.geometry.positions if draw.positions is None else draw.positions
    middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    return float(np.linalg.norm(draw.matrix[:3, :3] @ middle + draw.matrix[:3, 3]))


def size(view: View) -> tuple[int, int]:
    """Return (width, height) of the picture that is drawn.

    Raises:
        InvalidRequest: the view is empty, or larger than `MAX_SIDE`.
    """
    sane = math.isfinite(view.scale) and view.scale > 0 and 0 < view.near < view.far
    sane = sane and min(view.width, view.height) > 0
    sane = sane and max(view.width, view.height) * view.scale <= MAX_SIDE
    if not sane:
        raise InvalidRequest(
            f"a view of {view.width}x{view.height} pixels at scale {view.scale:g}, from "
            f"{view.near:g} to {view.far:g} cm, cannot be drawn; give 1 to {MAX_SIDE} pixels a side"
        )
    width, height = round(view.width * view.scale), round(view.height * view.scale)
    return max(1, width), max(1, height)


def projection(view: View, width: int, height: int) -> F64:
    """Return (3, 3) K of the picture that is drawn: off-centre, and scaled with the view."""
    moved = np.asarray(view.intrinsics, np.float64).copy()
    moved[0] -= view.x * moved[2]
    moved[1] -= view.y * moved[2]
    moved[0] *= width / view.width
    moved[1] *= height / view.height
    return moved


def clip_matrix(seen: F64, width: int, height: int, near: float, far: float) -> F64:
    """Return OpenGL's (4, 4) for `projection`; the picture's first row is the window's lowest."""
    made = np.zeros((4, 4))
    made[0, :3] = 2 * seen[0] / width - seen[2]
    made[1, :3] = 2 * seen[1] / height - seen[2]
    made[2, 2], made[2, 3] = (far + near) / (far - near), -2 * far * near / (far - near)
    made[3, :3] = seen[2]
    return made


@dataclass(slots=True)
class Shape:
    """What is known of a geometry, found when it is asked for.

    Attributes:
        form: As `environment.bend` and `environment.detail`; None before it was asked for.
        density: As `environment.density`; None before it was asked for.
    """

    form: tuple[float, float] | None = None
    density: NDArray[np.float32] | None = None

    def coarse(self, draw: Draw, roughness: float, unit: float) -> bool:
        """Say whether a draw of it, whose unit is so many centimetres, must be lit by pixels."""
        geometry = draw.geometry
        normals = geometry.normals if geometry.normals is not None else draw.normals
        if normals is None:
            return False
        if self.form is None:
            triangles = geometry.triangles
            self.form = bend(normals, triangles), detail(geometry.positions, triangles)
        return needs_pixels(self.form[0], self.form[1] * unit, roughness)

    def texels(self, geometry: Geometry) -> NDArray[np.float32]:
        """Return its density.

        Raises:
            InvalidRequest: it has no texture coordinates.
        """
        if geometry.uv is None:
            raise InvalidRequest("a geometry with a texture needs texture coordinates (uv)")
        if self.density is None:
            self.density = density(geometry.positions, geometry.uv, geometry.triangles)
        return self.density


@dataclass(frozen=True, slots=True)
class Turn:
    """What a draw's matrix does to directions and lengths.

    Attributes:
        normals: (3, 3) from the mesh's normals to light space; their lengths change. It is made of
            cofactors, so a matrix that flattens the mesh is no error.
        unit: How long a unit of the mesh is in the camera's space, on average.
        mirrored: Whether what turns left in the mesh turns right.
    """

    normals: F64
    unit: float
    mirrored: bool


def turn(matrix: F64) -> Turn:
    """Look at a (4, 4) matrix. Plain numbers: NumPy takes ten times as long for so few."""
    (a, b, c, _), (d, e, f, _), (g, h, i, _) = matrix[:3].tolist()
    first = e * i - f * h, f * g - d * i, d * h - e * g
    second = c * h - b * i, a * i - c * g, b * g - a * h
    third = b * f - c * e, c * d - a * f, a * e - b * d
    volume = a * first[0] + b * first[1] + c * first[2]
    sign = -1.0 if volume < 0 else 1.0
    rows = [[sign * n for n in first], [-sign * n for n in second], [-sign * n for n in third]]
    return Turn(np.array(rows), abs(volume) ** (1 / 3), volume < 0)


def checked(geometry: Geometry) -> None:
    """Refuse arrays that do not fit each other: renderers follow indices without a look.

    Raises:
        InvalidRequest: a shape is wrong, or a triangle has a vertex that there is not.
    """
    positions, triangles = geometry.positions, geometry.triangles
    count = len(positions)
    shapes: list[tuple[str, NDArray[np.generic] | None, tuple[int, ...]]] = [
        ("positions", positions, (count, 3)),
        ("triangles", triangles, (len(triangles), 3)),
        ("normals", geometry.normals, (count, 3)),
        ("uv", geometry.uv, (count, 2)),
        ("colors", geometry.colors, (count, 4)),
    ]
    for name, values, shape in shapes:
        if values is not None and values.shape != shape:
            raise InvalidRequest(f"a geometry's {name} must be {shape}, not {values.shape}")
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < count:
        raise InvalidRequest(
            f"a geometry has {count} vertices, but triangles of {triangles.min()} to "
            f"{triangles.max()}"
        )


def checked_draw(draw: Draw) -> None:
    """Refuse what cannot be drawn.

    Raises:
        InvalidRequest: what stands in place of the geometry's has another shape, or light has no
            normals.
    """
    geometry = draw.geometry
    count = len(geometry.positions)
    moved = (("positions", draw.positions, 3), ("normals", draw.normals, 3))
    for name, values, columns in (*moved, ("colors", draw.colors, 4)):
        if values is not None and values.shape != (count, columns):
            raise InvalidRequest(f"a draw's {name} must be {(count, columns)}, not {values.shape}")
    lit = draw.material is not None and not draw.material.unlit
    if lit and geometry.normals is None and draw.normals is None:
        raise InvalidRequest("a lit material needs a geometry with normals; give some, or unlit")
