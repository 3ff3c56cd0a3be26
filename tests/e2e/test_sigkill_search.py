"""SIGKILL at any moment of writing: what was acknowledged is there, and the index is whole."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from retinue.apps.search.query import Query, image_term
from retinue.testing.search import MODEL, library, made_up, write_for_ever

KILLS = 50

# Children are forked from a process that has done the imports: fifty starts take seconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["retinue.testing.search"])


def _told(connection: Connection) -> list[object]:
    """Return all that a killed child said; what it was saying may be cut."""
    said: list[object] = []
    try:
        while True:
            said.append(connection.recv())
    except (EOFError, OSError, pickle.UnpicklingError):
        return said


def _read(said: list[object], alive: set[int]) -> tuple[set[int], set[int]]:
    """Return the items after what was acknowledged, and after the write that may have been made."""
    begun: tuple[list[int], list[int]] = ([], [])
    for one in said:
        if isinstance(one, tuple):
            begun = one
        elif one == "done":
            alive = (alive | set(begun[0])) - set(begun[1])
    return alive, (alive | set(begun[0])) - set(begun[1])


def test_killed_at_any_moment_of_writing(tmp_path: Path) -> None:
    draw = random.Random(1)
    alive: set[int] = set()
    for kill in range(KILLS):
        here, there = _processes.Pipe(duplex=False)
        child = _processes.Process(target=write_for_ever, args=(str(tmp_path), kill, there))
        child.start()
        there.close()
        assert here.recv() == "ready"
        time.sleep(draw.uniform(0, 0.2))
        child.kill()
        child.join()
        alive = _check(tmp_path, _read(_told(here), alive), kill)
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
