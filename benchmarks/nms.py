"""Non-maximum suppression against its slow twin and the usual ways: ``python benchmarks/nms.py``.

Boxes lie in clusters of about 20, of 80 classes, as a detector's candidates do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from common import interleaved, ms, show
from retinue.models.nms import nms

IOU = 0.6
Scene = tuple[np.ndarray, np.ndarray, np.ndarray]


def scene(count: int) -> Scene:
    random = np.random.default_rng(count)
    clusters = max(1, count // 20)
    centers = random.uniform(0, 400, (clusters, 2))
    sizes = random.uniform(20, 150, (clusters, 2))
    which = random.integers(0, clusters, count)
    center = centers[which] + random.normal(0, 6, (count, 2))
    half = sizes[which] * np.exp(random.normal(0, 0.15, (count, 2))) / 2
    boxes = np.concatenate([center - half, center + half], axis=1).astype(np.float32)
    return boxes, random.uniform(0.01, 1, count).astype(np.float32), which.astype(np.int64) % 80


def slow(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """The tests' twin: plain loops over boxes."""
    left = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    corners = boxes.astype(np.float64).tolist()
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [
            i
            for i in left
            if class_ids[i] != class_ids[best] or overlap(corners[best], corners[i]) <= IOU
        ]
    return np.array(kept)


def overlap(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def vectorised(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """NumPy: the best box against all others at once, classes moved apart by an offset."""
    moved = boxes - boxes.min() + (class_ids * (np.ptp(boxes) + 1))[:, None]
    areas = (moved[:, 2] - moved[:, 0]) * (moved[:, 3] - moved[:, 1])
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low = np.maximum(moved[best, :2], moved[rest, :2])
        high = np.minimum(moved[best, 2:], moved[rest, 2:])
        common = np.clip(high - low, 0, None).prod(axis=1)
        order = rest[common / (areas[best] + areas[rest] - common) <= IOU]
    return np.array(kept)


def batched(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """OpenCV's own batched form, which moves classes apart too."""
    corners = boxes.astype(np.float64)
    corners[:, 2:] -= corners[:, :2]
    return np.asarray(
        cv2.dnn.NMSBoxesBatched(corners, scores, class_ids.astype(np.int32), 0.0, IOU)
    )


def fast(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    return nms(boxes, scores, class_ids, IOU, len(boxes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows = []
    for count in (100, 1000, 5000):
        boxes = scene(count)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "retinue: NMSBoxes class by class": partial(fast, *boxes),
            "OpenCV NMSBoxesBatched": partial(batched, *boxes),
            "NumPy, one box against all": partial(vectorised, *boxes),
        }
        if count <= 1000:
            ways["slow twin"] = partial(slow, *boxes)
        timings = interleaved(ways, rounds=options.rounds if count < 5000 else 5, warmup=1)
        kept = {name: way() for name, way in ways.items()}
        reference = kept["retinue: NMSBoxes class by class"]
        for name, timing in timings.items():
            same = "yes" if np.array_equal(kept[name], reference) else "no"
            cells = (ms(timing.best), ms(timing.median), len(kept[name]), same)
            rows.append((f"{count} boxes, {name}", *cells))
    show("Non-maximum suppression", ("", "best ms", "median ms", "kept", "same"), rows)


if __name__ == "__main__":
    main()
