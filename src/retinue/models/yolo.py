"""YOLO-style detectors that users bring, read by the output layout that their card declares.

=======  ================  ==============================================  =====================
layout   one output        meaning                                         also exported by
=======  ================  ==============================================  =====================
yolox    (N, cells, 5+C)   centre and size relative to the cell,           YOLOX (raw export,
                           objectness, classes (arXiv:2107.08430)          its default)
yolov5   (N, cells, 5+C)   centre and size in pixels, objectness, classes  YOLOv7, decoded YOLOX
yolov8   (N, 4+C, cells)   centre and size in pixels, classes              YOLOv9, YOLO11, YOLO12
yolov10  (N, boxes, 6)     x1 y1 x2 y2 in pixels, score, class; nothing    end-to-end exports
                           is left to suppress (arXiv:2405.14458)
=======  ================  ==============================================  =====================

Pixels are those of the network's input. C is the number of the card's classes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from retinue.core.errors import ConfigError
from retinue.core.protocols import Runtime
from retinue.core.types import Outcome, Prepared, Tensors, TensorSpec
from retinue.models.base import Detector, Floats, find_output
from retinue.models.card import Card, Family
from retinue.models.nms import MIN_SCORE, candidates, sigmoid

LAYOUTS: Final = ("yolox", "yolov5", "yolov8", "yolov10")


class Yolo(Detector):
    """One output tensor, read by the card's ``output.layout``."""

    def __init__(self, card: Card, version: str, runtime: Runtime) -> None:
        """Bind a card to its loaded weights.

        Raises:
            ConfigError: the layout is unknown, or no output has its shape for this card's
                classes, size and strides.
        """
        super().__init__(card, version, runtime)
        layout = card.output.layout
        if layout not in LAYOUTS:
            known = ", ".join(LAYOUTS)
            raise ConfigError(f"model card {card.name}: no layout {layout!r}; known: {known}")
        classes = len(card.classes)
        self._grid, self._steps = _grid(card)
        cells = len(self._grid) if layout == "yolox" else -1
        shape = {"yolov8": (4 + classes, -1), "yolov10": (-1, 6)}.get(layout, (cells, 5 + classes))
        fits = (spec for spec in runtime.outputs if _fits(spec, shape))
        wanted = f"(N, {', '.join('any' if n == -1 else str(n) for n in shape)}) float32"
        self._output = find_output(card, runtime, wanted, fits).name
        self._decode = {
            "yolox": self._cells_and_objectness,
            "yolov5": self._objectness,
            "yolov8": self._classes_only,
            "yolov10": self._end_to_end,
        }[layout]

    def decode(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Find the boxes of one picture; see `Detector.detections`."""
        return self._decode(prepared, outputs[self._output])

    @property
    def _logits(self) -> bool:
        return self.card.output.scores == "logits"

    def _cells_and_objectness(self, prepared: Prepared, rows: Floats) -> Outcome:
        if len(rows) != len(self._grid):
            raise ConfigError(
                f"model card {self.name}: strides {self.card.output.strides} give "
                f"{len(self._grid)} cells, but the network answered {len(rows)}"
            )
        return self._objectness(prepared, rows, relative=True)

    def _objectness(self, prepared: Prepared, rows: Floats, relative: bool = False) -> Outcome:
        objectness = sigmoid(rows[:, 4]) if self._logits else rows[:, 4]
        # A class's score is at most 1: a cell below the floor has no candidate.
        cells = np.flatnonzero(objectness >= np.float32(MIN_SCORE))
        scores = rows[cells, 5:]
        scores = (sigmoid(scores) if self._logits else scores) * objectness[cells, None]
        chosen, values = candidates(scores)
        which, class_ids = np.divmod(chosen, scores.shape[1])
        kept = cells[which]
        boxes = rows[kept, :4]
        if relative:
            boxes = self._absolute(boxes, kept)
        return self.detections(prepared, _corners(boxes), values, class_ids)

    def _absolute(self, boxes: Floats, cells: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
        steps = self._steps[cells, None]
        # A size beyond any picture stays infinite here, and is clipped to the picture later.
        with np.errstate(over="ignore"):
            sizes = np.exp(boxes[:, 2:]) * steps
        return np.concatenate([(boxes[:, :2] + self._grid[cells]) * steps, sizes], axis=1)

    def _classes_only(self, prepared: Prepared, columns: Floats) -> Outcome:
        chosen, values = candidates(columns[4:], logits=self._logits)
        class_ids, cells = np.divmod(chosen, columns.shape[1])
        return self.detections(prepared, _corners(columns[:4, cells].T), values, class_ids)

    def _end_to_end(self, prepared: Prepared, rows: Floats) -> Outcome:
        class_ids = rows[:, 5].astype(np.int64)
        known = (class_ids >= 0) & (class_ids < len(self.card.classes))
        kept = np.flatnonzero(known & (rows[:, 4] >= np.float32(MIN_SCORE)))
        boxes, scores = rows[kept, :4], rows[kept, 4]
        return self.detections(prepared, boxes, scores, class_ids[kept], suppress=False)


def _fits(spec: TensorSpec, shape: tuple[int, int]) -> bool:
    return len(spec.shape) == 3 and all(
        have == -1 or want in (-1, have) for have, want in zip(spec.shape[1:], shape, strict=True)
    )


def _corners(boxes: Floats) -> Floats:
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _grid(card: Card) -> tuple[Floats, Floats]:
    """Return each cell's column and row (cells, 2), and its stride (cells,), level by level."""
    grids, steps = [], []
    for stride in card.output.strides:
        rows, columns = card.input.height // stride, card.input.width // stride
        y, x = np.divmod(np.arange(rows * columns), max(columns, 1))
        grids.append(np.stack([x, y], axis=1))
        steps.append(np.full(rows * columns, stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(steps).astype(np.float32)


MODEL: Final = Family(build=Yolo, layouts=LAYOUTS)
