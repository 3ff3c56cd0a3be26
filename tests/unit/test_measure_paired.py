"""Paired intervals: against COCO's own evaluator, by hand, and how often they are right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retinue.core.types import Detections
from retinue.measure import paired
from retinue.measure.detection import Truth, coco_map
from retinue.measure.paired import Interval, Paired, paired_map, paired_mean

Item = tuple[int, int, int, int, float]
# Few places, sizes, scores and classes: ties and equal overlaps are the rule.
items = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 1),
        st.sampled_from([10, 14, 20]),
        st.integers(0, 2),
        st.sampled_from([0.1, 0.5, 0.5, 0.9]),
    ),
    max_size=9,
)


def corners(rows: list[Item]) -> np.ndarray:
    boxes = [(3.3 * x, 2.7 * y, 3.3 * x + size, 2.7 * y + size + x) for x, y, size, _, _ in rows]
    return np.array(boxes, np.float64).reshape(-1, 4)


def found(rows: list[Item]) -> Detections:
    scores = np.array([row[4] for row in rows], np.float32)
    ids = np.array([row[3] for row in rows], np.int64)
    return Detections(corners(rows).astype(np.float32), scores, ids)


def truth(rows: list[Item]) -> Truth:
    crowd = np.array([row[4] == 0.1 for row in rows], bool)
    ids = np.array([row[3] for row in rows], np.int64)
    return Truth(corners(rows), ids, 64, 64, crowd if crowd.any() else None)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(items, items, items), min_size=1, max_size=6), st.sampled_from([2, 100]))
def test_the_figures_are_those_of_the_standard_evaluator(
    images: list[tuple[list[Item], list[Item], list[Item]]], most: int
) -> None:
    truths = [truth(rows) for rows, _, _ in images]
    assume(any(len(t.boxes) and (t.crowd is None or not t.crowd.all()) for t in truths))
    sides = [[found(image[side]) for image in images] for side in (1, 2)]
    result = paired_map(*sides, truths, resamples=3, max_detections=most)
    for side, figure in zip(sides, (result.a, result.b), strict=True):
        standard = coco_map(zip(side, truths, strict=True), max_detections=most)
        assert figure.value == pytest.approx(standard.map, abs=1e-6)
    assert result.difference.value == pytest.approx(result.b.value - result.a.value)


def scene(seed: int, images: int, noise: float) -> tuple[list[Detections], list[Truth]]:
    """A detector that misses, invents and displaces boxes, the more the greater the noise."""
    rng = np.random.default_rng(seed)
    detections, truths = [], []
    for _ in range(images):
        n = int(rng.integers(0, 6))
        corner = rng.uniform(0, 300, (n, 2))
        boxes = np.hstack([corner, corner + rng.uniform(30, 120, (n, 2))])
        ids = rng.integers(0, 5, n)
        truths.append(Truth(boxes, ids, 420, 420))
        seen = rng.random(n) < 0.8
        moved = boxes[seen] + rng.normal(0, 2 + noise, (int(seen.sum()), 4))
        invented = np.tile([[5.0, 5.0, 60.0, 60.0]], (2, 1)) + rng.uniform(0, 100, (2, 1))
        scores = np.concatenate([rng.uniform(0.3, 1, int(seen.sum())), rng.uniform(0, 0.7, 2)])
        every = np.concatenate([ids[seen], rng.integers(0, 5, 2)])
        both = np.vstack([moved, invented]).astype(np.float32)
        detections.append(Detections(both, scores.astype(np.float32), every.astype(np.int64)))
    return detections, truths


def test_a_resample_is_the_evaluator_on_the_images_that_were_drawn() -> None:
    a, truths = scene(0, 20, 1)
    b, _ = scene(0, 20, 6)
    result = paired_map(a, b, truths, resamples=5, seed=3)
    drawn = np.random.default_rng(3).multinomial(20, np.full(20, 1 / 20), 5)
    slow = []
    for counts in drawn:
        chosen = np.repeat(np.arange(20), counts)
        first, second = (coco_map([(side[i], truths[i]) for i in chosen]).map for side in (a, b))
        slow.append(second - first)
    moved = np.array(slow) + result.difference.value - np.mean(slow)
    assert result.differences == pytest.approx(moved, abs=2e-3)


def test_the_same_answers_differ_in_nothing() -> None:
    a, truths = scene(1, 30, 1)
    result = paired_map(a, a, truths, resamples=50)
    assert (result.difference.low, result.difference.value, result.difference.high) == (0, 0, 0)
    assert result.a.low < result.a.value < result.a.high
    assert result.images == 30
    assert result.worse_than(0) == 0


def test_a_clear_loss_is_told() -> None:
    a, truths = scene(2, 60, 0)
    b, _ = scene(2, 60, 12)
    result = paired_map(a, b, truths, resamples=200)
    assert result.difference.high < -0.02
    assert result.worse_than(0.02) == 1
    assert (result.verdict(0.005), result.verdict(0.9)) == ("beyond", "within")


def test_in_chunks_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, truths = scene(3, 12, 1)
    b, _ = scene(3, 12, 4)
    whole = paired_map(a, b, truths, resamples=30)
    monkeypatch.setattr(paired, "_CELLS", 12 * 7)
    assert paired_map(a, b, truths, resamples=30).differences == pytest.approx(whole.differences)


def test_resamples_without_any_truth_are_left_out() -> None:
    box = np.array([[0.0, 0.0, 9.0, 9.0]])
    empty = Truth(np.zeros((0, 4)), np.zeros(0, np.int64), 9, 9)
    one = Detections(box.astype(np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    none = found([])
    truths = [Truth(box, np.zeros(1, np.int64), 9, 9), empty]
    result = paired_map([one, none], [none, none], truths, resamples=400)
    assert (result.a.value, result.b.value) == (pytest.approx(1), 0)
    assert 250 < result.resamples == len(result.differences) < 350


def test_means_by_hand() -> None:
    result = paired_mean(np.array([1, 1, 0, 1]), np.array([True, False, False, False]))
    assert (result.a.value, result.b.value, result.difference.value) == (0.75, 0.25, -0.5)
    assert result.a.low < 0.75 < result.a.high
    assert result.difference.low == -1
    assert result.images == 4
    assert result.resamples == 2000
    # The interval of a mean is near the textbook's.
    values = np.random.default_rng(0).normal(0, 1, 400)
    half = paired_mean(np.zeros(400), values).difference.half_width
    assert half == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_a_seed_makes_it_repeatable() -> None:
    a, b = np.random.default_rng(0).random((2, 50))
    assert paired_mean(a, b) == paired_mean(a, b)
    assert paired_mean(a, b).difference != paired_mean(a, b, seed=1).difference


def test_pairing_narrows() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(300)
    result = paired_mean(hard, hard - 0.01 + rng.normal(0, 0.01, 300))
    assert result.difference.half_width < 0.1 * result.a.half_width
    assert result.verdict(0.02) == "within"


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(200):
        right = (rng.random((2, 150)) < [[0.8], [0.7]]).astype(float)
        interval = paired_mean(right[0], right[1], resamples=400, seed=seed).difference
        held += interval.low <= -0.1 <= interval.high
    assert 180 <= held <= 198


@pytest.mark.parametrize(
    ("low", "high", "images", "expected"),
    [
        (-0.004, 0.002, 100, "within"),
        (-0.006, 0.002, 100, "open"),
        (-0.02, -0.006, 100, "beyond"),
        (0.0, 0.0, 599, "open"),
        (0.0, 0.0, 600, "within"),
        (-0.01, -0.01, 10, "beyond"),
    ],
)
def test_verdicts(low: float, high: float, images: int, expected: str) -> None:
    one = Interval((low + high) / 2, low, high)
    assert Paired(one, one, one, images, 2, np.array([low, high])).verdict(0.005) == expected


def test_a_gain_does_not_make_few_images_enough() -> None:
    a = np.repeat([1.0, 0.0], [50, 14])
    b = np.repeat([1.0, 0.0], [51, 13])
    assert paired_mean(a, b).verdict(0.005) == "open"
    assert paired_mean(np.tile(a, 10), np.tile(b, 10)).verdict(0.005) == "within"
    much = np.repeat([1.0, 0.0], [60, 4])
    assert paired_mean(a, much).verdict(0.005) == "within"


def test_bad_arguments_are_refused() -> None:
    a, truths = scene(0, 3, 1)
    with pytest.raises(ValueError, match="lengths differ: 3, 2, 3"):
        paired_map(a, a[:2], truths)
    with pytest.raises(ValueError, match="no true box"):
        paired_map([found([])], [found([])], [truth([])])
    with pytest.raises(ValueError, match="no true box"):
        paired_map([], [], [])
    for one, other in ((np.zeros(2), np.zeros(3)), (np.zeros(0),) * 2, (np.zeros((2, 2)),) * 2):
        with pytest.raises(ValueError, match="need two arrays"):
            paired_mean(one, other)
    with pytest.raises(ValueError, match="not finite"):
        paired_mean(np.array([np.nan]), np.zeros(1))
    for resamples, confidence in ((0, 0.95), (10, 1.0), (10, 0.0)):
        with pytest.raises(ValueError, match="need resamples"):
            paired_mean(np.zeros(2), np.ones(2), resamples=resamples, confidence=confidence)
