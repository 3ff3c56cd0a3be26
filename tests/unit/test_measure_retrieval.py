"""Recall, precision and average precision of a search, and their mean."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.measure.retrieval import (
    average_precision,
    average_precisions,
    mean,
    precision_at,
    recall_at,
)

FOUND = np.array([[7, 3, 5, 1], [2, 4, -1, -1], [9, 8, 6, 0]])


def test_recall_by_hand() -> None:
    truth = np.array([[5, 7, 2], [4, -1, -1], [-1, -1, -1]])
    for k, expected in [(1, [1 / 3, 0, np.nan]), (2, [1 / 3, 1, np.nan]), (4, [2 / 3, 1, np.nan])]:
        recall = recall_at(FOUND, truth, k)
        assert recall.dtype == np.float64
        np.testing.assert_allclose(recall, expected)


@pytest.mark.parametrize(
    ("relevant", "total", "expected"),
    [
        ([1, 0, 1, 0], 2, (1 + 2 / 3) / 2),
        ([1, 0, 1, 0], 3, (1 + 2 / 3) / 3),
        ([1, 0, 1, 0], 90, (1 + 2 / 3) / 4),
        ([0, 0, 0, 1], 1, 1 / 4),
        ([0, 0], 5, 0),
        ([1, 1], 90, 1),
        ([0, 0], 0, math.nan),
    ],
)
def test_average_precision_by_hand(relevant: list[int], total: int, expected: float) -> None:
    value = average_precision(np.array(relevant, bool), total)
    assert value == pytest.approx(expected, nan_ok=True)


def test_sets_by_hand() -> None:
    relevant: list[set[int] | frozenset[int]] = [{7, 5, 99}, frozenset({4}), set()]
    values = average_precisions(FOUND, relevant, 3)
    np.testing.assert_allclose(values, [(1 + 2 / 3) / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(average_precisions(FOUND, relevant, 1), [1, 0, np.nan])
    np.testing.assert_allclose(precision_at(FOUND, relevant, 3), [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(precision_at(FOUND, relevant, 1), [1, 0, 0])


def _row(ids: list[int], width: int) -> list[int]:
    return ids + [-1] * (width - len(ids))


@given(st.integers(0, 5), st.integers(1, 7), st.data())
def test_against_the_slow_twin(queries: int, width: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, width))
    some = st.lists(st.integers(0, 9), unique=True, max_size=width)
    lists = data.draw(st.lists(some, min_size=queries, max_size=queries))
    truths = data.draw(st.lists(some, min_size=queries, max_size=queries))
    rows = [data.draw(st.permutations(_row(ids, width))) for ids in lists]
    found = np.array(rows, np.int64).reshape(queries, width)
    truth = np.array([_row(ids, width) for ids in truths], np.int64).reshape(queries, width)

    recalls, averages, precisions = [], [], []
    for row, true in zip(rows, truths, strict=True):
        hits = [rank for rank in range(1, k + 1) if row[rank - 1] in true]
        sums = sum(sum(i in true for i in row[:rank]) / rank for rank in hits)
        recalls.append(len(hits) / len(true) if true else math.nan)
        averages.append(sums / min(len(true), k) if true else math.nan)
        precisions.append(len(hits) / k)

    sets = [frozenset(true) for true in truths]
    for value, expected in [
        (recall_at(found, truth, k), recalls),
        (average_precisions(found, sets, k), averages),
        (precision_at(found, sets, k), precisions),
    ]:
        assert (value.shape, value.dtype) == ((queries,), np.float64)
        np.testing.assert_allclose(value, expected)


def test_mean_leaves_out_nan() -> None:
    summary = mean(np.array([0.0, np.nan, 1.0, 0.5, 0.5]))
    assert (summary.value, summary.queries) == (0.5, 4)
    assert 0 <= summary.low < 0.5 < summary.high <= 1


def test_mean_is_repeatable_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).random(400)
    summary = mean(values)
    assert summary == mean(values)
    half = 1.96 * values.std() / 20
    ends = values.mean() - half, values.mean() + half
    assert (summary.low, summary.high) == pytest.approx(ends, abs=0.003)


def test_mean_of_equal_figures_has_no_width() -> None:
    summary = mean(np.array([0.25]))
    assert (summary.value, summary.low, summary.high, summary.queries) == (0.25, 0.25, 0.25, 1)


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.zeros(0), np.full(3, np.nan)])
def test_mean_refuses(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"need values|no query"):
        mean(values)


def test_mean_refuses_infinity() -> None:
    with pytest.raises(ValueError, match="not finite"):
        mean(np.array([0.5, np.inf]))


BAD = [
    (FOUND, 0, r"k must be 1\.\.4"),
    (FOUND, 5, r"k must be 1\.\.4"),
    (FOUND[0], 1, "found must be int64 with 2 axes"),
    (FOUND.astype(float), 1, "found must be int64"),
    (FOUND[:2], 1, "need"),
    (np.array([[1, 2], [3, 3], [4, 5]]), 1, "found has an id twice in row 1"),
    (np.array([[1], [-2], [4]]), 1, "found has an id below -1: -2"),
]


@pytest.mark.parametrize(("found", "k", "says"), BAD)
def test_bad_arguments(found: np.ndarray, k: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        recall_at(found, np.zeros((3, 1), np.int64), k)
    for function in (average_precisions, precision_at):
        with pytest.raises(ValueError, match=says):
            function(found, [{1}] * 3, k)


@pytest.mark.parametrize("function", [average_precisions, precision_at])
def test_bad_sets(function: Callable[..., np.ndarray]) -> None:
    with pytest.raises(ValueError, match="a relevant id is below 0"):
        function(FOUND, [{1}, {-1}, {2}], 2)


def test_bad_truth() -> None:
    with pytest.raises(ValueError, match="truth has an id twice in row 2"):
        recall_at(FOUND, np.array([[1, 2], [-1, -1], [4, 4]]), 2)
    with pytest.raises(ValueError, match="truth must be int64"):
        recall_at(FOUND, np.zeros(3, np.int64), 2)


@pytest.mark.parametrize(
    ("relevant", "total"),
    [(np.ones(3, bool), 2), (np.zeros(3, bool), -1), (np.ones(3), 3), (np.zeros((2, 2), bool), 1),
     (np.zeros(0, bool), 1)],
)  # fmt: skip
def test_average_precision_refuses(relevant: np.ndarray, total: int) -> None:
    with pytest.raises(ValueError, match=r"need bool|total must"):
        average_precision(relevant, total)
