"""What the model families share: preprocessing by the card, batches, isolation of failures."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import (
    ConfigError,
    InvalidTensor,
    ModelRunFailed,
    RetinueError,
    UnsupportedModel,
)
from retinue.core.protocols import Runtime
from retinue.core.types import Array, Detections, Image, Outcome, Prepared, Tensors, TensorSpec
from retinue.media.letterbox import Letterbox, center_crop, stretch
from retinue.models.card import Card, Input
from retinue.models.nms import nms

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

WIDEST: Final = 2
"""Aspect ratio up to which a scaled decode loses nothing for a crop or a stretch."""


@cache
def class_names(name: str) -> tuple[str, ...]:
    """Return the class names that ship with Retinue: "coco" (80) or "imagenet" (1000)."""
    file = resources.files("retinue.models") / "classes" / f"{name}.txt"
    return tuple(file.read_text("utf-8").splitlines())


class Normalizer:
    """Turns (H, W, 3) uint8 RGB pixels into the card's float32 tensor row.

    ``(pixel - mean) / std`` of each of the 256 grey levels is computed once, in float64; a picture
    is then one table look-up a channel.
    """

    def __init__(self, spec: Input) -> None:
        levels = np.arange(256, dtype=np.float64)
        pairs = zip(spec.mean, spec.std, strict=True)
        tables = np.stack([(levels - mean) / std for mean, std in pairs]).astype(np.float32)
        self._planes = spec.layout == "nchw"
        self._bgr = spec.color == "bgr"
        self._tables = tables
        self._interleaved = np.ascontiguousarray(tables.T)[None]

    def __call__(self, pixels: NDArray[np.uint8]) -> Floats:
        """Return (3, H, W) or (H, W, 3) float32, C-contiguous, in the card's channel order."""
        if not self._planes:
            ordered = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if self._bgr else pixels
            return np.asarray(cv2.LUT(ordered, self._interleaved), np.float32)
        row = np.empty((3, *pixels.shape[:2]), np.float32)
        planes = cv2.split(pixels)
        for channel, plane in enumerate(reversed(planes) if self._bgr else planes):
            cv2.LUT(plane, self._tables[channel], dst=row[channel])
        return row


class VisionModel(ABC):
    """A model of pictures: implements `retinue.core.protocols.Model` but for `decode`.

    The runtime takes one float32 tensor, of the card's size. Its batch dimension may be fixed:
    such a model is run in chunks of that size.
    """

    def __init__(self, card: Card, version: str, runtime: Runtime) -> None:
        """Bind a card to its loaded weights.

        Raises:
            ConfigError: the card does not describe these weights.
            UnsupportedModel: the weights do not take one float32 picture.
        """
        self.card = card
        self._version = version
        self._runtime = runtime
        self._input = _picture_input(card, runtime)
        self._normalize = Normalizer(card.input)

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self.card.name

    @property
    def version(self) -> str:
        """Version in the registry: the start of the weights' digest."""
        return self._version

    @property
    def runtime(self) -> Runtime:
        """What executes the weights."""
        return self._runtime

    @property
    def decode_size(self) -> tuple[int, int]:
        """(height, width) that a decoder's letterbox must fill for nothing to be lost.

        A crop and a stretch use up the short side, which a letterbox makes smaller than this by
        the picture's aspect ratio: they ask for twice as much, so that pictures up to 2:1 lose
        nothing.
        """
        spec = self.card.input
        if spec.resize == "letterbox":
            return spec.height, spec.width
        share = spec.crop if spec.resize == "center_crop" else 1.0
        return math.ceil(WIDEST * spec.height / share), math.ceil(WIDEST * spec.width / share)

    def preprocess(self, image: Image) -> Prepared:
        """Resize by the card, normalise, and keep what leads back to the original.

        Returns:
            One float32 row; the context is the `Letterbox`, or None.
        """
        spec = self.card.input
        box: Letterbox | None = None
        if spec.resize == "letterbox":
            size = (image.width, image.height, spec.width, spec.height)
            box = Letterbox.fit(*size, anchor=spec.anchor)
            pixels = box.apply(image.pixels, spec.pad, spec.interpolation)
        elif spec.resize == "center_crop":
            pixels = center_crop(
                image.pixels, spec.height, spec.width, spec.crop, spec.interpolation
            )
        else:
            pixels = stretch(image.pixels, spec.height, spec.width, spec.interpolation)
        row = self._normalize(pixels)
        return Prepared({self._input.name: row}, image.width, image.height, box)

    def run(self, batch: Sequence[Tensors]) -> list[dict[str, Array]]:
        """Run rows together (each without the batch dimension); same length and order.

        Raises:
            InvalidTensor: a row is not what the runtime takes.
            ModelRunFailed: the engine failed.
        """
        fixed = self._input.shape[0]
        step = len(batch) if fixed == -1 else fixed
        answers: list[dict[str, Array]] = []
        for start in range(0, len(batch), max(step, 1)):
            answers += self._run_together(batch[start : start + step], step)
        return answers

    def _run_together(self, rows: Sequence[Tensors], size: int) -> list[dict[str, Array]]:
        padding = [rows[-1]] * (size - len(rows))
        outputs = self._runtime.run(_stack([*rows, *padding]))
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != size:
                message = f"{self.name}: output {name!r} has shape {array.shape} for {size} inputs"
                raise ModelRunFailed(f"{message}; its first dimension must be the batch")
        return [{name: array[i] for name, array in outputs.items()} for i in range(len(rows))]

    def postprocess(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Turn one item's output rows into its outcome; what is wrong with them is its error."""
        for name, array in outputs.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                message = f"{self.name}: output {name!r} holds NaN or infinity for this input"
                return Outcome(error=ModelRunFailed(message))
        try:
            return self.decode(prepared, outputs)
        except RetinueError as error:
            return Outcome(error=error)

    @abstractmethod
    def decode(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Turn one item's output rows, all finite, into its outcome, or raise a `RetinueError`."""

    def predict(self, inputs: Sequence[Image]) -> list[Outcome]:
        """Preprocess, run and postprocess; an item's failure is its own outcome's error."""
        outcomes: list[Outcome | None] = [None] * len(inputs)
        ready: list[tuple[int, Prepared, float]] = []
        for index, image in enumerate(inputs):
            start = time.perf_counter()
            try:
                prepared = self.preprocess(image)
            except RetinueError as error:
                outcomes[index] = Outcome(error=error)
            else:
                ready.append((index, prepared, time.perf_counter() - start))
        start = time.perf_counter()
        answers = self._run_apart([prepared.tensors for _, prepared, _ in ready])
        run_s = time.perf_counter() - start
        for (index, prepared, prepare_s), answer in zip(ready, answers, strict=True):
            start = time.perf_counter()
            if isinstance(answer, RetinueError):
                outcome = Outcome(error=answer)
            else:
                outcome = self.postprocess(prepared, answer)
            parts = (prepare_s, run_s, time.perf_counter() - start)
            outcomes[index] = replace(outcome, timings_ms=_timings(parts))
        return [outcome for outcome in outcomes if outcome is not None]

    def _run_apart(self, rows: Sequence[Tensors]) -> list[dict[str, Array] | RetinueError]:
        """Run rows together; when that fails, halve them until each failure stands alone."""
        if not rows:
            return []
        try:
            return list(self.run(rows))
        except RetinueError as error:
            if len(rows) == 1:
                return [error]
            middle = len(rows) // 2
            return self._run_apart(rows[:middle]) + self._run_apart(rows[middle:])

    def close(self) -> None:
        """Close the runtime."""
        self._runtime.close()


class Detector(VisionModel):
    """A model whose answer is boxes. Subclasses find them; this maps, suppresses and sorts."""

    def __init__(self, card: Card, version: str, runtime: Runtime) -> None:
        """Bind a card to its loaded weights; see `VisionModel`."""
        super().__init__(card, version, runtime)
        if card.input.resize == "center_crop":
            message = f"model card {card.name}: a detector needs input.resize letterbox or stretch"
            raise ConfigError(f"{message}, not center_crop: what is cropped away is never found")
        if not card.classes:
            raise ConfigError(f"model card {card.name}: a detector needs classes")

    def detections(
        self,
        prepared: Prepared,
        boxes: Floats,
        scores: Floats,
        class_ids: Ints,
        *,
        suppress: bool = True,
    ) -> Outcome:
        """Finish one picture.

        Args:
            prepared: What `preprocess` made of it.
            boxes: (N, 4) float32, x1 y1 x2 y2 in pixels of the network's input.
            scores: (N,) float32 in (0, 1].
            class_ids: (N,) int64.
            suppress: Whether boxes of a class that overlap are reduced to the best one.

        Returns:
            `Detections` in pixels of the original, clipped to it, without empty boxes, best
            first, at most the card's ``max_detections``.
        """
        output = self.card.output
        boxes = self._to_original(prepared, boxes)
        np.clip(boxes[:, 0::2], 0, prepared.width, out=boxes[:, 0::2])
        np.clip(boxes[:, 1::2], 0, prepared.height, out=boxes[:, 1::2])
        solid = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        boxes, scores, class_ids = boxes[solid], scores[solid], class_ids[solid]
        if suppress:
            kept = nms(boxes, scores, class_ids, output.nms_iou, output.max_detections)
        else:
            kept = np.argsort(-scores, kind="stable")[: output.max_detections]
        return Outcome(Detections(boxes[kept], scores[kept], class_ids[kept]))

    def _to_original(self, prepared: Prepared, boxes: Floats) -> Floats:
        if isinstance(prepared.context, Letterbox):
            return np.array(prepared.context.to_original(boxes), np.float32)
        spec = self.card.input
        scale = np.array([prepared.width / spec.width, prepared.height / spec.height] * 2)
        return np.asarray(boxes * scale, np.float32)


def find_output(
    card: Card, runtime: Runtime, wanted: str, fits: Iterable[TensorSpec]
) -> TensorSpec:
    """Return the first output that fits.

    Raises:
        ConfigError: none does; the message says what was wanted and what there is.
    """
    for spec in fits:
        return spec
    found = ", ".join(f"{spec.name!r} {spec.shape}" for spec in runtime.outputs)
    raise ConfigError(
        f"model card {card.name}: layout {card.output.layout!r} with {len(card.classes)} classes "
        f"reads {wanted}, but the network's outputs are {found}; correct output.layout or classes"
    )


def _picture_input(card: Card, runtime: Runtime) -> TensorSpec:
    if len(runtime.inputs) != 1:
        names = [spec.name for spec in runtime.inputs]
        raise UnsupportedModel(f"{card.name} takes {len(names)} tensors {names}, not one picture")
    found = runtime.inputs[0]
    if found.dtype != "float32" or len(found.shape) != 4 or found.shape[0] == 0:
        message = f"{card.name}: input {found.name!r} is {found.dtype} {found.shape}"
        raise UnsupportedModel(f"{message}, not a float32 batch of pictures")
    size = (card.input.height, card.input.width)
    wanted = (3, *size) if card.input.layout == "nchw" else (*size, 3)
    if any(have not in (-1, want) for have, want in zip(found.shape[1:], wanted, strict=True)):
        raise ConfigError(
            f"model card {card.name}: input.layout, height and width give rows of {wanted}, "
            f"but the network takes {found.shape[1:]}; correct the card"
        )
    return found


def _stack(rows: Sequence[Tensors]) -> dict[str, Array]:
    names = list(rows[0])
    if any(row.keys() != rows[0].keys() for row in rows):
        raise InvalidTensor(f"rows of one batch have different tensors; the first has {names}")
    if len(rows) == 1:
        return {name: rows[0][name][None] for name in names}
    for name in names:
        kinds = {(row[name].shape, row[name].dtype.str) for row in rows}
        if len(kinds) > 1:
            message = f"tensor {name!r}: rows of one batch differ: {sorted(kinds)}"
            raise InvalidTensor(message)
    return {name: np.stack([row[name] for row in rows]) for name in names}


def _timings(seconds: tuple[float, float, float]) -> dict[str, float]:
    stages = ("preprocess", "run", "postprocess")
    timings = {stage: 1000 * part for stage, part in zip(stages, seconds, strict=True)}
    return {**timings, "total": sum(timings.values())}
