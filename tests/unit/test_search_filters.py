"""Filters against a plain evaluation over dicts, through every change of the items."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.apps.search import filters
from retinue.apps.search.columns import BUILT_IN, Columns
from retinue.apps.search.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_NAME,
    MAX_TEXT,
    MAX_VALUES,
    Junction,
    check_fields,
    evaluate,
    parse_where,
)
from retinue.apps.search.library import Library
from retinue.core.errors import InvalidRequest
from retinue.testing.search import item, library

NAMES = itertools.count()
FIELDS = ("a", "b", "any")
TEXTS = st.sampled_from(["", "red", "re", "dark red", "blue", "Ünï \N{SNOWMAN}", "5"])
NUMBERS = st.sampled_from([-1, 0, 1, 1.5, 2.25, 10**15, -0.0, 1e-300])
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans(), st.none())
VALUES = st.one_of(SCALARS, st.lists(TEXTS, max_size=3))
METAS = st.dictionaries(st.sampled_from(FIELDS), VALUES)
BUILT_INS = st.one_of(
    st.builds(lambda n: {"width": {"gte": n}}, st.sampled_from([639, 640, 641])),
    st.builds(lambda n: {"path": {"contains": f"/{n}."}}, st.integers(0, 6)),
    st.builds(lambda ns: {"id": [f"i{n}" for n in ns]}, st.lists(st.integers(0, 6), min_size=1)),
    st.builds(lambda n: {"height": n}, st.sampled_from([480, 481, "480"])),
    st.builds(lambda word: {"source": {"ne": word}}, st.sampled_from(["", "x"])),
)


def conditions() -> st.SearchStrategy[dict[str, Any]]:
    operand = st.one_of(
        st.dictionaries(
            st.sampled_from(["gte", "gt", "lte", "lt"]),
            st.one_of(NUMBERS, TEXTS),
            min_size=1,
            max_size=2,
        ),
        st.fixed_dictionaries({"prefix": TEXTS}),
        st.fixed_dictionaries({"contains": TEXTS}),
        st.fixed_dictionaries({"exists": st.booleans()}),
        st.fixed_dictionaries({"ne": SCALARS}),
        st.fixed_dictionaries({"in": st.lists(SCALARS, min_size=1, max_size=3)}),
        st.lists(SCALARS, min_size=1, max_size=3),
        SCALARS,
    )
    fields = st.dictionaries(st.sampled_from(FIELDS), operand, min_size=1, max_size=2)
    return st.recursive(
        st.one_of(fields, BUILT_INS),
        lambda inner: st.one_of(
            st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
            st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
            st.fixed_dictionaries({"not": inner}),
            st.builds(lambda one, field: one | field, inner, fields),
        ),
        max_leaves=5,
    )


def texts_of(value: Any) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def number_of(value: Any) -> float | None:
    return float(value) if isinstance(value, bool | int | float) else None


def equals(value: Any, wanted: Any) -> bool:
    if wanted is None:
        return not texts_of(value) and number_of(value) is None
    if isinstance(wanted, str):
        return wanted in texts_of(value)
    return number_of(value) == float(wanted)


def operator_holds(value: Any, operator: str, operand: Any) -> bool:
    number = number_of(value)
    match operator:
        case "ne":
            return not equals(value, operand)
        case "in":
            return any(equals(value, one) for one in operand)
        case "exists":
            return equals(value, None) != operand
        case "prefix":
            return any(text.startswith(operand) for text in texts_of(value))
        case "contains":
            return any(operand in text for text in texts_of(value))
    compare = {
        "gte": lambda x: x >= operand,
        "gt": lambda x: x > operand,
        "lte": lambda x: x <= operand,
        "lt": lambda x: x < operand,
    }[operator]
    if isinstance(operand, str):
        return any(compare(text) for text in texts_of(value))
    return number is not None and compare(number)


def holds(where: dict[str, Any], fields: dict[str, Any]) -> bool:
    """The truth: the language, evaluated for one item."""
    for name, value in where.items():
        objects = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        if name == "any" and objects:
            fits = any(holds(one, fields) for one in value)
        elif name == "all" and objects:
            fits = all(holds(one, fields) for one in value)
        elif name == "not" and isinstance(value, dict):
            fits = not holds(value, fields)
        elif isinstance(value, dict):
            fits = all(operator_holds(fields.get(name), o, v) for o, v in value.items())
        else:
            wanted = value if isinstance(value, list) else [value]
            fits = operator_holds(fields.get(name), "in", wanted)
        if not fits:
            return False
    return True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    opened = library(tmp_path_factory.mktemp("place"))
    yield opened
    opened.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.dictionaries(st.integers(0, 5), METAS, min_size=1)),
        st.tuples(st.just("meta"), st.tuples(st.integers(0, 5), METAS)),
        st.tuples(st.just("remove"), st.integers(0, 5)),
        st.tuples(st.just("ask"), conditions()),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=50, deadline=None)
@given(STEPS, conditions())
def test_a_filter_finds_what_a_plain_evaluation_finds(
    place: Library, steps: list[tuple[str, Any]], last: dict[str, Any]
) -> None:
    store = place.store
    collection = store.create("", f"c{next(NAMES)}")
    columns = Columns(store, collection)
    metas: dict[int, dict[str, Any]] = {}
    for kind, given_ in [*steps, ("ask", last)]:
        if kind == "put":
            store.write(collection, [item(n, meta) for n, meta in given_.items()])
            metas |= given_
        elif kind == "meta":
            if given_[0] in metas:
                store.set_meta(collection, f"i{given_[0]}", given_[1])
                metas[given_[0]] = given_[1]
        elif kind == "remove":
            store.write(collection, removes=[f"i{given_}"])
            metas.pop(given_, None)
        else:
            condition = parse_where(orjson.loads(orjson.dumps(given_)))
            assert condition is not None
            generation = store.refresh(collection).generation
            columns.prepare({test.field for test in filters.tests(condition)}, generation)
            mask = evaluate(condition, columns)
            living = store.page(collection, limit=10).items
            found = {one.id for one in living if mask[one.number]}
            fields = {
                f"i{n}": {
                    **meta,
                    "id": f"i{n}",
                    "path": f"/photos/{n}.jpg",
                    "source": "",
                    "width": 640,
                    "height": 480,
                }
                for n, meta in metas.items()
            }
            assert found == {one for one, had in fields.items() if holds(given_, had)}
            assert len(living) == len(metas)


def test_nothing_and_an_empty_object_mean_all_items() -> None:
    assert parse_where(None) is None
    assert parse_where({}) is None


def test_one_condition_is_no_junction() -> None:
    assert parse_where({"a": 1}) == filters.Test("a", "in", (1.0,))
    assert parse_where({"all": [{"a": "x"}]}) == Junction("all", (filters.Test("a", "in", ("x",)),))
    assert parse_where({"a": {"ne": True}}) == Junction("not", (filters.Test("a", "in", (True,)),))


def nested(depth: int) -> dict[str, Any]:
    where: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        where = {"not": where}
    return where


def deep_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


BAD = {
    "a list": ([{"a": 1}], "must be an object"),
    "a text": ("a = 1", "must be an object"),
    "too deep": (nested(MAX_DEPTH + 1), "deep"),
    "deeper than Python's stack": (nested(900), "deep"),
    "a list deeper than Python's stack": (deep_list(1020), "must be an object"),
    "a value deeper than Python's stack": ({"a": deep_list(1020)}, "'a'"),
    "an operand deeper than Python's stack": ({"a": {"gte": deep_list(1020)}}, "'a'"),
    "too many": ({"any": [{"a": n} for n in range(MAX_CONDITIONS + 1)]}, "64"),
    "too many values": ({"a": list(range(MAX_VALUES + 1))}, "1000"),
    "no values": ({"a": []}, "1 to 1000"),
    "no operator": ({"a": {}}, "operator"),
    "an unknown operator": ({"a": {"gt": 1, "like": "x"}}, "'like'"),
    "an operator of 10 MB": ({"a": {"x" * 10**7: 1}}, "no operator"),
    "a name of 10 MB": ({"x" * 10**7: 1}, "128"),
    "a name that is no text": ({1: "x"}, "128"),
    "an operator that is no text": ({"a": {1: 2}}, "no operator 1"),
    "a text of 10 MB": ({"a": "x" * 10**7}, "1000"),
    "a text a little too long": ({"a": {"contains": "x" * (MAX_TEXT + 1)}}, "1000"),
    "an object as a value": ({"a": {"in": [{"b": 1}]}}, "a value is"),
    "a range of flags": ({"a": {"gte": True}}, "a number or a text"),
    "a range of nothing": ({"a": {"lt": None}}, "a number or a text"),
    "a prefix that is a number": ({"a": {"prefix": 5}}, "takes text"),
    "contains a flag": ({"a": {"contains": False}}, "takes text"),
    "exists with a number": ({"a": {"exists": 1}}, "true or false"),
    "exists with nothing": ({"a": {"exists": None}}, "true or false"),
    "in without a list": ({"a": {"in": "x"}}, "list of 1"),
    "NaN": ({"a": float("nan")}, "finite"),
    "infinite": ({"a": {"gte": float("-inf")}}, "finite"),
    "beyond float": ({"a": [10**400]}, "finite"),
    "an empty part": ({"any": [{}]}, "must be an object"),
    "not nothing": ({"not": {}}, "must be an object"),
}


@pytest.mark.parametrize(("where", "says"), BAD.values(), ids=BAD)
def test_what_is_no_condition_is_refused_in_a_short_sentence(where: Any, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_where(where)
    assert says in caught.value.message
    assert len(caught.value.message) < 300


def test_the_limits_themselves_are_allowed() -> None:
    parse_where(nested(MAX_DEPTH))
    parse_where({"any": [{"a": n} for n in range(MAX_CONDITIONS)]})
    parse_where({"a": list(range(MAX_VALUES))})
    parse_where({"a": "x" * MAX_TEXT, "n" * MAX_NAME: {"exists": True}})


def test_an_unknown_field_names_the_nearest() -> None:
    known = {"colour": "text", "price": "number"}
    for name in (*known, *BUILT_IN):
        check_fields(filters.Test(name, "exists", True), known)
    inside = Junction("not", (filters.Test("color", "in", ("red",)),))
    with pytest.raises(InvalidRequest, match=r"'color'.*did you mean 'colour'"):
        check_fields(inside, known)
    with pytest.raises(InvalidRequest, match="did you mean 'width'"):
        check_fields(filters.Test("widht", "exists", True), known)


def test_a_field_like_no_other_lists_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match="there are: colour, id, path") as caught:
        check_fields(filters.Test("zzz" * 100, "exists", True), {"colour": "text"})
    assert len(caught.value.message) < 300


def test_a_mask_has_an_entry_for_each_item_also_of_those_without_the_field(place: Library) -> None:
    collection = place.store.create("", "sizes")
    place.store.write(collection, [item(n, {"a": 1} if n == 0 else {}) for n in range(7)])
    columns = Columns(place.store, collection)
    columns.prepare(["a", "width"], 1)
    condition = parse_where({"a": {"exists": False}, "width": 640})
    assert condition is not None
    np.testing.assert_array_equal(evaluate(condition, columns), [False] + [True] * 6)
