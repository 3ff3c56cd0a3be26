"""The values of Retinue: frozen dataclasses, flat, with no converters.

Coordinates are pixels of the **upright original** (after EXIF orientation), origin at the top left
corner of the top left pixel, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import RetinueError

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]

STAGES = ("decode", "preprocess", "queue", "run", "postprocess", "total")
"""What an outcome's timings are given by, in order."""


def _no_timings() -> Mapping[str, float]:
    return MappingProxyType({})


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A decoded picture.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, upright, C-contiguous. May be smaller than the original when
            a scaled decode was enough.
        width: Width of the upright original in pixels.
        height: Height of the upright original in pixels.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int

    def __post_init__(self) -> None:
        p = self.pixels
        _check(p.dtype == np.uint8, f"pixels must be uint8, not {p.dtype}")
        _check(p.ndim == 3 and p.shape[2] == 3, f"pixels must be (H, W, 3), not {p.shape}")
        _check(p.shape[0] > 0 and p.shape[1] > 0, f"pixels are empty: {p.shape}")
        _check(self.width > 0 and self.height > 0, "width and height must be positive")


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a detector found in one image, best score first.

    Attributes:
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels of the upright original, clipped to it.
        scores: (N,) float32 in [0, 1].
        class_ids: (N,) int64, indices into the model card's classes.
        keypoints: (N, K, 2) float32, x and y in pixels of the upright original, not clipped to
            it, in the order that the model documents; None where it gives none.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    keypoints: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        _check(self.boxes.shape == (n, 4), f"boxes must be (N, 4), not {self.boxes.shape}")
        _check(self.scores.shape == (n,), f"scores must be ({n},), not {self.scores.shape}")
        _check(self.class_ids.shape == (n,), f"class_ids must be ({n},)")
        if self.keypoints is not None:
            shape = self.keypoints.shape
            _check(len(shape) == 3 and shape[::2] == (n, 2), f"keypoints must be ({n}, K, 2)")

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One score for each class of the model card.

    Attributes:
        values: (C,) float32 in [0, 1].
    """

    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        _check(self.values.ndim == 1, f"values must be (C,), not {self.values.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A feature vector, and what some networks give beside it.

    Attributes:
        vector: (D,) float32.
        tokens: (T, B) uint8: each row the signs of one patch's features, 8 a byte, in the picture's
            reading order; None where the network gives none.
        grid: (rows, columns) of the patches, with rows * columns = T; (0, 0) without tokens.
        semantic: (E,) float32, a vector to compare with a text's where ``vector`` is none; None
            where the network gives none.
    """

    vector: NDArray[np.float32]
    tokens: NDArray[np.uint8] | None = None
    grid: tuple[int, int] = (0, 0)
    semantic: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        _check(self.vector.ndim == 1, f"vector must be (D,), not {self.vector.shape}")
        count = 0 if self.tokens is None else len(self.tokens)
        _check(self.grid[0] * self.grid[1] == count, f"{count} tokens are no grid of {self.grid}")


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """Named points of one object.

    Attributes:
        points: (N, 3) float32; x and y in pixels of the upright original, z in the same unit.
        score: Presence of the object, in [0, 1].
    """

    points: NDArray[np.float32]
    score: float

    def __post_init__(self) -> None:
        shape = self.points.shape
        _check(len(shape) == 2 and shape[1] == 3, f"points must be (N, 3), not {shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """How much of each place belongs to an object.

    Attributes:
        alpha: (h, w) uint8, 255 where a place is wholly the object's. It covers the whole of the
            upright original and may be smaller than it.
        width: Width of the upright original in pixels.
        height: Height of the upright original in pixels.
    """

    alpha: NDArray[np.uint8]
    width: int
    height: int

    def __post_init__(self) -> None:
        a = self.alpha
        _check(a.dtype == np.uint8, f"alpha must be uint8, not {a.dtype}")
        _check(a.ndim == 2 and a.size > 0, f"alpha must be (h, w), not {a.shape}")
        _check(self.width > 0 and self.height > 0, "width and height must be positive")


Value: TypeAlias = Detections | Scores | Embedding | Landmarks | Mask


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of one input: a value or an error, never both.

    Attributes:
        value: The answer, or None when it failed.
        error: Why it failed, or None.
        embedding: A feature vector of the input, when the model gives one beside its value.
        timings_ms: Milliseconds by stage, of `STAGES`; a stage that was not reached is absent.
    """

    value: Value | None = None
    error: RetinueError | None = None
    embedding: Embedding | None = None
    timings_ms: Mapping[str, float] = field(default_factory=_no_timings)

    def __post_init__(self) -> None:
        _check((self.value is None) != (self.error is None), "an outcome has a value or an error")

    def unwrap(self) -> Value:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.value is not None
        return self.value


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type and shape of one tensor of a model.

    Attributes:
        name: As in the model file.
        dtype: NumPy name, for example "float32".
        shape: -1 stands for a dimension that may vary; the first one is the batch.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One input after preprocessing, ready to be batched.

    Attributes:
        tensors: One row for each model input, without the batch dimension.
        width: Width of the upright original in pixels.
        height: Height of the upright original in pixels.
        context: Whatever the model's postprocessing needs (a letterbox, for example).
    """

    tensors: Tensors
    width: int = 0
    height: int = 0
    context: object = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A signal: something needs attention.

    Attributes:
        name: Stable name, for example "embedding_drift".
        message: What was seen, against which bound.
        severity: How urgent it is.
        value: The measured figure.
    """

    name: str
    message: str
    severity: Literal["info", "warning", "critical"] = "warning"
    value: float | None = None


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """A signal: a person should look at this record.

    Attributes:
        record_id: The record to label.
        reason: Why, for example "uncertain".
        priority: Larger is sooner.
    """

    record_id: str
    reason: str
    priority: float = 0.0


Signal: TypeAlias = Alarm | LabelRequest
