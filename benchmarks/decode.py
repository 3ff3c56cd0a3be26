"""Decode and letterbox: Retinue's path against simplejpeg, OpenCV and Pillow at full size.

One real photo, saved as a JPEG (quality 90) at several sizes, becomes the 416 x 416 input of a
detector, in one thread; so do real photos as they are. Run: ``python benchmarks/decode.py``
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import itertools
import statistics
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image as PillowImage

from common import SHARED_DATA, interleaved, ms, show
from retinue.core.settings import Limits
from retinue.media.decode import decode
from retinue.media.letterbox import Letterbox

SIDE = 416
SIZES = ((320, 240), (640, 480), (1280, 960), (1920, 1440), (4032, 3024))
LIMITS = Limits()


def folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"this benchmark needs {package}; install the dev dependencies")
    return Path(spec.origin).parent


def boxed(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return Letterbox.fit(width, height, SIDE, SIDE).apply(pixels)


def retinue(data: bytes) -> np.ndarray:
    image = decode(data, limits=LIMITS, target=(SIDE, SIDE))
    return boxed(image.pixels, image.width, image.height)


def with_simplejpeg(data: bytes) -> np.ndarray:
    pixels = simplejpeg.decode_jpeg(data)
    return boxed(pixels, pixels.shape[1], pixels.shape[0])


def with_opencv(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return boxed(pixels, pixels.shape[1], pixels.shape[0])


def with_pillow(data: bytes) -> np.ndarray:
    image = PillowImage.open(io.BytesIO(data)).convert("RGB")
    box = Letterbox.fit(image.width, image.height, SIDE, SIDE)
    size = (box.content_width, box.content_height)
    frame = PillowImage.new("RGB", (SIDE, SIDE), (114, 114, 114))
    frame.paste(image.resize(size, PillowImage.Resampling.BILINEAR), (box.left, box.top))
    return np.asarray(frame)


def with_draft(data: bytes) -> np.ndarray:
    image = PillowImage.open(io.BytesIO(data))
    width, height = image.size
    image.draft("RGB", (SIDE, SIDE))
    return boxed(np.asarray(image.convert("RGB")), width, height)


WAYS: dict[str, Callable[[bytes], np.ndarray]] = {
    "Retinue": retinue,
    "simplejpeg": with_simplejpeg,
    "OpenCV": with_opencv,
    "Pillow draft": with_draft,
    "Pillow": with_pillow,
}


def measured(label: str, files: Iterable[bytes], rounds: int, formats: str = "jpeg") -> list[str]:
    """One row: the mean over the files of each way's median."""
    medians: dict[str, list[float]] = {name: [] for name in WAYS}
    ways = {n: w for n, w in WAYS.items() if formats == "jpeg" or "jpeg" not in n}
    sizes = []
    for data in files:
        sizes.append(len(data))
        calls = {name: (lambda way=way, data=data: way(data)) for name, way in ways.items()}
        for name, timing in interleaved(calls, rounds=rounds, warmup=1, cpu=True).items():
            medians[name].append(timing.median)
    cells = [ms(statistics.mean(m)) if m else "-" for m in medians.values()]
    return [label, f"{statistics.mean(sizes) / 1000:.0f}", *cells]


def jpegs_of(archive: Path, count: int) -> list[bytes]:
    with tarfile.open(archive) as tar:
        members = (m for m in tar if m.name.lower().endswith((".jpg", ".jpeg")))
        return [tar.extractfile(m).read() for m in itertools.islice(members, count)]  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="samples of each cell")
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    source = PillowImage.open(folder("sklearn") / "datasets" / "images" / "china.jpg")
    rows = []
    for size in SIZES:
        resized = source.resize(size, PillowImage.Resampling.BICUBIC)
        stream = io.BytesIO()
        resized.save(stream, "JPEG", quality=90)
        rows.append(measured(f"JPEG {size[0]} x {size[1]}", [stream.getvalue()], rounds))
    photos = folder("skimage") / "data"
    few = max(2, rounds // 3)
    named = [photos / name for name in ("retina.jpg", "hubble_deep_field.jpg", "rocket.jpg")]
    found = [path.read_bytes() for path in named if path.is_file()]
    rows.append(measured(f"{len(found)} JPEG of scikit-image", found, few))
    pngs = [p.read_bytes() for p in sorted(photos.glob("*.png"))]
    rows.append(measured(f"{len(pngs)} PNG of scikit-image", pngs, few, "png"))
    stream = io.BytesIO()
    source.resize((1280, 960)).save(stream, "WEBP", quality=85)
    rows.append(measured("WebP 1280 x 960", [stream.getvalue()], few, "webp"))
    notes = [
        "Milliseconds of CPU, median; for several photos the mean of their medians. One thread.",
        "Retinue checks the header and refuses damage; the others check nothing.",
        "Lines of libpng on standard error are OpenCV's; they are why PNG is left to Pillow.",
    ]
    for name in ("coco-train128.tar", "imagenet-500.tar"):
        archive = SHARED_DATA / name
        if archive.is_file():
            files = jpegs_of(archive, 32)
            rows.append(measured(f"{len(files)} photos of {archive.stem}", files, few))
        else:
            notes.append(f"{name} is not in {SHARED_DATA.name}: left out.")
    title = f"Decode and letterbox into {SIDE} x {SIDE}"
    show(title, ["photo", "kB", *WAYS], rows, notes=notes)


if __name__ == "__main__":
    main()
