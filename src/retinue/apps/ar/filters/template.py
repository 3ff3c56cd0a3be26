"""``retinue ar new``: a folder that works as it is, to be changed."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retinue.apps.ar.face.canonical import TRIANGLES, UV
from retinue.core.errors import InvalidRequest, storage_errors

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SIDE: Final = 1024
_TOML: Final = """\
# A filter; docs/ar-filters.md has every key. See and check it, here in its folder:
#     retinue ar apply --filter . --camera 0 --show        (it is read again on every save)
#     retinue ar check .
format = 1
name = "{name}"
title = "{title}"
author = ""              # who made it
license = ""             # for example "CC0-1.0"
occlusion = true         # an invisible head hides what is behind it

# Colour on the skin. guide.png shows where the face is in such a picture.
[[parts]]
kind = "paint"
file = "paint.png"
opacity = 0.8

# A 3D model. Its place is in centimetres from the middle of the head: right in the picture, up,
# and out of the face. Blender exports .glb files in metres, which scale = 100 makes centimetres.
[[parts]]
kind = "model"
file = "horn.glb"
position = [0.0, 8.2, 4.0]
rotation = [-15.0, 0.0, 0.0]
scale = 100.0

# A flat picture, here only while the person smiles.
[[parts]]
kind = "sticker"
file = "star.png"
at = 291                 # the mouth's corner on the picture's right
size = 0.35              # in eye distances
offset = [0.5, 0.3]
[parts.show]
when = "smile"
above = 0.45
until = 0.3
"""


def new(name: str, folder: Path | str = ".") -> Path:
    """Make a new filter's folder from the template.

    Args:
        name: Lower-case letters, digits and hyphens.
        folder: Where its folder is made; it is made too if need be.

    Returns:
        The new folder.

    Raises:
        InvalidRequest: the name is none, or is taken there.
        StorageError: it cannot be written.
    """
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is no name for a filter; use lower-case letters, digits and hyphens"
        )
    made = Path(folder) / name
    if made.exists() or made.is_symlink():
        raise InvalidRequest(f"{made} is there already; choose another name, or remove it")
    title = name.replace("-", " ").capitalize()
    contents = {
        "filter.toml": _TOML.format(name=name, title=title).encode(),
        "paint.png": _png(_paint()),
        "guide.png": _png(_guide()),
        "star.png": _png(_star()),
        "horn.glb": _horn(),
    }
    with storage_errors(made, "making a filter"):
        made.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=made.parent))
        try:
            for file, data in contents.items():
                (beside / file).write_bytes(data)
            beside.chmod(0o755)
            beside.rename(made)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    return made


def _png(pixels: NDArray[np.uint8]) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG", optimize=True)
    return made.getvalue()


def _paint() -> NDArray[np.uint8]:
    """Two stripes on each cheek, under the eyes."""
    pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
    for color, shift in (((226, 62, 87), 0.0), ((60, 178, 208), 0.055)):
        layer = np.zeros((SIDE, SIDE), np.uint8)
        for sign in (-1, 1):
            ends = [(0.5 + sign * x, y + shift) for x, y in ((0.17, 0.53), (0.27, 0.50))]
            (x1, y1), (x2, y2) = [(int(x * SIDE), int(y * SIDE)) for x, y in ends]
            cv2.line(layer, (x1, y1), (x2, y2), 255, 36, cv2.LINE_AA)
        pixels[layer > 0, :3] = color
        pixels[..., 3] = np.maximum(pixels[..., 3], layer)
    return pixels


def _guide() -> NDArray[np.uint8]:
    """The mesh in texture coordinates, to draw over."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    places = np.round(UV * (SIDE - 1) * 16).astype(np.int32)
    lines = [places[triangle].reshape(-1, 1, 2) for triangle in TRIANGLES]
    cv2.polylines(pixels, lines, True, (150, 160, 175), 1, cv2.LINE_AA, shift=4)
    for index, (x, y) in enumerate((places // 16).tolist()):
        place = (x + 2, y - 2)
        cv2.putText(
            pixels, str(index), place, cv2.FONT_HERSHEY_SIMPLEX, 0.28, (20, 40, 90), 1, cv2.LINE_AA
        )
    return pixels


def _star(side: int = 256) -> NDArray[np.uint8]:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, 0.42, 0.94) * side / 2
    corners = side / 2 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
    alpha = np.zeros((side, side), np.uint8)
    fixed = np.round((corners - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(alpha, [fixed], 255, cv2.LINE_AA, shift=4)
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., :3] = (255, 203, 64)
    pixels[..., 3] = alpha
    return pixels


def _horn(sides: int = 24, rows: int = 12) -> bytes:
    """A cone of 7 cm with its foot at the origin, as a .glb file."""
    t, angle = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 2 * np.pi, sides + 1)[:-1])
    radius = 0.013 * (1 - t) + 0.0008
    positions = np.stack([radius * np.sin(angle), 0.07 * t, radius * np.cos(angle)], -1)
    slope = np.full_like(t, 0.013 / 0.07)
    normals = np.stack([np.sin(angle), slope, np.cos(angle)], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    row, side = np.meshgrid(np.arange(rows - 1), np.arange(sides))
    a, b = side * rows + row, (side + 1) % sides * rows + row
    quads = np.stack([a, b, b + 1, a, b + 1, a + 1], -1)
    chunks = [
        positions.reshape(-1, 3).astype("<f4").tobytes(),
        normals.reshape(-1, 3).astype("<f4").tobytes(),
        quads.reshape(-1).astype("<u2").tobytes(),
    ]
    return _glb(chunks, positions.reshape(-1, 3).astype(np.float32), quads.size)


def _glb(chunks: list[bytes], positions: NDArray[np.float32], indices: int) -> bytes:
    starts = np.cumsum([0, *map(len, chunks)]).tolist()
    vector = {"componentType": 5126, "count": len(positions), "type": "VEC3"}
    low, high = positions.min(axis=0).tolist(), positions.max(axis=0).tolist()
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "horn", "mesh": 0}],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "NORMAL": 1}, "indices": 2,
                             "material": 0}]}
        ],
        "materials": [
            {"pbrMetallicRoughness": {"baseColorFactor": [0.95, 0.82, 0.45, 1.0],
                                      "metallicFactor": 0.2, "roughnessFactor": 0.35}}
        ],
        "accessors": [
            {"bufferView": 0, "min": low, "max": high, **vector},
            {"bufferView": 1, **vector},
            {"bufferView": 2, "componentType": 5123, "count": indices, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(chunk)}
            for start, chunk in zip(starts, chunks, strict=False)
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }  # fmt: skip
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(chunks)
    binary += b"\0" * (-len(binary) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, total),
            struct.pack("<I4s", len(text), b"JSON"), text,
            struct.pack("<I4s", len(binary), b"BIN\0"), binary,
        ]
    )  # fmt: skip
