"""Bulk indexing against the model's own throughput, and against one picture after the other.

The same photos of ``../shared/data`` three ways, A B C A B C: the model alone (decode, preprocess
and run with a session a thread, nothing kept), ``search index`` (which also makes thumbnails and
PDQ hashes and writes all of it durably), and one by one (read, decode, run, write a line, as small
tools do it). The photos are copied to different names, so that every run is a fresh one.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

from assets import dataset, members
from common import show
from retinue.apps.search.api import Collection
from retinue.apps.search.indexing import run
from retinue.apps.search.local import LocalModels
from retinue.core.settings import cores, load_settings
from retinue.media.decode import decode

MODEL = "efficientnet-lite0-search"
CACHE = Path(os.environ.get("RETINUE_CACHE", Path(__file__).parents[1] / ".cache" / "models"))


def model_alone(folder: Path, home: Path) -> float:
    """Decode, preprocess and run on all cores; return pictures a second."""
    settings = load_settings(home=home, cache=CACHE)
    models = LocalModels(settings)
    made = threading.local()

    def embed(path: Path) -> None:
        if not hasattr(made, "model"):
            made.model = models.fresh(MODEL)
        image = decode(path.read_bytes(), limits=settings.limits, target=made.model.decode_size)
        made.model.predict([image])[0].unwrap()

    files = sorted(folder.iterdir())
    with ThreadPoolExecutor(cores()) as threads:
        list(threads.map(embed, files[: 2 * cores()]))  # loads the sessions
        start = time.perf_counter()
        list(threads.map(embed, files))
        return len(files) / (time.perf_counter() - start)


def bulk(folder: Path, home: Path) -> float:
    """Index a folder; return pictures a second from the first to the last that was durable."""
    settings = load_settings(home=home, cache=CACHE)
    with Collection.open("bulk", settings=settings) as collection:
        return float(run(collection, str(folder), quiet=True)["images_a_second"])


def one_by_one(folder: Path, home: Path) -> float:
    """Read, decode, run and write one picture after the other; return pictures a second."""
    settings = load_settings(home=home, cache=CACHE)
    models = LocalModels(settings)
    model = models.fresh(MODEL)
    database = sqlite3.connect(home / "one.sqlite3", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE IF NOT EXISTS items (path TEXT, vector BLOB)")
    files = sorted(folder.iterdir())
    start = time.perf_counter()
    for path in files:
        image = decode(path.read_bytes(), limits=settings.limits, target=model.decode_size)
        vector = model.predict([image])[0].unwrap().vector
        database.execute("INSERT INTO items VALUES (?, ?)", (str(path), vector.tobytes()))
    rate = len(files) / (time.perf_counter() - start)
    database.close()
    return rate


def main() -> None:
    """Measure the three ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=2)
    options = parser.parse_args()
    path = dataset("imagenet-500.tar")
    if path is None:
        return
    photos = [content for name, content in members(path) if name.endswith(".JPEG")]
    ways = {"model alone": model_alone, "search index": bulk, "one by one": one_by_one}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as place:
                folder, home = Path(place) / "photos", Path(place) / "home"
                folder.mkdir()
                home.mkdir()
                for number in range(options.copies * len(photos)):
                    # A byte behind the end makes it another file with the same picture.
                    content = photos[number % len(photos)] + number.to_bytes(4, "big")
                    (folder / f"{number:06d}.jpg").write_bytes(content)
                rates[name].append(way(folder, home))
    alone = statistics.median(rates["model alone"])
    rows = [
        (name, f"{statistics.median(r):.1f}", f"{min(r):.1f}..{max(r):.1f}",
         f"{statistics.median(r) / alone:.0%}")
        for name, r in rates.items()
    ]  # fmt: skip
    count = options.copies * len(photos)
    show(
        f"Indexing {count:,} photos with {MODEL}",
        ("", "pictures/s, median", "range", "of the model alone"),
        rows,
    )


if __name__ == "__main__":
    main()
