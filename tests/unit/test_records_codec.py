"""A record becomes a row and comes back to the last bit."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinue.core.errors import QueueFull, RetinueError, StorageError
from retinue.core.record import Record
from retinue.core.types import Detections, Embedding, Landmarks, Outcome, Scores
from retinue.store.codec import KEY_LENGTH, error_class, from_row, searchable, to_row
from retinue.testing.records import ODD_TEXTS, fingerprint, record, records

texts = st.text(st.characters(), max_size=30)  # all of Unicode, lone surrogates too
floats = st.floats(width=32)
small = st.integers(0, 2**31 - 1)


def vectors(size):
    return hnp.arrays(np.float32, size, elements=floats)


@st.composite
def detections(draw) -> Detections:
    count = draw(st.integers(0, 6))
    bits = draw(st.sampled_from([8, 16, 32, 64]))
    ids = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return Detections(
        boxes=draw(vectors((count, 4))),
        scores=draw(vectors(count)),
        class_ids=draw(hnp.arrays(np.int64, count, elements=ids)),
    )


values = st.one_of(
    detections(),
    vectors(st.integers(0, 20)).map(Scores),
    vectors(st.integers(0, 20)).map(Embedding),
    st.builds(Landmarks, vectors(st.tuples(st.integers(0, 9), st.just(3))), st.floats()),
)
timings = st.dictionaries(texts, st.floats(), max_size=4)
embeddings = st.none() | vectors(st.integers(0, 9)).map(Embedding)
outcomes = st.one_of(
    st.builds(Outcome, value=values, embedding=embeddings, timings_ms=timings),
    st.builds(Outcome, error=texts.map(QueueFull), embedding=embeddings, timings_ms=timings),
)
any_record = st.builds(
    Record,
    app=texts,
    model=texts,
    version=texts,
    outcome=outcomes,
    source=texts | st.text("ab", min_size=250, max_size=260),
    input_sha256=texts,
    width=small,
    height=small,
    batch_size=small,
    queue_depth=small,
    id=texts,
    created_at=st.datetimes(timezones=st.just(UTC)),
    tags=st.dictionaries(texts, texts, max_size=3),
)


@settings(deadline=None)
@given(any_record)
def test_round_trip(one: Record) -> None:
    assert fingerprint(from_row(to_row(one)).record) == fingerprint(one)


@settings(deadline=None)
@given(texts, texts)
def test_searchable_text_is_storable_and_tells_texts_apart(one: str, other: str) -> None:
    found = searchable(one)
    assert len(found) <= KEY_LENGTH
    assert "\0" not in found
    found.encode("utf-8")
    assert searchable(found) == found
    assert (found == searchable(other)) == (one == other)


def test_long_texts_are_told_apart() -> None:
    keys = {searchable(text) for text in ODD_TEXTS}
    assert len(keys) == len(ODD_TEXTS)
    assert max(map(len, keys)) <= KEY_LENGTH


def test_detections_of_few_classes_take_21_bytes_each() -> None:
    assert len(to_row(record())["value"]) == 3 * 21


@pytest.mark.parametrize("one", records(), ids=lambda one: type(one.outcome.value).__name__)
def test_arrays_that_come_back_are_of_the_documented_types(one: Record) -> None:
    given_back = from_row(to_row(one)).record.outcome
    if isinstance(given_back.value, Detections):
        assert given_back.value.boxes.dtype == np.float32
        assert given_back.value.class_ids.dtype == np.int64


def test_wider_arrays_are_stored_as_the_documented_types() -> None:
    boxes = np.array([[0.0, 1, 2, 3]])
    outcome = Outcome(value=Detections(boxes, np.array([0.5]), np.array([7], np.uint8)))
    found = from_row(to_row(record(outcome=outcome))).record.outcome.unwrap()
    assert isinstance(found, Detections)
    assert found.boxes.dtype == np.float32
    assert found.boxes.tolist() == boxes.tolist()
    assert found.class_ids.tolist() == [7]


def test_a_moment_without_a_zone_is_taken_as_utc() -> None:
    naive = record(created_at=datetime(2026, 1, 1))
    assert from_row(to_row(naive)).record.created_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_an_unknown_error_keeps_its_code_and_message() -> None:
    row = to_row(record(outcome=Outcome(error=QueueFull("full; wait")))) | {"code": "of_tomorrow"}
    error = from_row(row).record.outcome.error
    assert error is not None
    assert isinstance(error, RetinueError)
    assert (error.code, error.message) == ("of_tomorrow", "full; wait")
    assert error_class("of_tomorrow") is type(error)


@pytest.mark.parametrize(
    "damage",
    [
        {"value": b"\0" * 7},
        {"value": None},
        {"items": 4},
        {"kind": "of_tomorrow"},
        {"meta": "{"},
        {"meta": "{}"},
        {"meta": "[]"},
        {"embedding": b"123"},
    ],
    ids=str,
)
def test_a_damaged_row_is_a_storage_error(damage: dict[str, object]) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        from_row(to_row(record()) | damage)


@pytest.mark.parametrize("field", ["width", "height", "batch_size", "queue_depth"])
@pytest.mark.parametrize("value", [-1, 2**31, "1"])
def test_numbers_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        to_row(record(**{field: value}))
