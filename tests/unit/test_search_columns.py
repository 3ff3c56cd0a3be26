"""Columns of metadata against dicts, and how they follow the collection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.apps.search.columns import BUILT_IN, Column, Columns
from retinue.apps.search.library import Library
from retinue.testing.search import item, library

TEXTS = st.sampled_from(["", "a", "ab", "b"])
VALUES = st.one_of(
    TEXTS,
    st.lists(TEXTS, max_size=4),
    st.sampled_from([0, 1, -3, 0.5, 1e300]),
    st.booleans(),
    st.none(),
    st.just({"no": "value"}),
    st.just([1, None, "a"]),
)
CHANGES = st.lists(st.dictionaries(st.integers(0, 9), VALUES), max_size=6)


def texts(value: Any) -> set[str]:
    return {one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)}


def number(value: Any) -> float:
    return float(value) if isinstance(value, bool | int | float) else float("nan")


@settings(max_examples=60, deadline=None)
@given(CHANGES, st.integers(0, 15), st.lists(st.one_of(TEXTS, st.none(), st.just(1.0)), max_size=3))
def test_a_column_is_a_dict_of_values(
    changes: list[dict[int, Any]], size: int, wanted: list[Any]
) -> None:
    column = Column()
    values: dict[int, Any] = {}
    for change in changes:
        column.set(list(change), list(change.values()))
        values |= change
    column.grow(size)
    size = max([size, *(n + 1 for n in values)])
    all_values = [values.get(n) for n in range(size)]
    present = [bool(texts(v)) or number(v) == number(v) for v in all_values]
    np.testing.assert_array_equal(column.present(), present)
    np.testing.assert_array_equal(
        column.equal(wanted),
        [
            any(not there if one is None else one in texts(v) or number(v) == one for one in wanted)
            for v, there in zip(all_values, present, strict=True)
        ],
    )
    np.testing.assert_array_equal(
        column.texts_where(lambda text, value: value in text, "b"),
        [any("b" in text for text in texts(v)) for v in all_values],
    )
    for name, compare in (
        ("gte", float.__ge__),
        ("gt", float.__gt__),
        ("lte", float.__le__),
        ("lt", float.__lt__),
    ):
        np.testing.assert_array_equal(
            column.numbers_where(name, 0.0), [compare(number(v), 0.0) for v in all_values]
        )


def test_a_flag_is_a_number_and_a_text_is_none() -> None:
    column = Column()
    column.set([0, 1, 2, 3], [True, 1, "1", False])
    np.testing.assert_array_equal(column.equal([True]), [True, True, False, False])
    np.testing.assert_array_equal(column.equal(["1"]), [False, False, True, False])
    np.testing.assert_array_equal(column.equal([False, "1"]), [False, False, True, True])


def test_an_empty_column_answers() -> None:
    column = Column()
    column.set([], [])
    assert column.present().shape == (0,)
    assert column.equal(["a", None, 1.0]).shape == (0,)
    assert column.texts_where(str.startswith, "").shape == (0,)
    assert column.numbers_where("gt", 0).shape == (0,)


def test_an_answer_is_no_view_of_the_column() -> None:
    column = Column()
    column.set([0, 1], [1, "a"])
    for mask in (column.present(), column.equal([1.0]), column.numbers_where("gt", 0)):
        mask[:] = True
    np.testing.assert_array_equal(column.equal([1.0]), [True, False])


@pytest.fixture
def place(tmp_path) -> Iterator[Library]:
    opened = library(tmp_path)
    yield opened
    opened.close()


def masks(columns: Columns) -> dict[str, list[bool]]:
    """Something that tells every value of every field from another."""
    return {
        "a": columns.column("a").equal(["x", 1.0]).tolist(),
        "b": columns.column("b").present().tolist(),
        "path": columns.column("path").equal(["/photos/1.jpg"]).tolist(),
        "height": columns.column("height").numbers_where("gt", 480).tolist(),
    }


def test_columns_that_followed_are_like_columns_that_are_read_at_once(place: Library) -> None:
    store = place.store
    collection = store.create("", "shop")
    followed = Columns(store, collection)
    followed.prepare(["a"], 0)
    assert followed.column("a").present().shape == (0,)
    store.write(collection, [item(n, {"a": "x", "b": n}) for n in range(3)])
    followed.prepare(["path"], 1)
    store.set_meta(collection, "i1", {"a": ["y", "x"]})
    store.write(collection, [item(2, {"a": 1}, height=500)], ["i0"])
    followed.prepare(["b"], 2)
    store.write(collection, [item(7, {"b": None})])
    generation = store.refresh(collection).generation
    followed.prepare(["a", "b", "path", "height"], generation)
    fresh = Columns(store, collection)
    fresh.prepare(["height", "b", "a", "path"], generation)
    # What was removed stays as it was, unseen.
    assert {n: m[1:] for n, m in masks(followed).items()} == {
        n: m[1:] for n, m in masks(fresh).items()
    }
    assert masks(fresh) == {
        "a": [False, True, True, False],
        "b": [False, False, False, False],
        "path": [False, True, False, False],
        "height": [False, False, True, False],
    }


def test_a_generation_that_is_behind_the_database_loses_nothing(place: Library) -> None:
    store = place.store
    collection = store.create("", "shop")
    store.write(collection, [item(0, {"a": 1})])
    columns = Columns(store, collection)
    columns.prepare(["a"], 1)
    store.write(collection, [item(1, {"a": 1})])
    store.write(collection, [item(0, {"a": 2}), item(2, {"b": 1})])
    columns.prepare(["a", "b"], 2)  # the reader does not know yet of the third write
    assert columns.column("a").equal([1.0]).tolist()[:2] == [False, True]
    assert len(columns.column("b").present()) == len(columns.column("a").present()) == 3
    columns.prepare(["a"], 3)
    columns.prepare(["a"], 2)
    assert columns.column("a").equal([2.0]).tolist() == [True, False, False]
    assert columns.column("b").present().tolist() == [False, False, True]


def test_every_item_has_the_built_in_fields_whatever_its_metadata_says(place: Library) -> None:
    store = place.store
    collection = store.create("", "shop")
    store.write(collection, [item(3, {"width": "wide", "id": 5}, source="here")])
    columns = Columns(store, collection)
    columns.prepare(BUILT_IN, 1)
    assert all(columns.column(name).present().all() for name in BUILT_IN)
    assert columns.column("id").equal(["i3"]).all()
    assert columns.column("width").equal([640.0]).all()
    assert columns.column("source").equal(["here"]).all()
    added = store.item(collection, "i3").added_us / 1e6
    assert columns.column("added").numbers_where("lte", added).all()
    assert not columns.column("added").numbers_where("lt", added).any()


def test_several_threads_take_turns(place: Library) -> None:
    store = place.store
    collection = store.create("", "shop")
    columns = Columns(store, collection)
    wrong: list[int] = []

    def ask() -> None:
        for _ in range(20):
            generation = store.refresh(collection).generation
            with columns.lock:
                columns.prepare(["a"], generation)
                found = int(columns.column("a").equal(["x"]).sum())
            if found < generation:
                wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(20):
        store.write(collection, [item(n, {"a": "x"})])
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong
