"""What an item's id and metadata may be."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.apps.search.writer import (
    MAX_FIELD_NAME,
    MAX_FIELDS,
    MAX_ID,
    MAX_META,
    check_id,
    check_meta,
)
from retinue.core.errors import InvalidRequest


@pytest.mark.parametrize("item_id", ["a", "x" * MAX_ID, "a/b c.jpg", "日本\N{SNOWMAN}"])
def test_an_id_is_any_text_of_1_to_512_characters(item_id: str) -> None:
    assert check_id(item_id) == item_id


@pytest.mark.parametrize("item_id", ["", "x" * (MAX_ID + 1), "x" * 10**7])
def test_an_id_that_is_empty_or_too_long_is_refused(item_id: str) -> None:
    with pytest.raises(InvalidRequest, match=f"1 to 512 characters, not {len(item_id)}"):
        check_id(item_id)


def test_metadata_is_given_back_as_it_is() -> None:
    meta = {
        "text": "x",
        "number": 1.5,
        "whole": 2**63,
        "flag": True,
        "nothing": None,
        "list": ["a", "b"],
        "none of them": [],
        "é \N{SNOWMAN}": "",
        "n" * MAX_FIELD_NAME: 0,
    }
    assert check_meta(meta) is meta
    assert check_meta({}) == {}
    check_meta({f"f{n}": n for n in range(MAX_FIELDS)})


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)

BAD = {
    "no object": (["a"], "must be an object"),
    "nothing": (None, "must be an object"),
    "a text": ("a=1", "must be an object"),
    "too many fields": ({f"f{n}": n for n in range(MAX_FIELDS + 1)}, "65 fields; at most 64"),
    "no name": ({"": 1}, "1 to 128"),
    "a long name": ({"n" * (MAX_FIELD_NAME + 1): 1}, "1 to 128"),
    "a name of 10 MB": ({"n" * 10**7: 1}, "1 to 128"),
    "a name that is a number": ({1: 1}, "1 to 128"),
    "an object": ({"a": {"b": 1}}, "'a' must be"),
    "a list of numbers": ({"a": [1, 2]}, "'a' must be"),
    "a mixed list": ({"a": ["x", None]}, "'a' must be"),
    "a list in a list": ({"a": [["x"]]}, "'a' must be"),
    "a list in itself": ({"a": CIRCLE}, "'a' must be"),
    "bytes": ({"a": b"x"}, "'a' must be"),
    "NaN": ({"a": float("nan")}, "no finite number"),
    "infinite": ({"a": float("-inf")}, "no finite number"),
    "beyond 64 bits": ({"a": 2**64}, "cannot be kept as JSON"),
    "half a character": ({"a": "\ud800"}, "cannot be kept as JSON"),
    "half a character in a name": ({"\ud800": 1}, "cannot be kept as JSON"),
    "too large": ({"a": "x" * MAX_META}, "at most 16,384"),
    "10 MB": ({"a": ["x" * 10**7]}, "at most 16,384"),
}


@pytest.mark.parametrize(("meta", "says"), BAD.values(), ids=BAD)
def test_other_metadata_is_refused_in_a_short_sentence(meta: Any, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_meta(meta)
    assert says in caught.value.message
    assert len(caught.value.message) < 300


def test_the_largest_metadata_is_kept() -> None:
    room = MAX_META - len(orjson.dumps({"a": ""}))
    check_meta({"a": "x" * room})
    with pytest.raises(InvalidRequest):
        check_meta({"a": "x" * (room + 1)})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(JSON)
def test_whatever_is_given_is_kept_as_it_is_or_refused(meta: Any) -> None:
    try:
        kept = check_meta(meta)
    except InvalidRequest:
        return
    assert orjson.loads(orjson.dumps(kept)) == meta
