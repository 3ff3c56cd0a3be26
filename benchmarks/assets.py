"""What several benchmarks need: installed weights, and pictures with known answers."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from common import SHARED_DATA
from retinue.core.errors import ModelNotFound
from retinue.core.settings import load_settings
from retinue.models import catalogue
from retinue.models.registry import Entry, Registry

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
