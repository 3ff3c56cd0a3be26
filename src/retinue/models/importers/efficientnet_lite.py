"""Imports EfficientNet-Lite weights (a legacy ``.pth`` state dict) as ONNX, without PyTorch.

The input "images" is float32 (batch, 3, S, S), RGB, ``(pixel - 127) / 128``; S is 224, 240, 260,
280 or 300 for Lite0 to Lite4. The outputs are "probabilities", float32 (batch, classes), and
"embedding", float32 (batch, 1280): the pooled features before the classifier.

The state dict has the names of ``efficientnet_pytorch``. Widths, depths, kernels and expansion are
read from the tensors; the strides are the architecture's. Compared with EfficientNet, Lite has no
squeeze-and-excitation, ReLU6 for swish, and an unscaled stem and head
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Batch
normalisation (epsilon 1e-3, as TensorFlow trained it) is folded into the convolutions, and padding
is TensorFlow's SAME.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from math import ceil
from pathlib import Path

import numpy as np
import onnx

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.core.types import Array
from retinue.models.importers._build.finish import finish, write
from retinue.models.importers._build.graph import BATCH, Graph, Tensor
from retinue.models.importers._legacy_pth import read_state_dict

EPSILON = 1e-3
STRIDES = (1, 2, 2, 2, 1, 2, 1)
RESOLUTIONS = {
    (16, 40): 224,
    (21, 40): 240,
    (21, 48): 260,
    (24, 48): 280,
    (30, 56): 300,
}
"""(blocks, channels of the third stage) to the input's side in pixels."""


class _State:
    """A state dict whose missing or misshapen tensors are errors of the model."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors

    def has(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str, rank: int) -> Array:
        """Return a tensor as float64."""
        if name not in self._tensors:
            raise UnsupportedModel(f"the weights are not EfficientNet-Lite's: no {name!r}")
        tensor = self._tensors[name]
        if tensor.ndim != rank or tensor.dtype.kind != "f":
            raise UnsupportedModel(
                f"the weights are not EfficientNet-Lite's: {name!r} is {tensor.dtype} "
                f"{tensor.shape}, and {rank} dimensions of floats are expected"
            )
        return tensor.astype(np.float64)

    def blocks(self) -> list[str]:
        found = {m[1] for name in self._tensors if (m := re.match(r"_blocks\.(\d+)\.", name))}
        return [f"_blocks.{index}." for index in sorted(map(int, found))]

    def folded(self, conv: str, norm: str) -> tuple[Array, Array]:
        """Return weights and bias of a convolution with its batch normalisation folded in."""
        weights = self.get(f"{conv}.weight", 4)
        gain, bias, mean, variance = (
            self.get(f"{norm}.{part}", 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        channels = (len(weights),)
        if any(part.shape != channels for part in (gain, bias, mean, variance)):
            raise ModelCorrupt(f"{norm} does not have the {channels[0]} channels of {conv}")
        scale = gain / np.sqrt(variance + EPSILON)
        return weights * scale[:, None, None, None], bias - mean * scale


class _Builder:
    def __init__(self, state: _State) -> None:
        self.graph = Graph()
        self._state = state

    def conv(self, x: Tensor, name: str, norm: str, stride: int = 1, active: bool = True) -> Tensor:
        weights, bias = self._state.folded(name, norm)
        kernel = weights.shape[2:]
        depthwise = weights.shape[1] == 1 and x.shape[1] == len(weights)
        groups = len(weights) if depthwise else 1
        if weights.shape[1] * groups != x.shape[1]:
            raise ModelCorrupt(
                f"{name} takes {weights.shape[1]} channels and is given {x.shape[1]}"
            )
        totals = [
            max((ceil(size / stride) - 1) * stride + k - size, 0)
            for size, k in zip((s or 0 for s in x.shape[2:]), kernel, strict=True)
        ]
        self.graph.scope = name
        result = self.graph.emit(
            "Conv",
            x,
            self._float(weights),
            self._float(bias),
            kernel_shape=list(kernel),
            strides=[stride, stride],
            group=groups,
            pads=[t // 2 for t in totals] + [t - t // 2 for t in totals],
        )
        if not active:
            return result
        return self.graph.emit("Clip", result, self._float(np.array(0)), self._float(np.array(6)))

    def block(self, x: Tensor, prefix: str, stride: int) -> Tensor:
        inner = x
        if self._state.has(f"{prefix}_expand_conv.weight"):
            inner = self.conv(inner, f"{prefix}_expand_conv", f"{prefix}_bn0")
        inner = self.conv(inner, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride)
        inner = self.conv(inner, f"{prefix}_project_conv", f"{prefix}_bn2", active=False)
        return self.graph.emit("Add", inner, x) if inner.shape == x.shape else inner

    def head(self, x: Tensor) -> dict[str, Tensor]:
        weights = self._state.get("_fc.weight", 2)
        bias = self._state.get("_fc.bias", 1)
        self.graph.scope = "_fc"
        pooled = self.graph.emit("GlobalAveragePool", x)
        embedding = self.graph.squeeze(pooled, [2, 3])
        if weights.shape != (len(bias), embedding.shape[1]):
            raise ModelCorrupt(f"_fc.weight is {weights.shape} for {embedding.shape[1]} features")
        logits = self.graph.emit(
            "Gemm", embedding, self._float(weights), self._float(bias), transB=1
        )
        return {
            "probabilities": self.graph.emit("Softmax", logits, axis=1),
            "embedding": embedding,
        }

    def _float(self, values: Array) -> Tensor:
        return self.graph.constant(values.astype(np.float32))


def convert(tensors: Mapping[str, Array]) -> onnx.ModelProto:
    """Build the ONNX model of a state dict.

    Raises:
        UnsupportedModel: the tensors are not those of EfficientNet-Lite0 to Lite4.
        ModelCorrupt: tensors' shapes contradict one another.
    """
    state = _State(tensors)
    blocks = state.blocks()
    widths = [len(state.get(f"{block}_project_conv.weight", 4)) for block in blocks]
    stages = [(width, len(list(group))) for width, group in groupby(widths)]
    key = (len(blocks), stages[2][0]) if len(stages) == len(STRIDES) else None
    if key not in RESOLUTIONS:
        raise UnsupportedModel(
            f"the weights are not EfficientNet-Lite0 to Lite4: {len(blocks)} blocks in "
            f"{len(stages)} stages of widths {[width for width, _ in stages]}"
        )
    side = RESOLUTIONS[key]
    builder = _Builder(state)
    x = builder.graph.input("images", np.dtype(np.float32), (BATCH, 3, side, side))
    x = builder.conv(x, "_conv_stem", "_bn0", 2)
    remaining = iter(blocks)
    for stride, (_, count) in zip(STRIDES, stages, strict=True):
        for index in range(count):
            x = builder.block(x, next(remaining), stride if index == 0 else 1)
    x = builder.conv(x, "_conv_head", "_bn1")
    return finish(builder.graph, builder.head(x), "efficientnet_lite")


def _import(files: Mapping[str, Path], output: Path) -> None:
    weights = [name for name in sorted(files) if name.endswith(".pth")]
    if len(weights) != 1:
        raise ModelCorrupt(f"one .pth file is needed, not {weights or 'none'}")
    write(convert(read_state_dict(files[weights[0]])), output)


IMPORTER = _import
"""Called with (name inside the package to local file, path of the ONNX file to write)."""
