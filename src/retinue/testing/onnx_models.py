"""Tiny ONNX networks made by code, each beside its NumPy evaluation.

They stand in for real weights in the contract suites: small enough to be made in a millisecond,
and known so well that an answer can be computed by hand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from retinue.core.types import Array

OPSET = 17
IR_VERSION = 9

Floats = NDArray[np.float32]
Specs = Mapping[str, tuple[str, tuple[int | str, ...]]]
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}


def save(
    path: Path,
    nodes: list[Any],
    inputs: Specs,
    outputs: Specs,
    weights: Mapping[str, Array],
) -> Path:
    """Write a graph as an ONNX file.

    Args:
        path: Where to.
        nodes: What `onnx.helper.make_node` returns.
        inputs: Name to (NumPy dtype, shape); a string in a shape is a dimension that may vary.
        outputs: The same of the outputs.
        weights: Initializers.

    Returns:
        The path.
    """
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, _TYPES[d], s) for n, (d, s) in inputs.items()],
        [helper.make_tensor_value_info(n, _TYPES[d], s) for n, (d, s) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))
    return path


def convolution(path: Path) -> Path:
    """Write a 3x3 convolution with ReLU, mean over the picture, and a linear layer.

    ``picture`` float32 (N, 3, 8, 8) -> ``features`` (N, 5) and ``scores`` (N, 4), both float32.
    """
    weights = convolution_weights()
    nodes = [
        helper.make_node("Conv", ["picture", "kernel", "bias"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["map"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["features"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["features", "linear"], ["scores"]),
    ]
    inputs = {"picture": ("float32", ("N", 3, 8, 8))}
    outputs = {"features": ("float32", ("N", 5)), "scores": ("float32", ("N", 4))}
    return save(path, nodes, inputs, outputs, weights)


def evaluate_convolution(picture: Floats) -> dict[str, Floats]:
    """Evaluate `convolution` on (N, 3, 8, 8) in float64, by definition."""
    weights = {name: array.astype(np.float64) for name, array in convolution_weights().items()}
    padded = np.pad(picture.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    maps = np.einsum("nchwij,kcij->nkhw", windows, weights["kernel"])
    maps += weights["bias"][None, :, None, None]
    features = np.maximum(maps, 0).mean(axis=(2, 3))
    scores = features @ weights["linear"]
    return {"features": features.astype(np.float32), "scores": scores.astype(np.float32)}


def convolution_weights() -> dict[str, Floats]:
    """Return the weights of `convolution`: kernel (5, 3, 3, 3), bias (5,), linear (5, 4)."""
    random = np.random.default_rng(7)
    shapes = {"kernel": (5, 3, 3, 3), "bias": (5,), "linear": (5, 4)}
    return {name: random.normal(size=s).astype(np.float32) for name, s in shapes.items()}


def two_inputs(path: Path) -> Path:
    """Write ``total`` = ``left`` + float(``right``): float32 and int64 (N, 2) -> float32 (N, 2)."""
    nodes = [
        helper.make_node("Cast", ["right"], ["right_float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["left", "right_float"], ["total"]),
    ]
    inputs: Specs = {
        "left": ("float32", ("N", 2)),
        "right": ("int64", ("N", 2)),
    }
    return save(path, nodes, inputs, {"total": ("float32", ("N", 2))}, {})


def aliases(path: Path) -> Path:
    """Write a graph whose outputs are one value under several names, one of them odd.

    ``x`` float32 (N, 3) -> ``doubled``, ``again:0`` (its identity) and ``positive``, in this order.
    """
    nodes = [
        helper.make_node("Add", ["x", "x"], ["doubled"]),
        helper.make_node("Identity", ["doubled"], ["again:0"]),
        helper.make_node("Relu", ["again:0"], ["positive"]),
    ]
    names = ("doubled", "again:0", "positive")
    outputs: Specs = dict.fromkeys(names, ("float32", ("N", 3)))
    return save(path, nodes, {"x": ("float32", ("N", 3))}, outputs, {})


def unknown_operator(path: Path) -> Path:
    """Write a graph with an operator that no engine knows."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])],
        "tiny",
        [value("x", TensorProto.FLOAT, ["N", 3])],
        [value("y", TensorProto.FLOAT, ["N", 3])],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    onnx.save_model(
        helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), str(path)
    )
    return path


COLOURS = ("red", "green", "blue")


def color_detector(
    path: Path, size: int = 64, cell: int = 16, *, blind_to: Collection[int] = ()
) -> Path:
    """Write a detector of strongly coloured squares, in the "yolov8" layout.

    It really detects, so that a whole system can be tested on it: a cell's score for a colour is
    its mean share of that colour minus those of the two others, if positive; its box is the cell.

    Args:
        path: Where to.
        size: Height and width of the input ``images``: float32 (N, 3, size, size), RGB in [0, 1].
        cell: Side of a cell; divides ``size``.
        blind_to: Indices of `COLOURS` that it does not see.

    Returns:
        The path; ``output`` is float32 (N, 4 + 3, cells), of the classes `COLOURS`.
    """
    side = size // cell
    y, x = np.divmod(np.arange(side * side), side)
    centers = (np.stack([x, y]) + 0.5) * cell
    boxes = np.concatenate([centers, np.full((2, side * side), cell)])[None].astype(np.float32)
    contrast = 2 * np.eye(3) - 1
    contrast[list(blind_to)] = 0
    weights: dict[str, Array] = {
        "contrast": contrast.astype(np.float32)[:, :, None, None],
        "boxes": boxes,
        "cells": np.array([0, 3, -1], np.int64),
        "nothing": np.zeros((), np.float32),
    }
    nodes = [
        helper.make_node(
            "AveragePool", ["images"], ["means"], kernel_shape=[cell, cell], strides=[cell, cell]
        ),
        helper.make_node("Conv", ["means", "contrast"], ["contrasts"]),
        helper.make_node("Relu", ["contrasts"], ["strengths"]),
        helper.make_node("Reshape", ["strengths", "cells"], ["scores"]),
        helper.make_node("ReduceMean", ["scores"], ["mean"], axes=[1, 2], keepdims=1),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["boxes", "zero"], ["all_boxes"]),
        helper.make_node("Concat", ["all_boxes", "scores"], ["output"], axis=1),
    ]
    inputs: Specs = {"images": ("float32", ("N", 3, size, size))}
    outputs: Specs = {"output": ("float32", ("N", 7, side * side))}
    return save(path, nodes, inputs, outputs, weights)
