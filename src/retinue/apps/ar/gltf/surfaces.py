"""Materials and textures of glTF, as renderers take them."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.gltf.container import Container, item
from retinue.apps.ar.gltf.document import TextureInfo
from retinue.apps.ar.render.scene import Material, Texture
from retinue.core.errors import FilterInvalid

MAX_SIDE: Final = 2048
"""A larger picture is made smaller when it is read: more cannot be seen."""
WRAPS: Final = {10497: "repeat", 33071: "clamp", 33648: "mirror"}
TRANSFORM: Final = "KHR_texture_transform"


class Surfaces:
    """Reads each material and each texture once.

    Args:
        container: The file.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._pictures: dict[int, NDArray[np.uint8]] = {}
        self._textures: dict[int, Texture] = {}
        self._pixels = 0

    def material(self, index: int | None) -> Material:
        """Return a material; None is glTF's default.

        Raises:
            FilterInvalid: it refers to what is not there, or its picture cannot be read.
        """
        if index is None:
            return Material(metallic=1.0)
        spec = item(self._container.document.materials, index, "material")
        surface = spec.pbrMetallicRoughness
        info = surface.baseColorTexture
        return Material(
            base_color=surface.baseColorFactor,
            texture=self._texture(info.index) if info else None,
            metallic=surface.metallicFactor,
            roughness=surface.roughnessFactor,
            emissive=spec.emissiveFactor,
            alpha_mode=spec.alphaMode.lower(),  # type: ignore[arg-type]
            alpha_cutoff=spec.alphaCutoff,
            double_sided=spec.doubleSided,
            unlit="KHR_materials_unlit" in spec.extensions,
        )

    def coordinates(self, index: int | None) -> tuple[int, NDArray[np.float64]]:
        """Return which set of texture coordinates a material uses, and a (3, 3) matrix on them."""
        if index is None:
            return 0, np.eye(3)
        spec = item(self._container.document.materials, index, "material")
        info = spec.pbrMetallicRoughness.baseColorTexture
        if info is None:
            return 0, np.eye(3)
        given = info.extensions.get(TRANSFORM)
        other = given.get("texCoord") if isinstance(given, dict) else None
        which = other if type(other) is int and other >= 0 else info.texCoord
        return which, _transform(info)

    def _texture(self, index: int) -> Texture:
        if index not in self._textures:
            document = self._container.document
            spec = item(document.textures, index, "texture")
            if spec.source is None:
                raise FilterInvalid(f"texture {index} has no picture in a format that is read")
            wrap = "repeat"
            if spec.sampler is not None:
                wrap = WRAPS.get(item(document.samplers, spec.sampler, "sampler").wrapS, "repeat")
            self._textures[index] = Texture(self._picture(spec.source), wrap)  # type: ignore[arg-type]
        return self._textures[index]

    def _picture(self, index: int) -> NDArray[np.uint8]:
        if index not in self._pictures:
            pixels = self._container.picture(index)
            self._pixels += pixels.shape[0] * pixels.shape[1]
            most = self._container.limits.max_pixels
            if self._pixels > most:
                raise FilterInvalid(f"its pictures have more than {most:,} pixels together")
            self._pictures[index] = _smaller(pixels)
        return self._pictures[index]


def _smaller(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    longest = max(pixels.shape[:2])
    if longest <= MAX_SIDE:
        return pixels
    width, height = (max(1, round(side * MAX_SIDE / longest)) for side in pixels.shape[1::-1])
    made = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(made, np.uint8)


def _transform(info: TextureInfo) -> NDArray[np.float64]:
    given: Any = info.extensions.get(TRANSFORM)
    if not isinstance(given, dict):
        return np.eye(3)
    try:
        (x, y), turn = given.get("offset", (0, 0)), float(given.get("rotation", 0))
        wide, high = given.get("scale", (1, 1))
        cosine, sine = np.cos(turn), np.sin(turn)
        matrix = np.array(
            [
                [cosine * wide, sine * high, float(x)],
                [-sine * wide, cosine * high, float(y)],
                [0, 0, 1],
            ],
            np.float64,
        )
    except (TypeError, ValueError) as error:
        raise FilterInvalid(f"a {TRANSFORM} is not as it should be ({error})") from error
    if not np.isfinite(matrix).all():
        raise FilterInvalid(f"a {TRANSFORM} holds NaN or infinity")
    return matrix
