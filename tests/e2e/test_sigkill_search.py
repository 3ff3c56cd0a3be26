"""SIGKILL at any moment of writing: what was acknowledged is there, and the index is whole."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from retinue.apps.search.query import Query, image_term
from retinue.testing.search import MODEL, library, made_up

KILLS = 50

WRITER = """
import random, sys
from pathlib import Path
from retinue.testing.search import *
from retinue.apps.search.writer import Entry
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
place = library(folder, flat_up_to=256)
shop = place.create("", "shop")
print("ready", flush=True)
while True:
    with place.writer(shop.collection) as writer:
        space = writer.add_space(space_of(MODEL, VERSION, made_up(0)))
        chosen = draw.sample(range(1000), 8)
        gone, puts = chosen[:2], chosen[2:]
        print("begin", *puts, "gone", *gone, flush=True)
        entries = [
            Entry(item(n, sha256=f"{seed * 1000 + n:064x}"), {space.key: made_up(n)}) for n in puts
        ]
        writer.write(entries, [f"i{n}" for n in gone])
    print("done", flush=True)
    opened = place.collection("", "shop").space(MODEL)
    opened.refresh(shop.refresh().generation)
    if draw.random() < 0.3:
        opened.catch_up()
        opened.save()
"""


def _read(lines: list[str], alive: set[int]) -> tuple[set[int], set[int]]:
    """Return the items after what was acknowledged, and after the write that may have been made."""
    begun: tuple[set[int], set[int]] = (set(), set())
    for line in lines:
        if line.startswith("begin ") and line.endswith("\n"):
            puts, gone = line.removeprefix("begin ").split("gone")
            begun = {int(n) for n in puts.split()}, {int(n) for n in gone.split()}
        elif line == "done\n":
            alive = (alive | begun[0]) - begun[1]
    return alive, (alive | begun[0]) - begun[1]


def test_killed_at_any_moment_of_writing(tmp_path: Path) -> None:
    draw = random.Random(1)
    alive: set[int] = set()
    for kill in range(KILLS):
        run = [sys.executable, "-c", WRITER, str(tmp_path), str(kill)]
        with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(draw.uniform(0, 0.2))
            child.send_signal(signal.SIGKILL)
            lines = child.stdout.readlines()
        alive = _check(tmp_path, _read(lines, alive), kill)
    assert len(alive) > 100


def _check(folder: Path, allowed: tuple[set[int], set[int]], kill: int) -> set[int]:
    """All that was acknowledged is there and is found; of the last write, all or nothing."""
    place = library(folder, flat_up_to=256)
    try:
        shop = place.create("", "shop")
        ids = {int(one.id[1:]) for one in place.store.page(shop.collection, limit=1000).items}
        assert ids in allowed
        if not ids:
            return ids
        space = shop.space(MODEL)
        assert len(space) == len(ids) == shop.refresh().count
        for one in random.Random(kill).sample(sorted(ids), min(10, len(ids))):
            query = Query([image_term(made_up(one))], k=1, rerank=False)
            assert [hit.item.id for hit in shop.search(query, space).hits] == [f"i{one}"]
        slots = space.slots()
        assert len(np.unique(space.numbers(slots))) == len(slots)
        return ids
    finally:
        place.close()
