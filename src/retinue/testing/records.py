"""Records of every kind, and their comparison to the last bit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from retinue.core.errors import CorruptMedia, ModelNotFound, QueueFull
from retinue.core.record import Record
from retinue.core.types import Array, Detections, Embedding, Landmarks, Mask, Outcome, Scores

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

ODD_TEXTS = (
    "",
    "a\0b",
    "caf\udce9.jpg",  # a file name that is not UTF-8, as Python gives it
    "x" * 10_000,
    "x" * 9_999 + "y",
    "猫 🐈",
    "'; DROP TABLE retinue_records; --",
    "%_\\",
)


def _frozen(values: ArrayLike, dtype: str) -> Array:
    array = np.ascontiguousarray(values, dtype)
    array.flags.writeable = False
    return array


def detections(count: int = 3, *, seed: int = 0) -> Detections:
    """Return detections whose arrays are read-only."""
    random = np.random.default_rng(seed)
    return Detections(
        boxes=_frozen(random.random((count, 4)) * 640, "f4"),
        scores=_frozen(np.sort(random.random(count))[::-1], "f4"),
        class_ids=_frozen(random.integers(0, 80, count), "i8"),
    )


def with_keypoints(count: int) -> Detections:
    """Return detections with six keypoints each."""
    found = detections(count)
    points = np.random.default_rng(count).random((count, 6, 2))
    return replace(found, keypoints=_frozen(points, "f4"))


def outcomes() -> list[Outcome]:
    """Return one outcome of each kind: all values, none at all, extreme ones, and failures."""
    random = np.random.default_rng(7)
    embedding = Embedding(_frozen(random.normal(size=16), "f4"))
    odd = Detections(
        boxes=_frozen([[0, -0.0, np.inf, 1e-45]] * 2, "f4"),
        scores=_frozen([np.nan, 1.0], "f4"),
        class_ids=_frozen([2**62, -1], "i8"),
    )
    timings = {"decode": 1.25, "queue": 0.1, "run": 30.0, "total": 31.35}
    return [
        Outcome(value=detections(), timings_ms=timings),
        Outcome(value=detections(0)),
        Outcome(value=odd),
        Outcome(value=Scores(_frozen(random.random(10), "f4")), embedding=embedding),
        Outcome(value=Scores(_frozen([], "f4"))),
        Outcome(value=embedding, timings_ms={"total": 0.1 + 0.2}),
        Outcome(value=Landmarks(_frozen(random.random((21, 3)), "f4"), 0.1)),
        Outcome(value=with_keypoints(3)),
        Outcome(value=with_keypoints(0)),
        Outcome(value=Mask(_frozen(random.integers(0, 256, (5, 7)), "u1"), 640, 480)),
        Outcome(error=CorruptMedia("the JPEG ends early; send it again"), timings_ms=timings),
        Outcome(error=QueueFull("the queue is full\0\udce9"), embedding=embedding),
        Outcome(error=ModelNotFound("no model 'x'")),
    ]


def record(number: int = 0, **fields: Any) -> Record:
    """Return a record made so many seconds after `NOON`; any field may be given instead."""
    defaults: dict[str, Any] = {
        "app": "detect",
        "model": "nanodet",
        "version": "0123456789ab",
        "outcome": Outcome(value=detections(seed=number), timings_ms={"total": 41.5}),
        "source": "gate-2",
        "input_sha256": f"{number:064x}",
        "width": 640,
        "height": 427,
        "batch_size": 2,
        "queue_depth": 1,
        "id": f"{number:032x}",
        "created_at": NOON + timedelta(seconds=number),
        "tags": {"camera": "gate-2"},
    }
    return Record(**(defaults | fields))


def records() -> list[Record]:
    """Return a record of each of `outcomes`."""
    return [record(number, outcome=outcome) for number, outcome in enumerate(outcomes())]


def _plain(value: object) -> object:
    """Turn a value into something that compares bit by bit."""
    match value:
        case np.ndarray():
            return value.dtype.str, value.shape, value.tobytes()
        case Detections(boxes, scores, class_ids, keypoints):
            plain = [_plain(array) for array in (boxes, scores, class_ids, keypoints)]
            return "detections", *plain
        case Scores(values):
            return "scores", _plain(values)
        case Embedding(vector):
            return "embedding", _plain(vector)
        case Landmarks(points, score):
            return "landmarks", _plain(points), repr(score)
        case Mask(alpha, width, height):
            return "mask", _plain(alpha), width, height
        case _:
            return value


def fingerprint(given: Record) -> dict[str, object]:
    """Return all that a record says; two records are the same when these are equal."""
    outcome = given.outcome
    names = (
        *("app", "model", "version", "source", "input_sha256", "width", "height"),
        *("batch_size", "queue_depth", "id", "created_at"),
    )
    error = outcome.error
    return {name: getattr(given, name) for name in names} | {
        "tags": dict(given.tags),
        "value": _plain(outcome.value),
        "embedding": _plain(outcome.embedding),
        "timings_ms": {name: repr(value) for name, value in outcome.timings_ms.items()},
        "error": None if error is None else (error.code, error.message),
    }
