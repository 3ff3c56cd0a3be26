"""The built-in filters: they load, say whose they are, stay small, and can be made again."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from retinue.apps.ar.filters import check, load, names

ROOT = Path(__file__).resolve().parents[2]
BUILTIN = ROOT / "src" / "retinue" / "apps" / "ar" / "builtin"
FILTERS = sorted(path.parent.name for path in BUILTIN.glob("*/filter.toml"))
MODELS = sorted(path.relative_to(BUILTIN).as_posix() for path in BUILTIN.glob("*/*.glb"))
MODULES = ("shapes", "glb", "pixels", "animals", "props", "paints", "make_filters")
MOST = {"dog/dog.glb": 1100, "dog/tongue.glb": 450}
"""Triangles: each costs a software renderer up to a microsecond in every frame."""
NEEDED = {"dog", "glasses", "crown", "tiger", "lipstick", "cat-eyes", "background-blur", "big-eyes"}


@pytest.fixture(scope="module")
def generator() -> Iterator[ModuleType]:
    """The script, with its neighbours importable while it is used."""
    folder = ROOT / "assets" / "ar"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("make_filters", folder / "make_filters.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(folder))
        for name in MODULES:
            sys.modules.pop(name, None)


def split(data: bytes) -> tuple[dict, bytes]:
    """JSON and binary chunk of a .glb file."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def same(made: bytes, kept: bytes, suffix: str) -> bool:
    """Byte by byte; where another build of zlib packed the pictures, by what is in them."""
    if made == kept:
        return True
    if suffix == ".png":
        pictures = [np.asarray(Image.open(io.BytesIO(data)), int) for data in (made, kept)]
        return pictures[0].shape == pictures[1].shape and np.ptp(pictures[0] - pictures[1]) <= 16
    (one, _), (other, _) = split(made), split(kept)
    counts = [[a["count"] for a in document["accessors"]] for document in (one, other)]
    bounds = [
        [a["max"] for a in d["accessors"] if a["type"] == "VEC3" and "max" in a]
        for d in (one, other)
    ]
    return counts[0] == counts[1] and np.allclose(bounds[0], bounds[1], atol=1e-4)


def test_the_filters_that_were_promised_are_there() -> None:
    assert set(FILTERS) >= NEEDED
    assert set(names()) >= set(FILTERS)


@pytest.mark.parametrize("name", FILTERS)
def test_it_loads_without_problems(name: str) -> None:
    assert check(BUILTIN / name) == []
    assert load(name).spec.name == name


@pytest.mark.parametrize("name", FILTERS)
def test_it_says_whose_it_is_and_stays_small(name: str) -> None:
    folder = BUILTIN / name
    said = tomllib.loads((folder / "filter.toml").read_text(encoding="utf-8"))
    assert (said["license"], said["author"], said["name"]) == ("CC0-1.0", "Retinue", name)
    assert said["title"]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 450_000
    with Image.open(folder / "preview.png") as preview:
        assert preview.size == (256, 256)


@pytest.mark.parametrize("name", FILTERS)
def test_every_file_is_used(name: str) -> None:
    folder = BUILTIN / name
    said = tomllib.loads((folder / "filter.toml").read_text(encoding="utf-8"))
    used = {part[key] for part in said["parts"] for key in ("file", "simple") if key in part}
    assert {file.name for file in folder.iterdir()} == used | {"filter.toml", "preview.png"}


@pytest.mark.parametrize("name", MODELS)
def test_models_are_sound(name: str) -> None:
    document, blob = split((BUILTIN / name).read_bytes())
    triangles = 0
    for mesh in document["meshes"]:
        primitive = mesh["primitives"][0]
        triangles += document["accessors"][primitive["indices"]]["count"] // 3
        read = {}
        for key in ("POSITION", "NORMAL"):
            accessor = document["accessors"][primitive["attributes"][key]]
            start = document["bufferViews"][accessor["bufferView"]]["byteOffset"]
            flat = np.frombuffer(blob, "<f4", accessor["count"] * 3, start)
            read[key] = flat.reshape(-1, 3)
        assert np.isfinite(read["POSITION"]).all()
        assert np.abs(read["POSITION"]).max() < 0.25, "metres: nothing is that far from a head"
        assert np.allclose(np.linalg.norm(read["NORMAL"], axis=1), 1, atol=2e-3)
    assert triangles <= MOST.get(name, 700 if "simple" in name else 2600)


def test_the_generator_makes_what_is_kept(generator: ModuleType) -> None:
    made = dict(generator.files())
    kept = {
        path.relative_to(BUILTIN).as_posix()
        for path in BUILTIN.glob("*/*")
        if path.suffix in {".glb", ".png"} and path.name != "preview.png"
    }
    assert set(made) == kept
    wrong = [
        name
        for name, data in made.items()
        if not same(data, (BUILTIN / name).read_bytes(), Path(name).suffix)
    ]
    assert not wrong, "run: python assets/ar/make_filters.py"


def test_the_generator_gives_the_same_bytes_each_time(generator: ModuleType) -> None:
    for name in ("dog/dog.glb", "crown/crown-simple.glb", "hearts/heart.png"):
        assert generator.MAKERS[name]() == generator.MAKERS[name]()
