"""Small data sets made by code: pictures of coloured squares that `color_detector` really finds."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.media.encode import encode_png
from retinue.testing.onnx_models import COLOURS

SIZE, CELL = 64, 16


@dataclass(frozen=True, slots=True, eq=False)
class Squares:
    """A picture of coloured squares on grey clouds.

    Attributes:
        name: Without a suffix.
        pixels: (64, 64, 3) uint8 RGB.
        boxes: (N, 4) float64, x1 y1 x2 y2 in pixels.
        class_ids: (N,) int64, indices into `COLOURS`.
    """

    name: str
    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    class_ids: NDArray[np.int64]

    @property
    def png(self) -> bytes:
        """The encoded file."""
        return encode_png(self.pixels)

    @property
    def yolo(self) -> str:
        """Its labels: "class cx cy w h" a line, in shares of the size."""
        lines = []
        for class_id, box in zip(self.class_ids, self.boxes / SIZE, strict=True):
            center, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
            lines.append(" ".join(map(str, [class_id, *center, *size])))
        return "\n".join(lines)


def squares(number: int, seed: int = 0) -> list[Squares]:
    """Return pictures that all look different, each with one or two squares."""
    rng = np.random.default_rng(seed)
    return [_squares(f"{index:04}", rng) for index in range(number)]


def _squares(name: str, rng: np.random.Generator) -> Squares:
    clouds = cv2.resize(rng.integers(0, 120, (9, 9)).astype(np.uint8), (SIZE, SIZE))
    pixels = np.repeat(clouds[..., None], 3, axis=2)
    side = SIZE // CELL
    cells = rng.choice(side * side, rng.integers(1, 3), replace=False)
    class_ids = rng.integers(0, len(COLOURS), len(cells))
    corners = np.stack([cells % side, cells // side], axis=1) * CELL
    for (x, y), class_id in zip(corners, class_ids, strict=True):
        pixels[y : y + CELL, x : x + CELL] = 0
        pixels[y : y + CELL, x : x + CELL, class_id] = 255
    boxes = np.concatenate([corners, corners + CELL], axis=1).astype(np.float64)
    return Squares(name, np.ascontiguousarray(pixels, np.uint8), boxes, class_ids)


def yolo_files(pictures: list[Squares]) -> dict[str, bytes]:
    """Return a data set in YOLO's layout: name to content."""
    images = {f"images/{p.name}.png": p.png for p in pictures}
    return images | {f"labels/{p.name}.txt": p.yolo.encode() for p in pictures}


def coco_files(pictures: list[Squares]) -> dict[str, bytes]:
    """Return a data set in COCO's layout: name to content."""
    images = [
        {"id": i, "file_name": f"{p.name}.png", "width": SIZE, "height": SIZE}
        for i, p in enumerate(pictures)
    ]
    annotations = [
        {"image_id": i, "category_id": 10 + int(c), "bbox": [*b[:2], *(b[2:] - b[:2])]}
        for i, p in enumerate(pictures)
        for c, b in zip(p.class_ids, p.boxes, strict=True)
    ]
    categories = [{"id": 10 + i, "name": name.title()} for i, name in enumerate(COLOURS)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    files = {f"val/{p.name}.png": p.png for p in pictures}
    return files | {"annotations/instances_val.json": json.dumps(content).encode()}


def class_files(pictures: list[Squares]) -> dict[str, bytes]:
    """Return a data set in class folders, called by the first square's colour."""
    return {f"{COLOURS[p.class_ids[0]]}/{p.name}.png": p.png for p in pictures}


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a data set as a folder."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a data set as a tar, compressed as the suffix says (.gz, .bz2, .xz)."""
    mode: Any = f"w:{path.suffix[1:]}" if path.suffix in (".gz", ".bz2", ".xz") else "w"
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a data set as a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
