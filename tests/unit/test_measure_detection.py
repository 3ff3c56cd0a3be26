"""COCO's mean average precision against figures worked out by hand and a slow twin."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from retinue.core.errors import MissingExtra
from retinue.core.types import Detections
from retinue.measure.detection import Truth, coco_map

BOX = (10.0, 10.0, 60.0, 50.0)
FAR = (200.0, 200.0, 260.0, 250.0)
OTHER = (300.0, 100.0, 380.0, 190.0)

Pairs = list[tuple[Detections, Truth]]


def found(*items: tuple[tuple[float, float, float, float], float, int]) -> Detections:
    boxes = np.array([box for box, _, _ in items], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in items], np.float32)
    return Detections(boxes, scores, np.array([c for _, _, c in items], np.int64))


def truth(*items: tuple[tuple[float, float, float, float], int], crowd: int = 0) -> Truth:
    boxes = np.array([box for box, _ in items], np.float64).reshape(-1, 4)
    flags = np.arange(len(items)) >= len(items) - crowd
    return Truth(boxes, np.array([c for _, c in items], np.int64), 400, 300, flags)


def test_all_right() -> None:
    score = coco_map([(found((BOX, 0.9, 4), (FAR, 0.8, 0)), truth((BOX, 4), (FAR, 0)))])
    assert score.map == score.map50 == score.map75 == pytest.approx(1)
    assert score.per_class == pytest.approx({0: 1, 4: 1})
    assert (score.images, score.boxes) == (1, 2)


def test_nothing_found_and_all_wrong() -> None:
    for detections in (found(), found((BOX, 0.9, 7)), found((OTHER, 0.9, 0))):
        score = coco_map([(detections, truth((BOX, 0)))])
        assert (score.map, score.map50) == (0, 0)
        assert score.per_class == {0: 0}


def test_half_found() -> None:
    # Recall reaches 1/2 with precision 1: of the recall levels 0, .01, ..., 1 that is 51 of 101.
    score = coco_map([(found((BOX, 0.9, 0)), truth((BOX, 0), (FAR, 0)))])
    assert score.map == score.map50 == pytest.approx(51 / 101)


def test_a_better_false_one_halves_the_precision() -> None:
    score = coco_map([(found((OTHER, 0.9, 0), (BOX, 0.8, 0)), truth((BOX, 0)))])
    assert score.map == pytest.approx(1 / 2)
    score = coco_map([(found((BOX, 0.9, 0), (OTHER, 0.8, 0)), truth((BOX, 0)))])
    assert score.map == pytest.approx(1)


def test_a_second_box_on_one_object_is_false() -> None:
    detections = found((BOX, 0.9, 0), (BOX, 0.8, 0), (FAR, 0.7, 0))
    score = coco_map([(detections, truth((BOX, 0), (FAR, 0)))])
    # Precision 1 up to recall 1/2, then 2/3.
    assert score.map50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_overlap_decides_at_which_bounds_it_counts() -> None:
    # 50 x 40 against 50 x 31 inside it: IoU .775, right at .50, .55, ..., .75.
    inside = (10.0, 10.0, 60.0, 41.0)
    score = coco_map([(found((inside, 0.9, 0)), truth((BOX, 0)))])
    assert score.map50 == score.map75 == pytest.approx(1)
    assert score.map == pytest.approx(6 / 10)


def test_classes_weigh_the_same_and_absent_ones_nothing() -> None:
    detections = found((BOX, 0.9, 0), (FAR, 0.9, 5), (OTHER, 0.9, 7))
    score = coco_map([(detections, truth((BOX, 0), (OTHER, 5)))])
    assert score.per_class == pytest.approx({0: 1, 5: 0})
    assert score.map == pytest.approx(1 / 2)


def test_crowds_count_neither_way() -> None:
    detections = found((OTHER, 0.9, 0), (BOX, 0.8, 0))
    score = coco_map([(detections, truth((BOX, 0), (OTHER, 0), crowd=1))])
    assert score.map == pytest.approx(1)
    assert score.boxes == 1
    only_crowd = coco_map([(detections, truth((BOX, 0), (OTHER, 3), crowd=1))])
    assert set(only_crowd.per_class) == {0}


def test_scores_are_compared_across_images() -> None:
    pairs = [
        (found((OTHER, 0.9, 0)), truth()),
        (found((BOX, 0.8, 0)), truth((BOX, 0))),
        (found(), truth()),
    ]
    assert coco_map(pairs).map == pytest.approx(1 / 2)


def test_only_the_best_detections_count() -> None:
    pairs = [(found((OTHER, 0.9, 0), (BOX, 0.8, 0)), truth((BOX, 0)))]
    assert coco_map(pairs, max_detections=1).map == 0


def slow_ap(pairs: Pairs, class_id: int, bound: float) -> float:
    """Average precision at 101 recall levels, by the definition."""
    total = sum(int((truth.class_ids == class_id).sum()) for _, truth in pairs)
    events = []
    for detections, true in pairs:
        mine = true.boxes[true.class_ids == class_id]
        free = [True] * len(mine)
        chosen = np.flatnonzero(detections.class_ids == class_id)
        for i in chosen[np.argsort(-detections.scores[chosen], kind="stable")]:
            best, at = bound, -1
            for j, box in enumerate(mine):
                if free[j] and slow_iou(detections.boxes[i], box) >= best:
                    best, at = slow_iou(detections.boxes[i], box), j
            if at >= 0:
                free[at] = False
            events.append((-float(detections.scores[i]), at >= 0))
    events.sort(key=lambda event: event[0])
    right = np.cumsum([hit for _, hit in events])
    precision = right / np.arange(1, len(events) + 1)
    recall = right / total
    levels = np.linspace(0, 1, 101)
    return float(np.mean([max(precision[recall >= r - 1e-12], default=0.0) for r in levels]))


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(w * h / (sum(areas) - w * h))


@pytest.mark.parametrize("seed", range(3))
def test_against_the_slow_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs: Pairs = []
    for _ in range(12):
        n = int(rng.integers(0, 6))
        corner = rng.uniform(0, 200, (n, 2))
        boxes = np.hstack([corner, corner + rng.uniform(20, 100, (n, 2))]).astype(np.float32)
        ids = rng.integers(0, 3, n)
        moved = np.vstack([boxes + rng.normal(0, 5, boxes.shape), boxes + 150]).astype(np.float32)
        scores = rng.permutation(2 * n).astype(np.float32) / 100 + rng.uniform(0, 0.009)
        detections = Detections(moved, scores.astype(np.float32), np.hstack([ids, ids]))
        pairs.append((detections, Truth(boxes, ids, 400, 400)))
    score = coco_map(pairs)
    bounds = np.linspace(0.5, 0.95, 10)
    twin = {c: [slow_ap(pairs, c, bound) for bound in bounds] for c in range(3)}
    assert score.per_class == pytest.approx({c: np.mean(aps) for c, aps in twin.items()}, abs=1e-6)
    assert score.map50 == pytest.approx(np.mean([aps[0] for aps in twin.values()]), abs=1e-6)
    assert score.map75 == pytest.approx(np.mean([aps[5] for aps in twin.values()]), abs=1e-6)


def test_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    coco_map([(found((BOX, 0.9, 0)), truth((BOX, 0)))])
    assert capfd.readouterr() == ("", "")


def test_no_truth_at_all_has_no_figure() -> None:
    with pytest.raises(ValueError, match="no true box"):
        coco_map([(found((BOX, 0.9, 0)), truth())])


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="boxes must be"):
        Truth(np.zeros((2, 3)), np.zeros(2, np.int64), 9, 9)
    with pytest.raises(ValueError, match="crowd must be"):
        Truth(np.zeros((2, 4)), np.zeros(2, np.int64), 9, 9, np.zeros(3, np.bool_))


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtra, match=r"retinue\[measure\]"):
        coco_map([])
