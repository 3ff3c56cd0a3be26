"""When two answers are the same answer."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.errors import InvalidTensor, ModelRunFailed, RetinueError
from retinue.core.types import Detections, Embedding, Landmarks, Outcome, Scores
from retinue.measure.agreement import agreement, telling

Box = tuple[float, float, float, float]
BOX: Box = (10.0, 10.0, 60.0, 50.0)
FAR: Box = (200.0, 200.0, 260.0, 250.0)


def boxes(*items: tuple[Box, float, int]) -> Outcome:
    corners = np.array([box for box, _, _ in items], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in items], np.float32)
    return Outcome(Detections(corners, scores, np.array([c for _, _, c in items], np.int64)))


def scores(*values: float) -> Outcome:
    return Outcome(Scores(np.array(values, np.float32)))


def vector(*values: float) -> Outcome:
    return Outcome(Embedding(np.array(values, np.float32)))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (boxes(), boxes(), 1),
        (boxes((BOX, 0.9, 0)), boxes((BOX, 0.5, 0)), 1),
        (boxes((BOX, 0.9, 0)), boxes(), 0),
        (boxes((BOX, 0.9, 0)), boxes((BOX, 0.9, 1)), 0),
        (boxes((BOX, 0.9, 0)), boxes((FAR, 0.9, 0)), 0),
        (boxes((BOX, 0.2, 0)), boxes(), 1),  # it does not count
        (boxes((BOX, 0.31, 0)), boxes((BOX, 0.29, 0)), 1),  # a score that wobbles
        (boxes((BOX, 0.31, 0)), boxes((BOX, 0.14, 0)), 0),
        (boxes((BOX, 0.9, 0), (FAR, 0.8, 0)), boxes((BOX, 0.9, 0)), 2 / 3),
        (boxes((BOX, 0.9, 0), (BOX, 0.8, 0)), boxes((BOX, 0.9, 0)), 2 / 3),  # one partner each
        (boxes((BOX, 0.9, 0), (FAR, 0.9, 3)), boxes((FAR, 0.9, 3), (BOX, 0.9, 0)), 1),
    ],
)
def test_detections(a: Outcome, b: Outcome, expected: float) -> None:
    assert agreement(a, b) == agreement(b, a) == pytest.approx(expected)


def test_overlap_decides() -> None:
    shifted = (10.0, 10.0, 60.0, 32.0)  # IoU 22 / 40
    assert agreement(boxes((BOX, 0.9, 0)), boxes((shifted, 0.9, 0))) == 1
    assert agreement(boxes((BOX, 0.9, 0)), boxes((shifted, 0.9, 0)), iou=0.6) == 0


@st.composite
def detections(draw: st.DrawFn) -> Outcome:
    # Few places, scores and classes: ties are the rule.
    place = st.tuples(st.integers(0, 3), st.integers(0, 1), st.sampled_from([6, 8]))
    item = st.tuples(place, st.sampled_from([0.1, 0.2, 0.3, 0.5]), st.integers(0, 1))
    items = draw(st.lists(item, max_size=7))
    return boxes(*(((x, y, x + s, y + s), score, c) for (x, y, s), score, c in items))


@given(detections(), detections())
def test_symmetric_within_bounds_and_one_with_itself(a: Outcome, b: Outcome) -> None:
    value = agreement(a, b)
    assert value == agreement(b, a)
    assert 0 <= value <= 1
    assert agreement(a, a) == 1


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (scores(0.2, 0.8), scores(0.2, 0.8), 1),
        (scores(1, 0), scores(0, 1), 0),
        (scores(0.5, 0.5), scores(1, 0), 0.5 / 1.5),
        (scores(0, 0), scores(0, 0), 1),
        (scores(0, 0), scores(0, 0.5), 0),
        (vector(1, 2), vector(2, 4), 1),
        (vector(1, 0), vector(-1, 0), 0),
        (vector(1, 0), vector(1, 1), 0.5**0.5),
        (vector(0, 0), vector(0, 0), 1),
        (vector(0, 0), vector(0, 1), 0),
    ],
)
def test_scores_and_embeddings(a: Outcome, b: Outcome, expected: float) -> None:
    assert agreement(a, b) == agreement(b, a) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_agrees_with_nothing(bad: float) -> None:
    for one in (boxes((BOX, bad, 0)), boxes(((0.0, 0.0, bad, 1.0), 0.9, 0))):
        assert agreement(one, boxes()) == agreement(one, one) == 0
    assert agreement(scores(bad, 1), scores(0, 1)) == 0
    assert agreement(vector(bad, 1), vector(bad, 1)) == 0


def failed(error: RetinueError) -> Outcome:
    return Outcome(error=error)


def test_failures() -> None:
    broken = failed(InvalidTensor("a"))
    assert agreement(broken, failed(InvalidTensor("b"))) == 1
    assert agreement(broken, failed(ModelRunFailed("a"))) == 0
    assert agreement(broken, boxes()) == agreement(boxes(), broken) == 0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (boxes(), scores(1), "Detections and Scores"),
        (scores(1), scores(1, 0), "1 and 2 numbers"),
        (vector(1), vector(1, 0), "1 and 2 numbers"),
        (*[Outcome(Landmarks(np.zeros((1, 3), np.float32), 1.0))] * 2, "Landmarks and Landmarks"),
    ],
)
def test_what_cannot_be_compared_is_refused(a: Outcome, b: Outcome, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agreement(a, b)


def test_many_boxes_take_no_time() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 300, (1000, 2))
    many = np.hstack([corner, corner + 40]).astype(np.float32)
    found = Detections(many, np.linspace(1, 0.3, 1000, dtype=np.float32), np.arange(1000) % 3)
    start = time.perf_counter()
    assert agreement(Outcome(found), Outcome(found)) == 1
    assert time.perf_counter() - start < 5  # a loop over all pairs would take far longer


def test_two_detectors_that_find_nothing_tell_nothing() -> None:
    nothing, faint, found = boxes(), boxes((BOX, 0.2, 0)), boxes((BOX, 0.9, 0))
    assert not telling(nothing, nothing)
    assert not telling(nothing, faint)
    assert telling(nothing, faint, conf=0.1)
    assert telling(nothing, found)
    assert telling(found, nothing)
    assert telling(nothing, boxes((BOX, float("nan"), 0)))
    assert telling(Outcome(error=ModelRunFailed("why")), nothing)
    assert telling(scores(0, 0), scores(0, 0))
