"""BlazeFace: MediaPipe's face detectors, with six keypoints a face.

V. Bazarevsky et al. 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs"
(arXiv:1907.05047). Boxes and keypoints are offsets, in pixels of the input, from the centres of
anchors that all have the size of the input. Overlapping boxes are not dropped but blended, each
weighted by its score: over frames a blend is steadier than the best one of many.

Keypoints are, by the picture: left eye, right eye, tip of the nose, mouth, left tragion, right
tragion. The eye on the picture's left is the subject's right one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from retinue.core.protocols import Runtime
from retinue.core.types import Detections, Outcome, Prepared, Tensors, TensorSpec
from retinue.media.letterbox import Letterbox, Pixels, stretch
from retinue.models.base import Detector, Floats, Ints, find_output
from retinue.models.card import Card, Family, Input, Output, Source
from retinue.models.nms import sigmoid

LAYOUT: Final = "blazeface"
KEYPOINTS: Final = ("left eye", "right eye", "nose", "mouth", "left tragion", "right tragion")
"""By the picture's sides."""
MIN_SCORE: Final = 0.5
"""Below this an anchor neither is a face nor takes part in a blend."""
MAX_CANDIDATES: Final = 500
"""The best anchors of one picture that are looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Faces in pixels of the network's input, best first.

    Attributes:
        points: (N, 2 + K, 2) float32: the box's two corners, then the keypoints.
        scores: (N,) float32.
        class_ids: (N,) int64.
    """

    points: Floats
    scores: Floats
    class_ids: Ints


class BlazeFace(Detector):
    """Two outputs: scores (N, anchors, C) and regressors (N, anchors, 4 + 2 x keypoints)."""

    def __init__(self, card: Card, version: str, runtime: Runtime) -> None:
        """Bind a card to its loaded weights.

        Raises:
            ConfigError: the outputs are not those of this card's classes, size and strides.
        """
        super().__init__(card, version, runtime)
        cells = sum(rows * columns * layers for rows, columns, layers in _grids(card))
        fits = [s for s in runtime.outputs if len(s.shape) == 3 and not s.shape[1] % cells]
        classes = len(card.classes)
        wanted = f"(N, a multiple of {cells}, {{}}) float32"
        scores = find_output(
            card, runtime, wanted.format(classes), (s for s in fits if s.shape[2] == classes)
        )
        regressors = find_output(
            card,
            runtime,
            wanted.format("4 + 2 x keypoints"),
            (s for s in fits if _is_regressors(s, scores)),
        )
        self._scores, self._regressors = scores.name, regressors.name
        self._anchors = _anchors(card, scores.shape[1] // cells)
        self._logits = card.output.scores == "logits"
        self._floor = np.float32(
            math.log(MIN_SCORE / (1 - MIN_SCORE)) if self._logits else MIN_SCORE
        )
        self._box: Letterbox | None = None

    def decode(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Find the faces of one picture; boxes are clipped to it, and their keypoints are not."""
        found = self._found(outputs)
        box = prepared.context if isinstance(prepared.context, Letterbox) else None
        points = self._placed(found.points, prepared.width, prepared.height, box)
        boxes = points[:, :2].reshape(-1, 4).copy()
        np.clip(boxes[:, 0::2], 0, prepared.width, out=boxes[:, 0::2])
        np.clip(boxes[:, 1::2], 0, prepared.height, out=boxes[:, 1::2])
        solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        kept = np.flatnonzero(solid)[: self.card.output.max_detections]
        return Outcome(
            Detections(boxes[kept], found.scores[kept], found.class_ids[kept], points[kept, 2:])
        )

    def find(self, frame: Pixels) -> Detections:
        """Find the faces of one frame of a video: what `predict` does, with less around it.

        Args:
            frame: (H, W, 3) uint8 RGB, upright.

        Returns:
            Faces in pixels of the frame, best first. Boxes are not clipped: where a face reaches
            beyond the frame, so does its box.

        Raises:
            ModelRunFailed: the engine failed.
        """
        spec = self.card.input
        height, width = frame.shape[:2]
        box: Letterbox | None = None
        if spec.resize == "letterbox":
            box = self._box
            if box is None or (box.width, box.height) != (width, height):
                size = (width, height, spec.width, spec.height)
                box = self._box = Letterbox.fit(*size, anchor=spec.anchor)
            pixels = box.apply(frame, spec.pad, spec.interpolation)
        else:
            pixels = stretch(frame, spec.height, spec.width, spec.interpolation)
        (outputs,) = self.run([{self._input.name: self._normalize(pixels)}])
        found = self._found(outputs)
        points = self._placed(found.points, width, height, box)[: self.card.output.max_detections]
        count = len(points)
        boxes = points[:, :2].reshape(count, 4)
        return Detections(boxes, found.scores[:count], found.class_ids[:count], points[:, 2:])

    def _found(self, outputs: Tensors) -> Found:
        """Decode and blend one picture's output rows."""
        every = outputs[self._scores]
        class_ids = every.argmax(axis=1) if every.shape[1] > 1 else np.zeros(len(every), np.int64)
        raw = every.max(axis=1) if every.shape[1] > 1 else every[:, 0]
        chosen = np.flatnonzero(raw >= self._floor)
        chosen = chosen[np.argsort(-raw[chosen], kind="stable")[:MAX_CANDIDATES]]
        scores = sigmoid(raw[chosen]) if self._logits else raw[chosen]
        values = outputs[self._regressors][chosen]
        points = values.reshape(len(chosen), values.shape[1] // 2, 2).astype(np.float32)
        half = points[:, 1] / 2
        center = points[:, 0] + self._anchors[chosen]
        points[:, 2:] += self._anchors[chosen, None]
        points[:, 0], points[:, 1] = center - half, center + half
        found = Found(points, scores, class_ids[chosen].astype(np.int64, copy=False))
        return blend(found, self.card.output.nms_iou)

    def _placed(self, points: Floats, width: int, height: int, box: Letterbox | None) -> Floats:
        if box is not None:
            flat = np.asarray(box.to_original(points.reshape(-1, 4)), np.float32)
            return flat.reshape(points.shape)
        spec = self.card.input
        scale = np.array([width / spec.width, height / spec.height], np.float32)
        return points * scale


def blend(found: Found, iou: float) -> Found:
    """Replace each best box and those of its class that overlap it by their weighted mean.

    MediaPipe's weighted non-maximum suppression: a group is what overlaps its best member, and its
    score is that member's.

    Args:
        found: Best score first.
        iou: A box belongs to a better one's group when their IoU is above this.
    """
    if not len(found.scores):
        return found
    corners = found.points[:, :2].reshape(-1, 4)
    areas = np.maximum(corners[:, 2:] - corners[:, :2], 0).prod(axis=1)
    left = np.arange(len(corners))
    best: list[int] = []
    means: list[Floats] = []
    while len(left):
        top = left[0]
        low = np.maximum(corners[top, :2], corners[left, :2])
        high = np.minimum(corners[top, 2:], corners[left, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        union = areas[top] + areas[left] - shared
        same = (shared > iou * union) & (found.class_ids[left] == found.class_ids[top])
        same[0] = True
        group = left[same]
        weights = found.scores[group]
        best.append(int(top))
        means.append(np.tensordot(weights / weights.sum(), found.points[group], axes=1))
        left = left[~same]
    points = np.stack(means).astype(np.float32, copy=False)
    return Found(points, found.scores[best], found.class_ids[best])


def _is_regressors(spec: TensorSpec, scores: TensorSpec) -> bool:
    same = spec is not scores and spec.shape[1] == scores.shape[1]
    return same and spec.shape[2] >= 4 and spec.shape[2] % 4 == 0


def _grids(card: Card) -> list[tuple[int, int, int]]:
    """Return rows, columns and layers of each grid: neighbouring equal strides share one."""
    grids: list[tuple[int, int, int]] = []
    before = 0
    for stride in card.output.strides:
        rows, columns = (math.ceil(n / stride) for n in (card.input.height, card.input.width))
        if stride == before:
            grids[-1] = (rows, columns, grids[-1][2] + 1)
        else:
            grids.append((rows, columns, 1))
        before = stride
    return grids


def _anchors(card: Card, each: int) -> Floats:
    """Return the centres of all anchors, (A, 2) in pixels of the input; ``each`` a layer."""
    size = np.array([card.input.width, card.input.height], np.float32)
    parts = []
    for rows, columns, layers in _grids(card):
        y, x = np.divmod(np.arange(rows * columns), columns)
        centers = (np.stack([x, y], axis=1) + 0.5) / [columns, rows] * size
        parts.append(np.repeat(centers, layers * each, axis=0))
    return np.concatenate(parts).astype(np.float32)


_HOMEPAGE: Final = "https://ai.google.dev/edge/mediapipe/solutions/vision/face_detector"
_MEAN: Final = (127.5, 127.5, 127.5)

SHORT_RANGE: Final = Card(
    name="blazeface-short-range",
    task="detect",
    family="blazeface",
    summary="faces within 2 m of a selfie camera, with 6 keypoints, at 128 x 128; about 1 ms",
    license="Apache-2.0",
    homepage=_HOMEPAGE,
    source=Source(
        url="npm:@mediapipe/face_detection@0.4.1657300184",
        files={
            "face_detection_short_range.tflite": (
                "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633"
            ),
        },
        importer="tflite",
    ),
    input=Input(height=128, width=128, resize="letterbox", pad=0, mean=_MEAN, std=_MEAN),
    output=Output(layout=LAYOUT, scores="logits", nms_iou=0.3, strides=(8, 16, 16, 16)),
    classes=("face",),
    examples=("retinue detect photo.jpg --model blazeface-short-range",),
)

FULL_RANGE: Final = Card(
    name="blazeface-full-range",
    task="detect",
    family="blazeface",
    summary="faces within 5 m, with 6 keypoints, at 192 x 192; for smaller faces than short range",
    license="Apache-2.0",
    homepage=_HOMEPAGE,
    source=Source(
        url="npm:@mediapipe/face_detection@0.4.1657300184",
        files={
            "face_detection_full_range_sparse.tflite": (
                "671dd2f9ed11a78436fc21cc42357a803dfc6f73e9fb86541be942d5716c2dce"
            ),
        },
        importer="tflite",
    ),
    input=Input(height=192, width=192, resize="letterbox", pad=0, mean=_MEAN, std=_MEAN),
    output=Output(layout=LAYOUT, scores="logits", nms_iou=0.3, strides=(4,)),
    classes=("face",),
    examples=("retinue detect photo.jpg --model blazeface-full-range",),
)

MODEL: Final = Family(build=BlazeFace, cards=(SHORT_RANGE, FULL_RANGE), layouts=(LAYOUT,))
