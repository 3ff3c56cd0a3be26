"""Reads a .tflite file into plain values. The format is TensorFlow Lite's schema, version 3.

A file is a FlatBuffer: every field is reached by offsets that the file itself states. Reads are
bounds-checked by NumPy and ``struct``; what they raise on a damaged file is a `ModelCorrupt`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import tflite  # type: ignore[import-untyped]

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.core.types import Array
from retinue.models.importers._tflite.sparse import Sparse, read_sparse

IDENTIFIER: Final = b"TFL3"
_VERSION: Final = 3
_MOST: Final = 100_000
"""Tensors and operators that a file may have; a damaged count is not looped over."""
_DAMAGED: Final = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError)
"""What the readers raise where an offset leads out of the file or to something else."""

_DTYPES: Final[Mapping[int, np.dtype[Any]]] = {
    tflite.TensorType.FLOAT32: np.dtype(np.float32),
    tflite.TensorType.FLOAT16: np.dtype(np.float16),
    tflite.TensorType.INT32: np.dtype(np.int32),
    tflite.TensorType.INT64: np.dtype(np.int64),
    tflite.TensorType.BOOL: np.dtype(np.bool_),
}
_TYPE_NAMES: Final = {
    code: name for name, code in vars(tflite.TensorType).items() if not name.startswith("_")
}
_OPERATOR_NAMES: Final = {
    code: name for name, code in vars(tflite.BuiltinOperator).items() if not name.startswith("_")
}
_WINDOW: Final = ("Padding", "StrideH", "StrideW", "FusedActivationFunction")
_DILATION: Final = ("DilationHFactor", "DilationWFactor")
_OPTIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "CONV_2D": ("Conv2DOptions", (*_WINDOW, *_DILATION)),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_WINDOW, *_DILATION)),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", ("BlockSize",)),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "RESHAPE": ("ReshapeOptions", ("NewShapeAsNumpy",)),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", ("AlignCorners", "HalfPixelCenters")),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask"),
    ),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
}
"""Operator to the table of its options and the fields that are read."""


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of the file.

    Attributes:
        name: In the file.
        dtype: NumPy type.
        shape: As in the file, the batch included.
        data: The value of a constant, or None.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    data: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An operator of the file.

    Attributes:
        op: "CONV_2D", or the name of a custom operator.
        name: The name of its first output.
        inputs: Indices of tensors; -1 for one that is left out.
        outputs: Indices of tensors.
        options: By the names of the schema's accessors.
        custom: Bytes of a custom operator's options.
    """

    op: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: bytes = b""

    def integer(self, key: str) -> int:
        """Return an option; 0, as the schema has it, where there are none."""
        return int(self.options.get(key, 0))


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The only graph of a file."""

    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read(content: bytes) -> Source:
    """Read a file.

    Raises:
        ModelCorrupt: it is no .tflite file, or is truncated or damaged.
        UnsupportedModel: it has several graphs, or tensors of a type that is not supported.
    """
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        message = f"not a TensorFlow Lite model: bytes 4 to 8 are {content[4:8]!r}, not 'TFL3'"
        raise ModelCorrupt(f"{message}; the file, or the range of bytes in it, is another one")
    try:
        model = tflite.Model.GetRootAs(content, 0)
        if model.Version() != _VERSION or model.SubgraphsLength() != 1:
            raise UnsupportedModel(
                f"the file is of schema version {model.Version()} with {model.SubgraphsLength()} "
                f"graphs; version {_VERSION} with one graph is supported"
            )
        return _Reader(model).source()
    except _DAMAGED as error:
        message = f"the TensorFlow Lite model is truncated or damaged ({error})"
        raise ModelCorrupt(f"{message}; fetch it again") from error


class _Reader:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._graph = model.Subgraphs(0)

    def source(self) -> Source:
        tensors = tuple(
            self._tensor(self._graph.Tensors(i)) for i in range(_count(self._graph.TensorsLength()))
        )
        nodes = tuple(
            self._node(self._graph.Operators(i), tensors)
            for i in range(_count(self._graph.OperatorsLength()))
        )
        inputs, outputs = (
            _indices(values, len(tensors), False)
            for values in (self._graph.InputsAsNumpy(), self._graph.OutputsAsNumpy())
        )
        if not inputs or not outputs:
            raise ModelCorrupt("the TensorFlow Lite model has no inputs or no outputs")
        return Source(tensors, nodes, inputs, outputs)

    def _tensor(self, tensor: Any) -> Tensor:
        name = (tensor.Name() or b"").decode("utf-8", "replace")
        shape = tuple(int(n) for n in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
        if min(shape, default=1) < 0:
            raise ModelCorrupt(f"tensor {name!r} has the shape {shape}")
        dtype = _DTYPES.get(tensor.Type())
        if dtype is None:
            kind = _TYPE_NAMES.get(tensor.Type(), tensor.Type())
            raise UnsupportedModel(
                f"tensor {name!r} is {kind}; models in float32 or with float16 weights are "
                "supported, quantised ones are not"
            )
        buffer = self._model.Buffers(tensor.Buffer())
        if not buffer.DataLength():
            return Tensor(name, dtype, shape)
        raw = buffer.DataAsNumpy().tobytes()
        sparsity = tensor.Sparsity()
        if sparsity is not None:
            return Tensor(name, dtype, shape, _dense(read_sparse(sparsity), raw, dtype, shape))
        wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if len(raw) != wanted:
            message = f"tensor {name!r}, {dtype} {shape}, takes {wanted} bytes"
            raise ModelCorrupt(f"{message}, but the file has {len(raw)}")
        return Tensor(name, dtype, shape, np.frombuffer(raw, dtype).reshape(shape))

    def _node(self, operator: Any, tensors: tuple[Tensor, ...]) -> Node:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        op = _OPERATOR_NAMES.get(number, f"operator {number}")
        custom = b""
        if number == tflite.BuiltinOperator.CUSTOM:
            op = (code.CustomCode() or b"").decode("utf-8", "replace")
            if operator.CustomOptionsLength():
                custom = operator.CustomOptionsAsNumpy().tobytes()
        outputs = _indices(operator.OutputsAsNumpy(), len(tensors), False)
        if not outputs:
            raise ModelCorrupt(f"an operator {op} has no outputs")
        inputs = _indices(operator.InputsAsNumpy(), len(tensors), True)
        name = tensors[outputs[0]].name
        return Node(op, name, inputs, outputs, _options(op, operator.BuiltinOptions()), custom)


def _options(op: str, table: Any) -> dict[str, Any]:
    if op not in _OPTIONS or table is None:
        return {}
    kind, names = _OPTIONS[op]
    options = getattr(tflite, kind)()
    options.Init(table.Bytes, table.Pos)
    return {name: getattr(options, name)() for name in names}


def _count(number: int) -> int:
    if not 0 <= number <= _MOST:
        raise ModelCorrupt(f"the TensorFlow Lite model states {number} tensors or operators")
    return number


def _indices(values: Any, count: int, optional: bool) -> tuple[int, ...]:
    # The reader answers 0 for a vector that the file leaves out.
    found = () if isinstance(values, int) else tuple(int(value) for value in values)
    if any(not (-1 if optional else 0) <= index < count for index in found):
        raise ModelCorrupt(f"an operator or the graph names tensors {found} of {count}")
    return found


def _dense(sparse: Sparse, raw: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    if len(raw) % dtype.itemsize:
        raise ModelCorrupt(f"{len(raw)} bytes are no list of {dtype}")
    return sparse.dense(np.frombuffer(raw, dtype), shape)
