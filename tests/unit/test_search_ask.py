"""Queries as clients send them: JSON, forms, and all that is wrong with them."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.apps.search.ask import MAX_ASKED, MAX_TEXT, Asked, AskedTerm, parse_asked, to_query
from retinue.apps.search.filters import Test as Condition
from retinue.apps.search.library import Library
from retinue.apps.search.packing import pack, unpack
from retinue.apps.search.query import MAX_REACH, Query, Term, directions, image_term
from retinue.apps.search.searcher import OpenCollection
from retinue.core.errors import InvalidRequest, NotFound
from retinue.core.types import Embedding
from retinue.testing.search import DIM, MODEL, item, library, made_up, put_all

FILE = b"\xff\xd8 a picture, for all that the parser knows"
BASE64 = base64.b64encode(FILE).decode()
NAN, INFINITE = float("nan"), float("inf")


def test_what_json_says_is_read() -> None:
    asked = parse_asked(
        {
            "image": BASE64,
            "box": [1, 2.5, 30, 40],
            "terms": [{"text": " red ", "weight": -0.5}, {"id": "i1", "box": [0, 0, 5, 5]}],
            "where": {"a": 1},
            "k": 7,
            "offset": 3,
            "model": "clip",
            "rerank": False,
            "dedupe": False,
            "deadline_ms": 50,
        }
    )
    assert asked.terms == (
        AskedTerm(image=FILE, box=(1, 2.5, 30, 40)),
        AskedTerm(text="red", weight=-0.5),
        AskedTerm(id="i1", box=(0, 0, 5, 5)),
    )
    assert (asked.where, asked.k, asked.offset, asked.model) == ({"a": 1}, 7, 3, "clip")
    assert (asked.rerank, asked.dedupe, asked.deadline_ms) == (False, False, 50)


def test_a_form_says_the_same_in_texts() -> None:
    json = {"id": "i1", "box": [1, 2, 30, 40], "where": {"a": [1, "x"]}, "k": 7, "offset": 3}
    json |= {"rerank": False, "dedupe": True, "deadline_ms": 50.5, "terms": [{"text": "x"}]}
    form = {
        name: value if name == "id" else orjson.dumps(value).decode()
        for name, value in json.items()
    }
    form["box"] = "1, 2,30,40"
    assert parse_asked(form) == parse_asked(json)
    assert parse_asked(form | {"rerank": "0", "dedupe": "1"}) == parse_asked(json)


def test_a_form_may_leave_fields_empty() -> None:
    form = {"text": "", "id": "i1", "image": "", "box": "", "where": "", "terms": ""}
    assert parse_asked(form | {"deadline_ms": "", "model": ""}) == parse_asked({"id": "i1"})


def test_null_is_as_good_as_nothing() -> None:
    names = ("image", "text", "box", "terms", "where", "k", "offset", "model")
    nothing = dict.fromkeys((*names, "rerank", "dedupe", "deadline_ms"))
    assert parse_asked({**nothing, "id": "i1"}) == parse_asked({"id": "i1"})
    term = {"id": "i1", "text": None, "image": None, "box": None, "weight": None}
    assert parse_asked({"terms": [term]}) == parse_asked({"id": "i1"})


def test_a_file_and_fields_are_asked_together() -> None:
    asked = parse_asked({"text": "red", "box": "1,1,9,9"}, FILE)
    assert asked.terms == (AskedTerm(image=FILE, box=(1, 1, 9, 9)), AskedTerm(text="red"))


def test_a_data_url_is_an_image() -> None:
    assert parse_asked({"image": f"data:image/jpeg;base64,{BASE64}"}).terms[0].image == FILE


def deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def nested(depth: int) -> dict[str, Any]:
    where: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        where = {"any": [where]}
    return where


LONG = "x" * 10**7
BAD = {
    "nothing": ({}, "nothing is asked"),
    "only empty": ({"text": "", "terms": []}, "nothing is asked"),
    "blank text": ({"text": "  \n"}, "the text is empty"),
    "an unknown name": ({"text": "a", "limit": 5}, "no field 'limit'; a query has: image"),
    "a name of 10 MB": ({"text": "a", LONG: 5}, "no field"),
    "k = 0": ({"text": "a", "k": 0}, "k must be 1 to 1000, not 0"),
    "k = -1": ({"text": "a", "k": "-1"}, "k must be 1 to 1000"),
    "k = 10**6": ({"text": "a", "k": 10**6}, "k must be 1 to 1000, not 1000000"),
    "k = 1e300": ({"text": "a", "k": 1e300}, "k must be 1 to 1000"),
    "k is half": ({"text": "a", "k": 1.5}, "k must be a whole number"),
    "k is NaN": ({"text": "a", "k": NAN}, "k must be a whole number"),
    "k is infinite": ({"text": "a", "k": "inf"}, "k must be a whole number"),
    "k is a flag": ({"text": "a", "k": True}, "k must be a whole number"),
    "k is a word": ({"text": "a", "k": "many"}, "k must be a whole number, not 'many'"),
    "k is 10 MB": ({"text": "a", "k": "1" * 10**7}, "k must be a whole number"),
    "k is a list": ({"text": "a", "k": [5]}, "k must be a whole number"),
    "k is a deep list": ({"text": "a", "k": deep(1020)}, "k must be a whole number"),
    "an offset below 0": ({"text": "a", "offset": -1}, "offset must be 0 to 9980"),
    "an offset beyond reach": ({"text": "a", "offset": MAX_REACH}, "offset must be 0 to 9980"),
    "a page that ends beyond reach": ({"text": "a", "k": 100, "offset": 9901}, "9900 for k = 100"),
    "an offset beyond float": ({"text": "a", "offset": 10**400}, "offset must be a whole number"),
    "10 MB text": ({"text": LONG}, "text has 10,000,000 characters; at most 2,000"),
    "a long text": ({"text": "x" * (MAX_TEXT + 1)}, "at most 2,000"),
    "a text that is none": ({"text": 5}, "text must be a text"),
    "a text that is 0": ({"text": 0}, "text must be a text"),
    "a long id": ({"id": "x" * 513}, "id has 513 characters"),
    "an id that is a number": ({"id": 7}, "id must be a text"),
    "a model that is a list": ({"text": "a", "model": []}, "model must be a text"),
    "a long model": ({"text": "a", "model": LONG}, "model has"),
    "no base64": ({"image": "@@@@"}, "no base64"),
    "base64 cut off": ({"image": BASE64[:-3]}, "no base64"),
    "base64 with umlauts": ({"image": "äöü="}, "no base64"),
    "a data URL of nothing": ({"image": "data:image/png;base64,"}, "image is empty"),
    "a data URL without data": ({"image": "data:"}, "image is empty"),
    "an image that is a list": ({"image": [255, 216]}, "base64"),
    "an image that is 0": ({"image": 0}, "base64"),
    "box reversed": ({"id": "a", "box": [9, 0, 1, 5]}, "x1 < x2"),
    "box upside down": ({"id": "a", "box": [0, 9, 5, 1]}, "y1 < y2"),
    "box empty": ({"id": "a", "box": [1, 1, 1, 1]}, "x1 < x2"),
    "box NaN": ({"id": "a", "box": "nan,0,5,5"}, "x1 < x2"),
    "box NaN at the end": ({"id": "a", "box": [0, 0, 5, NAN]}, "x1 < x2"),
    "box infinite": ({"id": "a", "box": [0, 0, INFINITE, 5]}, "x1 < x2"),
    "box beyond float": ({"id": "a", "box": [0, 0, 10**400, 5]}, "four numbers"),
    "box of three": ({"id": "a", "box": [0, 0, 5]}, "four numbers"),
    "box of five": ({"id": "a", "box": "0,0,5,5,5"}, "four numbers"),
    "box of words": ({"id": "a", "box": "a,b,c,d"}, "four numbers"),
    "box of nothing": ({"id": "a", "box": []}, "four numbers"),
    "box of an object": ({"id": "a", "box": {"1": 0, "2": 0, "3": 0, "4": 0}}, "four numbers"),
    "box a number": ({"id": "a", "box": 5}, "four numbers"),
    "box a deep list": ({"id": "a", "box": [deep(1000)] * 4}, "four numbers"),
    "box 10 MB": ({"id": "a", "box": "1," * 10**6}, "four numbers"),
    "box of a text": ({"text": "a", "box": [0, 0, 5, 5]}, "box is a region of the image"),
    "box of nobody": ({"terms": [{"id": "a"}], "box": [0, 0, 5, 5]}, "box is a region of"),
    "where no JSON": ({"text": "a", "where": "{colour:"}, "where is no JSON"),
    "where a list": ({"text": "a", "where": [1]}, "where must be an object"),
    "where a deep list": ({"text": "a", "where": deep(1020)}, "where must be an object"),
    "where JSON too deep": ({"text": "a", "where": "[" * 5000}, "where is no JSON"),
    "where too deep": ({"text": "a", "where": nested(9)}, "deep"),
    "where too many": ({"text": "a", "where": {"any": [{"a": 1}] * 65}}, "more than 64"),
    "where NaN": ({"text": "a", "where": {"a": NAN}}, "finite"),
    "where NaN as JSON": ({"text": "a", "where": '{"a": NaN}'}, "where is no JSON"),
    "where 1e999 as JSON": ({"text": "a", "where": '{"a": 1e999}'}, "where is no JSON"),
    "a flag that is a word": ({"text": "a", "rerank": "yes"}, "rerank must be true or false"),
    "a flag that is a number": ({"text": "a", "dedupe": 1}, "dedupe must be true or false"),
    "a flag that is a deep list": ({"text": "a", "dedupe": deep(1020)}, "true or false"),
    "no time": ({"text": "a", "deadline_ms": 0}, "deadline_ms must be more than 0"),
    "less than no time": ({"text": "a", "deadline_ms": "-5"}, "deadline_ms"),
    "too much time": ({"text": "a", "deadline_ms": 60_001}, "at most 60000"),
    "time NaN": ({"text": "a", "deadline_ms": NAN}, "deadline_ms"),
    "time infinite": ({"text": "a", "deadline_ms": "inf"}, "deadline_ms"),
    "time beyond float": ({"text": "a", "deadline_ms": 10**400}, "deadline_ms"),
    "time a flag": ({"text": "a", "deadline_ms": True}, "deadline_ms"),
    "time a list": ({"text": "a", "deadline_ms": [5]}, "deadline_ms"),
    "terms no JSON": ({"terms": "[{"}, "terms is no JSON"),
    "terms an object": ({"terms": {"text": "a"}}, "list of objects"),
    "terms of texts": ({"terms": ["a"]}, "list of objects"),
    "too many terms": ({"terms": [{"text": "a"}] * (MAX_ASKED + 1)}, "at most 16"),
    "a million terms": ({"terms": [{"text": "a"}] * 10**6}, "at most 16"),
    "a term of nothing": ({"terms": [{}]}, "exactly one"),
    "a term of a weight": ({"terms": [{"weight": 1}]}, "exactly one"),
    "two kinds in a term": ({"terms": [{"text": "a", "id": "b"}]}, "exactly one"),
    "three kinds in a term": ({"terms": [{"text": "a", "id": "b", "image": BASE64}]}, "exactly"),
    "an unknown name in a term": ({"terms": [{"text": "a", "wieght": 2}]}, "no field 'wieght'"),
    "a box of a term's text": ({"terms": [{"text": "a", "box": [0, 0, 5, 5]}]}, "no box"),
    "a reversed box in a term": ({"terms": [{"id": "a", "box": [5, 0, 0, 5]}]}, "x1 < x2"),
    "bad base64 in a term": ({"terms": [{"image": "?"}]}, "no base64"),
    "10 MB text in a term": ({"terms": [{"text": LONG}]}, "at most 2,000"),
    "weight 0": ({"terms": [{"text": "a", "weight": 0}]}, "not 0"),
    "weight -0.0": ({"terms": [{"text": "a", "weight": -0.0}]}, "not 0"),
    "weight NaN": ({"terms": [{"text": "a", "weight": NAN}]}, "a weight must be"),
    "weight infinite": ({"terms": [{"text": "a", "weight": INFINITE}]}, "a weight must be"),
    "weight huge": ({"terms": [{"text": "a", "weight": 1e30}]}, "-100 to 100"),
    "weight beyond float": ({"terms": [{"text": "a", "weight": 10**400}]}, "-100 to 100"),
    "weight a text": ({"terms": [{"text": "a", "weight": "1"}]}, "weight must be a number"),
    "weight a flag": ({"terms": [{"text": "a", "weight": True}]}, "weight must be a number"),
    "weight a deep list": ({"terms": [{"text": "a", "weight": deep(1020)}]}, "a number"),
    "negative only": (
        {"terms": [{"text": "a", "weight": -1}, {"id": "b", "weight": -2}]},
        "a positive weight",
    ),
}


@pytest.mark.parametrize(("fields", "says"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said_in_a_short_sentence(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_asked(fields)
    assert says in caught.value.message
    assert len(caught.value.message) < 300


def test_an_image_that_comes_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        parse_asked({"image": BASE64}, FILE)
    with pytest.raises(InvalidRequest, match="at most 16 terms"):
        parse_asked({"terms": [{"text": "a"}] * MAX_ASKED}, FILE)


def test_the_limits_themselves_are_allowed() -> None:
    parse_asked({"text": "x" * MAX_TEXT, "k": 1000, "offset": MAX_REACH - 1000})
    parse_asked({"text": "x", "k": "1", "offset": MAX_REACH - 1, "deadline_ms": 60_000})
    parse_asked({"terms": [{"text": "a", "weight": 100}] * MAX_ASKED, "where": nested(8)})
    parse_asked({"id": "x" * 512, "k": 20.0})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
TERMS = st.dictionaries(st.sampled_from(["image", "text", "id", "box", "weight", "x"]), JSON)
NAMES = ("image", "text", "id", "box", "where", "k", "offset", "model", "rerank", "dedupe")


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*NAMES, "deadline_ms"]), JSON, max_size=4),
    st.one_of(JSON, st.lists(TERMS, max_size=3)),
)
def test_whatever_is_asked_is_read_or_refused(fields: dict[str, Any], terms: Any) -> None:
    try:
        asked = parse_asked({**fields, "terms": terms})
    except InvalidRequest:
        return
    assert isinstance(asked.key(), bytes)


def test_a_key_tells_queries_apart() -> None:
    queries = [
        {"text": "a"},
        {"text": "b"},
        {"id": "a"},
        {"text": "a", "k": 5},
        {"text": "a", "offset": 5},
        {"text": "a", "model": "m"},
        {"text": "a", "rerank": False},
        {"text": "a", "dedupe": False},
        {"text": "a", "where": {"a": 1}},
        {"text": "a", "where": {"a": True}},
        {"text": "a", "where": {"a": "1"}},
        {"terms": [{"text": "a", "weight": 2}]},
        {"id": "a", "box": [0, 0, 1, 1]},
        {"text": "a", "terms": [{"text": "b"}]},
        {"text": "b", "terms": [{"text": "a"}]},
    ]
    assert len({parse_asked(query).key() for query in queries}) == len(queries)
    one, same = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert (
        parse_asked({"id": "x", "where": one}).key()
        == parse_asked({"id": "x", "where": same}).key()
    )


@pytest.fixture
def place(tmp_path) -> Iterator[Library]:
    opened = library(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def shop(place: Library) -> OpenCollection:
    opened = place.create("", "shop")
    put_all(place, opened.collection, {n: item(n) for n in range(3)})
    return opened


def test_a_query_has_the_vectors_of_what_was_asked(shop: OpenCollection) -> None:
    asked = parse_asked(
        {
            "image": BASE64,
            "text": "red",
            "id": "i1",
            "terms": [{"id": "i2", "weight": -0.5}],
            "where": {"a": 1},
            "deadline_ms": 40,
        }
    )
    words = np.ones(8, np.float32)
    pixels = np.zeros((2, 2, 3), np.uint8)
    seen = (made_up(9), lambda: pixels)
    query = to_query(asked, shop, shop.space(MODEL), [seen, words, None, None], 120)
    image, text, one, _ = query.terms
    np.testing.assert_array_equal(image.vectors["image"], made_up(9).vector)
    assert set(image.vectors) == {"image", "text"}
    assert image.pixels is not None
    assert image.pixels() is pixels
    assert set(text.vectors) == {"text"}
    assert text.tokens is None
    np.testing.assert_allclose(one.vectors["image"], made_up(1).vector, atol=1e-3)
    np.testing.assert_array_equal(one.tokens, made_up(1).tokens)
    assert [term.weight for term in query.terms] == [1, 1, 1, -0.5]
    assert query.without == ["i1"], "what is not wanted may be found"
    assert query.where == Condition("a", "in", (1.0,))
    assert query.deadline == pytest.approx(asked.started + 0.04)
    assert asked.started <= time.monotonic()


def test_the_settings_deadline_is_that_of_who_gives_none(shop: OpenCollection) -> None:
    asked = parse_asked({"id": "i0"})
    query = to_query(asked, shop, shop.space(MODEL), [None], 120)
    assert query.deadline == pytest.approx(asked.started + 0.12)


def test_vectors_of_another_model_and_items_that_are_not_there_are_refused(
    shop: OpenCollection,
) -> None:
    space = shop.space(MODEL)
    with pytest.raises(NotFound, match="'i9'"):
        to_query(parse_asked({"id": "i9"}), shop, space, [None], 120)
    with pytest.raises(InvalidRequest, match=r"gave 5 numbers.*have 8"):
        to_query(parse_asked({"text": "a"}), shop, space, [np.ones(5, np.float32)], 120)
    seen = (Embedding(np.ones(DIM + 1, np.float32)), lambda: np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(InvalidRequest, match="another model"):
        to_query(parse_asked({"image": BASE64}), shop, space, [seen], 120)


def test_a_query_itself_keeps_the_limits() -> None:
    term = image_term(made_up(0))
    for options in ({"k": 0}, {"k": 1001}, {"offset": -1}, {"offset": MAX_REACH}):
        with pytest.raises(InvalidRequest):
            Query([term], **options)
    for terms in ([], [term] * 17, [image_term(made_up(0), -1)]):
        with pytest.raises(InvalidRequest):
            Query(terms)
    with pytest.raises(InvalidRequest, match="nothing is asked"):
        Asked(())


def test_terms_are_summed_where_they_are_compared() -> None:
    one, other = made_up(1), made_up(2)
    words = np.arange(8, dtype=np.float32)
    sums = directions([image_term(one, 2), image_term(other, -1), Term({"text": words}, 0.5)])
    np.testing.assert_allclose(sums["image"], 2 * one.vector - other.vector)
    np.testing.assert_allclose(sums["text"], 0.5 * words)
    assert all(vector.dtype == np.float32 for vector in sums.values())


@pytest.mark.parametrize(
    "embedding",
    [
        made_up(1),
        made_up(2, text=0),
        Embedding(np.array([1e-40, -0.0, np.inf], np.float32)),
        Embedding(np.ones(2, np.float32), np.zeros((6, 3), np.uint8), (2, 3)),
    ],
)
def test_a_packed_embedding_is_the_same_to_the_last_bit(embedding: Embedding) -> None:
    again = unpack(pack(embedding))
    assert again.grid == embedding.grid
    for name in ("vector", "tokens", "semantic"):
        one, other = getattr(embedding, name), getattr(again, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes()
            assert one.shape == other.shape
