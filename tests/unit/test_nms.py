"""The fast suppression against its slow twin, and the choice of candidates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.models.nms import MAX_CANDIDATES, MIN_SCORE, candidates, nms, sigmoid


def iou_of(a: np.ndarray, b: np.ndarray) -> np.float32:
    """Intersection over union in float64, rounded as OpenCV does: as 1 - distance in float32."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return np.float32(1) - np.float32(1 - common / (areas - common))


def slow_nms(
    boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, iou: float, count: int
) -> list[int]:
    """Take the best box; drop those of its class that overlap it; again."""
    left = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    exact = boxes.astype(np.float64)
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [
            i
            for i in left
            if class_ids[i] != class_ids[best] or iou_of(exact[best], exact[i]) <= np.float32(iou)
        ]
    return kept[:count]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = draw(st.integers(0, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    corners = random.integers(-200, 800, (count, 2)) / draw(st.sampled_from([1, 16]))
    sizes = random.integers(1, 400, (count, 2)) / draw(st.sampled_from([1, 16]))
    boxes = np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)
    levels = draw(st.sampled_from([2, 5, 1000]))
    scores = (random.integers(1, levels + 1, count) / levels).astype(np.float32)
    classes = random.integers(0, draw(st.sampled_from([1, 3, 80])), count)
    return boxes, scores, classes.astype(np.int64)


@given(scenes(), st.sampled_from([0.1, 0.5, 0.6, 0.75, 1.0]), st.sampled_from([1, 10, 100]))
@settings(max_examples=300, deadline=None)
def test_agrees_with_its_twin(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray], iou: float, count: int
) -> None:
    assert nms(*scene, iou, count).tolist() == slow_nms(*scene, iou, count)


def test_equal_scores_keep_the_lower_index() -> None:
    box = [[0, 0, 10, 10]]
    boxes = np.array(box * 3 + [[50, 50, 60, 60]], np.float32)
    scores = np.full(4, 0.5, np.float32)
    assert nms(boxes, scores, np.zeros(4, np.int64), 0.5, 10).tolist() == [0, 3]
    assert nms(boxes, scores, np.array([1, 0, 1, 0]), 0.5, 10).tolist() == [0, 1, 3]


def test_an_overlap_of_exactly_the_bound_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    classes = np.zeros(2, np.int64)
    assert nms(boxes, scores, classes, 0.5, 10).tolist() == [0, 1]
    assert nms(boxes, scores, classes, 0.49, 10).tolist() == [0]


def test_nothing_in_nothing_out() -> None:
    kept = nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), 0.5, 9)
    assert kept.shape == (0,)
    assert kept.dtype == np.int64


def slow_candidates(scores: np.ndarray) -> list[int]:
    flat = scores.ravel().tolist()
    passing = [i for i, score in enumerate(flat) if score >= np.float32(MIN_SCORE)]
    return sorted(passing, key=lambda i: (-flat[i], i))[:MAX_CANDIDATES]


@given(st.integers(0, 2**32), st.sampled_from([0, 10, 1000, 5000]), st.sampled_from([3, 10_000]))
@settings(max_examples=40, deadline=None)
def test_candidates_agree_with_a_plain_sort(seed: int, count: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    scores = (random.integers(0, levels, (count, 2)) / levels).astype(np.float32)
    chosen, values = candidates(scores)
    assert chosen.tolist() == slow_candidates(scores)
    np.testing.assert_array_equal(values, scores.ravel()[chosen])


def test_candidates_of_logits_are_those_of_their_probabilities() -> None:
    logits = np.linspace(-12, 12, 997, dtype=np.float32)
    chosen, values = candidates(logits, logits=True)
    expected, probabilities = candidates(1 / (1 + np.exp(-logits)))
    np.testing.assert_array_equal(chosen, expected)
    np.testing.assert_allclose(values, probabilities, rtol=1e-5)


def test_sigmoid_does_not_overflow() -> None:
    values = sigmoid(np.array([-1e30, -100, 0, 100, 1e30], np.float32))
    assert values.dtype == np.float32
    assert values == pytest.approx([0, 0, 0.5, 1, 1])
