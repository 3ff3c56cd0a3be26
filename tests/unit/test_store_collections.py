"""Collections, their spaces, items, fields, duplicates and failures, on every database."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select

from retinue.core.errors import InvalidRequest, NotFound
from retinue.store import database, schema, tables
from retinue.store.collections import Collection, Collections, Failure, open_collections
from retinue.testing.collections import digest, put, slots_of, space


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


def test_the_tables_are_those_of_the_migrations(database_url: str, store: Collections) -> None:
    engine = database.open_engine(database_url)
    with engine.connect() as connection:
        assert schema.revision(connection) == schema.HEAD
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE}
        )
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()


def test_a_space_that_is_added_again_is_the_first_one(store: Collections, shop: Collection) -> None:
    given = space(text_dim=3, grid_rows=7, grid_columns=5, token_bytes=16)
    made = store.add_space(shop, given)
    assert replace(made, key=-1) == given
    assert store.add_space(shop, replace(given, image_dim=9)) == made
    other = store.add_space(shop, replace(given, version="2"))
    assert store.spaces(shop) == [made, other]


def test_tenants_may_use_the_same_name(store: Collections, tenant: str) -> None:
    mine, yours = store.create(tenant, "shop"), store.create(f"{tenant}2", "shop")
    assert (mine.key, mine.folder) != (yours.key, yours.folder)
    assert mine.folder != yours.folder
    one, two = store.add_space(mine, space()), store.add_space(yours, space())
    store.write(mine, [put("a", vectors={one.key: 0})], failed=[Failure("", "/x", "c", "mine")])
    store.write(yours, [put("b", vectors={two.key: 0}, meta={"only": "yours"})])
    store.write(yours, removes=["a"])
    assert store.item(mine, "a").number == store.item(yours, "b").number == 0
    with pytest.raises(NotFound):
        store.item(yours, "a")
    assert store.fields(mine) == {}
    assert store.failures(yours) == []
    assert store.same_content(yours, digest(0)) == [0]
    assert [one.name for one in store.all(tenant)] == ["shop"]
    assert store.delete(yours) == 1
    assert store.get(tenant, "shop").count == 1
    assert slots_of(store.changes(one, mine, 0)) == {0: 0}


def test_create_returns_the_existing_one(store: Collections, tenant: str) -> None:
    made = store.create(tenant, "shop")
    assert store.create(tenant, "shop") == made == store.get(tenant, "shop")
    threads = [threading.Thread(target=store.create, args=(tenant, "new")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.name for one in store.all(tenant)] == ["new", "shop"]


def test_an_unknown_collection_is_told_with_those_there_are(
    store: Collections, tenant: str
) -> None:
    with pytest.raises(NotFound, match="no collection is called 'shpo'; there are: none yet"):
        store.get(tenant, "shpo")
    for name in ("shop", "archive"):
        store.create(tenant, name)
    store.create(f"{tenant}2", "secret")
    with pytest.raises(NotFound, match=r"'shpo'; there are: archive, shop$"):
        store.get(tenant, "shpo")


def test_nothing_of_a_deleted_collection_is_left(
    database_url: str, store: Collections, shop: Collection
) -> None:
    made = store.add_space(shop, space())
    puts = [put(str(n), vectors={made.key: n}, meta={"n": n}) for n in range(7)]
    store.write(shop, puts, failed=[Failure("s", "/bad", "corrupt_media", "bad")])
    store.write(shop, removes=["3"])
    assert store.delete(shop) == 6
    assert store.delete(shop) == 0
    again = store.create(shop.tenant, "shop")
    assert again.key != shop.key
    assert again.folder != shop.folder
    assert (again.count, again.generation, store.spaces(again)) == (0, 0, [])
    engine = database.open_engine(database_url)
    with engine.connect() as connection:
        for table, column, key in (
            (tables.items, "collection", shop.key),
            (tables.spaces, "collection", shop.key),
            (tables.fields, "collection", shop.key),
            (tables.failures, "collection", shop.key),
            (tables.vectors, "space", made.key),
            (tables.dropped, "space", made.key),
        ):
            query = select(func.count()).select_from(table).where(table.c[column] == key)
            assert connection.execute(query).scalar() == 0, table.name
    engine.dispose()


def test_a_collection_that_was_deleted_meanwhile_is_not_found(
    store: Collections, shop: Collection
) -> None:
    made = store.add_space(shop, space())
    store.write(shop, [put("a", vectors={made.key: 0})])
    store.delete(shop)
    store.create(shop.tenant, "shop")
    uses: list[Callable[[], object]] = [
        lambda: store.refresh(shop),
        lambda: store.write(shop, [put("b")]),
        lambda: store.write(shop, failed=[Failure("", "/x", "c", "m")]),
        lambda: store.write(shop),
        lambda: store.set_meta(shop, "a", {}),
        lambda: store.set_duplicates(shop, {0: 0}),
        lambda: store.changes(made, shop, 1),
        lambda: store.add_space(shop, space("other")),
    ]
    for use in uses:
        with pytest.raises(NotFound, match="the collection 'shop' was deleted"):
            use()
    assert store.failures(shop) == []
    assert store.spaces(shop) == []
    with pytest.raises(NotFound, match="has no item 'a'"):
        store.item(shop, "a")


@pytest.mark.parametrize(
    ("puts", "removes"),
    [
        (["a", "b", "a"], []),
        (["a"], ["a"]),
        ([], ["a", "a"]),
        (["a\0"], ["a\ufffd"]),
        (["a\udcff", "a\udcfe"], []),  # two file names that no database can tell apart
    ],
)
def test_an_id_that_is_given_twice_is_refused(
    store: Collections, shop: Collection, puts: list[str], removes: list[str]
) -> None:
    store.write(shop, [put("a", "old")])
    with pytest.raises(InvalidRequest, match=r"the id 'a.*' is given twice"):
        store.write(shop, [put(one) for one in puts], removes)
    assert store.refresh(shop).generation == 1
    assert store.item(shop, "a").sha256 == digest("old")


ODD = (
    "caf\udce9.jpg",  # a file name that is not UTF-8, as Python gives it
    "a\0b",
    "\ud800 alone, as JSON can write it",
    "猫 🐈",
    "'; DROP TABLE retinue_items; --",
    "%_\\",
    "x" * 512,
    "A",
    "a",
    "a ",
)


@pytest.mark.parametrize("text", ODD)
def test_odd_ids_and_paths_are_kept_and_found(
    store: Collections, shop: Collection, text: str
) -> None:
    store.write(shop, [put(other, n) for n, other in enumerate(ODD) if other != text])
    made = put(text, "own", path=f"/p/{text}", source=text, etag=text * 300)
    generation = store.write(shop, [made], failed=[Failure(text, f"/q/{text}", "c", text)])
    item = store.item(shop, text)
    assert (item.number, item.sha256) == (len(ODD) - 1, digest("own"))
    if "\0" not in text and text.isprintable():
        assert (item.id, item.path, item.source) == (text, f"/p/{text}", text)
    json.dumps([item.id, item.path, item.source], ensure_ascii=False).encode()
    assert "\0" not in item.id + item.path + item.source
    assert [one.number for one in store.known(shop, [text]).values()] == [item.number]
    assert list(store.ids(shop, text)) == [item.id]
    assert store.set_meta(shop, text, {"odd": True}) == generation + 1
    store.write(shop, [put("other", path=f"/q/{text}")])
    assert store.failures(shop) == []
    store.write(shop, removes=[text])
    with pytest.raises(NotFound, match="has no item"):
        store.item(shop, text)
    assert store.refresh(shop).count == len(ODD)


def test_an_id_of_a_name_in_another_encoding_is_that_of_its_bytes(
    store: Collections, shop: Collection
) -> None:
    """Under a locale without UTF-8, Python gives the bytes of a good name one by one."""
    store.write(shop, [put("é.jpg")])
    assert store.item(shop, "\udcc3\udca9.jpg").id == "é.jpg"


def test_ten_thousand_items_page_through(store: Collections, shop: Collection) -> None:
    made = store.add_space(shop, space())
    total = 10_000
    for start in range(0, total, 2500):
        numbers = range(start, start + 2500)
        store.write(shop, [put(f"i{n}", n % 5000, vectors={made.key: n}) for n in numbers])
    store.write(shop, removes=[f"i{n}" for n in range(0, total, 10)])
    expected = [n for n in range(total) if n % 10]
    found: list[int] = []
    cursor, pages = -1, 0
    while pages == 0 or cursor >= 0:
        page = store.page(shop, limit=1000, cursor=cursor)
        found += [item.number for item in page.items]
        cursor, pages = page.cursor, pages + 1
    assert (found, pages) == (expected, 9)
    assert len(store.items(shop, range(total))) == len(expected)
    assert len(store.known(shop, [f"i{n}" for n in range(2000)])) == 1800
    assert store.slots(made, range(total)) == {n: n for n in expected}
    assert [row.number for row in store.rows(shop, 4, ["id", "meta"])] == []
    assert sorted(row.number for row in store.rows(shop, 3, ["id"])) == [
        n for n in expected if n >= 7500
    ]
    assert slots_of(store.changes(made, shop, 0)) == {n: n for n in expected}
    assert sorted(store.changes(made, shop, 4).dropped.tolist()) == list(range(0, total, 10))
    assert store.refresh(shop).count == len(expected) == store.spaces(shop)[0].count


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_duplicates_page_through(store: Collections, shop: Collection, limit: int) -> None:
    store.write(shop, [put(str(n)) for n in range(10)])
    store.set_duplicates(shop, {3: 0, 5: 1, 7: 0, 9: 8})
    found: list[list[int]] = []
    cursor, asked = -1, False
    while cursor >= 0 or not asked:
        groups, cursor = store.duplicates(shop, limit=limit, cursor=cursor)
        found += [[one.number for one in group] for group in groups]
        asked = True
    assert found == [[0, 3, 7], [1, 5], [8, 9]]


def test_a_changed_item_leaves_its_group(store: Collections, shop: Collection) -> None:
    store.write(shop, [put("a"), put("b")])
    store.set_duplicates(shop, {1: 0})
    store.set_duplicates(shop, {})
    store.write(shop, [put("b")])
    assert store.item(shop, "b").duplicate_of == 0
    store.write(shop, [put("b", "changed")])
    assert store.item(shop, "b").duplicate_of == 1
    assert store.refresh(shop).generation == 4


def test_failures_are_noted_and_healed(store: Collections, shop: Collection) -> None:
    bad = [Failure("/p", f"/p/{n}.jpg", "corrupt_media", "damaged") for n in range(3)]
    assert store.write(shop, failed=bad) == 0
    assert store.failures(shop) == bad
    worse = replace(bad[1], code="too_many_pixels", message="x" * 5000)
    store.write(shop, failed=[bad[1], worse])  # the last word counts
    assert store.failures(shop) == [bad[0], worse, bad[2]]
    store.write(shop, [put("ok", path="/p/0.jpg")])
    assert store.failures(shop) == [worse, bad[2]]
    assert store.failures(shop, limit=1) == [worse]
    store.write(shop, [put("one", path="/p/1.jpg")], failed=[replace(bad[2], message="still")])
    assert store.failures(shop) == [replace(bad[2], message="still")]
