"""Drawing with OpenGL 3.3 through EGL: on a graphics card, or on the CPU by Mesa's llvmpipe."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.render import _shaders
from retinue.apps.ar.render.scene import Draw, Geometry, Material, Texture, View
from retinue.core.errors import MissingExtra, Unavailable

ADVICE: Final = 'install libegl1 and libgl1-mesa-dri (Debian), or set renderer = "cpu"'
MODES: Final = {"opaque": 0, "mask": 1, "blend": 2}
GRAIN: Final = 64
"""Framebuffers grow in steps of so many pixels, so that a face that comes nearer needs few."""


class GlRenderer:
    """A `Renderer` with a context of its own, without a window.

    Raises:
        MissingExtra: moderngl is not installed.
        Unavailable: there is no EGL, or no OpenGL 3.3.
    """

    def __init__(self) -> None:
        try:
            moderngl: Any = importlib.import_module("moderngl")
        except ImportError as error:
            raise MissingExtra(
                "drawing with OpenGL needs moderngl; pip install 'retinue[ar]'"
            ) from error
        try:
            self._gl: Any = moderngl.create_context(standalone=True, backend="egl", require=330)
        except Exception as error:
            # The binding raises bare exceptions.
            raise Unavailable(f"no OpenGL 3.3 through EGL ({error}); {ADVICE}") from error
        self._flags = moderngl
        self._lit = self._gl.program(_shaders.VERTEX, _shaders.FRAGMENT)
        self._depth = self._gl.program(_shaders.VERTEX, _shaders.DEPTH_FRAGMENT)
        self._meshes: weakref.WeakKeyDictionary[Geometry, _Mesh] = weakref.WeakKeyDictionary()
        self._textures: weakref.WeakKeyDictionary[Texture, Any] = weakref.WeakKeyDictionary()
        self._target: Any = None
        self._size = (0, 0)
        self._closed = False
        version = self._gl.version_code
        self._name = (
            f"OpenGL {version // 100}.{version % 100 // 10} ({self._gl.info['GL_RENDERER']})"
        )

    @property
    def name(self) -> str:
        """Version and device, as the driver tells them."""
        return self._name

    def render(self, draws: Sequence[Draw], view: View) -> NDArray[np.uint8]:
        """Draw; see `retinue.apps.ar.render.scene.Renderer`."""
        width, height = (max(1, round(side * view.scale)) for side in (view.width, view.height))
        self._aim(width, height)
        gl, flags = self._gl, self._flags
        self._target.use()
        gl.viewport = (0, 0, width, height)
        gl.scissor = (0, 0, width, height)
        gl.clear(0, 0, 0, 0, depth=1.0)
        gl.enable(flags.DEPTH_TEST)
        projection = projection_of(view)
        for program in (self._lit, self._depth):
            program["projection"].write(projection.T.astype("f4").tobytes())
        blended = []
        for draw in draws:
            if draw.material is not None and _blends(draw):
                blended.append(draw)
            else:
                self._draw(draw)
        gl.enable(flags.BLEND)
        gl.blend_func = flags.ONE, flags.ONE_MINUS_SRC_ALPHA
        self._target.depth_mask = False
        for draw in sorted(blended, key=_depth_of, reverse=True):
            self._draw(draw)
        self._target.depth_mask = True
        gl.disable(flags.BLEND)
        data = self._target.read(viewport=(0, 0, width, height), components=4, alignment=1)
        return np.frombuffer(data, np.uint8).reshape(height, width, 4)

    def _aim(self, width: int, height: int) -> None:
        if width <= self._size[0] and height <= self._size[1]:
            return
        size = tuple(
            max(have, -(-want // GRAIN) * GRAIN)
            for have, want in zip(self._size, (width, height), strict=True)
        )
        if self._target is not None:
            for attachment in (*self._target.color_attachments, self._target.depth_attachment):
                attachment.release()
            self._target.release()
        color = self._gl.texture(size, 4)
        self._target = self._gl.framebuffer([color], self._gl.depth_renderbuffer(size))
        self._size = (size[0], size[1])

    def _draw(self, draw: Draw) -> None:
        gl, flags, material = self._gl, self._flags, draw.material
        program = self._depth if material is None else self._lit
        program["model"].write(draw.matrix.T.astype("f4").tobytes())
        mesh = self._meshes.get(draw.geometry)
        if mesh is None:
            mesh = self._meshes[draw.geometry] = _Mesh(gl, self._lit, self._depth, draw.geometry)
        mesh.move(draw)
        if material is None:
            self._target.color_mask = (False, False, False, False)
            gl.disable(flags.CULL_FACE)
            mesh.depth.render()
            self._target.color_mask = (True, True, True, True)
            return
        self._set(material, draw)
        if material.double_sided:
            gl.disable(flags.CULL_FACE)
        else:
            # The picture's y runs down in the framebuffer, which turns outlines round.
            gl.enable(flags.CULL_FACE)
            gl.front_face = "cw"
        mesh.lit.render()

    def _set(self, material: Material, draw: Draw) -> None:
        program = self._lit
        program["base_color"].value = material.base_color
        program["emissive"].value = material.emissive
        program["metallic"].value = material.metallic
        program["roughness"].value = material.roughness
        program["opacity"].value = draw.opacity
        program["cutoff"].value = material.alpha_cutoff
        program["mode"].value = 2 if _blends(draw) else MODES[material.alpha_mode]
        program["unlit"].value = material.unlit or (
            draw.geometry.normals is None and draw.normals is None
        )
        program["textured"].value = material.texture is not None
        if material.texture is not None:
            self._texture(material.texture).use(0)
            program["picture"].value = 0

    def _texture(self, texture: Texture) -> Any:
        made = self._textures.get(texture)
        if made is None:
            height, width = texture.pixels.shape[:2]
            pixels = np.ascontiguousarray(texture.pixels)
            made = self._gl.texture((width, height), 4, pixels.tobytes())
            made.build_mipmaps()
            made.filter = (self._flags.LINEAR_MIPMAP_LINEAR, self._flags.LINEAR)
            made.repeat_x = made.repeat_y = texture.wrap != "clamp"
            self._textures[texture] = made
        return made

    def close(self) -> None:
        """Release the context and all that is in it. May be called twice."""
        if not self._closed:
            self._closed = True
            self._meshes.clear()
            self._textures.clear()
            self._gl.release()


class _Mesh:
    """A geometry's buffers, and how both programs read them."""

    def __init__(self, gl: Any, lit: Any, depth: Any, geometry: Geometry) -> None:
        count = len(geometry.positions)
        normals = geometry.normals
        uv, colors = geometry.uv, geometry.colors
        self._positions = gl.buffer(_floats(geometry.positions), dynamic=True)
        self._normals = gl.buffer(
            _floats(np.zeros((count, 3)) if normals is None else normals), dynamic=True
        )
        self._uv = gl.buffer(_floats(np.zeros((count, 2)) if uv is None else uv))
        self._colors = gl.buffer(_floats(np.ones((count, 4)) if colors is None else colors))
        self._indices = gl.buffer(np.ascontiguousarray(geometry.triangles, np.int32).tobytes())
        parts = [
            (self._positions, "3f", "in_position"),
            (self._normals, "3f", "in_normal"),
            (self._uv, "2f", "in_uv"),
            (self._colors, "4f", "in_color"),
        ]
        self.lit = gl.vertex_array(lit, parts, self._indices, skip_errors=True)
        self.depth = gl.vertex_array(depth, parts[:1], self._indices)
        self._moved = False
        self._geometry = weakref.ref(geometry)

    def move(self, draw: Draw) -> None:
        """Take a draw's own positions and normals, or go back to the geometry's."""
        if draw.positions is None and not self._moved:
            return
        geometry = draw.geometry
        positions = geometry.positions if draw.positions is None else draw.positions
        normals = geometry.normals if draw.positions is None else draw.normals
        self._positions.write(_floats(positions))
        if normals is not None:
            self._normals.write(_floats(normals))
        self._moved = draw.positions is not None


def _floats(values: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(values, np.float32).tobytes()


def _blends(draw: Draw) -> bool:
    assert draw.material is not None
    return draw.material.alpha_mode == "blend" or draw.opacity < 1


def _depth_of(draw: Draw) -> float:
    positions = draw.geometry.positions if draw.positions is None else draw.positions
    return float(draw.matrix[2, :3] @ positions.mean(axis=0) + draw.matrix[2, 3])


def projection_of(view: View) -> NDArray[np.float64]:
    """Return the (4, 4) matrix from camera to clip coordinates of a view.

    The first row of the framebuffer is the region's top row, so that what is read needs no flip.
    """
    k, near, far = view.intrinsics, view.near, view.far
    width, height = float(view.width), float(view.height)
    matrix = np.zeros((4, 4))
    matrix[0, 0] = 2 * k[0, 0] / width
    matrix[0, 2] = 2 * (k[0, 2] - view.x) / width - 1
    matrix[1, 1] = 2 * k[1, 1] / height
    matrix[1, 2] = 2 * (k[1, 2] - view.y) / height - 1
    matrix[2, 2] = (far + near) / (far - near)
    matrix[2, 3] = -2 * far * near / (far - near)
    matrix[3, 2] = 1.0
    return matrix
