"""Readers of a collection know at every generation what a plain dictionary would hold."""

import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from retinue.core.errors import NotFound, StorageError
from retinue.store import _collection_writes
from retinue.store.collections import Collection, Collections, Failure, open_collections
from retinue.testing.collections import Reader, Twin, put, slots_of, space


@pytest.fixture
def store(database_url: str) -> Iterator[Collections]:
    with closing(open_collections(database_url)) as opened:
        yield opened


@pytest.fixture
def tenant() -> str:
    """One of the test's own: all tests share PostgreSQL's database."""
    return uuid.uuid4().hex


@pytest.fixture
def shop(store: Collections, tenant: str) -> Collection:
    return store.create(tenant, "shop")


@pytest.mark.parametrize("seed", range(2))
def test_a_collection_is_what_its_twin_is(store: Collections, tenant: str, seed: int) -> None:
    twin = Twin(store, tenant, seed)
    for step in range(50):
        if step == 20:
            twin.add_space()
        twin.act()
        twin.check_slots()
        if step % 5 == 4:
            twin.check_items()
    assert twin.numbers > 25
    assert twin.kinds["price"] == "mixed"


def test_another_space_of_the_same_content_keeps_the_first_ones_vectors(
    store: Collections, shop: Collection
) -> None:
    one, two = (store.add_space(shop, space(version=version)) for version in "12")
    store.write(shop, [put("a", vectors={one.key: 0})])
    store.write(shop, [put("a", vectors={two.key: 0})])
    assert store.known(shop, ["a"])["a"].spaces == {one.key, two.key}
    since = store.write(shop, [put("a", vectors={one.key: 1})])
    assert slots_of(store.changes(one, shop, since - 1)) == {1: 0}
    assert store.changes(one, shop, since - 1).dropped.tolist() == [0]
    assert len(store.changes(two, shop, since - 1).dropped) == 0
    since = store.write(shop, [put("a", "changed", vectors={one.key: 2})])
    assert store.known(shop, ["a"])["a"].spaces == {one.key}
    assert store.changes(two, shop, since - 1).dropped.tolist() == [0]
    assert [one.count, 1, 0] == [0, *(s.count for s in store.spaces(shop))]


def test_what_a_reader_missed_is_given_whole_when_it_was_forgotten(
    store: Collections, shop: Collection
) -> None:
    made = store.add_space(shop, space())
    first = store.write(shop, [put(n, vectors={made.key: i}) for i, n in enumerate("abc")])
    second = store.write(shop, removes=["a"])
    third = store.write(shop, removes=["b"])
    assert store.changes(made, shop, first).dropped.tolist() == [0, 1]
    store.forget_dropped(made, second)
    assert store.spaces(shop)[0].floor == second
    late = store.changes(made, shop, first)
    assert (late.whole, slots_of(late), len(late.dropped)) == (True, {2: 2}, 0)
    assert store.changes(made, shop, second).dropped.tolist() == [1]
    assert not store.changes(made, shop, second).whole
    store.forget_dropped(made, first)  # never goes back
    assert store.spaces(shop)[0].floor == second
    now = store.changes(made, shop, third)
    assert (now.whole, len(now.slots), len(now.dropped)) == (False, 0, 0)


def test_a_reader_of_the_future_is_given_all(store: Collections, shop: Collection) -> None:
    """As when the database was restored from an older copy than the reader's files."""
    made = store.add_space(shop, space())
    generation = store.write(shop, [put("a", vectors={made.key: 0})])
    found = store.changes(made, shop, generation + 5)
    assert (found.whole, found.generation, slots_of(found)) == (True, generation, {0: 0})


def test_a_delete_leaves_nothing_of_what_is_written_at_the_same_time(
    database_url: str, tenant: str
) -> None:
    with (
        closing(open_collections(database_url)) as one,
        closing(open_collections(database_url)) as other,
    ):
        shop = one.create(tenant, "shop")
        removed: list[int] = []
        deleting = threading.Thread(target=lambda: removed.append(other.delete(shop)))
        with one.writing("writing items") as connection:
            _collection_writes.apply(connection, shop, [put("a"), put("b")], [], [])
            deleting.start()
            deleting.join(0.3)
            assert not removed
        deleting.join(30)
        assert removed == [2]
        assert one.page(shop).items == ()
        with pytest.raises(NotFound, match="was deleted"):
            one.write(shop, [put("c")])


def test_a_write_that_fails_leaves_all_as_it_was(store: Collections, shop: Collection) -> None:
    made = store.add_space(shop, space())
    store.write(shop, [put("a", vectors={made.key: 0}, meta={"x": 1})])
    before = store.item(shop, "a")
    with pytest.raises(StorageError, match="writing items"):
        store.write(
            shop,
            [
                put("a", "new", vectors={made.key: 1}, meta={"y": "2"}),
                put("b", vectors={made.key: 1}),
            ],
            failed=[Failure("", "/x", "c", "m")],
        )
    assert store.item(shop, "a") == before
    assert store.refresh(shop) == replace(shop, generation=1, count=1)
    assert (store.fields(shop), store.failures(shop)) == ({"x": "number"}, [])
    assert slots_of(store.changes(made, shop, 0)) == {0: 0}
    store.write(shop, [put("b", vectors={made.key: 1})])
    assert store.item(shop, "b").number == 1


def test_readers_follow_a_writer_of_another_connection(database_url: str, tenant: str) -> None:
    """What a reader makes of the changes is, at every generation, what was written by then."""
    with (
        closing(open_collections(database_url)) as one,
        closing(open_collections(database_url)) as other,
    ):
        shop = one.create(tenant, "shop")
        made = one.add_space(shop, space())
        alive: dict[int, dict[int, int]] = {0: {}}
        done = threading.Event()
        wrong: list[tuple[int, dict[int, int]]] = []
        seen: set[int] = set()

        def read() -> None:
            reader = Reader()
            while not done.is_set():
                reader.follow(other.changes(made, shop, reader.generation))
                seen.add(reader.generation)
                if reader.slots != alive[reader.generation]:
                    wrong.append((reader.generation, dict(reader.slots)))

        readers = [threading.Thread(target=read) for _ in range(2)]
        draw, now = random.Random(5), dict[int, int]()
        for generation in range(1, 101):
            number = draw.randrange(12) if generation > 12 else generation - 1
            now = {slot: n for slot, n in now.items() if n != number} | {generation: number}
            alive[generation] = now
            one.write(shop, [put(str(number), vectors={made.key: generation})])
            if generation == 12:
                for thread in readers:
                    thread.start()
            if generation % 10 == 0:
                one.forget_dropped(made, generation - draw.randrange(4))
        done.set()
        for thread in readers:
            thread.join()
    assert not wrong
    assert len(seen) > 5
