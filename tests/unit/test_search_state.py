"""The writes that a running server puts together: their order, their end, their errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from retinue.apps.search.library import Library
from retinue.apps.search.state import Write, _Lane
from retinue.apps.search.writer import Entry, space_of
from retinue.core.errors import Conflict, NotFound
from retinue.testing.search import MODEL, VERSION, item, library, made_up


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Library]:
    opened = library(tmp_path)
    yield opened
    opened.close()


def put(number: int, called: int = -1) -> Write:
    """Return a write of an item; it may be called like another one."""
    one = item(number) if called < 0 else item(number, id=f"i{called}")
    space = replace(space_of(MODEL, VERSION, made_up(0)), key=0)
    return Write(Future(), (Entry(one, {0: made_up(number)}), [space]))


def remove(number: int) -> Write:
    return Write(Future(), remove=f"i{number}")


def test_writes_keep_their_order(place: Library) -> None:
    shop = place.create("", "shop")
    lane = _Lane(place, shop.collection)
    writes = [put(1), put(2), remove(1), put(3, called=1), put(4, called=1), remove(2), put(5)]
    for write in writes:
        lane.submit(write)
    generations = [write.done.result(10) for write in writes]
    assert generations == sorted(generations)
    lane.close()
    items = {one.id: one.sha256 for one in place.store.page(shop.collection, limit=10).items}
    assert items == {"i1": item(4).sha256, "i5": item(5).sha256}


def test_what_comes_after_the_end_is_refused(place: Library) -> None:
    lane = _Lane(place, place.create("", "shop").collection)
    lane.close()
    with pytest.raises(Conflict, match="'shop' is being deleted or closed"):
        lane.submit(put(1))


def test_no_write_waits_for_ever(place: Library) -> None:
    shop = place.create("", "shop")
    for _ in range(20):
        lane = _Lane(place, shop.collection)
        writes = [put(number) for number in range(20)]
        refused: list[Write] = []

        def submit(lane: _Lane = lane, writes: list[Write] = writes) -> None:
            for write in writes:
                try:
                    lane.submit(write)
                except Conflict:
                    refused.append(write)  # noqa: B023 (it ends within the loop)

        thread = threading.Thread(target=submit)
        thread.start()
        lane.close()
        thread.join()
        assert all(write in refused or write.done.done() for write in writes)


def test_each_that_waits_hears_of_an_error(place: Library) -> None:
    shop = place.create("", "shop")
    lane = _Lane(place, shop.collection)
    first = put(1)
    lane.submit(first)
    first.done.result(10)
    place.delete("", "shop")
    writes = [put(2), put(3), remove(1)]
    for write in writes:
        lane.submit(write)
    for write in writes:
        with pytest.raises(NotFound):
            write.done.result(10)
    lane.close()


def test_others_wait_for_a_program_that_writes(place: Library) -> None:
    shop = place.create("", "shop")
    lane = _Lane(place, shop.collection)
    with place.writer(shop.collection):
        write = put(1)
        lane.submit(write)
        with pytest.raises(Conflict, match="being written"):
            write.done.result(10)
    again = put(1)
    lane.submit(again)
    assert again.done.result(10) == 1
    lane.close()
