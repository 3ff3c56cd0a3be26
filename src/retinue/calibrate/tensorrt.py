"""An explicitly quantised network for TensorRT, as an ONNX file with Q/DQ pairs, and its check.

TensorRT itself is not run here. The rules that `check` holds a file to are those of its
documentation: 8-bit integers are signed and symmetric (zero points 0); scales are constants; a
weight's scales are by output channel, an activation's is one; biases stay in floating point; the
inputs of weighted layers are quantised and their outputs are not, so that a layer fuses with what
follows it; of an addition that joins a convolution's output with a shortcut, the shortcut alone
is quantised.

Sources: NVIDIA, "Working with Quantized Types" (explicit quantization, Q/DQ placement) of the
TensorRT 10 documentation; ONNX Runtime, "TensorRT execution provider" and the options of its
`QDQQuantizer` that are meant for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, numpy_helper

from retinue.calibrate.variants import WEIGHTED, Method, Recipe
from retinue.calibrate.variants_onnxruntime import StaticQuantizer
from retinue.core.errors import UnsupportedModel, storage_errors
from retinue.models._disk import write_whole

OPSETS: Final = range(13, 21)
"""From the first one with scales by channel to the last one that every TensorRT 10 reads."""

NOT_RUN: Final = "TensorRT was not run: the file's structure was checked, its answers were not."

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_AXES: Final = {"Conv": 0, "ConvTranspose": 1}
_JOIN: Final = "Add"


def export(static: StaticQuantizer, out: Path, *, method: Method = "entropy") -> None:
    """Write a network for TensorRT.

    Args:
        static: The network and its ranges.
        out: The file to write, whole or not at all.
        method: How the ranges of activations are found. TensorRT's own calibrator for
            convolutional networks goes by entropy too.

    Raises:
        UnsupportedModel: the network cannot be quantised so, or the result breaks a rule.
        StorageError: the file cannot be written.
    """
    made = static.network.folder / "tensorrt.onnx"
    with storage_errors(made, "writing the TensorRT model"):
        static.make(
            Recipe("onnxruntime", method, per_channel=True, weights="s8"),
            made,
            operators=[*WEIGHTED, _JOIN],
            options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "AddQDQPairToWeight": True,
                "DedicatedQDQPair": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": [*WEIGHTED, _JOIN],
                "QDQOpTypePerChannelSupportToAxis": dict(_AXES),
            },
        )
        model = onnx.load(str(made))
    _tidy(model)
    broken = _broken(model)
    if broken:
        message = "the network cannot be written as TensorRT asks for it"
        raise UnsupportedModel(f"{message}: {'; '.join(broken[:3])}")
    with storage_errors(out, "writing the TensorRT model"):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, model.SerializeToString())


def check(path: Path) -> list[str]:
    """Return what in an ONNX file breaks TensorRT's rules of explicit quantisation; [] if nothing.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        with storage_errors(path, "reading the TensorRT model"):
            model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return [f"it is not a valid ONNX file: {reason}"]
    return _broken(model)


def _broken(model: onnx.ModelProto) -> list[str]:
    graph = _Graph(model)
    return [*_of_file(model), *graph.pairs(), *graph.layers(), *graph.joins()]


def _of_file(model: onnx.ModelProto) -> Iterator[str]:
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            yield f"it imports operators of {opset.domain!r}; only ONNX's own are accepted"
        elif opset.version not in OPSETS:
            yield f"its opset is {opset.version}, not one of {OPSETS.start} to {OPSETS.stop - 1}"
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield f"{node.name}: {node.op_type} is an operator of {node.domain!r}"
        elif node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
            yield f"{node.name}: {node.op_type} is no Q/DQ pair"
    if not any(node.op_type == _Q for node in model.graph.node):
        yield "nothing in it is quantised"


class _Graph:
    """A network by its names."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.constants: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        self.makers: dict[str, Any] = {t: node for node in self.nodes for t in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for tensor in node.input:
                self.readers.setdefault(tensor, []).append(node)

    def maker(self, tensor: str) -> str:
        """Return the type of the node that makes a tensor, "" for constants and inputs."""
        node = self.makers.get(tensor)
        return str(node.op_type) if node is not None else ""

    def pairs(self) -> Iterator[str]:
        """Check that Q and DQ come in pairs, and their scales and zero points."""
        for node in self.nodes:
            if node.op_type == _Q:
                readers = self.readers.get(node.output[0], [])
                if not readers or any(reader.op_type != _DQ for reader in readers):
                    yield f"{node.name}: its output is not read by {_DQ} alone"
            elif node.op_type != _DQ:
                continue
            elif self.maker(node.input[0]) != _Q:
                yield f"{node.name}: it does not follow a {_Q}"
            elif list(self.makers[node.input[0]].input[1:]) != list(node.input[1:]):
                yield f"{node.name}: its scale is not that of its {_Q}"
            yield from self._scale(node)

    def _scale(self, node: Any) -> Iterator[str]:
        scale = self.constants.get(node.input[1])
        if scale is None:
            yield f"{node.name}: its scale is no constant"
        else:
            values = numpy_helper.to_array(scale)
            if values.dtype != np.float32 or not (np.isfinite(values) & (values > 0)).all():
                yield f"{node.name}: its scale is not positive float32"
        zero = self.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or zero.data_type != TensorProto.INT8:
            yield f"{node.name}: its integers are not signed 8-bit ones"
        elif numpy_helper.to_array(zero).any():
            yield f"{node.name}: its zero point is not 0"

    def layers(self) -> Iterator[str]:
        """Check the weighted layers: both factors quantised or none, the bias never."""
        for node in self.nodes:
            if node.op_type not in WEIGHTED:
                continue
            if [self.maker(tensor) for tensor in node.input[2:]].count(_DQ):
                yield f"{node.name}: its bias is quantised"
            quantized = [self.maker(tensor) == _DQ for tensor in node.input[:2]]
            if any(quantized) and not all(quantized):
                yield f"{node.name}: only one of its two factors is quantised"
            elif all(quantized):
                yield from self._factors(node)

    def _factors(self, node: Any) -> Iterator[str]:
        pair, weight = (self.makers[tensor] for tensor in node.input[:2])
        if np.prod(self._shape(pair.input[1])) != 1:
            yield f"{node.name}: its input has a scale for each channel"
        constant = self.constants.get(self.source(node.input[1]))
        axis = _AXES.get(node.op_type)
        if constant is None or axis is None:
            return
        scales = int(np.prod(self._shape(weight.input[1])))
        given = next((a.i for a in weight.attribute if a.name == "axis"), 1)
        if scales > 1 and (given != axis or scales != constant.dims[axis]):
            message = f"{scales} scales on axis {given} of its weights"
            yield f"{node.name}: {message}, not {constant.dims[axis]} on axis {axis}"

    def _shape(self, tensor: str) -> tuple[int, ...]:
        constant = self.constants.get(tensor)
        return tuple(constant.dims) if constant is not None else ()

    def joins(self) -> Iterator[str]:
        """Check the additions of shortcuts."""
        for node in self.nodes:
            if node.op_type == _JOIN and all(self.maker(t) == _DQ for t in node.input):
                yield f"{node.name}: both of its inputs are quantised, so it fuses with no layer"

    def source(self, tensor: str) -> str:
        """Return what a tensor is before a Q/DQ pair; itself without one."""
        pair = self.makers[tensor].input[0] if self.maker(tensor) == _DQ else ""
        return str(self.makers[pair].input[0]) if self.maker(pair) == _Q else tensor


def _tidy(model: onnx.ModelProto) -> None:
    """Take out what the quantiser's options cannot leave out.

    The pair between a layer and the addition that should fuse with it, and the imports of
    operators that are not used.
    """
    graph = _Graph(model)
    for node in graph.nodes:
        if node.op_type == _JOIN:
            _open_one(graph, node)
    for operator in (_DQ, _Q):
        read = _read(model)
        for node in graph.nodes:
            if node.op_type == operator and not read & set(node.output):
                model.graph.node.remove(node)
    read = _read(model)
    kept = [t for t in model.graph.initializer if t.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    domains = {node.domain or "" for node in model.graph.node}
    opsets = [o for o in model.opset_import if (o.domain or "") in domains | {"", "ai.onnx"}]
    del model.opset_import[:]
    model.opset_import.extend(opsets)


def _read(model: onnx.ModelProto) -> set[str]:
    """Return the tensors that are read, by nodes or as outputs."""
    inside = {tensor for node in model.graph.node for tensor in node.input}
    return inside | {value.name for value in model.graph.output}


def _open_one(graph: _Graph, node: Any) -> None:
    """Let an addition read one layer's output directly, the one that fewest others read.

    One that joins no layer's output with a shortcut gets both inputs in floating point.
    """
    sources = [graph.source(tensor) for tensor in node.input]
    layers = [i for i, source in enumerate(sources) if graph.maker(source) in WEIGHTED]
    if not layers or any(source in graph.constants for source in sources):
        opened = list(range(len(sources)))
    else:
        opened = [min(layers, key=lambda i: len(graph.readers[sources[i]]))]
    for i in opened:
        node.input[i] = sources[i]
