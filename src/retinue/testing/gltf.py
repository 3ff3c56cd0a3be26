"""Writes small glTF 2.0 files, right ones and wrong ones."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COMPONENTS = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125,
               "float32": 5126}  # fmt: skip


@dataclass(slots=True)
class GltfFile:
    """A file in the making.

    Attributes:
        document: Its JSON, which may be changed at will.
        blob: Its one buffer.
    """

    document: dict[str, Any] = field(
        default_factory=lambda: {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": []}],
            "nodes": [],
            "meshes": [],
            "materials": [],
            "accessors": [],
            "bufferViews": [],
        }
    )
    blob: bytearray = field(default_factory=bytearray)

    def view(self, data: bytes) -> int:
        """Add bytes; return the number of their buffer view."""
        self.blob.extend(b"\0" * (-len(self.blob) % 4))
        views = self.document["bufferViews"]
        views.append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data)})
        self.blob.extend(data)
        return len(views) - 1

    def accessor(self, values: NDArray[Any], kind: str, **more: Any) -> int:
        """Add an array (count, ...) as "SCALAR", "VEC3" and so on; return its number."""
        accessors = self.document["accessors"]
        accessors.append(
            {
                "bufferView": self.view(np.ascontiguousarray(values).tobytes()),
                "componentType": _COMPONENTS[values.dtype.name],
                "count": len(values),
                "type": kind,
            }
            | more
        )
        return len(accessors) - 1

    def add(self, name: str, value: dict[str, Any]) -> int:
        """Add to a list of the document; return the number."""
        self.document.setdefault(name, []).append(value)
        return len(self.document[name]) - 1

    def mesh(
        self,
        positions: NDArray[np.float32],
        triangles: NDArray[np.unsignedinteger[Any]],
        attributes: dict[str, int] | None = None,
        **more: Any,
    ) -> int:
        """Add a mesh of one primitive and a node in the scene; return the node's number.

        Args:
            positions: (N, 3).
            triangles: (M, 3).
            attributes: Accessors of other attributes, by name.
            more: Of the primitive, for example ``material``.
        """
        primitive = {
            "attributes": {"POSITION": self.accessor(positions, "VEC3")} | (attributes or {}),
            "indices": self.accessor(triangles.ravel(), "SCALAR"),
        } | more
        mesh = self.add("meshes", {"primitives": [primitive]})
        node = self.add("nodes", {"mesh": mesh})
        self.document["scenes"][0]["nodes"].append(node)
        return node

    def animate(self, node: int, path: str, times: Any, values: Any, how: str = "LINEAR") -> None:
        """Add an animation "move" of one channel; values are (K, parts)."""
        array = np.asarray(values, np.float32)
        kind = {3: "VEC3", 4: "VEC4"}.get(array.shape[-1], "SCALAR")
        sampler = {
            "input": self.accessor(np.asarray(times, np.float32), "SCALAR"),
            "output": self.accessor(array if kind != "SCALAR" else array.ravel(), kind),
            "interpolation": how,
        }
        channel = {"sampler": 0, "target": {"node": node, "path": path}}
        self.add("animations", {"name": "move", "samplers": [sampler], "channels": [channel]})

    def _json(self, uri: str | None) -> bytes:
        document = {name: value for name, value in self.document.items() if value != []}
        if self.blob and "buffers" not in document:
            buffer: dict[str, Any] = {"byteLength": len(self.blob)}
            document["buffers"] = [buffer | ({"uri": uri} if uri else {})]
        return json.dumps(document).encode()

    def glb(self) -> bytes:
        """Return the file in one piece."""
        text, blob = self._json(None), bytes(self.blob) + b"\0" * (-len(self.blob) % 4)
        text += b" " * (-len(text) % 4)
        body = struct.pack("<I4s", len(text), b"JSON") + text
        if blob:
            body += struct.pack("<I4s", len(blob), b"BIN\0") + blob
        return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body

    def save(self, path: Path) -> Path:
        """Write a ``.glb``, or a ``.gltf`` with the buffer inside it, by the path's suffix."""
        if path.suffix == ".glb":
            path.write_bytes(self.glb())
        else:
            data = base64.b64encode(bytes(self.blob)).decode()
            path.write_bytes(self._json(f"data:application/octet-stream;base64,{data}"))
        return path
