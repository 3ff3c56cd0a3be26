"""How well the models answer, on every runtime: ``python benchmarks/accuracy.py``.

NanoDet: COCO's mean average precision on ``coco-train128.tar``, all boxes from a score of 0.01 on,
at most 100 a picture. EfficientNet-Lite0: top-1 and top-5 on ``imagenet-500.tar``. Pictures go
through the same decoder, at the same scaled size, as requests do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from assets import dataset, members, weights
from common import show
from retinue.core import plugins
from retinue.core.protocols import Model
from retinue.core.settings import Execution, Limits
from retinue.core.types import Detections, Image, Scores
from retinue.measure.classification import top_k
from retinue.measure.detection import DetectionScore, Truth, coco_map
from retinue.media.decode import decode
from retinue.models.loading import load_model

RUNTIMES = plugins.names(plugins.RUNTIMES)
AGREEMENT = 0.1


def opened(content: bytes, model: Model) -> Image:
    return decode(content, limits=Limits(), target=model.decode_size)


def predictions(model: Model, pictures: list[bytes]) -> Iterator[Detections | Scores]:
    for content in pictures:
        value = model.predict([opened(content, model)])[0].unwrap()
        assert isinstance(value, Detections | Scores)
        yield value


def coco(path: Path) -> tuple[list[bytes], list[bytes]]:
    """Return the photos and their labels: "class cx cy w h" a line, shares of the size."""
    files = dict(members(path))
    photos = sorted(name for name in files if name.endswith(".jpg"))
    labels = [f"labels/{Path(name).stem}.txt" for name in photos]
    return [files[name] for name in photos], [files.get(name, b"") for name in labels]


def truth(labels: bytes, width: int, height: int) -> Truth:
    rows = np.array([line.split()[:5] for line in labels.decode().splitlines()], np.float64)
    rows = rows.reshape(-1, 5)
    half = rows[:, 3:] / 2
    boxes = np.concatenate([rows[:, 1:3] - half, rows[:, 1:3] + half], axis=1)
    return Truth(boxes * [width, height, width, height], rows[:, 0].astype(int), width, height)


def detection(path: Path) -> None:
    entry = weights("nanodet-g-416")
    photos, labels = coco(path)
    scores: dict[str, DetectionScore] = {}
    confidences: list[list[float]] = []
    rows = []
    for name in RUNTIMES:
        model = load_model(entry, Execution(runtime=name, threads=2))
        truths = []
        for photo, label in zip(photos, labels, strict=True):
            image = opened(photo, model)
            truths.append(truth(label, image.width, image.height))
        found = [value for value in predictions(model, photos) if isinstance(value, Detections)]
        score = coco_map(zip(found, truths, strict=True))
        scores[name] = score
        confidences.append([float(s) for value in found for s in value.scores])
        rows.append((name, *(f"{v:.4f}" for v in (score.map, score.map50, score.map75))))
        model.close()
    spread = 100 * np.ptp([score.map for score in scores.values()])
    shift = max(max(abs(np.subtract(c, confidences[0]))) for c in confidences)
    some = next(iter(scores.values()))
    show(
        f"NanoDet-g 416 in f32, {some.images} COCO photos, {some.boxes} boxes",
        ("runtime", "mAP@[.50:.95]", "mAP50", "mAP75"),
        rows,
        notes=[
            f"The runtimes differ by {spread:.3f} points ("
            f"{'within' if spread <= AGREEMENT else 'BEYOND'} {AGREEMENT}), "
            f"a score by at most {shift:.1e}.",
            "These are photos of COCO's training set. The paper's mAP on all of val2017 is 22.9.",
        ],
    )


def classification(path: Path) -> None:
    entry = weights("efficientnet-lite0")
    files = dict(members(path))
    ids = {item["wnid"]: item["index"] for item in json.loads(files["classes.json"])}
    photos = sorted(name for name in files if name.startswith("images/"))
    labels = np.array([ids[Path(name).name.partition("_")[0]] for name in photos])
    rows = []
    for name in RUNTIMES:
        model = load_model(entry, Execution(runtime=name, threads=2))
        values = predictions(model, [files[photo] for photo in photos])
        answers = np.stack([value.values for value in values if isinstance(value, Scores)])
        first, fifth = (top_k(answers, labels, k) for k in (1, 5))
        interval = f"{100 * first.low:.1f} .. {100 * first.high:.1f}"
        rows.append((name, f"{100 * first.value:.1f}", interval, f"{100 * fifth.value:.1f}"))
        model.close()
    show(
        f"EfficientNet-Lite0 in f32, {len(photos)} ImageNet photos",
        ("runtime", "top-1 %", "95 % interval", "top-5 %"),
        rows,
        notes=["They are probably training photos; its authors give 75.1 % on validation photos."],
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    if (path := dataset("coco-train128.tar")) is not None:
        detection(path)
    if (path := dataset("imagenet-500.tar")) is not None:
        classification(path)


if __name__ == "__main__":
    main()
