"""The JSON of a glTF file, checked: https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html.

What filters do not need (cameras, other textures than the base colour's) is passed over.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Index = Annotated[int, Field(ge=0, lt=2**31)]
Vector3 = tuple[float, float, float]
Vector4 = tuple[float, float, float, float]

KNOWN: Final = ("KHR_materials_unlit", "KHR_texture_transform", "KHR_mesh_quantization")
"""Extensions that a file may require."""
MOST: Final = 4096
"""Things of one kind (nodes, meshes, accessors ...) in a file."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Buffer(_Part):
    """glTF's buffer."""

    byteLength: int = Field(ge=1, lt=2**31)
    uri: str | None = None


class BufferView(_Part):
    """glTF's buffer view."""

    buffer: Index
    byteOffset: Index = 0
    byteLength: int = Field(ge=1, lt=2**31)
    byteStride: int | None = Field(None, ge=4, le=252)


class SparseIndices(_Part):
    """glTF's sparse indices."""

    bufferView: Index
    byteOffset: Index = 0
    componentType: int


class SparseValues(_Part):
    """glTF's sparse values."""

    bufferView: Index
    byteOffset: Index = 0


class Sparse(_Part):
    """glTF's sparse."""

    count: int = Field(ge=1, lt=2**31)
    indices: SparseIndices
    values: SparseValues


class Accessor(_Part):
    """glTF's accessor."""

    bufferView: Index | None = None
    byteOffset: Index = 0
    componentType: Literal[5120, 5121, 5122, 5123, 5125, 5126]
    normalized: bool = False
    count: int = Field(ge=1, lt=2**31)
    type: Literal["SCALAR", "VEC2", "VEC3", "VEC4", "MAT2", "MAT3", "MAT4"]
    sparse: Sparse | None = None


class Picture(_Part):
    """glTF's picture."""

    uri: str | None = None
    bufferView: Index | None = None


class Sampler(_Part):
    """glTF's sampler."""

    wrapS: int = 10497
    wrapT: int = 10497


class Texture(_Part):
    """glTF's texture."""

    source: Index | None = None
    sampler: Index | None = None


class TextureInfo(_Part):
    """glTF's texture info."""

    index: Index
    texCoord: Index = 0
    extensions: dict[str, Any] = Field(default_factory=dict)


class Surface(_Part):
    """glTF's surface."""

    baseColorFactor: Vector4 = (1.0, 1.0, 1.0, 1.0)
    baseColorTexture: TextureInfo | None = None
    metallicFactor: float = Field(1.0, ge=0, le=1)
    roughnessFactor: float = Field(1.0, ge=0, le=1)


class Material(_Part):
    """glTF's material."""

    pbrMetallicRoughness: Surface = Surface()
    emissiveFactor: Vector3 = (0.0, 0.0, 0.0)
    alphaMode: Literal["OPAQUE", "MASK", "BLEND"] = "OPAQUE"
    alphaCutoff: float = 0.5
    doubleSided: bool = False
    extensions: dict[str, Any] = Field(default_factory=dict)


class Primitive(_Part):
    """glTF's primitive."""

    attributes: dict[str, Index]
    indices: Index | None = None
    material: Index | None = None
    mode: int = 4
    targets: list[dict[str, Index]] = Field(default_factory=list, max_length=64)


class Mesh(_Part):
    """glTF's mesh."""

    primitives: list[Primitive] = Field(min_length=1, max_length=MOST)
    weights: list[float] = Field(default_factory=list, max_length=64)
    extras: Any = None


class Node(_Part):
    """glTF's node."""

    name: str = ""
    children: list[Index] = Field(default_factory=list, max_length=MOST)
    mesh: Index | None = None
    skin: Index | None = None
    matrix: list[float] | None = Field(None, min_length=16, max_length=16)
    translation: Vector3 = (0.0, 0.0, 0.0)
    rotation: Vector4 = (0.0, 0.0, 0.0, 1.0)
    scale: Vector3 = (1.0, 1.0, 1.0)
    weights: list[float] | None = Field(None, max_length=64)


class Skin(_Part):
    """glTF's skin."""

    joints: list[Index] = Field(min_length=1, max_length=256)
    inverseBindMatrices: Index | None = None


class Target(_Part):
    """glTF's target."""

    node: Index | None = None
    path: str


class Channel(_Part):
    """glTF's channel."""

    sampler: Index
    target: Target


class AnimationSampler(_Part):
    """glTF's animation sampler."""

    input: Index
    output: Index
    interpolation: Literal["LINEAR", "STEP", "CUBICSPLINE"] = "LINEAR"


class Animation(_Part):
    """glTF's animation."""

    name: str = ""
    channels: list[Channel] = Field(max_length=MOST)
    samplers: list[AnimationSampler] = Field(max_length=MOST)


class Scene(_Part):
    """glTF's scene."""

    nodes: list[Index] = Field(default_factory=list, max_length=MOST)


class Asset(_Part):
    """glTF's asset."""

    version: str


class Document(_Part):
    """All of a file that is read."""

    asset: Asset
    scene: Index = 0
    scenes: list[Scene] = Field(default_factory=list, max_length=MOST)
    nodes: list[Node] = Field(default_factory=list, max_length=MOST)
    meshes: list[Mesh] = Field(default_factory=list, max_length=MOST)
    materials: list[Material] = Field(default_factory=list, max_length=MOST)
    textures: list[Texture] = Field(default_factory=list, max_length=MOST)
    images: list[Picture] = Field(default_factory=list, max_length=MOST)
    samplers: list[Sampler] = Field(default_factory=list, max_length=MOST)
    skins: list[Skin] = Field(default_factory=list, max_length=MOST)
    animations: list[Animation] = Field(default_factory=list, max_length=MOST)
    accessors: list[Accessor] = Field(default_factory=list, max_length=MOST)
    bufferViews: list[BufferView] = Field(default_factory=list, max_length=MOST)
    buffers: list[Buffer] = Field(default_factory=list, max_length=MOST)
    extensionsRequired: list[str] = Field(default_factory=list, max_length=MOST)
