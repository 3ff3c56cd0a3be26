"""The detector that every peer serves: OpenCV, NumPy and ONNX Runtime, no serving framework.

The same ONNX file, input size, thresholds and arithmetic as Retinue's card, and the same economy:
only cells whose score is high enough are decoded. ``DETECTOR`` in the environment holds what the
card says, as JSON; where it is empty the model does nothing, to measure what a server costs alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

CONF = 0.25
STRIDES = (8, 16, 32)
Detection = dict[str, Any]
Prepared = tuple[Any, tuple[float, int, int]]
"""The tensor (3, size, size) float32 and its letterbox: scale, left, top."""


class Nothing:
    """A model that finds nothing, in no time."""

    def prepare(self, photo: bytes) -> Any:
        """Return nothing."""
        return None

    def run(self, prepared: Sequence[Any]) -> list[list[Detection]]:
        """Return an empty list for each photo."""
        return [[] for _ in prepared]

    def detect(self, photos: Sequence[bytes]) -> list[list[Detection]]:
        """Return an empty list for each photo."""
        return self.run(photos)


class Detector:
    """NanoDet in one ONNX Runtime session of one thread."""

    def __init__(self, card: dict[str, Any]) -> None:
        """Load the weights that the card names."""
        import cv2
        import onnxruntime

        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            card["path"], options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self._card = card
        self._size: int = card["size"]
        self._mean = np.array(card["mean"], np.float32)
        self._std = np.array(card["std"], np.float32)
        self._cv2 = cv2

    def detect(self, photos: Sequence[bytes]) -> list[list[Detection]]:
        """Find the objects in photos, run as one batch.

        Raises:
            ValueError: one of them is not an image.
        """
        return self.run([self.prepare(photo) for photo in photos])

    def run(self, prepared: Sequence[Prepared]) -> list[list[Detection]]:
        """Find the objects in prepared photos, run as one batch."""
        tensors = np.stack([tensor for tensor, _ in prepared])
        outputs = self._session.run(None, {self._input: tensors})
        return [
            self._finish([output[i] for output in outputs], placing)
            for i, (_, placing) in enumerate(prepared)
        ]

    def prepare(self, photo: bytes) -> Prepared:
        """Decode a photo and letterbox it.

        Raises:
            ValueError: it is not an image.
        """
        image = self._cv2.imdecode(np.frombuffer(photo, np.uint8), self._cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError("not an image")
        height, width = image.shape[:2]
        scale = min(self._size / width, self._size / height)
        image = self._cv2.resize(image, (round(width * scale), round(height * scale)))
        top, left = (self._size - image.shape[0]) // 2, (self._size - image.shape[1]) // 2
        canvas = np.full((self._size, self._size, 3), self._card["pad"], np.uint8)
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        pixels = canvas[:, :, ::-1] if self._card["color"] == "rgb" else canvas
        tensor = ((pixels - self._mean) / self._std).transpose(2, 0, 1)
        return np.ascontiguousarray(tensor), (scale, left, top)

    def _finish(self, outputs: list[Any], placing: tuple[float, int, int]) -> list[Detection]:
        boxes, scores, classes = [], [], []
        for stride in STRIDES:
            side = -(-self._size // stride)
            pair = [o for o in outputs if len(o) == side * side]
            pair.sort(key=lambda o: o.shape[1] != self._card["classes"])
            score = pair[0] if self._card["probabilities"] else 1 / (1 + np.exp(-pair[0]))
            cells, class_ids = np.nonzero(score >= CONF)
            boxes.append(_boxes(pair[1][cells], cells, stride, side))
            scores.append(score[cells, class_ids])
            classes.append(class_ids)
        scale, left, top = placing
        found = (np.concatenate(boxes) - [left, top, left, top]) / scale
        kept, ids = np.concatenate(scores), np.concatenate(classes)
        sides = np.concatenate([found[:, :2], found[:, 2:] - found[:, :2]], 1)
        chosen = self._cv2.dnn.NMSBoxesBatched(
            sides.tolist(), kept.tolist(), ids.tolist(), CONF, self._card["iou"]
        )
        return [
            {"class_id": int(ids[i]), "score": float(kept[i]), "box": found[i].tolist()}
            for i in np.array(chosen, int).reshape(-1)
        ]


def _boxes(distances: Any, cells: Any, stride: int, side: int) -> Any:
    """Decode some cells' distance distributions (K, 4 x bins) into x1 y1 x2 y2 (K, 4)."""
    weights = np.exp(distances.reshape(len(cells), 4, distances.shape[1] // 4))
    bins = np.arange(weights.shape[2], dtype=np.float32)
    sides = stride * (weights @ bins) / weights.sum(2)
    y, x = np.divmod(cells, side)
    centers = (np.stack([x, y], 1) + 0.5) * stride
    return np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], 1)


def load() -> Detector | Nothing:
    """Return the model that the environment asks for."""
    card = os.environ.get("DETECTOR", "")
    return Detector(json.loads(card)) if card else Nothing()


def number(name: str, default: float) -> float:
    """Return a setting of the peer from the environment."""
    return float(os.environ.get(name, default))
