"""Meshes of glTF: triangles, morph targets and the joints that pull at vertices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.gltf.container import Container
from retinue.apps.ar.gltf.document import Mesh, Primitive
from retinue.apps.ar.gltf.surfaces import Surfaces
from retinue.apps.ar.render.scene import Geometry, Material
from retinue.core.errors import FilterInvalid

Floats = NDArray[np.float32]
MODES: Final = (4, 5, 6)
"""Triangles, strips, fans; points and lines are passed over."""
MAX_TRIANGLES: Final = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A primitive of a mesh.

    Attributes:
        geometry: At rest.
        material: Its surface.
        moves: (T, N, 3) float32, what each morph target adds to positions; T may be 0.
        turns: (T, N, 3) float32, what each adds to normals.
        joints: (N, 4) indices into the skin's joints, or None.
        weights: (N, 4) float32 that sum to 1, or None.
    """

    geometry: Geometry
    material: Material
    moves: Floats
    turns: Floats
    joints: NDArray[np.int64] | None
    weights: Floats | None

    def morphed(self, amounts: NDArray[np.float64]) -> tuple[Floats, Floats]:
        """Return positions and normals with morph targets (T,) applied."""
        normals = self.geometry.normals
        assert normals is not None
        some = np.flatnonzero(amounts[: len(self.moves)])
        if not len(some):
            return self.geometry.positions, normals
        positions, turned = self.geometry.positions.copy(), normals.copy()
        for target in some:
            amount = np.float32(amounts[target])
            positions += amount * self.moves[target]
            turned += amount * self.turns[target]
        return positions, unit(turned)


def target_names(mesh: Mesh, count: int) -> tuple[str, ...]:
    """Return the names of a mesh's morph targets, as exporters keep them, or their numbers."""
    extras: Any = mesh.extras
    names = extras.get("targetNames") if isinstance(extras, dict) else None
    if isinstance(names, list) and len(names) == count and all(isinstance(n, str) for n in names):
        return tuple(names)
    return tuple(str(number) for number in range(count))


def pieces(container: Container, surfaces: Surfaces, mesh: Mesh) -> list[Piece]:
    """Read a mesh's primitives.

    Raises:
        FilterInvalid: an index is beyond the vertices, values are missing or not finite, or there
            are too many triangles.
    """
    return [
        _piece(container, surfaces, primitive)
        for primitive in mesh.primitives
        if primitive.mode in MODES
    ]


def _piece(container: Container, surfaces: Surfaces, spec: Primitive) -> Piece:
    given = spec.attributes
    if "POSITION" not in given:
        raise FilterInvalid("a mesh has no positions")
    positions = container.array(given["POSITION"], ("VEC3",)).astype(np.float32)
    count = len(positions)
    triangles = _triangles(container, spec, count)
    normals = _attribute(container, given, "NORMAL", ("VEC3",), count)
    normals = smooth(positions, triangles) if normals is None else unit(normals)
    which, matrix = surfaces.coordinates(spec.material)
    uv = _attribute(container, given, f"TEXCOORD_{which}", ("VEC2",), count)
    if uv is not None:
        uv = (uv @ matrix[:2, :2].T + matrix[:2, 2]).astype(np.float32)
    colors = _attribute(container, given, "COLOR_0", ("VEC3", "VEC4"), count)
    if colors is not None and colors.shape[1] == 3:
        colors = np.hstack([colors, np.ones((count, 1), np.float32)])
    moves, turns = _targets(container, spec, count)
    joints, weights = _pull(container, given, count)
    geometry = Geometry(positions, triangles, normals, uv, colors)
    material = surfaces.material(spec.material)
    if material.texture is not None and uv is None:
        raise FilterInvalid("a mesh has a texture and no texture coordinates")
    return Piece(geometry, material, moves, turns, joints, weights)


def _attribute(
    container: Container, given: dict[str, int], name: str, kinds: tuple[str, ...], count: int
) -> Floats | None:
    if name not in given:
        return None
    values = container.array(given[name], kinds).astype(np.float32)
    if len(values) != count:
        raise FilterInvalid(f"a mesh has {count} positions and {len(values)} of {name}")
    return values


def _triangles(container: Container, spec: Primitive, count: int) -> NDArray[np.int32]:
    if spec.indices is None:
        order = np.arange(count)
    else:
        order = container.array(spec.indices, ("SCALAR",))[:, 0].astype(np.int64)
    if len(order) and order.max() >= count:
        raise FilterInvalid(f"a mesh names vertex {order.max()}, but has {count}")
    if spec.mode == 4:
        found = order[: len(order) // 3 * 3].reshape(-1, 3)
    elif spec.mode == 5:
        found = np.stack([order[:-2], order[1:-1], order[2:]], 1)
        found[1::2] = found[1::2, [1, 0, 2]]
    else:
        found = np.stack([np.full(max(len(order) - 2, 0), order[0]), order[1:-1], order[2:]], 1)
    if len(found) > MAX_TRIANGLES:
        raise FilterInvalid(f"a mesh has {len(found):,} triangles; at most {MAX_TRIANGLES:,}")
    return np.ascontiguousarray(found, np.int32)


def _targets(container: Container, spec: Primitive, count: int) -> tuple[Floats, Floats]:
    container.reserve(24 * len(spec.targets) * count, "morph targets")
    moves = np.zeros((len(spec.targets), count, 3), np.float32)
    turns = np.zeros_like(moves)
    for number, target in enumerate(spec.targets):
        for into, name in ((moves, "POSITION"), (turns, "NORMAL")):
            values = _attribute(container, target, name, ("VEC3",), count)
            if values is not None:
                into[number] = values
    return moves, turns


def _pull(
    container: Container, given: dict[str, int], count: int
) -> tuple[NDArray[np.int64] | None, Floats | None]:
    weights = _attribute(container, given, "WEIGHTS_0", ("VEC4",), count)
    if weights is None or "JOINTS_0" not in given:
        return None, None
    joints = container.array(given["JOINTS_0"], ("VEC4",)).astype(np.int64)
    if len(joints) != count:
        raise FilterInvalid(f"a mesh has {count} positions and {len(joints)} of JOINTS_0")
    sums = weights.sum(axis=1, keepdims=True)
    return joints, np.asarray(weights / np.where(sums > 0, sums, 1), np.float32)


def unit(vectors: Floats) -> Floats:
    """Return vectors (N, 3) of length 1; what has no direction looks along z."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    if lengths.min(initial=1.0) > 1e-12:
        return np.asarray(vectors / lengths, np.float32)
    fallback = np.array([0, 0, 1], np.float32)
    return np.where(lengths > 1e-12, vectors / np.maximum(lengths, 1e-12), fallback).astype(
        np.float32
    )


def smooth(positions: Floats, triangles: NDArray[np.int32]) -> Floats:
    """Return normals (N, 3): of each vertex, the mean of its triangles' by their area."""
    first, second, third = (positions[triangles[:, corner]] for corner in range(3))
    faces = np.cross(second - first, third - first)
    sums = np.zeros_like(positions)
    for corner in range(3):
        np.add.at(sums, triangles[:, corner], faces)
    return unit(sums)
