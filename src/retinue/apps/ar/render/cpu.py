"""Draws without OpenGL: a rasteriser for triangles, compiled by Numba.

It follows the same formula as `gl` (`environment`) and OpenGL's rules for what a triangle covers,
so each checks the other. Pixels of solid surfaces are shaded once, after all depths are known.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.render import environment
from retinue.apps.ar.render.clip import clipped
from retinue.apps.ar.render.prepare import (
    Shape,
    checked,
    checked_draw,
    normal_matrix,
    plan,
    projection,
    size,
    unit_length,
)
from retinue.apps.ar.render.scene import Draw, Geometry, Texture, View
from retinue.apps.ar.render.smooth import PAD, REACH, find
from retinue.apps.ar.render.textures import mipmaps
from retinue.core.errors import InvalidRequest, MissingExtra

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Texels = tuple[NDArray[np.uint8], I64]

_NONE_1: Final = np.zeros(0, np.float32)
_NONE_2: Final = np.zeros((0, 2), np.float32)
_NONE_3: Final = np.zeros((0, 3), np.float32)
_NONE_4: Final = np.zeros((0, 4), np.float32)
_NO_TEXELS: Final = np.zeros(0, np.uint8), np.zeros((0, 3), np.int64)


def library() -> ModuleType:
    """Return the compiled loops.

    Raises:
        MissingExtra: Numba is not installed.
    """
    try:
        return importlib.import_module("retinue.apps.ar.render.kernels")
    except ImportError as error:
        raise MissingExtra(
            "drawing without OpenGL needs Numba; install it with: pip install 'retinue[ar-cpu]'"
        ) from error


def studio() -> F64:
    """Return the numbers of `environment` as the loops take them."""
    numbers: list[float] = [*environment.FLOOR, *environment.WALL, *environment.GROUND]
    numbers += [*environment.SKY, *environment.KEY_LIGHT, *environment.KEY]
    numbers += [environment.SHARPEST, environment.BLUR, environment.WRAP]
    numbers += [environment.DIELECTRIC, environment.LEAST_FACING]
    for lamp in environment.LAMPS:
        numbers += [*lamp.middle, *lamp.right, *lamp.up, *lamp.half, lamp.light]
    return np.array([*numbers, *environment.ENCODE, environment.ENCODE_FROM])


@dataclass(slots=True)
class _Mesh:
    """A geometry with its arrays as the loops take them."""

    positions: F32
    triangles: NDArray[np.int32]
    normals: F32
    uv: F32
    colors: F32
    shape: Shape = field(default_factory=Shape)


@dataclass(slots=True)
class _Ready:
    """A draw whose vertices are placed."""

    triangles: NDArray[np.int32]
    corners: I64
    nearness: F64
    carried: F32
    surface: F64
    texels: Texels
    flags: I64


class CpuRenderer:
    """A renderer on the processor; see `scene.Renderer`.

    Raises:
        MissingExtra: Numba is not installed.
    """

    def __init__(self) -> None:
        self._loops = library()
        self._studio = studio()
        self._meshes: weakref.WeakKeyDictionary[Geometry, _Mesh] = weakref.WeakKeyDictionary()
        self._pictures: weakref.WeakKeyDictionary[Texture, Texels] = weakref.WeakKeyDictionary()
        self._closed = False

    @property
    def name(self) -> str:
        """For people."""
        return "CPU"

    def render(self, draws: Sequence[Draw], view: View) -> NDArray[np.uint8]:
        """Draw; see `scene.Renderer.render`.

        Raises:
            InvalidRequest: the view or a mesh is not as it must be, or it was closed.
        """
        if self._closed:
            raise InvalidRequest("the renderer is closed; open another one")
        width, height = size(view)
        order = plan(draws)
        image = np.zeros((height, width, 4), np.uint8)
        if not order.solid and not order.seen_through:
            return image
        seen = projection(view, width, height)
        depth = np.full((height, width), 1 / view.far, np.float32)
        owner = np.full((height, width, 2), -1, np.int32)
        for draw in order.hidden:
            self._cover(self._ready(draw, seen, view.near), -1, depth, owner, image)
        solid = [self._ready(draw, seen, view.near) for draw in order.solid]
        for number, ready in enumerate(solid):
            self._cover(ready, number, depth, owner, image)
        for number, ready in enumerate(solid):
            self._shade(ready, number, owner, image)
        for number, draw in enumerate(order.seen_through, len(solid)):
            ready = self._ready(draw, seen, view.near)
            if draw.material is not None and draw.material.alpha_mode != "blend":
                # A faded solid hides its own inside.
                self._cover(ready, number, depth, owner, image)
                self._shade(ready, number, owner, image)
                continue
            ready.flags[4] = 1
            sides = [ready.flags[3]] if ready.flags[3] else _back_first(draw)
            for ready.flags[3] in sides:
                self._cover(ready, number, depth, owner, image)
        return self._smooth(image)

    def close(self) -> None:
        """Give back what it holds. May be called twice."""
        self._meshes.clear()
        self._pictures.clear()
        self._closed = True

    def _cover(
        self,
        ready: _Ready,
        number: int,
        depth: F32,
        owner: NDArray[np.int32],
        image: NDArray[np.uint8],
    ) -> None:
        self._loops.cover(*_arguments(ready), number, self._studio, depth, owner, image)

    def _shade(
        self, ready: _Ready, number: int, owner: NDArray[np.int32], image: NDArray[np.uint8]
    ) -> None:
        self._loops.shade(*_arguments(ready), number, self._studio, owner, image)

    def _smooth(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        plane, places, stride = find(image)
        if not len(places):
            return image
        made = image.copy()
        self._loops.smooth(image, plane, places, stride, PAD, REACH, made)
        return made

    def _mesh(self, geometry: Geometry) -> _Mesh:
        found = self._meshes.get(geometry)
        if found is None:
            checked(geometry)
            found = _Mesh(
                _array(geometry.positions, _NONE_3),
                np.array(geometry.triangles, np.int32, order="C"),
                _array(geometry.normals, _NONE_3),
                _array(geometry.uv, _NONE_2),
                _array(geometry.colors, _NONE_4),
            )
            self._meshes[geometry] = found
        return found

    def _picture(self, texture: Texture) -> Texels:
        found = self._pictures.get(texture)
        if found is None:
            levels = mipmaps(texture.pixels)
            sizes = [level.size for level in levels]
            starts = np.cumsum([0, *sizes[:-1]])
            table = [
                (start, level.shape[1], level.shape[0])
                for start, level in zip(starts, levels, strict=True)
            ]
            found = np.concatenate([level.ravel() for level in levels]), np.array(table, np.int64)
            self._pictures[texture] = found
        return found

    def _ready(self, draw: Draw, seen: F64, near: float) -> _Ready:
        checked_draw(draw)
        mesh, loops = self._mesh(draw.geometry), self._loops
        positions = mesh.positions if draw.positions is None else _array(draw.positions, _NONE_3)
        placed = np.empty((len(positions), 3))
        loops.place(positions, np.array(draw.matrix, np.float64, order="C"), placed)
        carried = np.zeros((len(positions), loops.COLUMNS), np.float32)
        surface, flags, texels = np.zeros(14), np.zeros(5, np.int64), _NO_TEXELS
        material = draw.material
        if material is not None:
            coarse = mesh.shape.coarse(draw.geometry, material.roughness)
            lighting = loops.AT_PIXELS if coarse else loops.AT_VERTICES
            flags[0] = loops.UNLIT if material.unlit else lighting
            flags[1] = ("opaque", "mask", "blend").index(material.alpha_mode)
            flags[3] = 0 if material.double_sided else _front(draw)
            surface[:6] = (*material.base_color, material.metallic, material.roughness)
            surface[6:9] = material.emissive
            surface[9:11] = material.alpha_cutoff, min(draw.opacity, 1.0)
            surface[13] = material.double_sided
            density, uv = _NONE_1, mesh.uv
            if material.texture is not None:
                density = mesh.shape.texels(draw.geometry)
                texels = self._picture(material.texture)
                flags[2] = ("repeat", "clamp", "mirror").index(material.texture.wrap)
                surface[11:13] = _detail(texels[1], seen, draw.matrix)
            normals = mesh.normals if draw.normals is None else _array(draw.normals, _NONE_3)
            turn = np.ascontiguousarray(normal_matrix(draw.matrix))
            loops.carry(
                placed, normals, turn, uv, density, mesh.colors, surface, flags[0],
                self._studio, carried,
            )  # fmt: skip
        triangles = mesh.triangles
        if len(placed) and not placed[:, 2].min() >= near:
            triangles, placed, carried = clipped(triangles, placed, carried, near)
        corners, nearness = np.empty((len(placed), 2), np.int64), np.empty(len(placed))
        loops.project(placed, seen, corners, nearness)
        return _Ready(triangles, corners, nearness, carried, surface, texels, flags)


def _arguments(ready: _Ready) -> tuple[Any, ...]:
    return (
        ready.triangles, ready.corners, ready.nearness, ready.carried, ready.surface,
        *ready.texels, ready.flags,
    )  # fmt: skip


def _array(values: NDArray[Any] | None, none: F32) -> F32:
    # Writable copies: the loops are compiled anew for read-only arrays.
    return none if values is None else np.array(values, np.float32, order="C")


def _front(draw: Draw) -> int:
    """Return the sign that areas of front faces have in pixels, whose y goes down."""
    return 1 if np.linalg.det(draw.matrix[:3, :3]) < 0 else -1


def _back_first(draw: Draw) -> list[int]:
    return [-_front(draw), _front(draw)]


def _detail(levels: I64, seen: F64, matrix: F64) -> tuple[float, float]:
    side = np.sqrt(levels[0, 1] * levels[0, 2])
    focal = np.sqrt(abs(seen[0, 0] * seen[1, 1]))
    return float(np.log2(side / (focal * unit_length(matrix) + 1e-12))), len(levels) - 1.0
