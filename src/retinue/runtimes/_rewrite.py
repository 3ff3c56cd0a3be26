"""The rewriting of `retinue.runtimes._blocked`, for the models that have something to rewrite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from retinue.runtimes._widen import BLOCK, Widths, group_of, grown

_MOST_WORK: Final = 2_000_000
"""Multiplications that a Pad may become: with more, leaving the blocked layout is cheaper."""
_PADDED_CHANNELS: Final = 5
"""Of eight amounts, that of channels behind."""


def rewrite(path: Path) -> bytes | None:
    """Return the model in other words, or None where there are none, or it cannot be read."""
    try:
        model = onnx.load(path, load_external_data=False)
        typed = onnx.shape_inference.infer_shapes(model)
    except (DecodeError, onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return None
    if not Rewriter(model, typed).rewrite():
        return None
    return bytes(model.SerializeToString())


class Rewriter:
    """Changes a model's graph; ``typed`` is the same model with its shapes inferred."""

    def __init__(self, model: onnx.ModelProto, typed: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._constants: Mapping[str, onnx.TensorProto] = {
            tensor.name: tensor for tensor in model.graph.initializer
        }
        self._channels: dict[str, int] = {}
        self._pixels: dict[str, int] = {}
        for value in (*typed.graph.value_info, *typed.graph.input):
            sizes = value.type.tensor_type.shape.dim
            if len(sizes) == 4:
                self._channels[value.name] = sizes[1].dim_value
                self._pixels[value.name] = sizes[2].dim_value * sizes[3].dim_value
        self._nodes: list[onnx.NodeProto] = []

    def rewrite(self) -> bool:
        """Change the graph; tell whether anything was to change."""
        before = list(self._graph.node)
        self._widths = Widths(self._graph, self._channels, self._value, self._widens)
        if not any(self._widens(node) for node in before):
            self._widths = Widths(onnx.GraphProto(), {}, self._value, self._widens)
        changed = False
        for node in before:
            done = (
                (node.op_type == "PRelu" and self._prelu(node))
                or (node.op_type == "Pad" and self._pad(node))
                or (node.op_type == "Conv" and self._conv(node))
            )
            if not done:
                self._nodes.append(node)
            changed |= done
        if changed:
            del self._graph.node[:]
            self._graph.node.extend(self._nodes)
            del self._graph.value_info[:]
        return changed

    def _prelu(self, node: onnx.NodeProto) -> bool:
        """Say it as ``x + (1 - slope) relu(-x)``."""
        slope = self._value(node.input[1])
        channels = self._channels.get(node.input[0], 0)
        if slope is None or slope.dtype != np.float32 or not channels:
            return False
        if slope.size not in (1, channels) or (
            slope.size > 1 and slope.shape[-3:] != (channels, 1, 1)
        ):
            return False
        source, name = node.input[0], node.output[0]
        rest = np.broadcast_to(1 - slope.reshape(-1), channels)
        self._scale(source, f"{name}/minus", np.full(channels, -1, np.float32))
        self._emit("Relu", [f"{name}/minus"], f"{name}/below")
        self._scale(f"{name}/below", f"{name}/rest", rest.astype(np.float32))
        self._emit("Add", [f"{name}/rest", source], name)
        return True

    def _widens(self, node: onnx.NodeProto) -> bool:
        """Tell whether a node is a Pad that adds channels of zeros and nothing else."""
        if node.op_type != "Pad" or not 2 <= len(node.input) <= 3:
            return False
        amounts = self._value(node.input[1])
        if amounts is None or amounts.size != 8 or not self._channels.get(node.input[0]):
            return False
        if any(a.name == "mode" and a.s != b"constant" for a in node.attribute):
            return False
        if len(node.input) > 2 and node.input[2]:
            fill = self._value(node.input[2])
            if fill is None or fill.any():
                return False
        return int(amounts[_PADDED_CHANNELS]) > 0 and not np.delete(amounts, _PADDED_CHANNELS).any()

    def _pad(self, node: onnx.NodeProto) -> bool:
        """Say added channels as a convolution by a part of the unit matrix, or not at all."""
        if not self._widens(node):
            return False
        amounts = self._value(node.input[1])
        assert amounts is not None
        name, source = node.output[0], node.input[0]
        before = self._widths.of(source) or self._channels[source]
        after = self._widths.of(name) or self._channels[source] + int(amounts[_PADDED_CHANNELS])
        if before == after:
            self._emit("Identity", [source], name)
            return True
        work = before * after * self._pixels[source]
        if before % BLOCK or after % BLOCK or not 0 < work <= _MOST_WORK:
            if after - before == amounts[_PADDED_CHANNELS]:
                return False
            wider = amounts.copy()
            wider[_PADDED_CHANNELS] = after - before
            wide = self._constant(f"{name}/amounts", wider)
            self._emit("Pad", [source, wide, *node.input[2:]], name)
            return True
        unit = np.eye(after, before, dtype=np.float32)[:, :, None, None]
        self._emit("Conv", [source, self._constant(f"{name}/unit", unit)], name)
        return True

    def _conv(self, node: onnx.NodeProto) -> bool:
        """Give a convolution weights for the channels that its tensors have now."""
        weights = self._value(node.input[1])
        if not self._widths.changed(node) or weights is None:
            return False
        deep = group_of(node) > 1
        taken, made = self._widths.of(node.input[0]), self._widths.of(node.output[0])
        made = made or weights.shape[0]
        wide = helper.make_node(node.op_type, list(node.input), list(node.output), node.name)
        wide.attribute.extend(a for a in node.attribute if not (deep and a.name == "group"))
        if deep:
            wide.attribute.append(helper.make_attribute("group", made))
        whole = grown(weights, made) if deep else grown(weights, made, taken)
        wide.input[1] = self._constant(f"{node.output[0]}/weights", whole)
        if len(node.input) > 2 and node.input[2]:
            bias = self._value(node.input[2])
            assert bias is not None
            wide.input[2] = self._constant(f"{node.output[0]}/bias", grown(bias, made))
        self._nodes.append(wide)
        return True

    def _value(self, name: str) -> NDArray[np.generic] | None:
        found = self._constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def _scale(self, source: str, name: str, factors: NDArray[np.float32]) -> None:
        weights = self._constant(f"{name}/weights", factors.reshape(-1, 1, 1, 1))
        node = helper.make_node("Conv", [source, weights], [name], name, group=len(factors))
        self._nodes.append(node)

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _emit(self, op: str, inputs: list[str], output: str) -> None:
        self._nodes.append(helper.make_node(op, inputs, [output], output))
