"""Draws without OpenGL: a rasteriser for triangles, compiled by Numba.

It follows the same formula as `gl` (`environment`) and OpenGL's rules for what a triangle covers,
so each checks the other. Pixels of solid surfaces are shaded once, after all depths are known.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.render import environment
from retinue.apps.ar.render.clip import clipped
from retinue.apps.ar.render.compiled import loops
from retinue.apps.ar.render.composite import composite
from retinue.apps.ar.render.prepare import (
    Shape,
    Turn,
    checked,
    checked_draw,
    plan,
    projection,
    size,
    turn,
)
from retinue.apps.ar.render.scene import Draw, Geometry, Material, Texture, View
from retinue.apps.ar.render.smooth import smooth
from retinue.apps.ar.render.textures import mipmaps
from retinue.core.errors import InvalidRequest, MissingExtra

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Texels = tuple[NDArray[np.uint32], I64]

_NONE_1: Final = np.zeros(0, np.float32)
_NONE_2: Final = np.zeros((0, 2), np.float32)
_NONE_3: Final = np.zeros((0, 3), np.float32)
_NONE_4: Final = np.zeros((0, 4), np.float32)
_NO_TEXELS: Final = np.zeros(0, np.uint32), np.zeros((0, 3), np.int64)

_TASK: Final = 1024
"""Pixels that a thread shades before it looks for more."""
_WORTH_HELP: Final = 4


def library() -> ModuleType:
    """Return the compiled loops.

    Raises:
        MissingExtra: Numba is not installed.
    """
    found = loops()
    if found is None:
        raise MissingExtra(
            "drawing without OpenGL needs Numba; install it with: pip install 'retinue[ar-cpu]'"
        )
    return found


def studio() -> F64:
    """Return the numbers of `environment` as the loops take them."""
    numbers: list[float] = [*environment.FLOOR, *environment.WALL, *environment.GROUND]
    numbers += [*environment.SKY, *environment.KEY_LIGHT, *environment.KEY]
    numbers += [environment.SHARPEST, environment.BLUR, environment.WRAP]
    numbers += [environment.DIELECTRIC, environment.LEAST_FACING]
    for lamp in environment.LAMPS:
        numbers += [*lamp.middle, *lamp.right, *lamp.up, *lamp.half, lamp.light]
    numbers += [*environment.ENCODE, environment.ENCODE_FROM, 1 / (1 + environment.WRAP)]
    return np.array(numbers)


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


@dataclass(frozen=True, slots=True)
class _Layers:
    """What is drawn on.

    Attributes:
        depth: (H, W) of 1 / depth.
        owner: (H, W): number of the triangle that is seen; -1 for none.
        fragments: (H * W, 3): room for pixels that are to be shaded.
        image: (H, W, 4).
    """

    depth: F32
    owner: NDArray[np.int32]
    fragments: NDArray[np.int32]
    image: NDArray[np.uint8]


class CpuRenderer:
    """A renderer on the processor; see `scene.Renderer`.

    The first one on a machine compiles its loops, which takes some seconds; what was compiled is
    kept on disk.

    Raises:
        MissingExtra: Numba is not installed.
    """

    def __init__(self) -> None:
        self._loops = library()
        self._studio = studio()
        self._meshes: weakref.WeakKeyDictionary[Geometry, _Mesh] = weakref.WeakKeyDictionary()
        self._pictures: weakref.WeakKeyDictionary[Texture, Texels] = weakref.WeakKeyDictionary()
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="ar-shade")
        self._room = np.empty(0, np.float32), np.empty(0, np.int32), np.empty((0, 3), np.int32)
        self._closed = False
        self._warm_up()

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
        layers = self._layers(image, 1 / view.far)
        for draw in order.hidden:
            self._cover(self._ready(draw, seen, view.near), self._loops.HIDES, layers)
        self._solid([self._ready(draw, seen, view.near) for draw in order.solid], layers)
        for draw in order.seen_through:
            ready = self._ready(draw, seen, view.near)
            if draw.material is not None and draw.material.alpha_mode != "blend":
                # A faded solid hides its own inside.
                layers.owner.fill(-1)
                self._solid([ready], layers)
                continue
            front = _front(turn(draw.matrix))
            # Of what has two sides, the far one is seen through the near one.
            sides = [int(ready.flags[3])] if ready.flags[3] else [-front, front]
            for side in sides:
                ready.flags[3] = side
                self._cover(ready, self._loops.AT_ONCE, layers)
        return smooth(image)

    def close(self) -> None:
        """Give back what it holds. May be called twice."""
        self._meshes.clear()
        self._pictures.clear()
        self._helper.shutdown()
        self._closed = True

    def _warm_up(self) -> None:
        """Use every loop once: they are compiled here, not in the middle of a stream."""
        corners = np.array([(-1, -1, 2), (1, -1, 2), (0, 1, 2)], np.float32)
        mesh = Geometry(corners, np.array([(0, 1, 2)], np.int32))
        draws = [
            Draw(mesh, Material(alpha_mode=mode, unlit=True, double_sided=True), np.eye(4))
            for mode in ("opaque", "mask", "blend")
        ]
        view = View(np.array([[8.0, 0, 8], [0, 8, 8], [0, 0, 1]]), 0, 0, 16, 16)
        composite(np.zeros((16, 16, 3), np.uint8), self.render(draws, view), view)

    def _layers(self, image: NDArray[np.uint8], far: float) -> _Layers:
        """Return empty layers; their room is kept, as new memory costs more than to clear it."""
        height, width = image.shape[:2]
        count = height * width
        if len(self._room[0]) < count:
            self._room = (
                np.empty(count, np.float32),
                np.empty(count, np.int32),
                np.empty((count, 3), np.int32),
            )
        depth = self._room[0][:count].reshape(height, width)
        owner = self._room[1][:count].reshape(height, width)
        depth.fill(far)
        owner.fill(-1)
        return _Layers(depth, owner, self._room[2][:count], image)

    def _cover(self, ready: _Ready, number: int, layers: _Layers) -> None:
        rest = layers.depth, layers.owner, layers.fragments, layers.image
        self._loops.cover(*self._arguments(ready), number, *rest)

    def _arguments(self, ready: _Ready) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return a mesh and its look as the loops take them."""
        mesh = ready.triangles, ready.corners, ready.nearness, ready.carried
        return mesh, (self._studio, ready.surface, *ready.texels, ready.flags)

    def _solid(self, draws: list[_Ready], layers: _Layers) -> None:
        """Find what is seen of draws, then shade it."""
        counts = [len(ready.triangles) for ready in draws]
        number = 0
        for ready, count in zip(draws, counts, strict=True):
            self._cover(ready, number, layers)
            number += count
        which = np.empty((number, 2), np.int32)
        which[:, 0] = np.repeat(np.arange(len(draws)), counts)
        which[:, 1] = np.concatenate([np.arange(0), *map(np.arange, counts)])
        starts = np.zeros(len(draws) + 1, np.int64)
        self._loops.collect(layers.owner, which, starts, layers.fragments)
        tasks = deque(
            (layers.fragments[at : min(at + _TASK, last)], self._arguments(ready))
            for ready, first, last in zip(draws, starts, starts[1:], strict=False)
            for at in range(first, last, _TASK)
        )

        def shade() -> None:
            with suppress(IndexError):
                while True:
                    mine, rest = tasks.popleft()
                    self._loops.shade(mine, len(mine), *rest, layers.image)

        # No two tasks have the same pixel. A second core takes some, if one is free in time.
        helped = self._helper.submit(shade) if len(tasks) >= _WORTH_HELP else None
        shade()
        if helped is not None and not helped.cancel():
            helped.result()

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
            table, start = [], 0
            for level in levels:
                height, width = level.shape[:2]
                table.append((start, width, height))
                start += width * height
            whole = np.concatenate([level.ravel() for level in levels])
            found = whole.view("<u4").astype(np.uint32), np.array(table, np.int64)
            self._pictures[texture] = found
        return found

    def _ready(self, draw: Draw, seen: F64, near: float) -> _Ready:
        checked_draw(draw)
        mesh, compiled = self._mesh(draw.geometry), self._loops
        positions = mesh.positions if draw.positions is None else _array(draw.positions, _NONE_3)
        placed = np.empty((len(positions), 3))
        compiled.place(positions, np.array(draw.matrix, np.float64, order="C"), placed)
        carried = np.zeros((len(positions), compiled.COLUMNS if draw.material else 0), np.float32)
        surface, flags, texels = np.zeros(18), np.zeros(5, np.int64), _NO_TEXELS
        material = draw.material
        if material is not None:
            turned = turn(draw.matrix)
            coarse = mesh.shape.coarse(draw, material.roughness, turned.unit)
            lighting = compiled.AT_PIXELS if coarse else compiled.AT_VERTICES
            flags[0] = compiled.UNLIT if material.unlit else lighting
            flags[1] = ("opaque", "mask", "blend").index(material.alpha_mode)
            flags[3] = 0 if material.double_sided else _front(turned)
            surface[:6] = (*material.base_color, material.metallic, material.roughness)
            surface[6:9] = material.emissive
            surface[9:11] = material.alpha_cutoff, min(draw.opacity, 1.0)
            flags[4] = len(mesh.colors) > 0
            surface[13] = material.double_sided
            surface[14:] = _softness(material.roughness)
            density, uv = _NONE_1, mesh.uv
            if material.texture is not None:
                density = mesh.shape.texels(draw.geometry)
                texels = self._picture(material.texture)
                flags[2] = ("repeat", "clamp", "mirror").index(material.texture.wrap)
                surface[11:13] = _detail(texels[1], seen, turned.unit)
            normals = mesh.normals if draw.normals is None else _array(draw.normals, _NONE_3)
            compiled.carry(
                placed, normals, turned.normals, uv, density, mesh.colors, surface, flags[0],
                self._studio, carried,
            )  # fmt: skip
        triangles = mesh.triangles
        if len(placed) and not placed[:, 2].min() >= near:
            triangles, placed, carried = clipped(triangles, placed, carried, near)
        corners, nearness = np.empty((len(placed), 2), np.int64), np.empty(len(placed))
        compiled.project(placed, seen, corners, nearness)
        return _Ready(triangles, corners, nearness, carried, surface, texels, flags)


def _array(values: NDArray[Any] | None, none: F32) -> F32:
    # Writable copies: the loops are compiled anew for read-only arrays.
    return none if values is None else np.array(values, np.float32, order="C")


def _front(turned: Turn) -> int:
    """Return the sign that areas of front faces have in pixels, whose y goes down."""
    return 1 if turned.mirrored else -1


def _softness(roughness: float) -> tuple[float, float, float, float]:
    """Return how soft edges are that a surface shows, its reciprocal, and the light of lamps."""
    w = environment.blur(roughness)
    first, second = (
        lamp.light * math.prod(half / (half + 0.5 * w) for half in lamp.half)
        for lamp in environment.LAMPS
    )
    return w, 0.5 / w, first, second


def _detail(levels: I64, seen: F64, unit: float) -> tuple[float, float]:
    side = math.sqrt(levels[0, 1] * levels[0, 2])
    focal = math.sqrt(abs(seen[0, 0] * seen[1, 1]))
    return math.log2(side / (focal * unit + 1e-12)), len(levels) - 1.0
