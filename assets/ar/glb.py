"""Write binary glTF 2.0 files; centimetres become the standard's metres."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapes import Mesh, normals

FLOAT, BYTE, SHORT = 5126, 5121, 5123


@dataclass(frozen=True)
class Material:
    """Metallic-roughness; colours are linear, the texture a PNG in sRGB."""

    name: str
    color: tuple[float, float, float, float] = (1, 1, 1, 1)
    metallic: float = 0.0
    roughness: float = 0.8
    png: bytes | None = None
    mode: str = "OPAQUE"
    double_sided: bool = False
    emissive: tuple[float, float, float] = (0, 0, 0)


@dataclass(frozen=True)
class Part:
    """A mesh with its material; morphs are, by name, where morph targets move its vertices to."""

    name: str
    mesh: Mesh
    material: Material
    morphs: dict[str, Mesh] = field(default_factory=dict)
    origin: tuple[float, float, float] = (0, 0, 0)


@dataclass(frozen=True)
class Channel:
    """An animation of a part: "weights", "scale", "rotation" or "translation" by seconds."""

    part: str
    path: str
    seconds: list[float]
    values: list[Any]


@dataclass
class _File:
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)
    blob: bytearray = field(default_factory=bytearray)

    def view(self, data: bytes, target: int | None = None) -> int:
        self.blob.extend(b"\0" * (-len(self.blob) % 4))
        view = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data)}
        self.views.append(view | ({"target": target} if target else {}))
        self.blob.extend(data)
        return len(self.views) - 1

    def accessor(
        self, array: NDArray[Any], shape: str, target: int | None = None, **more: Any
    ) -> int:
        kinds = {"float32": FLOAT, "uint8": BYTE, "uint16": SHORT}
        accessor = {
            "bufferView": self.view(np.ascontiguousarray(array).tobytes(), target),
            "componentType": kinds[array.dtype.name],
            "count": len(array),
            "type": shape,
        }
        self.accessors.append(accessor | more)
        return len(self.accessors) - 1


def _bounds(array: NDArray[np.float32]) -> dict[str, list[float]]:
    return {"min": array.min(0).tolist(), "max": array.max(0).tolist()}


def _primitive(file: _File, part: Part, material: int) -> dict[str, Any]:
    mesh = part.mesh
    origin = np.asarray(part.origin, float)
    place = np.round((mesh.positions - origin) / 100, 6).astype("<f4")
    normal = np.round(normals(mesh), 4).astype("<f4")
    attributes = {
        "POSITION": file.accessor(place, "VEC3", 34962, **_bounds(place)),
        "NORMAL": file.accessor(normal, "VEC3", 34962),
    }
    if mesh.uv is not None and part.material.png is not None:
        uv = np.round(mesh.uv, 5).astype("<f4")
        attributes["TEXCOORD_0"] = file.accessor(uv, "VEC2", 34962)
    if mesh.colors is not None:
        colors = np.round(np.clip(mesh.colors, 0, 1) * 255).astype(np.uint8)
        attributes["COLOR_0"] = file.accessor(colors, "VEC4", 34962, normalized=True)
    index = mesh.triangles.astype("<u2").ravel()
    found: dict[str, Any] = {
        "attributes": attributes,
        "indices": file.accessor(index, "SCALAR", 34963),
        "material": material,
    }
    targets = []
    for morph in part.morphs.values():
        moved = np.round((morph.positions - origin) / 100, 6).astype("<f4") - place
        tilted = (np.round(normals(morph), 4) - normal).astype("<f4")
        targets.append(
            {
                "POSITION": file.accessor(moved, "VEC3", 34962, **_bounds(moved)),
                "NORMAL": file.accessor(tilted, "VEC3", 34962),
            }
        )
    if targets:
        found["targets"] = targets
    return found


def _material(material: Material, texture: int | None) -> dict[str, Any]:
    surface: dict[str, Any] = {
        "baseColorFactor": list(material.color),
        "metallicFactor": material.metallic,
        "roughnessFactor": material.roughness,
    }
    if texture is not None:
        surface["baseColorTexture"] = {"index": texture}
    found: dict[str, Any] = {"name": material.name, "pbrMetallicRoughness": surface}
    if material.mode != "OPAQUE":
        found["alphaMode"] = material.mode
    if material.double_sided:
        found["doubleSided"] = True
    if any(material.emissive):
        found["emissiveFactor"] = list(material.emissive)
    return found


def _animations(
    file: _File, parts: list[Part], animations: dict[str, list[Channel]]
) -> list[dict[str, Any]]:
    shapes = {"weights": "SCALAR", "rotation": "VEC4"}
    names = [part.name for part in parts]
    found = []
    for name, channels in animations.items():
        samplers, routes = [], []
        for channel in channels:
            seconds = np.asarray(channel.seconds, "<f4")
            bounds: dict[str, Any] = {"min": [float(seconds.min())], "max": [float(seconds.max())]}
            values = np.asarray(channel.values, "<f4")
            samplers.append(
                {
                    "input": file.accessor(seconds, "SCALAR", **bounds),
                    "output": file.accessor(values, shapes.get(channel.path, "VEC3")),
                    "interpolation": "LINEAR",
                }
            )
            target = {"node": names.index(channel.part), "path": channel.path}
            routes.append({"sampler": len(samplers) - 1, "target": target})
        found.append({"name": name, "samplers": samplers, "channels": routes})
    return found


def glb(parts: list[Part], animations: dict[str, list[Channel]] | None = None) -> bytes:
    """Return the file's bytes: one node a part."""
    file = _File()
    materials = list({part.material.name: part.material for part in parts}.values())
    names = [material.name for material in materials]
    meshes: list[dict[str, Any]] = []
    for part in parts:
        mesh: dict[str, Any] = {
            "name": part.name,
            "primitives": [_primitive(file, part, names.index(part.material.name))],
        }
        if part.morphs:
            mesh |= {"weights": [0.0] * len(part.morphs)}
            mesh |= {"extras": {"targetNames": list(part.morphs)}}
        meshes.append(mesh)
    pictures = list(dict.fromkeys(m.png for m in materials if m.png is not None))
    images = [{"bufferView": file.view(png), "mimeType": "image/png"} for png in pictures]
    textures = [{"source": i, "sampler": 0} for i in range(len(images))]
    nodes: list[dict[str, Any]] = []
    for i, part in enumerate(parts):
        node: dict[str, Any] = {"name": part.name, "mesh": i}
        if any(part.origin):
            node["translation"] = [round(c / 100, 6) for c in part.origin]
        nodes.append(node)
    whole: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "Retinue", "copyright": "Retinue, CC0-1.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes,
        "meshes": meshes,
        "materials": [
            _material(m, None if m.png is None else pictures.index(m.png)) for m in materials
        ],
    }
    if images:
        sampler = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}
        whole |= {"images": images, "textures": textures, "samplers": [sampler]}
    if animations:
        whole["animations"] = _animations(file, parts, animations)
    file.blob.extend(b"\0" * (-len(file.blob) % 4))
    whole |= {
        "accessors": file.accessors,
        "bufferViews": file.views,
        "buffers": [{"byteLength": len(file.blob)}],
    }
    text = json.dumps(whole, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text
    body += struct.pack("<I4s", len(file.blob), b"BIN\0") + bytes(file.blob)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body
