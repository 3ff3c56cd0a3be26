"""The values check their shapes, and ids sort by time."""

import dataclasses
import time

import numpy as np
import pytest

from retinue.core.errors import InputError
from retinue.core.record import Record, new_id
from retinue.core.types import Detections, Embedding, Image, Landmarks, Outcome, Scores


def test_an_image_must_be_rgb_bytes() -> None:
    good = np.zeros((2, 3, 3), np.uint8)
    assert Image(good, 3, 2).pixels is good
    for bad in (good.astype(np.float32), good[..., 0], good[:0], np.zeros((2, 3, 4), np.uint8)):
        with pytest.raises(ValueError, match="pixels"):
            Image(bad, 3, 2)  # type: ignore[arg-type]


def test_detections_agree_in_length() -> None:
    boxes, scores, ids = np.zeros((2, 4), "f4"), np.zeros(2, "f4"), np.zeros(2, "i8")
    assert len(Detections(boxes, scores, ids)) == 2
    with pytest.raises(ValueError, match="scores"):
        Detections(boxes, scores[:1], ids)
    with pytest.raises(ValueError, match="boxes"):
        Detections(boxes[:, :3], scores, ids)
    with pytest.raises(ValueError, match="class_ids"):
        Detections(boxes, scores, ids[:1])


def test_vectors_and_points_have_their_ranks() -> None:
    with pytest.raises(ValueError, match="values"):
        Scores(np.zeros((1, 2), "f4"))
    with pytest.raises(ValueError, match="vector"):
        Embedding(np.zeros((1, 2), "f4"))
    with pytest.raises(ValueError, match="points"):
        Landmarks(np.zeros((5, 2), "f4"), 1.0)


def test_an_outcome_has_a_value_or_an_error() -> None:
    value, error = Scores(np.zeros(2, "f4")), InputError("no")
    assert Outcome(value).unwrap() is value
    with pytest.raises(InputError, match="no"):
        Outcome(error=error).unwrap()
    with pytest.raises(ValueError, match="value or an error"):
        Outcome(value, error)
    with pytest.raises(ValueError, match="value or an error"):
        Outcome()


def test_values_are_frozen() -> None:
    record = Record("detect", "m", "v", Outcome(error=InputError("no")))
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.app = "other"  # type: ignore[misc]


def test_ids_are_unique_and_sort_by_time() -> None:
    first = new_id()
    time.sleep(0.002)
    later = [new_id() for _ in range(1000)]
    assert len(set(later)) == 1000
    assert all(first < other for other in later)
