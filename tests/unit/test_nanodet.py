"""NanoDet's decoding against its definition."""

import numpy as np
import pytest

from retinue.core.errors import ConfigError
from retinue.core.types import Detections, Image, Prepared
from retinue.media.letterbox import Letterbox
from retinue.models.nanodet import NANODET_G_416, NanoDet
from retinue.testing import tiny_outputs

BINS = np.arange(11)


def model() -> NanoDet:
    return NanoDet(NANODET_G_416, "v", tiny_outputs.runtime_for(NANODET_G_416))


def blank() -> dict[str, np.ndarray]:
    outputs = {}
    for stride, side in ((8, 52), (16, 26), (32, 13)):
        outputs[f"scores_{stride}"] = np.full((side * side, 80), 1e-4, np.float32)
        outputs[f"distances_{stride}"] = np.zeros((side * side, 44), np.float32)
    return outputs


def prepared(width: int = 416, height: int = 416) -> Prepared:
    return Prepared({}, width, height, Letterbox.fit(width, height, 416, 416))


def found(outputs: dict[str, np.ndarray], item: Prepared) -> Detections:
    value = model().postprocess(item, outputs).unwrap()
    assert isinstance(value, Detections)
    return value


def sharp(*distances: int) -> np.ndarray:
    """Distributions that are all in one bin, so that their mean is that bin."""
    logits = np.full((4, 11), -1000.0, np.float32)
    logits[range(4), list(distances)] = 0
    return logits.ravel()


@pytest.mark.parametrize(("stride", "side"), [(8, 52), (16, 26), (32, 13)])
def test_a_cell_is_decoded_from_its_centre(stride: int, side: int) -> None:
    outputs = blank()
    row, column = 5, 7
    cell = row * side + column
    outputs[f"scores_{stride}"][cell, 16] = 0.9
    outputs[f"distances_{stride}"][cell] = sharp(1, 2, 3, 4)
    answer = found(outputs, prepared())
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    expected = [x - stride, y - 2 * stride, x + 3 * stride, y + 4 * stride]
    np.testing.assert_allclose(answer.boxes, [expected], atol=1e-3)
    np.testing.assert_allclose(answer.scores, [0.9])
    assert answer.class_ids.tolist() == [16]


def test_a_distance_is_the_mean_of_its_distribution() -> None:
    outputs = blank()
    cell = 6 * 13 + 6
    logits = np.random.default_rng(3).normal(size=(4, 11)).astype(np.float32)
    outputs["scores_32"][cell, 0] = 0.5
    outputs["distances_32"][cell] = logits.ravel()
    weights = np.exp(logits.astype(np.float64))
    left, top, right, bottom = 32 * (weights * BINS).sum(axis=1) / weights.sum(axis=1)
    center = 6.5 * 32
    expected = [center - left, center - top, center + right, center + bottom]
    np.testing.assert_allclose(
        found(outputs, prepared()).boxes[0], np.clip(expected, 0, 416), atol=1e-3
    )


def test_boxes_are_of_the_original_and_clipped_to_it() -> None:
    outputs = blank()
    # A 832 x 416 picture is halved, and lies between rows 104 and 312 of the frame.
    inside, across = 6 * 13 + 6, 6 * 13
    outputs["scores_32"][[inside, across], [1, 2]] = [0.9, 0.8]
    outputs["distances_32"][inside] = sharp(1, 1, 1, 1)
    outputs["distances_32"][across] = sharp(10, 10, 1, 10)
    answer = found(outputs, prepared(832, 416))
    inner = [2 * (208 - 32), 2 * (208 - 32 - 104), 2 * (208 + 32), 2 * (208 + 32 - 104)]
    np.testing.assert_allclose(answer.boxes, [inner, [0, 0, 96, 416]], atol=1e-3)


def test_a_cell_may_hold_two_classes_and_levels_compete() -> None:
    outputs = blank()
    outputs["scores_32"][6 * 13 + 6, [1, 2]] = [0.9, 0.8]
    outputs["distances_32"][6 * 13 + 6] = sharp(1, 1, 1, 1)
    # The same square, seen from the level below: centre 204, two strides of 16 minus 4 pixels.
    outputs["scores_16"][12 * 26 + 12, 1] = 0.7
    outputs["distances_16"][12 * 26 + 12] = sharp(2, 2, 2, 2)
    answer = found(outputs, prepared())
    assert answer.class_ids.tolist() == [1, 2]
    np.testing.assert_allclose(answer.scores, [0.9, 0.8])


def test_wrong_strides_are_refused() -> None:
    runtime = tiny_outputs.runtime_for(NANODET_G_416)
    output = NANODET_G_416.output.model_copy(update={"strides": (8, 16, 64)})
    with pytest.raises(ConfigError, match="stride 64"):
        NanoDet(NANODET_G_416.model_copy(update={"output": output}), "v", runtime)


def test_preprocess_is_what_the_network_was_trained_on() -> None:
    pixels = np.full((416, 416, 3), [10, 20, 30], np.uint8)
    row = model().preprocess(Image(pixels, 416, 416)).tensors["images"]
    blue, green, red = row[:, 0, 0]
    assert (blue, green, red) == pytest.approx(
        ((30 - 103.53) / 57.375, (20 - 116.28) / 57.12, (10 - 123.675) / 58.395)
    )
