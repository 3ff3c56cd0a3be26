"""Masks: of the whole picture, whatever the network saw of it."""

from __future__ import annotations

import numpy as np
import pytest

from retinue.core.errors import ConfigError
from retinue.core.types import Image, Mask, TensorSpec
from retinue.models.card import Card
from retinue.models.segmentation import SELFIE, Segmenter
from retinue.testing.function_runtime import FunctionRuntime

RAMP = np.linspace(0, 1, 256 * 256, dtype=np.float32).reshape(256, 256)


def card(**changes: object) -> Card:
    parts = {
        "input": SELFIE.input.model_copy(update={"resize": changes.pop("resize", "stretch")}),
        "output": SELFIE.output.model_copy(update=changes),
    }
    return SELFIE.model_copy(update=parts)


def model(
    values: np.ndarray = RAMP, shape: tuple[int, ...] = (256, 256, 1), taken: Card = SELFIE
) -> Segmenter:
    picture = TensorSpec("images", "float32", (1, 3, 256, 256))
    output = TensorSpec("mask", "float32", (1, *shape))
    answer = {"mask": values.reshape(shape)}
    return Segmenter(taken, "v", FunctionRuntime((picture,), (output,), lambda row: answer))


FRAME = np.zeros((40, 80, 3), np.uint8)


@pytest.mark.parametrize("shape", [(256, 256, 1), (1, 256, 256), (256, 256)])
def test_a_mask_in_any_layout(shape: tuple[int, ...]) -> None:
    segmenter = model(shape=shape)
    assert segmenter.mask_size == (256, 256)
    np.testing.assert_array_equal(segmenter.small(FRAME), RAMP)
    assert segmenter.mask(FRAME).shape == (40, 80)
    assert segmenter.mask(FRAME).dtype == np.float32
    (outcome,) = segmenter.predict([Image(FRAME, 800, 400)])
    found = outcome.unwrap()
    assert isinstance(found, Mask)
    assert (found.width, found.height) == (800, 400)
    np.testing.assert_array_equal(found.alpha, np.rint(RAMP * 255).astype(np.uint8))


def test_a_letterbox_is_cut_off() -> None:
    values = np.zeros((256, 256), np.float32)
    values[64:192] = 1
    segmenter = model(values, taken=card(resize="letterbox"))
    small = segmenter.small(FRAME)
    assert small.shape == (128, 256)
    assert small.min() == 1
    (outcome,) = segmenter.predict([Image(FRAME, 80, 40)])
    found = outcome.unwrap()
    assert isinstance(found, Mask)
    assert found.alpha.min() == 255


def test_logits_and_what_is_out_of_range() -> None:
    values = np.full((256, 256), -2.0, np.float32)
    small = model(values, taken=card(scores="logits")).small(FRAME)
    np.testing.assert_allclose(small, 1 / (1 + np.exp(2)), rtol=1e-5)
    assert model(values).small(FRAME).max() == 0
    assert model(-values).small(FRAME).min() == 1


def test_a_narrow_picture_keeps_a_row() -> None:
    segmenter = model(taken=card(resize="letterbox"))
    assert segmenter.small(np.zeros((1, 900, 3), np.uint8)).shape == (1, 256)


def test_what_is_no_mask_is_refused() -> None:
    for shape in ((7,), (3, 256, 256), (256, 1, 1)):
        with pytest.raises(ConfigError, match="one mask"):
            model(np.zeros(int(np.prod(shape)), np.float32), shape)
    with pytest.raises(ConfigError, match="not center_crop"):
        model(taken=card(resize="center_crop"))
