"""Visual search end to end on a large collection: upload a picture, get the top 20, re-ranked.

The items are real embeddings of the photos of ``../shared/data`` and of crops of them; up to the
size they are copies of those with noise on the vectors and flipped bits in the tokens (synthetic,
and said so). The queries are other crops of the same photos, each sent once, so that no cache
answers. The index's recall is measured against an exact search on the same vectors.

``python benchmarks/search_million.py --count 1000000 --home /var/tmp/million`` builds once; a home
that exists is used again.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from common import SHARED_DATA, machine, show

CACHE = Path(os.environ.get("RETINUE_CACHE", Path(__file__).parents[1] / ".cache" / "models"))

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

# The adder must not share the interpreter of the load generator, whose times would have its locks.
SPAWN = multiprocessing.get_context("spawn")
MODEL = "efficientnet-lite0-search"
CROPS = 8
NOISE = 0.6
FLIPPED = 0.08
TOGETHER_S = 0.1
"""What is added in so long is one write, as writers of many items do."""
BATCH = 5_000
PHOTOS = ("imagenet-500.tar", "coco-train128.tar")


def photos() -> list[bytes]:
    """Return all photos of the shared data."""
    found = []
    for name in PHOTOS:
        with tarfile.open(SHARED_DATA / name) as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith((".jpg", ".jpeg")):
                    file = tar.extractfile(member)
                    assert file is not None
                    found.append(file.read())
    return found


def crops(data: bytes, count: int, draw: random.Random) -> list[bytes]:
    """Return random crops of a photo as JPEG files."""
    from retinue.core.settings import Limits
    from retinue.media.decode import decode
    from retinue.media.encode import encode_jpeg

    pixels = decode(data, limits=Limits()).pixels
    height, width = pixels.shape[:2]
    found = []
    for _ in range(count):
        share = draw.uniform(0.55, 0.95)
        h, w = int(height * share), int(width * share)
        y, x = draw.randint(0, height - h), draw.randint(0, width - w)
        cut = np.ascontiguousarray(pixels[y : y + h, x : x + w])
        found.append(encode_jpeg(cut, draw.randint(70, 92)))
    return found


def build(home: Path, count: int) -> None:
    """Make the collection: real embeddings first, then noisy copies of them."""
    from retinue.apps.search.api import app_settings, open_library
    from retinue.apps.search.local import LocalModels
    from retinue.apps.search.prepare import prepare
    from retinue.apps.search.writer import space_of
    from retinue.core.settings import Limits, load_settings
    from retinue.core.types import Embedding

    settings = load_settings(home=home, cache=CACHE)
    library, models = open_library(settings), LocalModels(settings)
    opened = library.create("", "million")
    entry = models.entry(MODEL)
    draw = random.Random(0)
    real: list[tuple[Embedding, str, int, int]] = []
    start = time.perf_counter()
    for number, data in enumerate(photos()):
        for picture in [data, *crops(data, CROPS - 1, draw)]:
            ready = prepare(picture, Limits(), models.model(MODEL).decode_size)
            (embedding,) = models.embed(MODEL, [ready.image])
            thumbnail = library.thumbnails.put(ready.thumbnail, ".jpg")
            real.append((embedding, thumbnail, ready.image.width, ready.image.height))
        if number % 100 == 99:
            print(
                f"  {len(real):,} real embeddings, {time.perf_counter() - start:.0f} s", flush=True
            )
    with library.writer(opened.collection) as writer:
        space = writer.add_space(space_of(entry.card.name, entry.version, real[0][0]))
        start = time.perf_counter()
        for first in range(0, count, BATCH):
            numbers = range(first, min(count, first + BATCH))
            writer.write(_entries(real, numbers, space.key))
            if (first // BATCH) % 20 == 19:
                rate = (first + BATCH) / (time.perf_counter() - start)
                print(f"  {first + BATCH:,} items, {rate:,.0f} a second", flush=True)
    opened.refresh()
    start = time.perf_counter()
    built = opened.space(MODEL)
    built.catch_up()
    built.save()
    print(f"  indexes built and saved in {time.perf_counter() - start:.0f} s", flush=True)
    assert app_settings(settings).model == MODEL
    library.close()
    models.close()


def _entries(real: Sequence, numbers: Sequence[int], space: int) -> list:
    from retinue.core.types import Embedding

    found = []
    for number in numbers:
        embedding, thumbnail, width, height = real[number % len(real)]
        if number >= len(real):
            noise = np.random.default_rng(number)
            vector = _noisy(embedding.vector, noise)
            flips = np.packbits(noise.random((len(embedding.tokens), 128)) < FLIPPED, axis=1)
            embedding = Embedding(
                vector, embedding.tokens ^ flips, embedding.grid, _noisy(embedding.semantic, noise)
            )
        found.append(_entry(number, embedding, thumbnail, width, height, space))
    return found


def _entry(number: int, embedding, thumbnail: str, width: int, height: int, space: int):
    from retinue.apps.search.writer import Entry
    from retinue.store.collections import Put

    put = Put(
        id=f"{number:07d}",
        path=f"/photos/{number:07d}.jpg",
        sha256=f"{number:064x}",
        size=50_000,
        width=width,
        height=height,
        meta={"shelf": number % 100, "colour": ("red", "green", "blue")[number % 3]},
        thumbnail=thumbnail,
    )
    return Entry(put, {space: embedding})


def _noisy(vector: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    step = noise.normal(size=len(vector)).astype(np.float32)
    moved = vector + NOISE * step / np.linalg.norm(step)
    return np.asarray(moved / np.linalg.norm(moved), np.float32)


@contextmanager
def server(home: Path, **settings: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run the server on a home; yield its URL and process."""
    environment = {
        **os.environ,
        "RETINUE_HOME": str(home),
        "RETINUE_CACHE": str(CACHE),
        "RETINUE_RECORDS__SAMPLE": "0",
        **settings,
    }
    run = [sys.executable, "-m", "retinue", "up", "--port", "0", "--grpc-port", "0"]
    with subprocess.Popen(run, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url = child.stdout.readline().rpartition(" ")[2].strip()
        threading.Thread(target=child.stdout.read, daemon=True).start()
        try:
            yield url, psutil.Process(child.pid)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)


def anonymous(process: psutil.Process) -> int:
    """Return bytes of memory that are no mapped file's."""
    text = Path(f"/proc/{process.pid}/status").read_text("ascii")
    return 1024 * int(next(line for line in text.splitlines() if "RssAnon" in line).split()[1])


async def load(
    url: str, queries: Sequence[bytes], users: int, pause_s: float, writes: float = 0.0
) -> tuple[list[float], list[dict]]:
    """Ask all queries, as so many users; return seconds and answers."""
    waiting = asyncio.Queue()
    for query in queries:
        waiting.put_nowait(query)
    taken: list[float] = []
    answers: list[dict] = []

    async def user(client: httpx.AsyncClient, seed: int) -> None:
        draw = random.Random(seed)
        await asyncio.sleep(draw.uniform(0, pause_s or 0.2))
        while not waiting.empty():
            query = waiting.get_nowait()
            start = time.perf_counter()
            answer = await client.post(
                f"{url}/v1/search/million?k=20",
                content=query,
                headers={"content-type": "image/jpeg"},
            )
            taken.append(time.perf_counter() - start)
            answer.raise_for_status()
            answers.append(answer.json())
            if pause_s:
                await asyncio.sleep(draw.expovariate(1 / pause_s))

    async with httpx.AsyncClient(timeout=30) as client:
        await asyncio.gather(*(user(client, seed) for seed in range(users)))
    return taken, answers


def _line(name: str, taken: Sequence[float], answers: Sequence[dict]) -> list[str]:
    p50, p95, p99 = np.percentile(taken, [50, 95, 99]) * 1000
    skipped = [len(one["skipped"]) > 0 for one in answers]
    stages = sorted({name for one in answers for name in one["timings_ms"]})
    parts = ", ".join(
        f"{s} {np.median([one['timings_ms'].get(s, 0.0) for one in answers]):.1f}" for s in stages
    )
    print(f"  {name}: p50 {p50:.0f}, p95 {p95:.0f} ms", flush=True)
    return [name, f"{p50:.0f}", f"{p95:.0f}", f"{p99:.0f}", f"{np.mean(skipped):.0%}", parts]


def adder(home: Path, rate: float, stop: Any, done: Any) -> None:
    """Add items with vectors, as a process of its own does: a second writer."""
    from retinue.apps.search.api import open_library
    from retinue.core.settings import load_settings
    from retinue.core.types import Embedding

    library = open_library(load_settings(home=home, cache=CACHE))
    opened = library.collection("", "million")
    space = opened.models()[MODEL]
    draw = np.random.default_rng(int(time.time()))
    number = 10_000_000 + int(time.time()) % 10**6 * 1000

    def unit(width: int) -> np.ndarray:
        vector = draw.normal(size=width).astype(np.float32)
        return vector / np.linalg.norm(vector)

    grid = (space.grid_rows, space.grid_columns)

    def made(new: int) -> Any:
        tokens = draw.integers(0, 256, (grid[0] * grid[1], space.token_bytes), dtype=np.uint8)
        embedding = Embedding(unit(space.image_dim), tokens, grid, unit(space.text_dim))
        return _entry(new, embedding, "", 640, 480, space.key)

    start = time.perf_counter()
    with library.writer(opened.collection, wait_s=5) as writer:
        while not stop.wait(TOGETHER_S):
            due = int((time.perf_counter() - start) * rate) - done.value
            writer.write([made(new) for new in range(number, number + due)])
            number += due
            done.value += due
    library.close()


def measure(home: Path, count: int, queries: int) -> None:
    """Serve the collection, ask it, and print the tables."""
    draw = random.Random(1)
    sources = photos()
    asked = [crops(draw.choice(sources), 1, draw)[0] for _ in range(queries)]
    rows = []
    empty = Path(tempfile.mkdtemp())
    with server(empty) as (url, process):
        httpx.get(f"{url}/v1/search").raise_for_status()
        before = anonymous(process)
    with server(home) as (url, process):
        start = time.perf_counter()
        asyncio.run(load(url, asked[:20], 1, 0))
        opening = time.perf_counter() - start
        memory = anonymous(process) - before
        part = max(1, (queries - 20) // 4)
        pieces = [asked[20 + part * i : 20 + part * (i + 1)] for i in range(4)]
        taken, answers = asyncio.run(load(url, pieces[0], 1, 0))
        rows.append(_line("1 user, no pause", taken, answers))
        taken, answers = asyncio.run(load(url, pieces[1], 10, 1.0))
        rows.append(_line("10 users, 1 query/s each", taken, answers))
        quiet = taken
        taken, answers = asyncio.run(load(url, pieces[2], 10, 0))
        rows.append(_line("10 users, no pause", taken, answers))
        stop, done = SPAWN.Event(), SPAWN.Value("q", 0)
        writer = SPAWN.Process(target=adder, args=(home, 100.0, stop, done))
        writer.start()
        while not done.value:
            time.sleep(0.1)
        before_writes = done.value
        start = time.perf_counter()
        taken, answers = asyncio.run(load(url, pieces[3], 10, 1.0))
        rate = (done.value - before_writes) / (time.perf_counter() - start)
        stop.set()
        writer.join()
        rows.append(_line(f"10 users, 1 query/s each, {rate:.0f} adds/s", taken, answers))
    print(f"\n{machine()}; {count:,} items, {queries} queries")
    print(f"memory: {memory / count:.0f} bytes an item ({memory / count / 2:.0f} a vector)")
    print(f"first answer after {opening:.1f} s (with 20 queries)")
    growth = np.percentile(taken, 95) / np.percentile(quiet, 95) - 1
    print(f"p95 under writes against without: {growth:+.0%}")
    show(
        "Upload to top 20, re-ranked (milliseconds)",
        ["load", "p50", "p95", "p99", "a stage skipped", "parts in the server (median)"],
        rows,
    )
    run = [sys.executable, "-m", "retinue", "search", "bench", "-c", "million", "--queries", "300"]
    environment = {**os.environ, "RETINUE_HOME": str(home), "RETINUE_CACHE": str(CACHE)}
    subprocess.run(run, env=environment, check=True)


def main() -> None:
    """Build what is not there, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=820)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    if not SHARED_DATA.is_dir():
        print("the photos of ../shared/data are not there; nothing is measured")
        return
    home = arguments.home or Path(tempfile.mkdtemp(prefix="retinue-million-"))
    if not (home / "search").is_dir():
        build(home, arguments.count)
    if arguments.queries:
        measure(home, arguments.count, arguments.queries)


if __name__ == "__main__":
    main()
