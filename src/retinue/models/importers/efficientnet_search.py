"""Imports EfficientNet-Lite0 as an embedding model for search.

To the network that `efficientnet_lite.convert` builds, constants learnt once are appended (the
repository's ``scripts/learn_search_space.py`` tells how and from what). The input is the same; the
outputs, all float32, are:

- "embedding" (batch, 256), unit length: 192 principal components of the pooled features' square
  roots beside 64 of the class probabilities' square roots. Each component is divided by the fourth
  root of its variance: half of a whitening (H. Jégou, O. Chum, "Negative evidences and
  co-occurrences in image retrieval", ECCV 2012), which on photos left out of the learning found
  more than none and than a whole one.
- "tokens" (batch, 49, 128), for their signs: a random rotation (as in A. Gordo, F. Perronnin,
  "Asymmetric distances for binary embeddings", CVPR 2011) of 128 whitened principal components of
  the square roots of features from the middle of the network, at stride 16, averaged to 7 x 7. The
  last layer's, which see nearly the whole picture, found a photo pasted into another less often.
- "semantic" (batch, 256), unit length: ConSE (M. Norouzi et al., "Zero-shot learning by convex
  combination of semantic embeddings", arXiv:1312.5650), the sum of the ten likeliest classes' word
  vectors by the square root of their probability. Words and vectors are WordNet's and WordLlama's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers._build.finish import write
from retinue.models.importers._legacy_pth import read_state_dict
from retinue.models.importers.efficientnet_lite import convert

DATA: Final = "efficientnet_lite0_search.npz"
LAYER: Final = "_blocks.11._expand_conv.1"
"""What tokens are made of: the features of stride 16 just before the network goes to 32."""
CLASS_SHARE: Final = 0.4
"""Length of the embedding's part from classes, where the part from features has 1."""
BEST: Final = 10
"""Classes that the semantic vector is made of."""
TINY: Final = 1e-12

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Constants:
    """What was learnt; all float32.

    Attributes:
        pooled_weight: (F, D1), from the square roots of the F pooled features.
        pooled_bias: (D1,).
        class_weight: (C, D2), from the square roots of the C probabilities.
        class_bias: (D2,).
        token_weight: (B, M), from the square roots of the M features of `LAYER`.
        token_bias: (B,).
        class_vectors: (C, E), each class's word vector, of unit length.
    """

    pooled_weight: Floats
    pooled_bias: Floats
    class_weight: Floats
    class_bias: Floats
    token_weight: Floats
    token_bias: Floats
    class_vectors: Floats


def load_constants() -> Constants:
    """Return the constants that ship with Retinue."""
    file = resources.files("retinue.models.importers") / "data" / DATA
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return Constants(*(arrays[field.name].astype(np.float32) for field in fields(Constants)))


class _Extension:
    """Nodes that are put at a network's end."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self._count = 0

    def constant(self, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> str:
        self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        self._count += 1
        name = to or f"search.{self._count}"
        self.graph.node.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def unit(self, x: str, to: str = "", length: float = 1.0) -> str:
        """Scale rows to a length; a row of zeros stays one."""
        norm = self.node("ReduceL2", x, axes=[1], keepdims=1)
        if not any(i.name == "search.tiny" for i in self.graph.initializer):
            self.constant("search.tiny", np.array(TINY, np.float32))
        divisor = self.node("Max", norm, "search.tiny")
        if length == 1:
            return self.node("Div", x, divisor, to=to)
        factor = self.constant(f"{x}.length", np.array(length, np.float32))
        return self.node("Mul", self.node("Div", x, divisor), factor, to=to)

    def root_projection(self, x: str, name: str, weight: Floats, bias: Floats) -> str:
        weights = self.constant(f"search.{name}_weight", weight)
        biases = self.constant(f"search.{name}_bias", bias)
        return self.node("Gemm", self.node("Sqrt", x), weights, biases)


def extend(model: onnx.ModelProto, constants: Constants) -> onnx.ModelProto:
    """Return `efficientnet_lite.convert`'s model with the outputs of search for its own.

    Args:
        model: Is changed.
        constants: What was learnt for it.

    Raises:
        UnsupportedModel: the constants were learnt for a network of other sizes.
    """
    side, middle, pooled, classes = _sizes(model)
    wanted = (
        constants.token_weight.shape[1],
        constants.pooled_weight.shape[0],
        constants.class_vectors.shape[0],
    )
    if (middle, pooled, classes) != wanted or side % 2:
        raise UnsupportedModel(
            "the weights are not EfficientNet-Lite0's, which the constants of search were learnt "
            f"for: {middle} features in the middle, {pooled} pooled and {classes} classes, and "
            f"{wanted} are expected"
        )
    for node in model.graph.node:
        node.name = "pooled" if node.name == "embedding" else node.name
        for names in (node.input, node.output):
            names[:] = ["pooled" if name == "embedding" else name for name in names]
    extension = _Extension(model)
    _embedding(extension, constants)
    _tokens(extension, constants)
    _semantic(extension, constants)
    del model.graph.output[:]
    sizes: dict[str, tuple[str | int, ...]] = {
        "embedding": ("batch", len(constants.pooled_bias) + len(constants.class_bias)),
        "tokens": ("batch", (side // 2) ** 2, len(constants.token_bias)),
        "semantic": ("batch", constants.class_vectors.shape[1]),
    }
    for name, shape in sizes.items():
        model.graph.output.append(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        )
    onnx.checker.check_model(model, full_check=True)
    return model


def _sizes(model: onnx.ModelProto) -> tuple[int, int, int, int]:
    """Return the side and channels of `LAYER`, the pooled features and the classes."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in (*inferred.value_info, *inferred.output)
    }
    if len(shapes.get(LAYER, ())) != 4:
        raise UnsupportedModel(f"the weights are not EfficientNet-Lite0's: no layer {LAYER!r}")
    _, channels, side, _ = shapes[LAYER]
    return side, channels, shapes["embedding"][1], shapes["probabilities"][1]


def _embedding(extension: _Extension, constants: Constants) -> None:
    whole = float(np.hypot(1, CLASS_SHARE))
    pooled = extension.root_projection(
        "pooled", "pooled", constants.pooled_weight, constants.pooled_bias
    )
    classes = extension.root_projection(
        "probabilities", "class", constants.class_weight, constants.class_bias
    )
    parts = (
        extension.unit(pooled, length=1 / whole),
        extension.unit(classes, length=CLASS_SHARE / whole),
    )
    extension.node("Concat", *parts, to="embedding", axis=1)


def _tokens(extension: _Extension, constants: Constants) -> None:
    bits, channels = constants.token_weight.shape
    averaged = extension.node("AveragePool", LAYER, kernel_shape=[2, 2], strides=[2, 2])
    weights = constants.token_weight.reshape(bits, channels, 1, 1)
    projected = extension.node(
        "Conv",
        extension.node("Sqrt", averaged),
        extension.constant("search.token_weight", weights),
        extension.constant("search.token_bias", constants.token_bias),
    )
    flat = extension.constant("search.token_shape", np.array([0, bits, -1], np.int64))
    rows = extension.node("Reshape", projected, flat)
    extension.node("Transpose", rows, to="tokens", perm=[0, 2, 1])


def _semantic(extension: _Extension, constants: Constants) -> None:
    best = min(BEST, len(constants.class_vectors))
    count = extension.constant("search.best", np.array([best], np.int64))
    extension.graph.node.append(
        helper.make_node(
            "TopK",
            ["probabilities", count],
            ["search.chances", "search.classes"],
            name="search.top",
            axis=1,
        )
    )
    vectors = extension.constant("search.class_vectors", constants.class_vectors)
    chosen = extension.node("Gather", vectors, "search.classes")
    axis = extension.constant("search.middle", np.array([1], np.int64))
    weights = extension.node("Unsqueeze", extension.node("Sqrt", "search.chances"), axis)
    total = extension.node("Squeeze", extension.node("MatMul", weights, chosen), axis)
    extension.unit(total, to="semantic")


def _import(files: Mapping[str, Path], output: Path) -> None:
    weights = [name for name in sorted(files) if name.endswith(".pth")]
    if len(weights) != 1:
        raise ModelCorrupt(f"one .pth file is needed, not {weights or 'none'}")
    write(extend(convert(read_state_dict(files[weights[0]])), load_constants()), output)


IMPORTER = _import
"""Called with (name inside the package to local file, path of the ONNX file to write)."""
