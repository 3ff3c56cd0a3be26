"""BlazeFace: anchors, blending, keypoints, and the frame's short way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import ConfigError
from retinue.core.types import Detections, Image, TensorSpec
from retinue.models.blazeface import (
    FULL_RANGE,
    SHORT_RANGE,
    BlazeFace,
    Found,
    _anchors,
    blend,
)
from retinue.models.card import Card
from retinue.testing.function_runtime import FunctionRuntime
from retinue.testing.tiny_outputs import runtime_for

ANCHORS = {"blazeface-short-range": 896, "blazeface-full-range": 2304}


def runtime(card: Card, faces: dict[int, tuple[float, list[float]]]) -> FunctionRuntime:
    """Answer some anchors' (logit, regressors); the rest are no faces."""
    count = ANCHORS[card.name]
    scores = np.full((count, 1), -50, np.float32)
    regressors = np.zeros((count, 16), np.float32)
    for anchor, (score, values) in faces.items():
        scores[anchor], regressors[anchor] = score, values
    size = card.input.height
    return FunctionRuntime(
        (TensorSpec("images", "float32", (1, 3, size, size)),),
        (
            TensorSpec("regressors", "float32", (1, count, 16)),
            TensorSpec("classificators", "float32", (1, count, 1)),
        ),
        lambda row: {"regressors": regressors, "classificators": scores},
    )


def test_anchors_are_those_of_mediapipe() -> None:
    short, full = _anchors(SHORT_RANGE, 2), _anchors(FULL_RANGE, 1)
    assert short.shape == (896, 2)
    assert full.shape == (2304, 2)
    np.testing.assert_allclose(short[:3] / 128, [[1 / 32] * 2] * 2 + [[3 / 32, 1 / 32]])
    np.testing.assert_allclose(short[512:519] / 128, [[1 / 16] * 2] * 6 + [[3 / 16, 1 / 16]])
    np.testing.assert_allclose(full[:2] / 192, [[1 / 96] * 2, [3 / 96, 1 / 96]])


def test_boxes_and_keypoints_are_offsets_from_the_anchor() -> None:
    values = [1.0, 2, 20, 10, *range(12)]
    model = BlazeFace(SHORT_RANGE, "v", runtime(SHORT_RANGE, {512 + 6 * 20: (3.0, values)}))
    frame = np.zeros((256, 512, 3), np.uint8)
    (outcome,) = model.predict([Image(frame, 512, 256)])
    found = outcome.unwrap()
    assert isinstance(found, Detections)
    # The anchor is the centre of cell (4, 2) of 8 x 8; the picture fills the middle half, by 4.
    x, y = 4 * (4.5 * 16), 4 * (2.5 * 16 - 32)
    np.testing.assert_allclose(found.boxes, [[x - 36, y - 12, x + 44, y + 28]], atol=1e-3)
    assert found.keypoints is not None
    wanted = np.arange(12).reshape(1, 6, 2) * 4 + [x, y]
    np.testing.assert_allclose(found.keypoints, wanted, atol=1e-3)
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-3))], rtol=1e-5)
    short = model.find(frame)
    for name in ("boxes", "scores", "class_ids", "keypoints"):
        np.testing.assert_array_equal(getattr(short, name), getattr(found, name))


def test_half_a_face_is_clipped_in_answers_and_whole_in_frames() -> None:
    values = [0.0, 0, 60, 60, *[0] * 12]
    model = BlazeFace(SHORT_RANGE, "v", runtime(SHORT_RANGE, {0: (3.0, values)}))
    frame = np.zeros((128, 128, 3), np.uint8)
    (outcome,) = model.predict([Image(frame, 128, 128)])
    found = outcome.unwrap()
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.boxes, [[0, 0, 34, 34]], atol=1e-4)
    np.testing.assert_allclose(model.find(frame).boxes, [[-26, -26, 34, 34]], atol=1e-4)
    beyond = [-80.0, 0, 60, 60, *[0] * 12]
    model = BlazeFace(SHORT_RANGE, "v", runtime(SHORT_RANGE, {0: (3.0, beyond)}))
    (outcome,) = model.predict([Image(frame, 128, 128)])
    gone = outcome.unwrap()
    assert isinstance(gone, Detections)
    assert len(gone) == 0


def test_no_face_and_twenty_faces() -> None:
    frame = np.zeros((192, 192, 3), np.uint8)
    none = BlazeFace(FULL_RANGE, "v", runtime(FULL_RANGE, {})).find(frame)
    assert (len(none), none.boxes.shape, none.keypoints.shape) == (0, (0, 4), (0, 6, 2))
    values = [0.0, 0, 6, 6, *[0] * 12]
    many = {100 * i + 3: (2.0 + i / 10, values) for i in range(20)}
    found = BlazeFace(FULL_RANGE, "v", runtime(FULL_RANGE, many)).find(frame)
    assert len(found) == 20
    assert (np.diff(found.scores) <= 0).all()
    few = FULL_RANGE.model_copy(
        update={"output": FULL_RANGE.output.model_copy(update={"max_detections": 3})}
    )
    assert len(BlazeFace(few, "v", runtime(FULL_RANGE, many)).find(frame)) == 3


def test_a_stretched_frame() -> None:
    card = SHORT_RANGE.model_copy(
        update={"input": SHORT_RANGE.input.model_copy(update={"resize": "stretch"})}
    )
    values = [0.0, 0, 8, 8, *[0] * 12]
    model = BlazeFace(card, "v", runtime(SHORT_RANGE, {0: (3.0, values)}))
    found = model.find(np.zeros((64, 256, 3), np.uint8))
    np.testing.assert_allclose(found.boxes, [[0, 0, 16, 4]], atol=1e-4)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    size = np.maximum(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0)
    shared = float(size[0] * size[1])
    areas = [float(np.prod(np.maximum(box[1] - box[0], 0))) for box in (a, b)]
    union = sum(areas) - shared
    return shared / union if union > 0 else 0.0


def blended(found: Found, iou: float) -> list[tuple[np.ndarray, float, int]]:
    """The definition, one pair at a time."""
    left = list(range(len(found.scores)))
    groups = []
    while left:
        top = left[0]
        group = [
            i
            for i in left
            if i == top
            or (
                found.class_ids[i] == found.class_ids[top]
                and overlap(found.points[i], found.points[top]) > iou
            )
        ]
        weights = found.scores[group]
        mean = sum(w * found.points[i] for w, i in zip(weights, group, strict=True)) / weights.sum()
        groups.append((mean, float(found.scores[top]), int(found.class_ids[top])))
        left = [i for i in left if i not in group]
    return groups


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.sampled_from([0.1, 0.3, 0.7]))
def test_blending_follows_its_definition(seed: int, count: int, iou: float) -> None:
    random = np.random.default_rng(seed)
    points = random.uniform(0, 40, (count, 8, 2)).astype(np.float32)
    points[:, 1] = points[:, 0] + random.uniform(1, 30, (count, 2))
    scores = np.sort(random.uniform(0.5, 1, count).astype(np.float32))[::-1]
    found = Found(points, scores, random.integers(0, 2, count))
    result, wanted = blend(found, iou), blended(found, iou)
    assert len(result.scores) == len(wanted)
    for at, (mean, score, class_id) in enumerate(wanted):
        np.testing.assert_allclose(result.points[at], mean, rtol=1e-4, atol=1e-4)
        assert (result.scores[at], result.class_ids[at]) == (np.float32(score), class_id)


def test_boxes_without_an_area_end() -> None:
    points = np.zeros((3, 8, 2), np.float32)
    found = Found(points, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64))
    assert len(blend(found, 0.3).scores) == 3


def test_other_outputs_are_refused() -> None:
    card = SHORT_RANGE.model_copy(update={"classes": ("face", "cat")})
    with pytest.raises(ConfigError, match="with 2 classes reads"):
        BlazeFace(card, "v", runtime(SHORT_RANGE, {}))
    output = SHORT_RANGE.output.model_copy(update={"strides": (32,)})
    wide = SHORT_RANGE.model_copy(
        update={"output": output, "input": SHORT_RANGE.input.model_copy(update={"height": 160})}
    )
    with pytest.raises(ConfigError):
        BlazeFace(wide, "v", runtime_for(SHORT_RANGE))
