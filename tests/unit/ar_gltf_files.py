"""What tests of glTF share: small files, and where their vertices are drawn."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinue.apps.ar import gltf
from retinue.core.settings import Limits
from retinue.testing.gltf import GltfFile

LIMITS = Limits(max_bytes=2**20, max_pixels=64 * 64, max_frames=1)
SQUARE = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], np.float32)
TWO = np.array([(0, 1, 2), (0, 2, 3)], np.uint16)
STILL = np.eye(4)


def png(width: int = 4, height: int = 4) -> bytes:
    file = io.BytesIO()
    pixels = np.arange(width * height * 4, dtype=np.uint8).reshape(height, width, 4)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def square(**more: Any) -> GltfFile:
    file = GltfFile()
    file.mesh(SQUARE, TWO, **more)
    return file


def read(file: GltfFile, tmp_path: Path, limits: Limits = LIMITS) -> gltf.Model:
    return gltf.load(file.save(tmp_path / "model.glb"), limits)


def seen(model: gltf.Model, seconds: float = 0.0, matrix: Any = STILL, **more: Any) -> np.ndarray:
    """Where the vertices of the first draw are."""
    draw = model.draws(matrix, seconds, **more)[0]
    positions = draw.geometry.positions if draw.positions is None else draw.positions
    return positions @ draw.matrix[:3, :3].T + draw.matrix[:3, 3]


def skinned() -> GltfFile:
    file = GltfFile()
    joints = np.array([(0, 1, 0, 0)] * 4, np.uint8)
    weights = np.array([(1, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0)], np.float32)
    attributes = {
        "JOINTS_0": file.accessor(joints, "VEC4"),
        "WEIGHTS_0": file.accessor(weights, "VEC4"),
    }
    node = file.mesh(SQUARE, TWO, attributes)
    file.document["nodes"][node] |= {"skin": 0, "translation": [100, 0, 0]}
    tip = file.add("nodes", {"translation": [0, 1, 0]})
    base = file.add("nodes", {"children": [tip]})
    file.document["scenes"][0]["nodes"].append(base)
    inverse = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    inverse[1, 3, 1] = -1  # by columns
    matrices = file.accessor(inverse.reshape(2, 16), "MAT4")
    file.add("skins", {"joints": [base, tip], "inverseBindMatrices": matrices})
    file.animate(tip, "translation", [0.0, 1.0], [(0, 1, 0), (0, 3, 0)])
    return file
