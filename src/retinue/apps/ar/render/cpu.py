"""Draws without OpenGL: a rasteriser for triangles, compiled by Numba.

It follows the same formula as `gl` (`environment`) and OpenGL's rules for what a triangle covers,
so each checks the other. Pixels of solid surfaces are shaded once, after all depths are known.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.pair import Pair
from retinue.apps.ar.render import environment
from retinue.apps.ar.render.clip import clipped
from retinue.apps.ar.render.compiled import loops
from retinue.apps.ar.render.composite import composite
from retinue.apps.ar.render.prepare import (
    Plan,
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
Texels = tuple[NDArray[np.int32], NDArray[np.int32]]

_NONE_1: Final = np.zeros(0, np.float32)
_NONE_2: Final = np.zeros((0, 2), np.float32)
_NONE_3: Final = np.zeros((0, 3), np.float32)
_NONE_4: Final = np.zeros((0, 4), np.float32)
_NO_TEXELS: Final = np.zeros(0, np.int32), np.zeros((3, 0), np.int32)

_BANDS: Final = 4
"""Parts of a picture that two threads take in turns."""


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


def studio() -> F32:
    """Return the numbers of `environment` as the loops take them."""
    numbers: list[float] = [*environment.FLOOR, *environment.WALL, *environment.GROUND]
    numbers += [*environment.SKY, *environment.KEY_LIGHT, *environment.KEY]
    numbers += [environment.SHARPEST, environment.BLUR, environment.WRAP]
    numbers += [environment.DIELECTRIC, environment.LEAST_FACING]
    for lamp in environment.LAMPS:
        numbers += [*lamp.middle, *lamp.right, *lamp.up, *lamp.half, lamp.light]
    numbers += [*environment.ENCODE, environment.ENCODE_FROM, 1 / (1 + environment.WRAP)]
    return np.array(numbers, np.float32)


@dataclass(slots=True)
class _Mesh:
    """A geometry with its arrays as the loops take them."""

    positions: F32
    triangles: NDArray[np.int32]
    normals: F32
    uv: F32
    colors: F32
    shape: Shape = field(default_factory=Shape)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A draw whose vertices are placed.

    Attributes:
        mesh: As the loops take it.
        look: Likewise.
        sides: Signs of the area of triangles that are drawn, one after the other; 0 for both.
    """

    mesh: tuple[Any, ...]
    look: tuple[Any, ...]
    sides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is drawn, in that order.

    Attributes:
        hidden: Depth alone.
        solid: What hides each other.
        faded: What is seen through; True for a solid, which hides its own inside.
        far: 1 / depth of what is behind all.
    """

    hidden: list[_Ready]
    solid: list[_Ready]
    faded: list[tuple[_Ready, bool]]
    far: float


class CpuRenderer:
    """A renderer on the processor; see `scene.Renderer`.

    The first one on a machine compiles its loops, which takes 10 to 20 seconds; what was compiled
    is kept on disk.

    Raises:
        MissingExtra: Numba is not installed.
    """

    def __init__(self) -> None:
        self._loops = library()
        self._studio = studio()
        self._meshes: weakref.WeakKeyDictionary[Geometry, _Mesh] = weakref.WeakKeyDictionary()
        self._pictures: weakref.WeakKeyDictionary[Texture, Texels] = weakref.WeakKeyDictionary()
        self._pair = Pair()
        self._room = np.empty(0, np.float32), np.empty(0, np.int32)
        rows, places, tile = self._loops.ROWS, self._loops.PLACES, self._loops.TILE
        self._tiles = [
            (np.empty(rows * tile, np.float32), np.empty(places * tile, np.int32))
            for _ in range(_BANDS)
        ]
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
        if not order.solid and not order.seen_through:
            return np.zeros((height, width, 4), np.uint8)
        work = self._work(order, projection(view, width, height), view)
        image = np.empty((height, width, 4), np.uint8)
        bands = self._bands(image)
        self._pair.share([partial(self._band, work, *band) for band in bands])
        return smooth(image, self._pair)

    def close(self) -> None:
        """Give back what it holds. May be called twice."""
        self._meshes.clear()
        self._pictures.clear()
        self._pair.close()
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

    def _work(self, order: Plan, seen: F64, view: View) -> _Work:
        work = _Work([], [], [], 1 / view.far)
        work.hidden.extend(self._ready(draw, seen, view.near) for draw in order.hidden)
        work.solid.extend(self._ready(draw, seen, view.near) for draw in order.solid)
        for draw in order.seen_through:
            solid = draw.material is not None and draw.material.alpha_mode != "blend"
            ready = self._ready(draw, seen, view.near)
            if not solid and ready.sides == (0,):
                # Of what has two sides, the far one is seen through the near one.
                front = _front(turn(draw.matrix))
                ready = replace(ready, sides=(-front, front))
            work.faded.append((ready, solid))
        return work

    def _bands(self, image: NDArray[np.uint8]) -> list[tuple[int, int, tuple[Any, ...]]]:
        """Return bands of an image: rows, and what is drawn on.

        Room is kept, as new memory costs more than to clear it.
        """
        height, width = image.shape[:2]
        if len(self._room[0]) < height * width:
            self._room = np.empty(height * width, np.float32), np.empty(4 * height * width, "i4")
        depth = self._room[0][: height * width].reshape(height, width)
        owner = self._room[1][: height * width].reshape(height, width)
        room = self._room[1][height * width :]
        made = []
        for number, tile in enumerate(self._tiles):
            first, last = (height * (number + step) // _BANDS for step in (0, 1))
            if first < last:
                fragments = room[3 * first * width : 3 * last * width].reshape(3, -1)
                made.append((first, last, (depth, owner, fragments, *tile, image)))
        return made

    def _band(self, work: _Work, first: int, last: int, layers: tuple[Any, ...]) -> None:
        """Draw some rows."""
        loops = self._loops
        depth, image = layers[0], layers[-1]
        depth[first:last].fill(work.far)
        image[first:last].fill(0)
        rest = first, last, layers
        for ready in work.hidden:
            self._cover(ready, loops.HIDES, 0, 0, *rest)
        self._solid(work.solid, *rest)
        for ready, solid in work.faded:
            if solid:
                self._solid([ready], *rest)
                continue
            for side in ready.sides:
                self._cover(ready, loops.SHADES_NEARER, 0, side, *rest)

    def _solid(self, solid: list[_Ready], first: int, last: int, layers: tuple[Any, ...]) -> None:
        """Find what is seen of draws, then shade it."""
        if solid:
            layers[1][first:last].fill(-1)
        for mode in (self._loops.OWNS, self._loops.SHADES):
            number = 0
            for ready in solid:
                (side,) = ready.sides
                self._cover(ready, mode, number, side, first, last, layers)
                number += len(ready.mesh[0])

    def _cover(
        self,
        ready: _Ready,
        mode: int,
        number: int,
        side: int,
        first: int,
        last: int,
        layers: tuple[Any, ...],
    ) -> None:
        """Find and finish pixels, as many at once as there is room for."""
        mesh, look, triangle = ready.mesh, ready.look, 0
        while triangle < len(mesh[0]):
            triangle, waiting = self._loops.cover(
                mesh, look, mode, number, side, triangle, first, last, layers
            )
            if waiting:
                self._loops.shade(mesh, look, mode, number, waiting, layers)

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
            texels = whole.view("<i4").astype(np.int32)
            found = texels, np.array(table, np.int32).T.copy()
            self._pictures[texture] = found
        return found

    def _ready(self, draw: Draw, seen: F64, near: float) -> _Ready:
        checked_draw(draw)
        mesh, compiled = self._mesh(draw.geometry), self._loops
        positions = mesh.positions if draw.positions is None else _array(draw.positions, _NONE_3)
        placed = np.empty((len(positions), 3))
        compiled.place(positions, np.array(draw.matrix, np.float64, order="C"), placed)
        carried = np.zeros((len(positions), compiled.COLUMNS if draw.material else 0), np.float32)
        surface, flags, texels = np.zeros(18, np.float32), np.zeros(4, np.int64), _NO_TEXELS
        side = 0
        material = draw.material
        if material is not None:
            turned = turn(draw.matrix)
            coarse = mesh.shape.coarse(draw, material.roughness, turned.unit)
            lighting = compiled.AT_PIXELS if coarse else compiled.AT_VERTICES
            flags[0] = compiled.UNLIT if material.unlit else lighting
            flags[1] = ("opaque", "mask", "blend").index(material.alpha_mode)
            side = 0 if material.double_sided else _front(turned)
            surface[:6] = (*material.base_color, material.metallic, material.roughness)
            surface[6:9] = material.emissive
            surface[9:11] = material.alpha_cutoff, min(draw.opacity, 1.0)
            colors = mesh.colors if draw.colors is None else _array(draw.colors, _NONE_4)
            flags[3] = len(colors) > 0
            surface[13] = material.double_sided
            surface[14:18] = _softness(material.roughness)
            density, uv = _NONE_1, mesh.uv
            if material.texture is not None:
                density = mesh.shape.texels(draw.geometry)
                texels = self._picture(material.texture)
                flags[2] = ("repeat", "clamp", "mirror").index(material.texture.wrap)
                surface[11:13] = _detail(texels[1], seen, turned.unit)
            normals = mesh.normals if draw.normals is None else _array(draw.normals, _NONE_3)
            compiled.carry(
                placed, normals, turned.normals, uv, density, colors, surface, flags[0],
                self._studio, carried,
            )  # fmt: skip
        triangles = mesh.triangles
        if len(placed) and not placed[:, 2].min() >= near:
            triangles, placed, carried = clipped(triangles, placed, carried, near)
        corners, nearness = np.empty((len(placed), 2), np.int64), np.empty(len(placed))
        compiled.project(placed, seen, corners, nearness)
        made = triangles, corners, nearness, carried
        return _Ready(made, (self._studio, surface, *texels, flags), (side,))


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


def _detail(levels: NDArray[np.int32], seen: F64, unit: float) -> tuple[float, float]:
    side = math.sqrt(int(levels[1, 0]) * int(levels[2, 0]))
    focal = math.sqrt(abs(seen[0, 0] * seen[1, 1]))
    return math.log2(side / (focal * unit + 1e-12)), levels.shape[1] - 1.0
