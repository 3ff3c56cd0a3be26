"""Plausible outputs of every known layout, as a function of the picture.

A new layout gets a function here and an entry in `LAYOUTS`; its family is then held to the model
contract with no weights at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from retinue.core.types import Array, Tensors, TensorSpec
from retinue.models.card import Card
from retinue.testing.function_runtime import FunctionRuntime

Rows = dict[str, Array]
Make = Callable[[Card, np.random.Generator, float], Rows]

BOXES = 40
BINS = 11
DIMENSIONS = 16


def runtime_for(
    card: Card,
    *,
    batch: int = -1,
    level: float = 0.98,
    fails: Callable[[Tensors], bool] = lambda row: False,
    spoils: Callable[[Tensors], bool] = lambda row: False,
) -> FunctionRuntime:
    """Make a runtime that fits a card.

    Its answers are drawn from a generator whose seed is the picture's mean: the same picture gets
    the same answer alone and in any batch, and different pictures get different ones.

    Args:
        card: Its ``output.layout`` must be in `LAYOUTS`.
        batch: A fixed batch size, or -1 for any.
        level: The highest score of a detector's boxes; 0 for a network that finds nothing.
        fails: Whether an item makes its whole batch fail.
        spoils: Whether an item's answer holds NaN.
    """
    make = LAYOUTS[card.output.layout]
    spec = card.input
    size = (spec.height, spec.width)
    shape = (3, *size) if spec.layout == "nchw" else (*size, 3)
    example = make(card, np.random.default_rng(0), level)

    def answer(row: Tensors) -> Rows:
        seed = int(abs(float(row["images"].mean(dtype=np.float64))) * 1e9)
        rows = make(card, np.random.default_rng(seed), level)
        if spoils(row):
            next(iter(rows.values())).flat[-1] = np.nan
        return rows

    outputs = tuple(TensorSpec(n, a.dtype.name, (batch, *a.shape)) for n, a in example.items())
    return FunctionRuntime(
        (TensorSpec("images", "float32", (batch, *shape)),), outputs, answer, fails
    )


def _scores(card: Card, random: np.random.Generator, level: float, *shape: int) -> Array:
    """Mostly low, a few up to the level; as logits where the card says so."""
    values = random.random(shape) ** 8 * level + 1e-6
    if card.output.scores == "logits":
        values = np.log(values / (1 - values))
    return values.astype(np.float32)


def _centers(card: Card, random: np.random.Generator, count: int) -> Array:
    size = np.array([card.input.width, card.input.height])
    centers = random.random((count, 2)) * size
    sizes = random.uniform(0.02, 0.5, (count, 2)) * size
    return np.concatenate([centers, sizes], axis=1).astype(np.float32)


def _nanodet(card: Card, random: np.random.Generator, level: float) -> Rows:
    rows: Rows = {}
    for stride in card.output.strides:
        cells = math.ceil(card.input.height / stride) * math.ceil(card.input.width / stride)
        rows[f"scores_{stride}"] = _scores(card, random, level, cells, len(card.classes))
        rows[f"distances_{stride}"] = random.normal(size=(cells, 4 * BINS)).astype(np.float32)
    return rows


def _yolox(card: Card, random: np.random.Generator, level: float) -> Rows:
    spec = card.input
    cells = sum((spec.height // s) * (spec.width // s) for s in card.output.strides)
    boxes = random.normal(size=(cells, 4)).astype(np.float32)
    scores = _scores(card, random, level, cells, 1 + len(card.classes))
    return {"output": np.concatenate([boxes, scores], axis=1)}


def _yolov5(card: Card, random: np.random.Generator, level: float) -> Rows:
    scores = _scores(card, random, level, BOXES, 1 + len(card.classes))
    return {"output": np.concatenate([_centers(card, random, BOXES), scores], axis=1)}


def _yolov8(card: Card, random: np.random.Generator, level: float) -> Rows:
    scores = _scores(card, random, level, BOXES, len(card.classes))
    rows = np.concatenate([_centers(card, random, BOXES), scores], axis=1)
    return {"output": np.ascontiguousarray(rows.T)}


def _yolov10(card: Card, random: np.random.Generator, level: float) -> Rows:
    centers = _centers(card, random, BOXES)
    corners = [centers[:, :2] - centers[:, 2:] / 2, centers[:, :2] + centers[:, 2:] / 2]
    scores = np.sort(random.random((BOXES, 1)), axis=0)[::-1] * level
    classes = random.integers(0, len(card.classes), (BOXES, 1))
    return {"output": np.concatenate([*corners, scores, classes], axis=1).astype(np.float32)}


def _classifier(card: Card, random: np.random.Generator, level: float) -> Rows:
    logits = random.normal(size=len(card.classes)).astype(np.float32)
    weights = np.exp(logits)
    probabilities = (weights / weights.sum()).astype(np.float32)
    return {
        "probabilities": logits if card.output.scores == "logits" else probabilities,
        "embedding": random.normal(size=DIMENSIONS).astype(np.float32),
    }


def _embedder(card: Card, random: np.random.Generator, level: float) -> Rows:
    shapes = {"embedding": (DIMENSIONS,), "tokens": (4, DIMENSIONS), "semantic": (DIMENSIONS,)}
    return {n: random.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}


def _blazeface(card: Card, random: np.random.Generator, level: float) -> Rows:
    spec, strides = card.input, card.output.strides
    cells = sum(math.ceil(spec.height / s) * math.ceil(spec.width / s) for s in strides)
    sizes = random.uniform(0.05, 0.4, (2 * cells, 2)) * [spec.width, spec.height]
    offsets = random.normal(size=(2 * cells, 14))
    offsets[:, 2:4] = sizes
    return {
        "regressors": np.concatenate([offsets, offsets[:, :2]], axis=1).astype(np.float32),
        "scores": _scores(card, random, level, 2 * cells, len(card.classes)),
    }


def _face_mesh(card: Card, random: np.random.Generator, level: float) -> Rows:
    points = random.random(1404) * card.input.width
    presence = _scores(card, random, level, 1, 1, 1)
    return {"mesh": points.astype(np.float32).reshape(1, 1, -1), "presence": presence}


def _face_mesh_attention(card: Card, random: np.random.Generator, level: float) -> Rows:
    sizes = {"lips": 160, "left_eye": 142, "right_eye": 142, "left_iris": 10, "right_iris": 10}
    parts = {
        f"output_{part}": (random.random((1, 1, size)) * card.input.width).astype(np.float32)
        for part, size in sizes.items()
    }
    return _face_mesh(card, random, level) | parts


def _mask(card: Card, random: np.random.Generator, level: float) -> Rows:
    return {"mask": _scores(card, random, level, card.input.height, card.input.width, 1)}


LAYOUTS: dict[str, Make] = {
    "nanodet": _nanodet,
    "yolox": _yolox,
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "yolov10": _yolov10,
    "classifier": _classifier,
    "embedder": _embedder,
    "vit": _embedder,
    "blazeface": _blazeface,
    "face-mesh": _face_mesh,
    "face-mesh-attention": _face_mesh_attention,
    "mask": _mask,
}
