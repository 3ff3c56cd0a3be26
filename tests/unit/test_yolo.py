"""Every YOLO layout: known boxes in, known boxes out; and each against its slow definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import ConfigError
from retinue.core.types import Detections, Prepared
from retinue.media.letterbox import Letterbox
from retinue.models.card import Card, Input, Output, Source
from retinue.models.yolo import LAYOUTS, Yolo
from retinue.testing import tiny_outputs

CLASSES = ("cat", "dog", "owl")
WIDTH, HEIGHT = 96, 64
STRIDES = (8, 16, 32)


def card(layout: str, **fields: object) -> Card:
    source = Source(url="file:///own.onnx", files={"own.onnx": "0" * 64})
    output = Output.model_validate({"layout": layout, "strides": STRIDES, **fields})
    spec = Input(height=HEIGHT, width=WIDTH, anchor="top_left")
    return Card(
        name="own",
        task="detect",
        family="yolo",
        license="MIT",
        source=source,
        input=spec,
        output=output,
        classes=CLASSES,
    )


def answer(layout: str, output: np.ndarray, scale: float = 1.0, **fields: object) -> Detections:
    own = card(layout, **fields)
    model = Yolo(own, "v", tiny_outputs.runtime_for(own))
    width, height = round(WIDTH * scale), round(HEIGHT * scale)
    box = Letterbox.fit(width, height, WIDTH, HEIGHT, "top_left")
    outcome = model.postprocess(Prepared({}, width, height, box), {"output": output})
    value = outcome.unwrap()
    assert isinstance(value, Detections)
    return value


def logit(values: np.ndarray) -> np.ndarray:
    return np.log(values / (1 - values))


def cells() -> list[tuple[int, int, int]]:
    """(stride, column, row) of every cell, by definition: levels, then rows, then columns."""
    return [
        (stride, column, row)
        for stride in STRIDES
        for row in range(HEIGHT // stride)
        for column in range(WIDTH // stride)
    ]


def encode(
    layout: str, boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, where: list[int]
) -> np.ndarray:
    """Write boxes (N, 4) x1 y1 x2 y2 as an exporter of this layout would."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    sizes = boxes[:, 2:] - boxes[:, :2]
    if layout == "yolov10":
        rows = np.zeros((20, 6), np.float32)
        rows[: len(boxes)] = np.column_stack([boxes, scores, class_ids])
        return rows
    count = len(cells()) if layout == "yolox" else tiny_outputs.BOXES
    one_hot = np.full((count, 3), 1e-5)
    one_hot[where, class_ids] = scores if layout == "yolov8" else scores / 0.95
    geometry = np.zeros((count, 4))
    geometry[where] = np.column_stack([centers, sizes])
    if layout == "yolox":
        grid = np.array(cells())[where]
        geometry[where, :2] = centers / grid[:, :1] - grid[:, 1:]
        geometry[where, 2:] = np.log(sizes / grid[:, :1])
    if layout == "yolov8":
        return np.concatenate([geometry, one_hot], axis=1).T.astype(np.float32)
    objectness = np.full((count, 1), 1e-5)
    objectness[where] = 0.95
    return np.concatenate([geometry, objectness, one_hot], axis=1).astype(np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_boxes_come_back(layout: str) -> None:
    boxes = np.array([[10, 5, 40, 30], [50, 20, 90, 60], [12, 7, 40, 30]], np.float64)
    scores, class_ids = np.array([0.9, 0.6, 0.5]), np.array([2, 0, 1])
    found = answer(layout, encode(layout, boxes, scores, class_ids, [3, 17, 9]), scale=2.5)
    np.testing.assert_allclose(found.boxes, boxes * 2.5, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    assert found.class_ids.tolist() == class_ids.tolist()


@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_overlaps_are_suppressed_within_a_class(layout: str) -> None:
    boxes = np.array([[10, 5, 40, 30], [11, 5, 41, 30], [10, 5, 40, 30]], np.float64)
    scores, class_ids = np.array([0.6, 0.9, 0.5]), np.array([2, 2, 1])
    found = answer(layout, encode(layout, boxes, scores, class_ids, [3, 17, 9]))
    assert found.class_ids.tolist() == [2, 1]
    np.testing.assert_allclose(found.scores, [0.9, 0.5], rtol=1e-5)


def test_an_end_to_end_export_is_taken_as_it_is() -> None:
    boxes = np.array([[10, 5, 40, 30], [11, 5, 41, 30]], np.float64)
    output = encode("yolov10", boxes, np.array([0.6, 0.9]), np.array([2, 2]), [])
    output[2] = [0, 0, 9, 9, 0.8, 7]
    output[3] = [0, 0, 9, 9, 0.8, -1]
    output[4] = [9, 9, 9, 12, 0.8, 0]
    found = answer("yolov10", output)
    np.testing.assert_allclose(found.scores, [0.9, 0.6], rtol=1e-6)
    assert found.class_ids.tolist() == [2, 2]


@pytest.mark.parametrize("layout", ["yolov5", "yolov8"])
def test_logits_are_read_as_logits(layout: str) -> None:
    boxes = np.array([[10, 5, 40, 30], [50, 20, 90, 60]], np.float64)
    output = encode(layout, boxes, np.array([0.9, 0.3]), np.array([2, 0]), [3, 17])
    scores = output[4:] if layout == "yolov8" else output[:, 4:]
    scores[...] = logit(scores)
    found = answer(layout, output, scores="logits")
    np.testing.assert_allclose(found.scores, [0.9, 0.3], rtol=1e-4)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-3)


def slow_yolox(output: np.ndarray) -> list[tuple[float, int, list[float]]]:
    found = []
    for (stride, column, row), values in zip(cells(), output.astype(np.float64), strict=True):
        x, y = (values[0] + column) * stride, (values[1] + row) * stride
        w, h = np.exp(values[2]) * stride, np.exp(values[3]) * stride
        for class_id in range(3):
            score = values[4] * values[5 + class_id]
            if score >= 0.01:
                box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                limits = [WIDTH, HEIGHT, WIDTH, HEIGHT]
                clipped = [float(np.clip(v, 0, m)) for v, m in zip(box, limits, strict=True)]
                if clipped[2] > clipped[0] and clipped[3] > clipped[1]:
                    found.append((float(score), class_id, clipped))
    return sorted(found, reverse=True)


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_yolox_agrees_with_its_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = len(cells())
    geometry = random.normal(size=(count, 4))
    scores = random.random((count, 4)) ** 4
    output = np.concatenate([geometry, scores], axis=1).astype(np.float32)
    found = answer("yolox", output, nms_iou=1.0, max_detections=10_000)
    expected = slow_yolox(output)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(found.boxes, [box for _, _, box in expected], atol=2e-3)
    assert found.class_ids.tolist() == [class_id for _, class_id, _ in expected]


def test_a_size_beyond_all_bounds_is_clipped() -> None:
    output = encode("yolox", np.array([[10, 5, 40, 30.0]]), np.array([0.9]), np.array([0]), [3])
    output[3, 2:4] = 200
    np.testing.assert_array_equal(answer("yolox", output).boxes, [[0, 0, WIDTH, HEIGHT]])


def test_a_layout_that_the_file_does_not_have_is_refused() -> None:
    runtime = tiny_outputs.runtime_for(card("yolov8"))
    with pytest.raises(ConfigError, match=r"'yolov5'.*\(N, any, 8\).*correct output\.layout"):
        Yolo(card("yolov5"), "v", runtime)
    with pytest.raises(ConfigError, match=r"no layout 'yolo99'; known: yolox"):
        Yolo(card("yolo99"), "v", runtime)
    with pytest.raises(ConfigError, match=r"\(N, 120, 8\)"):
        Yolo(card("yolox", strides=(8, 16)), "v", tiny_outputs.runtime_for(card("yolox")))
