"""Segmentation of one kind of object, for example of people: a mask over the picture.

MediaPipe's selfie segmentation is a MobileNetV3 with a light decoder (A. Howard et al. 2019,
arXiv:1905.02244), made for people in front of a camera.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from retinue.core.errors import ConfigError
from retinue.core.protocols import Runtime
from retinue.core.types import Mask, Outcome, Prepared, Tensors, TensorSpec
from retinue.media.letterbox import Letterbox, Pixels, stretch
from retinue.models.base import Floats, VisionModel, find_output
from retinue.models.card import Card, Family, Input, Output, Source
from retinue.models.nms import sigmoid

LAYOUT: Final = "mask"


class Segmenter(VisionModel):
    """One output, (N, h, w, 1), (N, 1, h, w) or (N, h, w): how much of a place is the object."""

    def __init__(self, card: Card, version: str, runtime: Runtime) -> None:
        """Bind a card to its loaded weights.

        Raises:
            ConfigError: no output is a mask, or the card crops what a mask shall cover.
        """
        super().__init__(card, version, runtime)
        if card.input.resize == "center_crop":
            message = f"model card {card.name}: a mask covers the whole picture"
            raise ConfigError(f"{message}; use input.resize stretch or letterbox, not center_crop")
        spec = find_output(
            card,
            runtime,
            "one mask, (N, h, w, 1), (N, 1, h, w) or (N, h, w)",
            (s for s in runtime.outputs if _size(s) is not None),
        )
        self._output = spec.name
        self._size = _size(spec) or (0, 0)
        self._logits = card.output.scores == "logits"

    @property
    def mask_size(self) -> tuple[int, int]:
        """(height, width) of what `small` returns for a stretched picture, in pixels."""
        return self._size

    def small(self, frame: Pixels) -> Floats:
        """Return the mask as the network gives it: what `predict` does, with less around it.

        Args:
            frame: (H, W, 3) uint8 RGB, upright.

        Returns:
            (h, w) float32 in [0, 1], 1 where the object is; it covers the whole frame.

        Raises:
            ModelRunFailed: the engine failed.
        """
        spec = self.card.input
        height, width = frame.shape[:2]
        box: Letterbox | None = None
        if spec.resize == "letterbox":
            box = Letterbox.fit(width, height, spec.width, spec.height, anchor=spec.anchor)
            pixels = box.apply(frame, spec.pad, spec.interpolation)
        else:
            pixels = stretch(frame, spec.height, spec.width, spec.interpolation)
        (outputs,) = self.run([{self._input.name: self._normalize(pixels)}])
        return self._mask(outputs, box)

    def mask(self, frame: Pixels) -> Floats:
        """Return the mask of one frame, (H, W) float32 in [0, 1]; see `small`."""
        height, width = frame.shape[:2]
        enlarged = cv2.resize(self.small(frame), (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(enlarged, np.float32)

    def decode(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Return the mask of one picture."""
        box = prepared.context if isinstance(prepared.context, Letterbox) else None
        alpha = np.rint(self._mask(outputs, box) * 255).astype(np.uint8)
        return Outcome(Mask(alpha, prepared.width, prepared.height))

    def _mask(self, outputs: Tensors, box: Letterbox | None) -> Floats:
        values = outputs[self._output].reshape(self._size)
        if self._logits:
            values = sigmoid(values)
        if box is not None:
            rows, columns = self._size
            down, right = rows / box.out_height, columns / box.out_width
            top, left = round(box.top * down), round(box.left * right)
            bottom = max(top + 1, round((box.top + box.content_height) * down))
            end = max(left + 1, round((box.left + box.content_width) * right))
            values = values[top:bottom, left:end]
        return np.clip(values, 0, 1)


def _size(spec: TensorSpec) -> tuple[int, int] | None:
    """Return the height and width of an output that is one mask, else None."""
    inner = spec.shape[1:]
    if len(inner) == 3 and 1 in (inner[0], inner[2]):
        inner = inner[1:] if inner[0] == 1 else inner[:2]
    if len(inner) != 2 or min(inner) < 2:
        return None
    return inner[0], inner[1]


_PACKAGE: Final = "npm:@mediapipe/selfie_segmentation@0.1.1675465747"
_HOMEPAGE: Final = "https://ai.google.dev/edge/mediapipe/solutions/vision/image_segmenter"

SELFIE: Final = Card(
    name="selfie-segmentation",
    task="segment",
    family="segmentation",
    summary="people in front of a camera, as a mask of 256 x 256",
    license="Apache-2.0",
    homepage=_HOMEPAGE,
    source=Source(
        url=_PACKAGE,
        files={
            "selfie_segmentation.tflite": (
                "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27"
            ),
        },
        importer="tflite",
    ),
    input=Input(height=256, width=256, resize="stretch"),
    output=Output(layout=LAYOUT),
    classes=("person",),
    examples=("retinue models pull selfie-segmentation",),
)

SELFIE_LANDSCAPE: Final = Card(
    name="selfie-segmentation-landscape",
    task="segment",
    family="segmentation",
    summary="people in front of a camera, as a mask of 144 x 256; faster, for wide pictures",
    license="Apache-2.0",
    homepage=_HOMEPAGE,
    source=Source(
        url=_PACKAGE,
        files={
            "selfie_segmentation_landscape.tflite": (
                "4aafe6223bb8dac6fac8ca8ed56852870a33051ef3f6238822d282a109962894"
            ),
        },
        importer="tflite",
    ),
    input=Input(height=144, width=256, resize="stretch"),
    output=Output(layout=LAYOUT),
    classes=("person",),
    examples=("retinue models pull selfie-segmentation-landscape",),
)

MODEL: Final = Family(build=Segmenter, cards=(SELFIE, SELFIE_LANDSCAPE), layouts=(LAYOUT,))
