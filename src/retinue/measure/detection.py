"""Accuracy of a detector: COCO's mean average precision, by a standard evaluator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import MissingExtra
from retinue.core.types import Detections

_IOU_50 = 0
_IOU_75 = 5
_AREA_ALL = 0


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is really in one image.

    Attributes:
        boxes: (N, 4) x1 y1 x2 y2 in pixels of the upright original.
        class_ids: (N,) integers.
        width: Width of the upright original in pixels.
        height: Height of the upright original in pixels.
        crowd: (N,) bool: boxes around many objects, which count neither for nor against; None
            for none.
    """

    boxes: NDArray[Any]
    class_ids: NDArray[Any]
    width: int
    height: int
    crowd: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.class_ids.shape != (n,):
            shapes = f"{self.boxes.shape}, {self.class_ids.shape}"
            raise ValueError(f"boxes must be (N, 4) and class_ids (N,): {shapes}")
        if self.crowd is not None and self.crowd.shape != (n,):
            raise ValueError(f"crowd must be ({n},), not {self.crowd.shape}")


@dataclass(frozen=True, slots=True)
class DetectionScore:
    """Average precision over a data set, each figure in [0, 1].

    Attributes:
        map: COCO's main figure: mean over classes and over IoU .50:.05:.95.
        map50: At IoU .50.
        map75: At IoU .75.
        per_class: AP (.50:.95) by class id, for the classes that the truth has.
        images: Number of images.
        boxes: Number of true boxes, crowds not counted.
    """

    map: float
    map50: float
    map75: float
    per_class: Mapping[int, float]
    images: int
    boxes: int


def coco_map(
    results: Iterable[tuple[Detections, Truth]], *, max_detections: int = 100
) -> DetectionScore:
    """Measure detections against the truth, as COCO does.

    Classes are those that the truth has; detections of other classes count for nothing, as in
    COCO's evaluator. Detect with a low confidence bound (0.01): the figure integrates over it.

    Source: T.-Y. Lin et al., "Microsoft COCO", ECCV 2014, computed by faster-coco-eval.

    Args:
        results: For each image what was found and what is there.
        max_detections: The best detections of each class and image that count.

    Raises:
        MissingExtra: faster-coco-eval is not installed.
        ValueError: there is no true box at all, so that the figure does not exist.
    """
    evaluator, dataset = _load()
    pairs = list(results)
    truth, classes, boxes = _truth(pairs)
    if not classes:
        raise ValueError("no true box in any image: average precision does not exist")
    found = _found(pairs, set(classes))
    if not found:
        nothing = MappingProxyType(dict.fromkeys(classes, 0.0))
        return DetectionScore(0.0, 0.0, 0.0, nothing, len(pairs), boxes)
    gold = dataset(truth)
    evaluation = evaluator(gold, gold.loadRes(found), "bbox")
    evaluation.params.maxDets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    # (IoU thresholds, recalls, classes, areas, detection limits); -1 where a class has no truth.
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, _AREA_ALL, -1]
    each = precision.mean(axis=(0, 1))
    return DetectionScore(
        map=float(precision.mean()),
        map50=float(precision[_IOU_50].mean()),
        map75=float(precision[_IOU_75].mean()),
        per_class=MappingProxyType({c: float(ap) for c, ap in zip(classes, each, strict=True)}),
        images=len(pairs),
        boxes=boxes,
    )


def _load() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import (  # type: ignore[import-untyped]
            COCO,
            COCOeval_faster,
        )
    except ImportError as error:
        message = "measuring detectors needs faster-coco-eval; install retinue[measure]"
        raise MissingExtra(message) from error
    return COCOeval_faster, COCO


def _truth(pairs: list[tuple[Detections, Truth]]) -> tuple[dict[str, Any], list[int], int]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    classes: set[int] = set()
    for image_id, (_, truth) in enumerate(pairs, start=1):
        images.append({"id": image_id, "width": truth.width, "height": truth.height})
        crowd = np.zeros(len(truth.boxes), bool) if truth.crowd is None else truth.crowd
        for box, class_id, is_crowd in zip(truth.boxes, truth.class_ids, crowd, strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            # Ids start at 1: the evaluator takes 0 for "not matched".
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(class_id),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(is_crowd),
                }
            )
            if not is_crowd:
                classes.add(int(class_id))
    kept = [a for a in annotations if a["category_id"] in classes]
    ordered = sorted(classes)
    categories = [{"id": c, "name": str(c)} for c in ordered]
    truths = {"images": images, "annotations": kept, "categories": categories}
    return truths, ordered, sum(not a["iscrowd"] for a in annotations)


def _found(pairs: list[tuple[Detections, Truth]], classes: set[int]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image_id,
            "category_id": int(class_id),
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": float(score),
        }
        for image_id, (detections, _) in enumerate(pairs, start=1)
        for (x1, y1, x2, y2), score, class_id in zip(
            detections.boxes, detections.scores, detections.class_ids, strict=True
        )
        if int(class_id) in classes
    ]
