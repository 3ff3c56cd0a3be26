"""How a surface is lit: the one formula that every renderer follows, in words and in numbers.

Lighting is done in linear light and in *light space*: x to the right, y up, z towards the camera,
which is (X, -Y, -Z) of camera space. ``n`` is the unit normal, ``v`` the unit vector to the camera;
double-sided surfaces turn ``n`` to the side that ``v`` is on. All is the metallic-roughness model
of glTF 2.0, made cheap enough for a software rasteriser:

1. **Diffuse light** ``D``: ambient light of a hemisphere, `GROUND` from below to `SKY` from above
   by ``(1 + n.y) / 2``, and `KEY_LIGHT` times ``max(0, (n . KEY + WRAP) / (1 + WRAP))``, light
   that reaches a little around the edge.
2. **Reflected light** ``L``: what the environment shows in the direction ``d = 2 (n . v) n - v``.
   It is a studio: `FLOOR` below and `WALL` above the horizon, and two rectangular lamps, the key
   light itself and a strip at the side. All edges are smooth steps whose half width is
   ``w = SHARPEST + BLUR * roughness``, so that rough surfaces see a blurred studio; a lamp of half
   size ``h`` is dimmed by ``h / (h + w / 2)`` a side, as its light is spread.
3. **How much is reflected**: B. Karis' fit of the split sum ("Physically Based Shading on Mobile",
   2014), its power of two as ``(1 - 0.201 n . v)^32``, gives ``A`` and ``B``: a surface that
   reflects ``f`` head-on shows ``(f A + B) L``.
   ``f`` is 0.04 of a non-metal and the base colour of a metal.
4. So the colour is ``base * gain + shine + emissive`` with ``gain = (1 - metallic) D + metallic A
   L`` and ``shine = ((1 - metallic) 0.04 A + B) L``. Neither depends on the texture, so a mesh that
   is fine enough for its roughness (`needs_pixels`) gets both at its vertices, others at each
   pixel.
5. **Blended** surfaces: the texture's alpha is a cut-out and takes away all; the alpha of the
   factor and of vertex colours is a tint, which takes away ``base * gain`` but leaves the shine.
   With cut-out ``c``, tint ``t`` and ``s = min(1, max(shine))``: alpha is ``c (1 - (1 - t)(1 -
   s))`` and the premultiplied colour ``c (t (base * gain + emissive) + shine)``.
6. Linear light is clipped to [0, 1] and written as sRGB (`ENCODE`), then multiplied by alpha and
   the draw's opacity: layers are mixed in sRGB, as the frame below is.

Textures are kept as square roots of linear light, which is near enough to sRGB to need no more than
8 bits and is undone by one multiplication; `mipmaps` makes them. Which level of detail is looked at
follows from each vertex: texels per pixel from the mesh's texels per unit (`density`), its distance
and the root of its foreshortening. Between two levels ``l`` and ``l + 1``, at ``l + f``, the second
has the share ``2 f - 0.5``, clipped to [0, 1]: near a level, it alone is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
F32 = NDArray[np.float32]

GROUND: Final[Vector] = (0.27, 0.25, 0.24)
SKY: Final[Vector] = (0.50, 0.52, 0.56)
KEY_LIGHT: Final[Vector] = (0.62, 0.60, 0.56)
WRAP: Final = 0.2

FLOOR: Final[Vector] = (0.13, 0.12, 0.115)
WALL: Final[Vector] = (0.46, 0.49, 0.54)
SHARPEST: Final = 0.05
BLUR: Final = 0.65

ENCODE: Final = (-0.036987591, 1.447696042, -0.944157126, 0.841874441, -0.309172754)
"""sRGB as a polynomial in the square root of linear light; 0.19 / 255 off at most."""
ENCODE_FROM: Final = 0.05595411
"""Square roots below this are ``12.92`` times their squares."""

DIELECTRIC: Final = 0.04
LEAST_FACING: Final = 0.2
"""Foreshortening beyond this is not followed by the level of detail."""


@dataclass(frozen=True, slots=True)
class Lamp:
    """A rectangle that shines: its axes are unit vectors in light space.

    Attributes:
        middle: Towards it.
        right: Along its first side.
        up: Along its second side.
        half: Half its sides, as tangents of angles.
        light: Linear.
    """

    middle: Vector
    right: Vector
    up: Vector
    half: tuple[float, float]
    light: float


def _vector(values: NDArray[np.float64]) -> Vector:
    x, y, z = (values / np.linalg.norm(values)).tolist()
    return x, y, z


def _lamp(towards: Vector, half: tuple[float, float], light: float) -> Lamp:
    middle = np.array(_vector(np.array(towards)))
    right = np.array(_vector(np.cross((0.0, 1.0, 0.0), middle)))
    return Lamp(_vector(middle), _vector(right), _vector(np.cross(middle, right)), half, light)


LAMPS: Final = (
    _lamp((-0.48, 0.64, 0.60), (0.46, 0.30), 3.0),
    _lamp((0.86, 0.18, 0.48), (0.11, 0.62), 1.5),
)
"""The key light's, left above the camera, and the strip to the right."""
KEY: Final = LAMPS[0].middle


def blur(roughness: float) -> float:
    """Return the half width of what is seen as an edge by a surface."""
    return SHARPEST + BLUR * roughness


def needs_pixels(bend: float, detail: float, roughness: float) -> bool:
    """Say whether a mesh is too coarse for light at its vertices.

    Args:
        bend: Of `bend`, in radians.
        detail: Of `detail`, in centimetres.
        roughness: Of its material.
    """
    # A reflection turns twice as fast as the normal; an edge is 2 w wide.
    smooth = bend <= min(0.7 * blur(roughness), 0.45)
    # As fine as the pixels of a face that is not very near.
    fine = detail <= 0.25 and roughness >= 0.2
    return not smooth and not fine


def bend(normals: F32, triangles: NDArray[np.int32]) -> float:
    """Return the angle in radians between the normals of most triangles' corners, at most."""
    corners = normals[triangles]
    cosines = (corners * np.roll(corners, 1, axis=1)).sum(axis=2).min(axis=1)
    return float(np.arccos(np.clip(np.quantile(cosines, 0.25), -1.0, 1.0)))


def detail(positions: F32, triangles: NDArray[np.int32]) -> float:
    """Return the length of most triangles' shortest sides, at most."""
    corners = positions[triangles]
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).min(axis=1)
    return float(np.quantile(sides, 0.9))


def density(positions: F32, uv: F32, triangles: NDArray[np.int32]) -> F32:
    """Return (N,): how much of a texture's side lies along one unit of length, by vertex."""
    first, second, third = (positions[triangles[:, i]].astype(np.float64) for i in range(3))
    area = np.linalg.norm(np.cross(second - first, third - first), axis=1)
    u, v, w = (uv[triangles[:, i]].astype(np.float64) for i in range(3))
    a, b = v - u, w - u
    pictured = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    space, picture = np.zeros(len(positions)), np.zeros(len(positions))
    for corner in range(3):
        np.add.at(space, triangles[:, corner], area)
        np.add.at(picture, triangles[:, corner], pictured)
    return np.sqrt(picture / np.maximum(space, 1e-12)).astype(np.float32)
