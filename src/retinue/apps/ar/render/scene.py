"""What renderers draw, and the one protocol that they share.

Coordinates are the camera's: x to the right, y down, z away from it, in centimetres; pixels have
their origin at the top left corner of the top left pixel, so a pixel's centre lies at + 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float, float]
WHITE: Color = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Geometry:
    """A mesh of triangles. Renderers keep what they made of it as long as the object lives.

    Attributes:
        positions: (N, 3) float32.
        triangles: (M, 3) int32, counter-clockwise seen from outside where y is up.
        normals: (N, 3) float32, unit; None where lighting needs none (``unlit``, depth only).
        uv: (N, 2) float32, origin at the texture's top left; None without a texture.
        colors: (N, 4) float32, linear, multiplied with the base colour; None for white.
    """

    positions: NDArray[np.float32]
    triangles: NDArray[np.int32]
    normals: NDArray[np.float32] | None = None
    uv: NDArray[np.float32] | None = None
    colors: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Texture:
    """A picture to be looked up, bilinear with mipmaps.

    Attributes:
        pixels: (H, W, 4) uint8, sRGB and straight alpha.
        wrap: What is beyond its edges.
    """

    pixels: NDArray[np.uint8]
    wrap: Literal["repeat", "clamp", "mirror"] = "repeat"


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """A surface: the part of glTF's metallic-roughness model that a filter needs.

    Attributes:
        base_color: Linear RGBA factor.
        texture: Of the base colour; its alpha too.
        metallic: In [0, 1].
        roughness: In [0, 1]; 0 mirrors the environment.
        emissive: Linear RGB that is added.
        alpha_mode: As glTF has it.
        alpha_cutoff: Of "mask".
        double_sided: Whether back faces are drawn.
        unlit: Whether the base colour is the answer (KHR_materials_unlit).
    """

    base_color: Color = WHITE
    texture: Texture | None = None
    metallic: float = 0.0
    roughness: float = 1.0
    emissive: tuple[float, float, float] = (0.0, 0.0, 0.0)
    alpha_mode: Literal["opaque", "mask", "blend"] = "opaque"
    alpha_cutoff: float = 0.5
    double_sided: bool = False
    unlit: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """One mesh in one frame.

    Attributes:
        geometry: Its triangles.
        material: None draws depth alone: what is behind it is hidden, as an invisible head does.
        matrix: (4, 4) float64 from the mesh's to the camera's coordinates.
        positions: (N, 3) float32 in place of the geometry's, for meshes that are moved vertex by
            vertex (skins, morph targets, the live face); normals go with them.
        normals: (N, 3) float32, or None.
        colors: (N, 4) float32 in place of the geometry's, or None.
        opacity: In [0, 1], of all of it.
    """

    geometry: Geometry
    material: Material | None
    matrix: NDArray[np.float64]
    positions: NDArray[np.float32] | None = None
    normals: NDArray[np.float32] | None = None
    colors: NDArray[np.float32] | None = None
    opacity: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What is seen of the frame.

    Attributes:
        intrinsics: (3, 3) float64, the camera matrix K of the whole frame, in its pixels.
        x: Left edge of the region of interest, in pixels of the frame.
        y: Its top edge.
        width: Its width in pixels.
        height: Its height in pixels.
        scale: Pixels that are drawn for one of the frame: below 1 the answer is smaller.
        near: Centimetres; what is nearer is not drawn.
        far: Centimetres.
    """

    intrinsics: NDArray[np.float64]
    x: int
    y: int
    width: int
    height: int
    scale: float = 1.0
    near: float = 1.0
    far: float = 1000.0


class Renderer(Protocol):
    """Draws; used by one thread, the one that made it."""

    @property
    def name(self) -> str:
        """For people: "OpenGL 4.5 (llvmpipe ...)" or "CPU"."""
        ...

    def render(self, draws: Sequence[Draw], view: View) -> NDArray[np.uint8]:
        """Draw opaque and masked meshes, then blended ones from the farthest to the nearest.

        Returns:
            (round(height * scale), round(width * scale), 4) uint8: sRGB, alpha premultiplied (in
            sRGB, as it is composited on the frame), 0 where nothing was drawn.
        """
        ...

    def close(self) -> None:
        """Give back what it holds. May be called twice."""
        ...
