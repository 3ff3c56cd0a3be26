"""What several benchmarks need: installed weights, and pictures with known answers."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from common import SHARED_DATA
from retinue.core.errors import ModelNotFound
from retinue.core.settings import load_settings
from retinue.models import catalogue
from retinue.models.card import Card, Input, Output, Source
from retinue.models.fetch import sha256_of
from retinue.models.registry import Entry, Registry
from retinue.testing.onnx_models import COLOURS, color_detector

DATA = Path(os.environ.get("RETINUE_BENCH_DATA", SHARED_DATA))


def weights(name: str) -> Entry:
    """Return an installed model of the catalogue, pulling it the first time."""
    registry = Registry(load_settings().cache)
    try:
        return registry.get(name)
    except ModelNotFound:
        print(f"pulling {name} ...", flush=True)
        return registry.pull(catalogue.find(name))


def dataset(name: str) -> Path | None:
    """Return a tar file of the data folder, or None, saying where it was looked for."""
    path = DATA / name
    if path.is_file():
        return path
    print(f"no {path}: set RETINUE_BENCH_DATA to a folder that holds {name}; skipped")
    return None


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files in a tar, in its order."""
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                yield member.name.removeprefix("./"), file.read()


def install_nothing(cache: Path) -> Entry:
    """Install "nothing", a detector of one cell for pictures of 16 x 16: it costs nothing."""
    path = color_detector(cache / "nothing.onnx", size=16, cell=16)
    card = Card(
        name="nothing",
        task="detect",
        family="yolo",
        license="Apache-2.0",
        source=Source(url=path.as_uri(), files={path.name: sha256_of(path)}),
        input=Input(height=16, width=16),
        output=Output(layout="yolov8"),
        classes=COLOURS,
    )
    return Registry(cache).import_onnx(path, card=card)


def small_photo() -> bytes:
    """Return a grey JPEG of 16 x 16."""
    out = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 128, np.uint8)).save(out, "JPEG")
    return out.getvalue()
