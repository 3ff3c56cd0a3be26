"""The app's decision and its answer: the same object over HTTP and on the command line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from retinue.core.apps import Services
from retinue.core.errors import InvalidRequest, RetinueError
from retinue.core.protocols import Pipeline
from retinue.core.record import Record
from retinue.core.types import Detections
from retinue.models.card import Card


def choose(services: Services, model: str, key: bytes | str = b"") -> tuple[Pipeline, Card]:
    """Return the pipeline and card of a detector; "" names the app's default.

    See `Services.pipeline` for ``model`` and ``key``.

    Raises:
        ModelNotFound: it is not loaded.
        InvalidRequest: it is not a detector.
    """
    name = model or services.app_settings("detect").model
    pipeline = services.pipeline(name, key=key)
    card: Card = pipeline.model.card
    if card.task != "detect":
        raise InvalidRequest(f"model {name!r} is for {card.task}, not for detect")
    return pipeline, card


def decide(record: Record, conf: float) -> Record:
    """Return the record with only the detections that score at least ``conf``."""
    value = record.outcome.value
    if not isinstance(value, Detections):
        return record
    keep = value.scores >= np.float32(conf)
    kept = Detections(value.boxes[keep], value.scores[keep], value.class_ids[keep])
    return replace(record, outcome=replace(record.outcome, value=kept))


def answer(record: Record, card: Card) -> dict[str, Any]:
    """Return the JSON object that answers for a record.

    Raises:
        RetinueError: the record's own error.
    """
    detections = record.outcome.unwrap()
    assert isinstance(detections, Detections)
    rows = zip(detections.class_ids, detections.scores, detections.boxes, strict=True)
    return {
        "path": record.source,
        "width": record.width,
        "height": record.height,
        "model": record.model,
        "model_version": record.version,
        "detections": [
            {
                "class": card.classes[class_id],
                "class_id": int(class_id),
                "score": round(float(score), 4),
                "box": [round(float(edge), 2) for edge in box],
            }
            for class_id, score, box in rows
        ],
        "timings_ms": {k: round(v, 3) for k, v in record.outcome.timings_ms.items()},
    }


def failure(path: str, error: RetinueError) -> dict[str, Any]:
    """Return the JSON object that answers for an input that failed."""
    # A message may name a file whose name is not UTF-8, which JSON cannot hold.
    message = error.message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return {"path": path, "error": {"code": error.code, "message": message}}
