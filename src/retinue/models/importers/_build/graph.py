"""The ONNX graph under construction: emission with constant folding, and lazy layouts.

TensorFlow computes on NHWC and ONNX on NCHW. A `Value` is a TensorFlow value: its shape and axes
are TensorFlow's, but what it stores may be channels first. Operators ask for the order that they
need and a transpose is emitted only where the stored order differs, so that most transposes
cancel, the graph's own ones included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from retinue.core.errors import UnsupportedModel
from retinue.core.types import Array

Shape = tuple[int | None, ...]

OPSET = 17
BATCH = 1009
"""Stands for the batch size while the graph is built; a prime that no real size divides by."""

TO_NCHW = (0, 3, 1, 2)
TO_NHWC = (0, 2, 3, 1)
OPSETS = [helper.make_opsetid("", OPSET)]
IR_VERSION = 8


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An ONNX tensor.

    Attributes:
        name: In the ONNX graph; "" for a constant that no node uses yet.
        dtype: NumPy type.
        shape: None for a size that is not known.
        data: The value of a constant.
        derived: Whether a constant was computed, and so may depend on the batch size.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    data: Array | None = None
    derived: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A TensorFlow value and the ONNX tensor that stores it.

    Attributes:
        tensor: What stores it.
        nchw: Whether a (N, H, W, C) value is stored as (N, C, H, W).
    """

    tensor: Tensor
    nchw: bool = False

    @property
    def shape(self) -> Shape:
        """TensorFlow's shape."""
        stored = self.tensor.shape
        return tuple(stored[i] for i in TO_NHWC) if self.nchw else stored

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.tensor.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy type."""
        return self.tensor.dtype

    @property
    def data(self) -> Array | None:
        """The constant's value in TensorFlow's order, or None."""
        data = self.tensor.data
        return data.transpose(TO_NHWC) if data is not None and self.nchw else data


@dataclass(frozen=True, slots=True, eq=False)
class Emitted:
    """A node of the ONNX graph."""

    op: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(eq=False)
class Graph:
    """Collects ONNX nodes. ``scope`` is the TensorFlow node being translated."""

    nodes: list[Emitted] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    producers: dict[str, Emitted] = field(default_factory=dict)
    scope: str = ""
    _names: dict[str, int] = field(default_factory=dict)
    _transposed: dict[tuple[str, tuple[int, ...]], Tensor] = field(default_factory=dict)

    def unique(self, hint: str) -> str:
        """Return a name that no other tensor has."""
        count = self._names[hint] = self._names.get(hint, -1) + 1
        return hint if count == 0 else f"{hint}.{count}"

    def input(self, name: str, dtype: np.dtype[Any], shape: Shape) -> Tensor:
        """Declare an input of the ONNX graph."""
        tensor = Tensor(self.unique(name), dtype, shape)
        self.inputs.append(tensor)
        return tensor

    def constant(self, data: Array, *, derived: bool = False) -> Tensor:
        """Return a constant; equal ones share a name."""
        data = np.ascontiguousarray(data).reshape(np.shape(data))
        key = f"{data.dtype.str}{data.shape}".encode() + data.tobytes()
        name = f"const_{hashlib.sha256(key).hexdigest()[:16]}"
        return Tensor(name, data.dtype, data.shape, data, derived)

    def ints(self, values: Sequence[int], *, derived: bool = True) -> Tensor:
        """Return a 1-d int64 constant."""
        return self.constant(np.array(values, np.int64), derived=derived)

    def emit(self, op: str, *inputs: Tensor | None, **attributes: Any) -> Tensor:
        """Add a node with one output, or compute it when its inputs are constants."""
        return self.emit_many(op, 1, *inputs, **attributes)[0]

    def emit_many(
        self, op: str, outputs: int, *inputs: Tensor | None, **attributes: Any
    ) -> list[Tensor]:
        """Add a node with several outputs, or compute it when its inputs are constants."""
        names = tuple(self.unique(self.scope or op) for _ in range(outputs))
        node = Emitted(op, inputs, names, attributes)
        proto = to_proto(node)
        if all(i is None or i.data is not None for i in inputs):
            folded = self._fold(node, proto)
            if folded is not None:
                return folded
        tensors = self._infer(node, proto)
        self.nodes.append(node)
        self.producers.update(dict.fromkeys(names, node))
        return tensors

    def _fold(self, node: Emitted, proto: onnx.NodeProto) -> list[Tensor] | None:
        if any(has_batch(tensor.shape) for tensor in self._infer(node, proto)):
            return None
        feeds = {i.name: i.data for i in node.inputs if i is not None and i.data is not None}
        infos = [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in feeds.items()
        ]
        outs = [helper.make_empty_tensor_value_info(name) for name in node.outputs]
        graph = helper.make_graph([proto], "fold", infos, outs)
        model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
        results = ReferenceEvaluator(model).run(None, feeds)
        if any(has_batch(np.shape(result)) for result in results):
            return None
        return [self.constant(np.asarray(result), derived=True) for result in results]

    def _infer(self, node: Emitted, proto: onnx.NodeProto) -> list[Tensor]:
        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for tensor in node.inputs:
            if tensor is None:
                continue
            kind = helper.np_dtype_to_tensor_dtype(tensor.dtype)
            types[tensor.name] = helper.make_tensor_type_proto(kind, tensor.shape)
            if tensor.data is not None and tensor.data.size <= 64:
                data[tensor.name] = numpy_helper.from_array(tensor.data, tensor.name)
        try:
            found = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op, OPSET, ""), proto, types, data,
                opset_imports=OPSETS, ir_version=IR_VERSION,
            )
        except onnx.shape_inference.InferenceError as error:
            raise UnsupportedModel(f"node {self.scope!r} ({node.op}): {error}") from error
        return [self._declared(name, found[name]) for name in node.outputs]

    def _declared(self, name: str, kind: onnx.TypeProto) -> Tensor:
        tensor = kind.tensor_type
        if not tensor.HasField("shape"):
            raise UnsupportedModel(
                f"node {self.scope!r}: the number of dimensions depends on the values of an input"
            )
        sizes = tuple(
            d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim
        )
        return Tensor(name, helper.tensor_dtype_to_np_dtype(tensor.elem_type), sizes)

    def transpose(self, tensor: Tensor, perm: Sequence[int]) -> Tensor:
        """Permute dimensions; a chain of transposes becomes one or none."""
        before = self.producers.get(tensor.name)
        if before is not None and before.op == "Transpose" and before.inputs[0] is not None:
            inner = before.attributes["perm"]
            return self.transpose(before.inputs[0], [inner[i] for i in perm])
        order = tuple(perm)
        if order == tuple(range(len(order))):
            return tensor
        if tensor.data is not None:
            return self.constant(tensor.data.transpose(order), derived=tensor.derived)
        key = (tensor.name, order)
        if key not in self._transposed:
            self._transposed[key] = self.emit("Transpose", tensor, perm=list(order))
        return self._transposed[key]

    def nhwc(self, value: Value) -> Tensor:
        """Return the value stored in TensorFlow's order."""
        return self.transpose(value.tensor, TO_NHWC) if value.nchw else value.tensor

    def nchw(self, value: Value) -> Tensor:
        """Return a value of rank 4 stored channels first."""
        return value.tensor if value.nchw else self.transpose(value.tensor, TO_NCHW)

    def cast(self, tensor: Tensor, dtype: Any) -> Tensor:
        """Return the tensor as another type."""
        if tensor.dtype == np.dtype(dtype):
            return tensor
        return self.emit("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, tensor: Tensor, sizes: Sequence[int]) -> Tensor:
        """Reshape to known sizes; at most one may be -1."""
        if tuple(sizes) == tensor.shape:
            return tensor
        return self.emit("Reshape", tensor, self.ints(sizes))

    def unsqueeze(self, tensor: Tensor, axes: Sequence[int]) -> Tensor:
        """Insert dimensions of size 1."""
        return self.emit("Unsqueeze", tensor, self.ints(axes, derived=False)) if axes else tensor

    def squeeze(self, tensor: Tensor, axes: Sequence[int]) -> Tensor:
        """Remove dimensions of size 1."""
        return self.emit("Squeeze", tensor, self.ints(axes, derived=False)) if axes else tensor

    def slice(
        self, tensor: Tensor, starts: Sequence[int], ends: Sequence[int],
        axes: Sequence[int], steps: Sequence[int],
    ) -> Tensor:
        """Slice with constant bounds."""
        return self.emit("Slice", tensor, self.ints(starts), self.ints(ends),
                         self.ints(axes, derived=False), self.ints(steps, derived=False))

    def static(self, value: Value, what: str) -> Array:
        """Return a constant's value, in TensorFlow's order.

        Raises:
            UnsupportedModel: it is only known when the model runs.
        """
        if value.data is None:
            raise UnsupportedModel(
                f"node {self.scope!r}: its {what} is computed from the input, "
                "and only a constant is supported"
            )
        return value.data

    def static_ints(self, value: Value, what: str) -> list[int]:
        """Return a constant's value as a flat list of integers."""
        return [int(item) for item in self.static(value, what).reshape(-1)]


def has_batch(sizes: Sequence[int | None]) -> bool:
    """Tell whether a size is the batch size's stand-in, or a multiple of it."""
    return any(size and size % BATCH == 0 for size in sizes)


def to_proto(node: Emitted) -> onnx.NodeProto:
    """Return the ONNX node."""
    names = [i.name if i is not None else "" for i in node.inputs]
    return helper.make_node(node.op, names, list(node.outputs), name=node.outputs[0],
                            **node.attributes)


def as_tensor_proto(tensor: Tensor) -> TensorProto:
    """Return a constant as an ONNX initializer."""
    assert tensor.data is not None
    return numpy_helper.from_array(tensor.data, tensor.name)


SLICE_END = int(np.iinfo(np.int64).max)
"""Past the end of any axis, in a Slice."""
