"""Turns a built graph into an ONNX file: only what is used, checked, and always the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
from onnx import helper
from onnxruntime.capi import (  # type: ignore[import-untyped]
    onnxruntime_pybind11_state as ort_errors,
)

from retinue.core.errors import UnsupportedModel, storage_errors
from retinue.core.types import Array
from retinue.models.importers._build.fuse import fuse
from retinue.models.importers._build.graph import (
    BATCH,
    IR_VERSION,
    OPSETS,
    Emitted,
    Graph,
    Shape,
    Tensor,
    as_tensor_proto,
    has_batch,
    to_proto,
)


_REFUSED = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_MOST_SIZES = 64
"""A constant with more elements is no list of sizes."""


class FixedBatch(Exception):  # noqa: N818 - an inner signal, never shown
    """The graph's arithmetic does not let the batch size vary."""


def finish(graph: Graph, outputs: Mapping[str, Tensor], name: str) -> onnx.ModelProto:
    """Return the ONNX model.

    The stand-in of the batch size becomes the dimension "batch".

    Args:
        graph: What was emitted.
        outputs: Output name to the tensor.
        name: Name of the ONNX graph.

    Raises:
        FixedBatch: a constant depends on the batch size in a way that cannot vary.
        UnsupportedModel: ONNX's strict checker refuses the result.
    """
    named = _named(graph, outputs)
    nodes = _used(fuse(graph, _used(graph.nodes, named), named), named)
    nodes = _Batch(graph).free(nodes)
    try:
        infos = [_info(tensor.name, tensor.dtype, tensor.shape) for tensor in graph.inputs]
        results = [_info(key, outputs[key].dtype, outputs[key].shape) for key in outputs]
        constants = {
            i.name: i for node in nodes for i in node.inputs if i is not None and i.data is not None
        }
        built = helper.make_graph(
            [to_proto(node) for node in nodes],
            name,
            infos,
            results,
            [as_tensor_proto(tensor) for tensor in constants.values()],
        )
        model = helper.make_model(
            built, opset_imports=OPSETS, ir_version=IR_VERSION, producer_name="retinue"
        )
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise UnsupportedModel(f"{name} cannot be written as ONNX: {error}") from error
    return model


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write the model; equal models give equal bytes."""
    with storage_errors(path, "writing the model"):
        path.write_bytes(model.SerializeToString(deterministic=True))


def _named(graph: Graph, outputs: Mapping[str, Tensor]) -> set[str]:
    """Give outputs their names by a node each, or by renaming where a node makes only it."""
    renames: dict[str, str] = {}
    for key, tensor in outputs.items():
        if tensor.name in graph.producers and tensor.name not in renames:
            renames[tensor.name] = key
        else:
            graph.nodes.append(Emitted("Identity", (tensor,), (key,), {}))
    taken = set(renames.values()) | set(outputs)

    def final(old: str) -> str:
        if old in renames:
            return renames[old]
        return f"{old}.inner" if old in taken else old

    def rename(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or tensor.data is not None or tensor in graph.inputs:
            return tensor
        return replace(tensor, name=final(tensor.name))

    for at, node in enumerate(graph.nodes):
        made = node.outputs
        if node.op != "Identity" or made[0] not in outputs:
            made = tuple(final(name) for name in made)
        graph.nodes[at] = replace(node, inputs=tuple(map(rename, node.inputs)), outputs=made)
    return set(outputs)


def _used(nodes: list[Emitted], outputs: set[str]) -> list[Emitted]:
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(i.name for i in node.inputs if i is not None)
    return kept[::-1]


def _info(name: str, dtype: np.dtype[Any], shape: Shape) -> onnx.ValueInfoProto:
    sizes = ["batch" if s == BATCH else None if s and s % BATCH == 0 else s for s in shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), sizes)


class _Batch:
    """Replaces constants that hold the batch size's stand-in by what computes it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._new: list[Emitted] = []
        self._size: Tensor | None = None

    def free(self, nodes: list[Emitted]) -> list[Emitted]:
        free = []
        for node in nodes:
            inputs = [self._input(node, at, i) for at, i in enumerate(node.inputs)]
            free.append(replace(node, inputs=tuple(inputs)))
        return self._new + free

    def _input(self, node: Emitted, at: int, tensor: Tensor | None) -> Tensor | None:
        if tensor is None or tensor.data is None or not tensor.derived:
            return tensor
        if has_batch(tensor.shape):
            raise FixedBatch
        data = tensor.data
        flat = data.reshape(-1)
        if flat.size > _MOST_SIZES or data.dtype.kind not in "if" or not np.isfinite(flat).all():
            return tensor
        marked = np.flatnonzero((flat != 0) & (flat % BATCH == 0))
        if not marked.size:
            return tensor
        if data.dtype.kind == "f" or data.ndim > 1 or flat[marked].min() < 0:
            raise FixedBatch
        if node.op == "Reshape" and at == 1 and len(marked) == 1 and -1 not in data:
            free = data.copy()
            free[marked] = -1
            return self._graph.constant(free)
        return self._computed(data)

    def _computed(self, data: Array) -> Tensor:
        parts: list[Tensor] = []
        for item in data.reshape(-1).tolist():
            if item and item % BATCH == 0:
                factor = self._graph.constant(np.array([item // BATCH], np.int64))
                parts.append(self._emit("Mul", self._batch(), factor))
            else:
                parts.append(self._graph.constant(np.array([item], np.int64)))
        whole = self._emit("Concat", *parts, axis=0)
        if data.dtype != np.int64:
            whole = self._emit("Cast", whole, to=helper.np_dtype_to_tensor_dtype(data.dtype))
        if data.ndim == 0:
            whole = self._emit("Squeeze", whole, self._graph.constant(np.array([0], np.int64)))
        return whole

    def _batch(self) -> Tensor:
        if self._size is None:
            source = next((i for i in self._graph.inputs if i.shape[:1] == (BATCH,)), None)
            if source is None:
                raise FixedBatch
            shape = self._emit("Shape", source)
            one = self._graph.constant(np.array([1], np.int64))
            zero = self._graph.constant(np.array([0], np.int64))
            self._size = self._emit("Slice", shape, zero, one)
        return self._size

    def _emit(self, op: str, *inputs: Tensor, **attributes: Any) -> Tensor:
        name = self._graph.unique("batch_size")
        self._new.append(Emitted(op, inputs, (name,), attributes))
        return Tensor(name, np.dtype(np.int64), (None,))


def rows_agree(model: onnx.ModelProto, rows: int = 4) -> bool:
    """Run a batch and its rows one by one; tell whether they agree.

    Args:
        model: With the dimension "batch" first in every input and output.
        rows: Size of the batch.

    Returns:
        False where an output has another number of rows, or a row differs by more than 1e-3 of
        the output's largest magnitude, or the batch cannot be run.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    generator = np.random.default_rng(20)
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feeds = {
            i.name: generator.random([rows, *i.shape[1:]], np.float32).astype(
                np.float32 if i.type == "tensor(float)" else np.int32
            )
            for i in session.get_inputs()
        }
        together = session.run(None, feeds)
        for row in range(rows):
            single = session.run(None, {k: v[row : row + 1] for k, v in feeds.items()})
            for one, many in zip(single, together, strict=True):
                if not _same(np.asarray(one), np.asarray(many), row, rows):
                    return False
    except _REFUSED:
        return False
    return True


def _same(one: Array, many: Array, row: int, rows: int) -> bool:
    if many.ndim == 0 or len(many) != rows or one.shape != (1, *many.shape[1:]):
        return False
    scale = float(np.abs(many).max(initial=1.0))
    return bool(np.allclose(one[0], many[row], rtol=0, atol=1e-3 * scale, equal_nan=True))
