"""A glTF model: nodes, where they are at a time, and what of them is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.gltf.animation import Track, tracks
from retinue.apps.ar.gltf.container import Container, item
from retinue.apps.ar.gltf.document import Document, Node
from retinue.apps.ar.gltf.meshes import MAX_TRIANGLES, Piece, pieces, target_names, unit
from retinue.apps.ar.gltf.surfaces import Surfaces
from retinue.apps.ar.render.scene import Draw
from retinue.core.errors import FilterInvalid
from retinue.core.settings import Limits

Matrix = NDArray[np.float64]
FARTHEST: Final = 1e6
"""Units from the origin that a vertex may be at rest."""
LIMITS: Final = Limits(max_bytes=16 * 2**20, max_pixels=4096 * 4096, max_frames=1)


@dataclass(frozen=True, slots=True, eq=False)
class Skin:
    """Joints, and where each was when the mesh was bound to it: (J, 4, 4)."""

    joints: tuple[int, ...]
    inverse: Matrix


class Model:
    """A model in memory; it is never changed by being drawn.

    Attributes:
        animations: Names, or numbers where there are none.
        morphs: Names of the morph targets of all its meshes, or numbers.
        triangles: How many are drawn.
    """

    def __init__(self, container: Container) -> None:
        self._document = container.document
        self._order, self._parents = _hierarchy(self._document)
        surfaces = Surfaces(container)
        self._pieces: dict[int, list[Piece]] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        for index in self._order:
            mesh = self._document.nodes[index].mesh
            if mesh is not None and mesh not in self._pieces:
                spec = item(self._document.meshes, mesh, "mesh")
                self._pieces[mesh] = pieces(container, surfaces, spec)
                targets = max((len(piece.moves) for piece in self._pieces[mesh]), default=0)
                self._names[mesh] = target_names(spec, targets)
        self._skins = {
            index: _skin(container, index)
            for index in {
                node.skin
                for node in (self._document.nodes[number] for number in self._order)
                if node.skin is not None
            }
        }
        self._check_joints()
        self._animations: dict[str, list[Track]] = {}
        for number, spec_ in enumerate(self._document.animations):
            name = spec_.name or str(number)
            self._animations.setdefault(name, []).extend(tracks(container, spec_))
        self.animations = tuple(self._animations)
        self.morphs = tuple(dict.fromkeys(name for each in self._names.values() for name in each))
        drawn = [
            piece for index in self._order for piece in self._pieces.get(self._mesh(index), ())
        ]
        self.triangles = sum(len(piece.geometry.triangles) for piece in drawn)
        if self.triangles > MAX_TRIANGLES:
            raise FilterInvalid(f"it has {self.triangles:,} triangles; at most {MAX_TRIANGLES:,}")
        with np.errstate(all="ignore"):
            low, high = self.bounds
        if not max(-low.min(), high.max()) <= FARTHEST:
            raise FilterInvalid(f"it is larger than {FARTHEST:g} units; look at its nodes' scales")

    def _mesh(self, node: int) -> int:
        mesh = self._document.nodes[node].mesh
        return -1 if mesh is None else mesh

    def _check_joints(self) -> None:
        for index in self._order:
            node = self._document.nodes[index]
            if node.skin is None:
                continue
            joints = len(self._skins[node.skin].joints)
            for piece in self._pieces.get(self._mesh(index), ()):
                if piece.joints is not None and piece.joints.max() >= joints:
                    raise FilterInvalid(
                        f"a mesh is pulled by joint {piece.joints.max()} of a skin with {joints}"
                    )

    @property
    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest corner (3,) at rest, in the file's units; zeros where it is empty."""
        corners = [
            positions @ draw.matrix[:3, :3].T + draw.matrix[:3, 3]
            for draw in self.draws(np.eye(4), 0.0)
            for positions in (
                draw.geometry.positions if draw.positions is None else draw.positions,
            )
        ]
        if not corners:
            return np.zeros(3), np.zeros(3)
        whole = np.concatenate(corners)
        return whole.min(axis=0), whole.max(axis=0)

    def length(self, animation: str) -> float:
        """Return an animation's length in seconds; 0 where there is none of that name."""
        return max((float(t.times[-1]) for t in self._animations.get(animation, ())), default=0.0)

    def draws(
        self,
        matrix: Matrix,
        seconds: float,
        *,
        weights: Mapping[str, float] | None = None,
        animation: str | None = None,
    ) -> list[Draw]:
        """Return its meshes at a time of an animation.

        Args:
            matrix: (4, 4) from the model's to the camera's coordinates.
            seconds: Since the animation began; after its end it stands still.
            weights: Of morph targets, by name; they go before the animation's.
            animation: Its name; None for none.
        """
        changed: dict[tuple[int, str], Matrix] = {
            (track.node, track.path): track.at(seconds)
            for track in self._animations.get(animation or "", ())
        }
        places: dict[int, Matrix] = {}
        for index in self._order:
            parent = self._parents[index]
            own = _local(self._document.nodes[index], index, changed)
            places[index] = own if parent is None else places[parent] @ own
        found: list[Draw] = []
        for index in self._order:
            mesh = self._mesh(index)
            for piece in self._pieces.get(mesh, ()):
                amounts = self._amounts(index, mesh, changed, weights or {})
                found.append(self._draw(index, piece, amounts, places, matrix))
        return found

    def _amounts(
        self,
        index: int,
        mesh: int,
        changed: Mapping[tuple[int, str], Matrix],
        given: Mapping[str, float],
    ) -> Matrix:
        names = self._names[mesh]
        node = self._document.nodes[index]
        rest = node.weights if node.weights is not None else self._document.meshes[mesh].weights
        amounts = np.zeros(len(names))
        now = changed.get((index, "weights"), np.array(rest, np.float64))[: len(names)]
        amounts[: len(now)] = now
        for number, name in enumerate(names):
            amounts[number] = given.get(name, amounts[number])
        return amounts

    def _draw(
        self,
        index: int,
        piece: Piece,
        amounts: Matrix,
        places: Mapping[int, Matrix],
        matrix: Matrix,
    ) -> Draw:
        node, geometry = self._document.nodes[index], piece.geometry
        skinned = node.skin is not None and piece.joints is not None
        if not skinned and not amounts.any():
            return Draw(geometry, piece.material, matrix @ places[index])
        positions, normals = piece.morphed(amounts)
        if not skinned:
            return Draw(geometry, piece.material, matrix @ places[index], positions, normals)
        assert node.skin is not None and piece.joints is not None and piece.weights is not None
        skin = self._skins[node.skin]
        # A skinned mesh stands where its joints are; its own node's place does not count.
        still = np.eye(4)
        bones = np.stack([places.get(joint, still) for joint in skin.joints]) @ skin.inverse
        positions, normals = _pulled(bones, piece.joints, piece.weights, positions, normals)
        return Draw(geometry, piece.material, matrix, positions, normals)


def _pulled(
    bones: Matrix,
    joints: NDArray[np.int64],
    weights: NDArray[np.float32],
    positions: NDArray[np.float32],
    normals: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return positions and normals (N, 3), moved with four joints each."""
    flat = bones[:, :3].reshape(-1, 12).astype(np.float32)
    mixed = weights[:, :1] * flat[joints[:, 0]]
    for slot in range(1, 4):
        mixed += weights[:, slot : slot + 1] * flat[joints[:, slot]]
    rows = mixed.reshape(-1, 3, 4)
    moved = np.einsum("nij,nj->ni", rows[:, :, :3], positions) + rows[:, :, 3]
    return moved, unit(np.einsum("nij,nj->ni", rows[:, :, :3], normals))


def load(path: Path, limits: Limits = LIMITS) -> Model:
    """Read a ``.gltf`` or ``.glb`` file with all that it needs.

    Args:
        path: The file; what it refers to is read from its folder alone.
        limits: ``max_bytes`` of all files together, ``max_pixels`` of all pictures together.

    Raises:
        FilterInvalid: it is damaged, too large, not glTF 2.0, or refers to what is not there or
            must not be read; the message says what.
        StorageError: it cannot be read.
    """
    return Model(Container(path, limits))


def _hierarchy(document: Document) -> tuple[list[int], dict[int, int | None]]:
    """Return the scene's nodes, parents first, and each one's parent."""
    if document.scenes:
        roots = item(document.scenes, document.scene, "scene").nodes
    else:
        inner = {child for node in document.nodes for child in node.children}
        roots = [index for index in range(len(document.nodes)) if index not in inner]
        if document.nodes and not roots:
            raise FilterInvalid("its nodes are a circle: each is inside another")
    order: list[int] = []
    parents: dict[int, int | None] = {}
    waiting: list[tuple[int, int | None]] = [(root, None) for root in reversed(roots)]
    while waiting:
        index, parent = waiting.pop()
        node = item(document.nodes, index, "node")
        if index in parents:
            raise FilterInvalid(
                f"node {index} is inside two nodes or inside itself; nodes must form a tree"
            )
        parents[index] = parent
        order.append(index)
        waiting += [(child, index) for child in reversed(node.children)]
    return order, parents


def _local(node: Node, index: int, changed: Mapping[tuple[int, str], Matrix]) -> Matrix:
    if node.matrix is not None:
        return np.array(node.matrix, np.float64).reshape(4, 4).T
    place: Any = changed.get((index, "translation"), node.translation)
    turn: Any = changed.get((index, "rotation"), node.rotation)
    size: Any = changed.get((index, "scale"), node.scale)
    whole = np.eye(4)
    whole[:3, :3] = _rotation(np.asarray(turn, np.float64)) * np.asarray(size, np.float64)
    whole[:3, 3] = place
    return whole


def _rotation(quaternion: Matrix) -> Matrix:
    length = float(np.linalg.norm(quaternion))
    x, y, z, w = quaternion / length if length > 1e-12 else (0.0, 0.0, 0.0, 1.0)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _skin(container: Container, index: int) -> Skin:
    spec = item(container.document.skins, index, "skin")
    for joint in spec.joints:
        item(container.document.nodes, joint, "node")
    inverse = np.tile(np.eye(4), (len(spec.joints), 1, 1))
    if spec.inverseBindMatrices is not None:
        read = container.array(spec.inverseBindMatrices, ("MAT4",)).astype(np.float64)
        if len(read) < len(spec.joints):
            raise FilterInvalid(
                f"skin {index} has {len(spec.joints)} joints and {len(read)} matrices"
            )
        inverse = read[: len(spec.joints)].reshape(-1, 4, 4).transpose(0, 2, 1)
    return Skin(tuple(spec.joints), inverse)
