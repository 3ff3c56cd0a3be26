"""Contact sheets of every AR filter on real faces and on posed heads, to be looked at by eye.

    python benchmarks/ar_sheet.py [--out build/ar-sheet] [--photos FOLDER] [--filters dog,crown]

Real faces are scikit-image's astronaut, those that the app itself finds in the photos of
../shared/data where they are there, and those of a folder. Each filter gets one sheet of them, and
one of the mannequin that the previews show, over yaw, pitch and roll. People's photos stay in the
output folder: do not commit them.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from PIL import Image, ImageOps

from common import SHARED_DATA, show
from retinue.apps.ar import filters
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.coefficients import coefficients
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.stage import Stage
from retinue.apps.ar.governor import Quality
from retinue.apps.ar.networks import Networks
from retinue.apps.ar.render.choose import open_renderer
from retinue.apps.ar.render.scene import Renderer, View
from retinue.apps.ar.session import Session
from retinue.apps.ar.settings import ArSettings
from retinue.core.settings import Settings
from retinue.testing.ar import pose

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "assets" / "ar"))
from make_previews import Silhouette, irises, mannequin, opened, room  # noqa: E402

CACHE = Path(os.environ.get("RETINUE_CACHE", HERE.parent / ".cache" / "models"))
TARS = ("coco-train128.tar", "imagenet-500.tar")
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
CELL = 300
AROUND, SHOWN = 3.6, 2.3
"""Sides, in sizes of the face, of what is kept of a photo and of what is shown of that."""
POSES = (
    *((yaw, 0, 0) for yaw in (-80, -60, -40, -20, 0, 20, 40, 60, 80)),
    *((0, pitch, 0) for pitch in (-35, -20, 20, 35)),
    *((0, 0, roll) for roll in (-60, -30, 30, 60)),
    (35, 20, 20),
)
"""Yaw, pitch and roll in degrees."""


@dataclass(frozen=True)
class Shot:
    """What is around one face of a photo."""

    name: str
    pixels: np.ndarray


def photos(folder: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and (H, W, 3) uint8 of all photos."""
    yield "astronaut", skimage.data.astronaut()
    for path in (SHARED_DATA / name for name in TARS):
        if not path.is_file():
            continue
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and Path(member.name).suffix.lower() in PICTURES:
                    yield Path(member.name).stem, decoded(file.read())
    for path in sorted(folder.iterdir()) if folder else ():
        if path.suffix.lower() in PICTURES:
            yield path.stem, decoded(path.read_bytes())


def decoded(data: bytes) -> np.ndarray:
    """Return an upright RGB picture."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def shots(networks: Networks, folder: Path | None, least: float) -> list[Shot]:
    """Return the surroundings of all faces of at least so many pixels."""
    found = []
    ar = ArSettings(max_faces=20)
    with Session(None, ar=ar, networks=networks, live=False) as session:
        for name, pixels in photos(folder):
            session.reset()
            for number, face in enumerate(session.apply(pixels, 0.0).faces):
                low, high = face.landmarks[:, :2].min(axis=0), face.landmarks[:, :2].max(axis=0)
                size = float((high - low).max())
                if size >= least:
                    found.append(Shot(f"{name}.{number}", crop(pixels, (low + high) / 2, size)))
    return found


def crop(pixels: np.ndarray, middle: np.ndarray, size: float) -> np.ndarray:
    """Return the square around a face, as large as it needs to be shown at twice a cell."""
    side = size * AROUND
    scale = 2 * CELL * AROUND / SHOWN / side
    edge = round(side * scale)
    start = edge / 2 - scale * (middle - (0, 0.1 * side))
    move = np.array([[scale, 0, start[0]], [0, scale, start[1]]])
    smooth = cv2.GaussianBlur(pixels, (0, 0), 0.4 / scale) if scale < 0.7 else pixels
    how = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REPLICATE}
    return cv2.warpAffine(smooth, move, (edge, edge), **how)


def cell(pixels: np.ndarray, text: str) -> np.ndarray:
    """Return the middle of a picture at a cell's size, with a line below."""
    edge = len(pixels)
    side = round(edge * SHOWN / AROUND)
    top = round(edge * (0.5 + 0.06) - side / 2 - 0.1 * edge)
    left = (edge - side) // 2
    made = cv2.resize(
        pixels[top : top + side, left : left + side], (CELL, CELL), interpolation=cv2.INTER_AREA
    )
    return labelled(np.ascontiguousarray(made), text)


def labelled(made: np.ndarray, text: str) -> np.ndarray:
    """Write a line into a picture's lower edge."""
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(made, text, (5, len(made) - 7), 0, 0.42, color, width, cv2.LINE_AA)
    return made


def sheet(cells: list[np.ndarray], columns: int) -> Image.Image:
    """Put cells side by side."""
    blank = np.zeros_like(cells[0])
    cells = cells + [blank] * (-len(cells) % columns)
    rows = [np.hstack(cells[at : at + columns]) for at in range(0, len(cells), columns)]
    return Image.fromarray(np.vstack(rows))


def real(
    name: str, kept: list[Shot], networks: Networks, renderer: Renderer
) -> tuple[list[np.ndarray], int]:
    """Return the faces with a filter on them, after half a second of it; and how many were seen."""
    cells, seen = [], 0
    with Session(
        filters.load(name), ar=ArSettings(), networks=networks, renderer=renderer, live=False
    ) as session:
        for shot in kept:
            session.reset()
            for second in (0.0, 0.25, 0.5):
                done = session.apply(shot.pixels, second)
            yaw = f" {done.faces[0].pose.angles()[0]:.0f}" if done.faces else " -"
            seen += bool(done.faces)
            cells.append(cell(done.pixels, shot.name + yaw))
    return cells, seen


def posed(name: str, renderer: Renderer) -> list[np.ndarray]:
    """Return the mannequin with a filter on it, one cell a pose; the mouth is open in some."""
    worn, cells, size = filters.load(name), [], 2 * CELL
    camera = Camera.from_fov(size, size)
    view = View(camera.matrix, 0, 0, size, size)
    for number, angles in enumerate(POSES):
        vertices = opened(float(number % 2), 1.0)
        head = pose(*angles, at=(0.0, 2.0, 36.0))
        drawn = renderer.render(mannequin(vertices, head.matrix()), view).astype(float) / 255
        alpha = drawn[..., 3]
        whole = drawn[..., :3] + room(size) * (1 - alpha[..., None])
        frame = np.ascontiguousarray(np.round(whole * 255), np.uint8)
        points = np.concatenate([vertices, irises(vertices)])
        placed = points @ head.rotation.T + head.translation
        depth = (placed[:, 2] - head.translation[2]) * camera.matrix[0, 0] / head.translation[2]
        landmarks = np.column_stack([camera.project(placed), depth]).astype(np.float32)
        stage = Stage(worn, renderer, Silhouette(alpha.astype(np.float32)))
        for second in (0.0, 0.25, 0.5):
            shown = frame.copy()
            face = Face(1, 1.0, landmarks, head, coefficients(landmarks, head), 1.0, second)
            stage.apply(shown, [face], camera, second, Quality())
        small = cv2.resize(shown, (CELL, CELL), interpolation=cv2.INTER_AREA)
        cells.append(labelled(small, f"{angles[0]} {angles[1]} {angles[2]}"))
    return cells


def main() -> None:
    """Write the sheets and print what is on them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "ar-sheet")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--filters", default=",".join(filters.names()))
    parser.add_argument("--least", type=float, default=60.0, help="pixels of a face")
    parser.add_argument("--only", default="", help="names of shots, by commas")
    parser.add_argument("--renderer", default="auto")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ar = ArSettings(renderer=options.renderer)
    networks, renderer = Networks(Settings(cache=CACHE), ar), open_renderer(ar.renderer)
    kept = shots(networks, options.photos, options.least)
    only = set(options.only.split(",")) - {""}
    kept = [shot for shot in kept if not only or shot.name in only]
    sheet([cell(shot.pixels, shot.name) for shot in kept], 6).save(options.out / "faces.jpg")
    rows = []
    for name in options.filters.split(","):
        cells, seen = real(name, kept, networks, renderer)
        sheet(cells, 6).save(options.out / f"{name}-faces.jpg", quality=92)
        sheet(posed(name, renderer), 6).save(options.out / f"{name}-poses.jpg", quality=92)
        rows.append((name, len(kept), seen, len(POSES)))
    show("contact sheets", ("filter", "faces", "seen again", "poses"), rows)
    networks.close()
    renderer.close()


if __name__ == "__main__":
    main()
