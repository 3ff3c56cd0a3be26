"""A model that takes encoded image files: pre- and postprocessing are done by the server.

Its one input is "image", BYTES [N, 1] or [N]; its outputs follow from the model card's task:

- detect: ``num_detections`` INT32 [N, 1]; ``boxes`` FP32 [N, M, 4], x1 y1 x2 y2 in pixels of the
  upright original; ``scores`` FP32 [N, M]; ``class_ids`` INT64 [N, M]; ``labels`` BYTES [N, M]. M
  is the largest number of the request; a row of fewer ends with boxes and scores of 0, class -1
  and an empty label.
- classify: ``scores`` FP32 [N, C] in [0, 1], and the best class as ``class_id`` INT64 [N, 1] and
  ``label`` BYTES [N, 1].
- embed: ``embedding`` FP32 [N, D]. A classifier whose network has an output "embedding" has it too.
- landmarks: ``landmarks`` FP32 [N, K, 3], x and y in pixels of the upright original, z in the same
  unit; ``score`` FP32 [N, 1], the presence of the object that fills the image, in [0, 1].
- segment: ``mask`` UINT8 [N, H, W], 255 where a place is wholly the object's, and ``mask_size``
  INT32 [N, 2]: that many rows and columns from the top left corner cover the whole image, the rest
  is 0. H and W are the largest of the request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from retinue.apps.detect.answer import decide
from retinue.core.errors import InvalidRequest, InvalidTensor, ModelRunFailed
from retinue.core.protocols import Pipeline
from retinue.core.record import Record
from retinue.core.types import (
    Array,
    Detections,
    Embedding,
    Landmarks,
    Mask,
    Outcome,
    Scores,
    Tensors,
    TensorSpec,
)
from retinue.host.contract import Host
from retinue.host.oip.served import InputTensor, Terms, checked
from retinue.models.card import Card

T = TypeVar("T")

APP = "v2"
"""The app that the records name."""

_INPUT = TensorSpec("image", "object", (-1, 1))
_EMBEDDING = "embedding"
_DETECTIONS = (
    TensorSpec("num_detections", "int32", (-1, 1)),
    TensorSpec("boxes", "float32", (-1, -1, 4)),
    TensorSpec("scores", "float32", (-1, -1)),
    TensorSpec("class_ids", "int64", (-1, -1)),
    TensorSpec("labels", "object", (-1, -1)),
)
_FIXED = {
    "detect": _DETECTIONS,
    "landmarks": (
        TensorSpec("landmarks", "float32", (-1, -1, 3)),
        TensorSpec("score", "float32", (-1, 1)),
    ),
    "segment": (
        TensorSpec("mask", "uint8", (-1, -1, -1)),
        TensorSpec("mask_size", "int32", (-1, 2)),
    ),
}
"""Outputs by task, where they do not depend on the model."""


class ImageModel:
    """A loaded model's twin for image files; implements `retinue.host.oip.served.Served`."""

    runtime = "retinue"
    inputs = (_INPUT,)

    def __init__(self, name: str, pipeline: Pipeline, host: Host) -> None:
        self.name = name
        self.pipeline = pipeline
        self._card: Card = pipeline.model.card
        self._host = host

    @property
    def version(self) -> str:
        """The version that is loaded."""
        return self.pipeline.model.version

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the card's task gives."""
        if self._card.task in _FIXED:
            return _FIXED[self._card.task]
        given = self._embedding()
        if self._card.task == "embed":
            return (given or TensorSpec(_EMBEDDING, "float32", (-1, -1)),)
        scores = (
            TensorSpec("scores", "float32", (-1, len(self._card.classes))),
            TensorSpec("class_id", "int64", (-1, 1)),
            TensorSpec("label", "object", (-1, 1)),
        )
        return (*scores, given) if given else scores

    def _embedding(self) -> TensorSpec | None:
        for spec in self.pipeline.model.runtime.outputs:
            if spec.name == _EMBEDDING and len(spec.shape) == 2:
                return replace(spec, shape=(-1, spec.shape[1]))
        return None

    def labels(self, output: str) -> tuple[str, ...]:
        """Return the card's classes for a classifier's scores."""
        return self._card.classes if self._card.task == "classify" and output == "scores" else ()

    async def infer(self, inputs: Sequence[InputTensor], terms: Terms) -> Tensors:
        """Carry each image through the pipeline; a record is kept of each.

        The request's parameter ``conf``, a number in [0, 1], leaves out detections below it.

        Raises:
            InvalidTensor: the input is not one BYTES tensor of 1 to ``batching.max_queue`` images.
            InvalidRequest: ``conf`` is out of range.
            RetinueError: the error of the first image that failed, with its index.
        """
        column = checked([_column(one) for one in inputs], self.inputs)[_INPUT.name]
        images: list[bytes] = column[:, 0].tolist()
        most = self._host.settings.batching.max_queue
        if not 1 <= len(images) <= most:
            raise InvalidTensor(
                f"input 'image': send 1 to {most} images a request (setting batching.max_queue), "
                f"not {len(images)}"
            )
        conf = _conf(terms)
        records = await asyncio.gather(*(self._carry(image, conf, terms) for image in images))
        return self._tensors([_succeeded(i, record) for i, record in enumerate(records)])

    async def _carry(self, image: bytes, conf: float, terms: Terms) -> Record:
        record = await self.pipeline.submit(
            image,
            deadline=terms.deadline,
            priority=terms.priority,
            app=APP,
            client=terms.client,
        )
        record = decide(record, conf)
        await self._host.finish(record, image)
        return record

    def _tensors(self, outcomes: Sequence[Outcome]) -> Tensors:
        if self._card.task == "detect":
            return _detections([_value(o, Detections) for o in outcomes], self._card.classes)
        if self._card.task == "landmarks":
            return _landmarks([_value(o, Landmarks) for o in outcomes])
        if self._card.task == "segment":
            return _masks([_value(o, Mask).alpha for o in outcomes])
        if self._card.task == "embed":
            return {_EMBEDDING: np.stack([_value(o, Embedding).vector for o in outcomes])}
        scores = np.stack([_value(o, Scores).values for o in outcomes])
        best = scores.argmax(axis=1)[:, None]
        outputs: dict[str, Array] = {
            "scores": scores,
            "class_id": best.astype(np.int64),
            "label": _names(self._card.classes)[best],
        }
        if self._embedding():
            outputs[_EMBEDDING] = np.stack([_vector(o) for o in outcomes])
        return outputs


def _column(tensor: InputTensor) -> InputTensor:
    """Return a tensor [N] as [N, 1]."""
    if len(tensor.shape) != 1:
        return tensor
    return replace(tensor, shape=(*tensor.shape, 1), data=tensor.data[:, None])


def _conf(terms: Terms) -> float:
    given = terms.parameters.get("conf", 0.0)
    try:
        # Triton's clients have no parameters that are fractions: text says them, too.
        value = math.nan if isinstance(given, bool) else float(given)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise InvalidRequest(
            f"parameter 'conf' must be a number from 0 to 1, not {str(given)[:40]!r}"
        )
    return value


def _succeeded(index: int, record: Record) -> Outcome:
    error = record.outcome.error
    if error is not None:
        raise type(error)(f"image {index}: {error.message}") from error
    return record.outcome


def _value(outcome: Outcome, kind: type[T]) -> T:
    value = outcome.value
    if not isinstance(value, kind):
        message = f"the model answered {type(value).__name__} where its card's task gives "
        raise ModelRunFailed(f"{message}{kind.__name__}; correct the card")
    return value


def _vector(outcome: Outcome) -> Array:
    if outcome.embedding is None:
        raise ModelRunFailed(f"the network has an output {_EMBEDDING!r}, and the model gave none")
    return outcome.embedding.vector


def _names(classes: Sequence[str]) -> Array:
    """Return the classes' names, and "" for class -1."""
    names = np.empty(len(classes) + 1, object)
    names[:] = [*(name.encode() for name in classes), b""]
    return names


def _detections(found: Sequence[Detections], classes: Sequence[str]) -> Tensors:
    shape = (len(found), max(map(len, found)))
    boxes = np.zeros((*shape, 4), np.float32)
    scores = np.zeros(shape, np.float32)
    class_ids = np.full(shape, -1, np.int64)
    for row, one in enumerate(found):
        boxes[row, : len(one)] = one.boxes
        scores[row, : len(one)] = one.scores
        class_ids[row, : len(one)] = one.class_ids
    return {
        "num_detections": np.array([[len(one)] for one in found], np.int32),
        "boxes": boxes,
        "scores": scores,
        "class_ids": class_ids,
        "labels": _names(classes)[class_ids],
    }


def _landmarks(found: Sequence[Landmarks]) -> Tensors:
    return {
        "landmarks": np.stack([one.points for one in found]).astype(np.float32),
        "score": np.array([[one.score] for one in found], np.float32),
    }


def _masks(found: Sequence[Array]) -> Tensors:
    sizes = np.array([alpha.shape for alpha in found], np.int32)
    masks = np.zeros((len(found), *sizes.max(axis=0)), np.uint8)
    for mask, alpha in zip(masks, found, strict=True):
        mask[: alpha.shape[0], : alpha.shape[1]] = alpha
    return {"mask": masks, "mask_size": sizes}
