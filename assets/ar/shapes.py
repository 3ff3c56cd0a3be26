"""Triangle meshes out of a few parametric surfaces: grids, tubes, lofts, lathes, spheres.

All in centimetres of the canonical face: x to the picture's right, y up, z out of the face.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def _joined(first: Floats | None, second: Floats | None) -> Floats | None:
    return None if first is None or second is None else np.concatenate([first, second])


@dataclass(frozen=True)
class Mesh:
    """Triangles, counter-clockwise seen from outside; uv and linear colours where given."""

    positions: Floats
    triangles: NDArray[np.int64]
    uv: Floats | None = None
    colors: Floats | None = None
    flat: bool = False

    def __add__(self, other: Mesh) -> Mesh:
        """Join two meshes that have the same attributes."""
        return Mesh(
            np.concatenate([self.positions, other.positions]),
            np.concatenate([self.triangles, other.triangles + len(self.positions)]),
            _joined(self.uv, other.uv),
            _joined(self.colors, other.colors),
            self.flat,
        )

    def moved(self, by: ArrayLike = (0, 0, 0), turn: Floats | None = None) -> Mesh:
        """Turn about the origin, then move."""
        turned = self.positions if turn is None else self.positions @ turn.T
        return replace(self, positions=turned + np.asarray(by, float))

    def mirrored(self) -> Mesh:
        """The other side of the face: x negated, triangles turned round."""
        return replace(
            self, positions=self.positions * (-1, 1, 1), triangles=self.triangles[:, ::-1]
        )

    def bent(self, bend: Callable[[Floats], Floats]) -> Mesh:
        """Move every vertex by a function of all of them."""
        return replace(self, positions=bend(self.positions))

    def painted(self, color: ArrayLike | Floats) -> Mesh:
        """Give all vertices a linear RGBA colour, or each its own."""
        colors = np.broadcast_to(np.asarray(color, float), (len(self.positions), 4))
        return replace(self, colors=colors.copy())

    def reversed(self) -> Mesh:
        """Inside out."""
        return replace(self, triangles=self.triangles[:, ::-1])

    def faceted(self) -> Mesh:
        """Every triangle its own vertices, so that the facets stay sharp."""
        index = self.triangles.ravel()
        return Mesh(
            self.positions[index],
            np.arange(len(index)).reshape(-1, 3),
            None if self.uv is None else self.uv[index],
            None if self.colors is None else self.colors[index],
            flat=True,
        )


def normals(mesh: Mesh) -> Floats:
    """Unit normals, the triangles' weighted by area, smooth over seams where vertices coincide."""
    corners = mesh.positions[mesh.triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    _, same = np.unique(np.round(mesh.positions, 5), axis=0, return_inverse=True)
    same = np.arange(len(mesh.positions)) if mesh.flat else same.ravel()
    summed = np.zeros((same.max() + 1, 3))
    for corner in range(3):
        np.add.at(summed, same[mesh.triangles[:, corner]], faces)
    found = summed[same]
    return unit(found)


def grid(points: Floats, uv: Floats | None = None) -> Mesh:
    """A sheet of (rows, columns, 3) points; its front is where rows x columns points to."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    positions = points.reshape(-1, 3)
    corners = positions[triangles]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    if uv is None:
        v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
        uv = np.stack([u, v], -1)
    return Mesh(positions, triangles[area > 1e-9], uv.reshape(-1, 2))


def curve(points: ArrayLike, count: int, *, closed: bool = False) -> Floats:
    """(count, D) points of the Catmull-Rom spline through points, at even steps of its length."""
    given = np.asarray(points, float)
    if closed:
        padded = np.concatenate([given[-1:], given, given[:2]])
    else:
        padded = np.concatenate([2 * given[:1] - given[1:2], given, 2 * given[-1:] - given[-2:-1]])
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        pieces.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2)
            + 0.5 * (3 * b - a - 3 * c + d) * t**3
        )
    dense = np.concatenate([*pieces, padded[-2:-1]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    at = np.linspace(0, length[-1], count)
    return np.stack([np.interp(at, length, column) for column in dense.T], -1)


def profile(knots: ArrayLike, count: int) -> Floats:
    """(count,) values of a smooth function that is given by its values at even steps."""
    values = np.asarray(knots, float)
    at = np.linspace(0, len(values) - 1, count)
    low = np.minimum(at.astype(int), len(values) - 2)
    t = at - low
    slope = np.gradient(values)
    a, b, da, db = values[low], values[low + 1], slope[low], slope[low + 1]
    return np.asarray(
        a * (1 + 2 * t) * (1 - t) ** 2
        + da * t * (1 - t) ** 2
        + b * t**2 * (3 - 2 * t)
        + db * t**2 * (t - 1)
    )


def unit(vectors: Floats) -> Floats:
    """Vectors of length 1."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def tangents(path: Floats, *, closed: bool = False) -> Floats:
    """Unit directions along a path whose last point repeats the first where closed."""
    if not closed:
        return unit(np.gradient(path, axis=0))
    ahead = np.concatenate([path[1:], path[1:2]])
    behind = np.concatenate([path[-2:-1], path[:-1]])
    return unit(ahead - behind)


def sweep(path: Floats, section: Floats, up: ArrayLike, *, closed: bool = False) -> Mesh:
    """Sweep closed sections along a path.

    Args:
        path: (N, 3); closed paths repeat their first point.
        section: (N, K, 2) or (K, 2): offsets along the side and the up vector, counter-clockwise;
            the last repeats the first.
        up: (3,) or (N, 3), which way is up, roughly.
        closed: Whether the path is a loop.
    """
    along = tangents(path, closed=closed)
    side = unit(np.cross(np.broadcast_to(np.asarray(up, float), path.shape), along))
    over = np.cross(along, side)
    sections = np.broadcast_to(section, (len(path), *section.shape[-2:]))
    points = path[:, None] + sections[..., :1] * side[:, None] + sections[..., 1:] * over[:, None]
    return grid(points).reversed()


def circle(count: int, radius: ArrayLike = 1.0) -> Floats:
    """(count + 1, 2) or (N, count + 1, 2): a section, counter-clockwise, closed."""
    angle = np.linspace(0, 2 * np.pi, count + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    ring[-1] = ring[0]
    return np.asarray(np.asarray(radius, float)[..., None, None] * ring)


def tube(path: Floats, radius: ArrayLike, sides: int = 8, up: ArrayLike = (0, 0.2, 1)) -> Mesh:
    """A round tube; close its ends by radii of 0."""
    return sweep(path, circle(sides, np.broadcast_to(np.asarray(radius, float), len(path))), up)


def sphere(radius: ArrayLike, rows: int = 12, columns: int = 20, *, until: float = 1.0) -> Mesh:
    """A ball or an ellipsoid about the origin, its poles on y; v runs from top to bottom.

    Below a share ``until`` of the way from pole to pole it is open, for what is never seen.
    """
    down, round_ = np.meshgrid(
        np.linspace(0, until * np.pi, rows + 1),
        np.linspace(0, 2 * np.pi, columns + 1),
        indexing="ij",
    )
    flat = np.sin(down)
    flat[0] = 0
    if until == 1:
        flat[-1] = 0
    points = np.stack([flat * np.sin(round_), np.cos(down), flat * np.cos(round_)], -1)
    points[:, -1] = points[:, 0]
    return grid(points * np.asarray(radius, float))


def lathe(outline: Floats, columns: int, *, oval: float = 1.0) -> Mesh:
    """Turn (N, 2) points (radius, y) about the y axis; z is stretched by oval.

    Front where the outline goes down on the outside.
    """
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    sine, cosine = np.sin(angle), np.cos(angle)
    sine[-1], cosine[-1] = sine[0], cosine[0]
    radius = outline[:, :1]
    height = np.broadcast_to(outline[:, 1:], (len(outline), columns + 1))
    return grid(np.stack([radius * sine, height, radius * cosine * oval], -1))


def turn(x: float = 0, y: float = 0, z: float = 0) -> Floats:
    """Rotation matrix Rz @ Ry @ Rx of angles in degrees."""
    (a, b, c), (p, q, r) = (f(np.radians([x, y, z])) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, a, -p], [0, p, a]])
    about_y = np.array([[b, 0, q], [0, 1, 0], [-q, 0, b]])
    about_z = np.array([[c, -r, 0], [r, c, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)
