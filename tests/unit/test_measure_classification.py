"""Top-k accuracy and Wilson's interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.measure.classification import top_k
from retinue.measure.intervals import wilson


def test_by_hand() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.5, 0.1]])
    labels = np.array([1, 1, 0, 2])
    assert [top_k(scores, labels, k).correct for k in (1, 2, 3)] == [1, 2, 4]
    accuracy = top_k(scores, labels, 2)
    assert (accuracy.value, accuracy.total) == (0.5, 4)
    assert accuracy.low < 0.5 < accuracy.high


@given(st.integers(1, 30), st.integers(1, 8), st.data())
def test_against_a_sort(n: int, classes: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, classes))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    scores = rng.integers(0, 4, (n, classes)).astype(np.float32)
    labels = rng.integers(0, classes, n)
    twin = sum(
        label in np.argsort(-row, kind="stable")[:k]
        for row, label in zip(scores, labels, strict=True)
    )
    assert top_k(scores, labels, k).correct == twin


def test_the_same_answer_for_all_is_not_right() -> None:
    assert top_k(np.zeros((10, 10)), np.arange(10)).correct == 1


@pytest.mark.parametrize(
    ("scores", "labels", "k", "says"),
    [
        (np.zeros((2, 3)), np.array([0]), 1, "need scores"),
        (np.zeros((0, 3)), np.zeros(0, int), 1, "need scores"),
        (np.zeros((2, 3)), np.array([0, 3]), 1, "labels must be 0..2"),
        (np.zeros((2, 3)), np.array([0, -1]), 1, "labels must be 0..2"),
        (np.zeros((2, 3)), np.array([0, 1]), 4, "k must be 1..3"),
        (np.full((2, 3), np.nan), np.array([0, 1]), 1, "NaN"),
    ],
)
def test_bad_arguments(scores: np.ndarray, labels: np.ndarray, k: int, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace(".", r"\.")):
        top_k(scores, labels, k)


@pytest.mark.parametrize(
    ("successes", "total", "interval"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0, 0.1611)),
     (1, 29, (0.0061, 0.1718))],
)  # fmt: skip
def test_wilson_of_the_literature(
    successes: int, total: int, interval: tuple[float, float]
) -> None:
    assert wilson(successes, total) == pytest.approx(interval, abs=5e-5)


@given(st.integers(1, 5000), st.floats(0, 1), st.floats(0.01, 0.999))
def test_wilson_holds_the_share_and_mirrors(total: int, share: float, confidence: float) -> None:
    successes = round(share * total)
    low, high = wilson(successes, total, confidence)
    assert 0 <= low <= successes / total <= high <= 1
    mirrored = wilson(total - successes, total, confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("arguments", [(1, 0), (-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0)])
def test_wilson_refuses(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="need 0 <= successes"):
        wilson(*arguments)
