"""Draws with OpenGL 3.3 through EGL: on a graphics card, or with Mesa's software rasteriser.

What does not change is put on the card once and kept as long as its `Geometry` or `Texture` lives.
"""

from __future__ import annotations

import ctypes.util
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.render.prepare import (
    Plan,
    Shape,
    Turn,
    checked,
    checked_draw,
    clip_matrix,
    plan,
    projection,
    size,
    turn,
)
from retinue.apps.ar.render.scene import Draw, Geometry, Material, Texture, View
from retinue.apps.ar.render.shaders import Kind, Lighting, sources
from retinue.apps.ar.render.smooth import smooth
from retinue.apps.ar.render.textures import mipmaps
from retinue.core.errors import ConfigError, InvalidRequest, MissingExtra

INSTALL: Final = "apt install libegl1 libgl1-mesa-dri"
SOFTWARE: Final = ("llvmpipe", "softpipe", "swrast", "swiftshader")
"""Names that software rasterisers give themselves."""
_STEP: Final = 64
_KEPT: Final = 8
_current = threading.local()


def library() -> ModuleType:
    """Return moderngl.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import moderngl
    except ImportError as error:
        raise MissingExtra(
            "drawing with OpenGL needs moderngl; install it with: pip install 'retinue[ar]'"
        ) from error
    return moderngl


def open_context() -> Any:
    """Return a new context without a window, current in this thread.

    Raises:
        MissingExtra: moderngl is not installed.
        ConfigError: there is no EGL, or no driver that has OpenGL 3.3.
    """
    moderngl = library()
    # EGL finds all functions itself, so that Debian's libgl1, with X11 below it, may be absent.
    entry = ctypes.util.find_library("GL") or ctypes.util.find_library("EGL")
    try:
        made = moderngl.create_context(standalone=True, backend="egl", require=330, libgl=entry)
    # glcontext raises plain Exception for whatever is missing.
    except Exception as error:
        raise ConfigError(
            f"there is no OpenGL through EGL here ({error}); install it with: {INSTALL}, or draw "
            "without: pip install 'retinue[ar-cpu]'"
        ) from error
    _current.context = made
    made.gc_mode = "context_gc"
    return made


@dataclass(slots=True)
class _Mesh:
    """A geometry on the card."""

    buffers: dict[str, Any]
    index: Any
    shape: Shape = field(default_factory=Shape)
    moving: dict[str, Any] = field(default_factory=dict)
    arrays: dict[tuple[Kind | None, frozenset[str]], Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pass:
    """How a draw is drawn once."""

    color: bool = True
    depth: bool = True
    equal: bool = False
    cull: str = ""


class GlRenderer:
    """A renderer on OpenGL; see `scene.Renderer`.

    Raises:
        MissingExtra: moderngl is not installed.
        ConfigError: there is no EGL, or no driver that has OpenGL 3.3.
    """

    def __init__(self) -> None:
        self._context: Any = open_context()
        self._closed = False
        self._gl = library()
        info = self._context.info
        version = f"{self._context.version_code // 100}.{self._context.version_code // 10 % 10}"
        self._name = f"OpenGL {version} ({info['GL_RENDERER']})"
        self._programs: dict[Kind | None, Any] = {}
        self._meshes: weakref.WeakKeyDictionary[Geometry, _Mesh] = weakref.WeakKeyDictionary()
        self._pictures: weakref.WeakKeyDictionary[Texture, tuple[Any, int]] = (
            weakref.WeakKeyDictionary()
        )
        self._targets: OrderedDict[tuple[int, int], Any] = OrderedDict()

    @property
    def name(self) -> str:
        """For people, as "OpenGL 4.5 (llvmpipe ...)"."""
        return self._name

    @property
    def software(self) -> bool:
        """Whether the processor does the work of a graphics card."""
        return any(name in self._name.lower() for name in SOFTWARE)

    def render(self, draws: Sequence[Draw], view: View) -> NDArray[np.uint8]:
        """Draw; see `scene.Renderer.render`.

        Raises:
            InvalidRequest: the view or a mesh is not as it must be, or it was closed.
        """
        self._enter()
        width, height = size(view)
        order = plan(draws)
        made = np.zeros((height, width, 4), np.uint8)
        if not order.solid and not order.seen_through:
            return made
        target = self._target(width, height)
        target.use()
        target.depth_mask, target.color_mask = True, (True,) * 4
        target.viewport = (0, 0, *target.size)
        target.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        target.viewport = (0, 0, width, height)
        self._draw(order, view, (width, height), target)
        target.read_into(made, viewport=(0, 0, width, height), components=4)
        return smooth(made)

    def close(self) -> None:
        """Give back what it holds. May be called twice."""
        if self._closed:
            return
        self._enter()
        self._programs, self._targets = {}, OrderedDict()
        self._meshes.clear()
        self._pictures.clear()
        self._context.gc()
        self._context.release()
        self._closed, _current.context = True, None

    def _enter(self) -> None:
        if self._closed:
            raise InvalidRequest("the renderer is closed; open another one")
        if getattr(_current, "context", None) is not self._context:
            self._context.__enter__()
            _current.context = self._context
        self._context.gc()

    def _target(self, width: int, height: int) -> Any:
        """Return a framebuffer of at least this size: regions of interest change all the time."""
        key = (-(-width // _STEP) * _STEP, -(-height // _STEP) * _STEP)
        found = self._targets.get(key)
        if found is None:
            if len(self._targets) >= _KEPT:
                self._targets.popitem(last=False)
            context = self._context
            found = context.framebuffer(
                context.renderbuffer(key, 4), context.depth_renderbuffer(key)
            )
            self._targets[key] = found
        self._targets.move_to_end(key)
        return found

    def _draw(self, order: Plan, view: View, made: tuple[int, int], target: Any) -> None:
        seen = projection(view, *made)
        clip = clip_matrix(seen, *made, view.near, view.far)
        context, gl = self._context, self._gl
        context.enable_only(gl.DEPTH_TEST)
        for draw in order.hidden:
            self._once(draw, clip, seen, target, [_Pass(color=False)])
        for draw in order.solid:
            self._once(draw, clip, seen, target, [_Pass(cull=_culled(draw))])
        if not order.seen_through:
            return
        context.enable_only(gl.DEPTH_TEST | gl.BLEND)
        context.blend_func = gl.ONE, gl.ONE_MINUS_SRC_ALPHA
        for draw in order.seen_through:
            self._once(draw, clip, seen, target, _layers(draw))

    def _once(
        self,
        draw: Draw,
        clip: NDArray[np.float64],
        seen: NDArray[np.float64],
        target: Any,
        passes: list[_Pass],
    ) -> None:
        checked_draw(draw)
        mesh = self._mesh(draw)
        turned = turn(draw.matrix)
        kind = _kind(draw, mesh.shape, turned.unit)
        program = self._program(kind)
        program["to_clip"].write(clip.T.astype("f4").tobytes())
        program["to_camera"].write(draw.matrix.T.astype("f4").tobytes())
        if kind is not None and draw.material is not None:
            self._surface(program, kind, draw, draw.material, seen, turned)
        array = self._array(mesh, kind, draw)
        gl = self._gl
        # The picture's first row is the window's lowest: what turns right there turns left.
        self._context.front_face = "ccw" if turned.mirrored else "cw"
        for step in passes:
            target.color_mask = (step.color,) * 4
            target.depth_mask = step.depth
            target.use()
            self._context.depth_func = "<=" if step.equal else "<"
            if step.cull:
                self._context.enable(gl.CULL_FACE)
                self._context.cull_face = step.cull
            else:
                self._context.disable(gl.CULL_FACE)
            array.render(gl.TRIANGLES)

    def _surface(
        self,
        program: Any,
        kind: Kind,
        draw: Draw,
        material: Material,
        seen: NDArray[np.float64],
        turned: Turn,
    ) -> None:
        values: dict[str, Any] = {
            "factor": tuple(material.base_color),
            "glow": (*material.emissive, min(draw.opacity, 1.0)),
            "cutoff": material.alpha_cutoff,
            "metallic": material.metallic,
            "roughness": material.roughness,
            "two_sided": float(material.double_sided),
        }
        if kind.textured and material.texture is not None:
            picture, levels = self._picture(material.texture)
            picture.use(0)
            focal = math.sqrt(abs(seen[0, 0] * seen[1, 1]))
            texels = math.sqrt(picture.width * picture.height) / (focal * turned.unit + 1e-12)
            values["detail"] = (math.log2(texels), levels - 1.0)
            values["picture"] = 0
        for name, value in values.items():
            if name in program:
                program[name].value = value
        if "to_light" in program:
            program["to_light"].write(turned.normals.T.astype("f4").tobytes())

    def _program(self, kind: Kind | None) -> Any:
        found = self._programs.get(kind)
        if found is None:
            vertex, fragment = sources(kind)
            found = self._context.program(vertex_shader=vertex, fragment_shader=fragment)
            self._programs[kind] = found
        return found

    def _picture(self, texture: Texture) -> tuple[Any, int]:
        found = self._pictures.get(texture)
        if found is None:
            levels = mipmaps(texture.pixels)
            height, width = levels[0].shape[:2]
            made = self._context.texture((width, height), 4, levels[0].tobytes())
            if len(levels) > 1:
                made.build_mipmaps(max_level=len(levels) - 1)
            for number, level in enumerate(levels[1:], 1):
                made.write(level.tobytes(), level=number)
            # Levels are mixed by the shader, as drivers do it each in their own way.
            made.filter = (self._gl.LINEAR_MIPMAP_NEAREST, self._gl.LINEAR)
            made.repeat_x = made.repeat_y = texture.wrap == "repeat"  # "mirror" is the shader's
            found = (made, len(levels))
            self._pictures[texture] = found
        return found

    def _mesh(self, draw: Draw) -> _Mesh:
        geometry = draw.geometry
        found = self._meshes.get(geometry)
        if found is None:
            checked(geometry)
            upload = self._context.buffer
            found = _Mesh(
                {"position": upload(_bytes(geometry.positions))},
                upload(_bytes(geometry.triangles, np.int32)),
            )
            for name, values in (("normal", geometry.normals), ("uv", geometry.uv)):
                if values is not None:
                    found.buffers[name] = upload(_bytes(values))
            if geometry.colors is not None:
                found.buffers["color"] = upload(_bytes(geometry.colors))
            self._meshes[geometry] = found
        return found

    def _array(self, mesh: _Mesh, kind: Kind | None, draw: Draw) -> Any:
        buffers = dict(mesh.buffers)
        lit = kind is not None and kind.lighting != "unlit"
        if kind is not None and kind.textured and "density" not in buffers:
            texels = mesh.shape.texels(draw.geometry)
            buffers["density"] = mesh.buffers["density"] = self._context.buffer(_bytes(texels))
        moved = {"position": draw.positions, "normal": draw.normals if lit else None}
        moved["color"] = draw.colors if kind is not None else None
        for name, values in moved.items():
            if values is not None:
                buffers[name] = self._moved(mesh, name, values)
        key = kind, frozenset(name for name, values in moved.items() if values is not None)
        found = mesh.arrays.get(key)
        if found is None:
            content = [(buffer, _FORMATS[name], name) for name, buffer in buffers.items()]
            found = self._context.vertex_array(
                self._program(kind), content, mesh.index, skip_errors=True
            )
            mesh.arrays[key] = found
        return found

    def _moved(self, mesh: _Mesh, name: str, values: NDArray[np.float32]) -> Any:
        data = _bytes(values)
        found = mesh.moving.get(name)
        if found is None:
            found = mesh.moving[name] = self._context.buffer(data, dynamic=True)
        else:
            found.orphan()
            found.write(data)
        return found


_FORMATS: Final = {"position": "3f", "normal": "3f", "uv": "2f", "density": "1f", "color": "4f"}


def _bytes(values: NDArray[Any], dtype: Any = np.float32) -> bytes:
    return np.ascontiguousarray(values, dtype).tobytes()


def _kind(draw: Draw, shape: Shape, unit: float) -> Kind | None:
    material = draw.material
    if material is None:
        return None
    lighting: Lighting = "unlit"
    if not material.unlit:
        lighting = "pixel" if shape.coarse(draw, material.roughness, unit) else "vertex"
    wrap = material.texture.wrap if material.texture is not None else ""
    return Kind(
        lighting,
        material.texture is not None,
        draw.geometry.colors is not None or draw.colors is not None,
        material.alpha_mode,
        wrap == "mirror",
    )


def _culled(draw: Draw) -> str:
    return "" if draw.material is None or draw.material.double_sided else "back"


def _layers(draw: Draw) -> list[_Pass]:
    """Return the passes of what is seen through."""
    cull = _culled(draw)
    if draw.material is not None and draw.material.alpha_mode != "blend":
        # A faded solid hides its own inside: its depth comes first.
        return [_Pass(color=False, cull=cull), _Pass(depth=False, equal=True, cull=cull)]
    if cull:
        return [_Pass(depth=False, cull=cull)]
    return [_Pass(depth=False, cull="front"), _Pass(depth=False, cull="back")]
