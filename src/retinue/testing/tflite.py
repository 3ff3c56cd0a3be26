"""Writes tiny .tflite files, so that operators and importers are tested with no download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import tflite  # type: ignore[import-untyped]

from retinue.core.types import Array

_TYPES = {
    "float32": tflite.TensorType.FLOAT32,
    "float16": tflite.TensorType.FLOAT16,
    "int32": tflite.TensorType.INT32,
    "int64": tflite.TensorType.INT64,
    "int8": tflite.TensorType.INT8,
    "bool": tflite.TensorType.BOOL,
}
_KINDS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
}


@dataclass(frozen=True)
class TinySparse:
    """A sparse constant as the file stores it.

    Attributes:
        order: Of the traversal.
        blocks: Dimensions that have blocks.
        levels: A size for a dense dimension, (segments, indices) for a compressed one.
        values: In the order of the traversal.
    """

    order: tuple[int, ...]
    blocks: tuple[int, ...]
    levels: tuple[int | tuple[Array, Array], ...]
    values: Array


class TinyModel:
    """A model built operator by operator; every method returns a tensor's index."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)
        self._buffers: list[bytes] = [b""]
        self._tensors: list[int] = []
        self._codes: list[tuple[int, str]] = []
        self._nodes: list[int] = []
        self.inputs: list[int] = []

    def input(self, shape: Sequence[int], dtype: str = "float32", name: str = "") -> int:
        """Add an input."""
        self.inputs.append(self.tensor(shape, dtype, name or f"input{len(self.inputs)}"))
        return self.inputs[-1]

    def const(self, value: Any, dtype: str = "float32") -> int:
        """Add a constant."""
        data = np.asarray(value, dtype)
        return self.tensor(data.shape, dtype, data=data.tobytes())

    def sparse(self, shape: Sequence[int], parts: TinySparse) -> int:
        """Add a sparse constant."""
        data = parts.values.tobytes()
        return self.tensor(shape, parts.values.dtype.name, data=data, sparse=parts)

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "float32",
        name: str = "",
        data: bytes = b"",
        sparse: TinySparse | None = None,
    ) -> int:
        """Add a tensor, with the bytes of a constant as they are."""
        builder = self._builder
        self._buffers += [data] if data else []
        label = builder.CreateString(name or f"tensor{len(self._tensors)}")
        sizes = self._vector(list(shape), "i")
        sparsity = None if sparse is None else self._sparsity(sparse)
        tflite.TensorStart(builder)
        tflite.TensorAddName(builder, label)
        tflite.TensorAddShape(builder, sizes)
        tflite.TensorAddType(builder, _TYPES[dtype])
        tflite.TensorAddBuffer(builder, len(self._buffers) - 1 if data else 0)
        if sparsity is not None:
            tflite.TensorAddSparsity(builder, sparsity)
        self._tensors.append(tflite.TensorEnd(builder))
        return len(self._tensors) - 1

    def node(
        self,
        op: str,
        *inputs: int,
        shape: Sequence[int],
        options: Mapping[str, Any] | None = None,
        custom: bytes = b"",
    ) -> int:
        """Add an operator with one output, of a shape that is only told to other readers."""
        builder = self._builder
        output = self.tensor(shape)
        named = getattr(tflite.BuiltinOperator, op, tflite.BuiltinOperator.CUSTOM)
        code = (named, op if named == tflite.BuiltinOperator.CUSTOM else "")
        if code not in self._codes:
            self._codes.append(code)
        ends = self._vector(list(inputs), "i"), self._vector([output], "i")
        kind, table = self._options(op, options or {})
        extra = builder.CreateByteVector(custom) if custom else None
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, self._codes.index(code))
        tflite.OperatorAddInputs(builder, ends[0])
        tflite.OperatorAddOutputs(builder, ends[1])
        if table is not None:
            tflite.OperatorAddBuiltinOptionsType(builder, kind)
            tflite.OperatorAddBuiltinOptions(builder, table)
        if extra is not None:
            tflite.OperatorAddCustomOptions(builder, extra)
        self._nodes.append(tflite.OperatorEnd(builder))
        return output

    def finish(self, *outputs: int, version: int = 3) -> bytes:
        """Return the file."""
        builder = self._builder
        parts = [self._vector(values, "i") for values in (self.inputs, list(outputs))]
        parts += [self._vector(values, "o") for values in (self._tensors, self._nodes)]
        tflite.SubGraphStart(builder)
        tflite.SubGraphAddInputs(builder, parts[0])
        tflite.SubGraphAddOutputs(builder, parts[1])
        tflite.SubGraphAddTensors(builder, parts[2])
        tflite.SubGraphAddOperators(builder, parts[3])
        graphs = self._vector([tflite.SubGraphEnd(builder)], "o")
        codes = self._vector([self._code(*code) for code in self._codes], "o")
        buffers = self._vector([self._buffer(data) for data in self._buffers], "o")
        tflite.ModelStart(builder)
        tflite.ModelAddVersion(builder, version)
        tflite.ModelAddOperatorCodes(builder, codes)
        tflite.ModelAddSubgraphs(builder, graphs)
        tflite.ModelAddBuffers(builder, buffers)
        builder.Finish(tflite.ModelEnd(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _vector(self, values: Sequence[int], kind: str) -> int:
        builder = self._builder
        builder.StartVector(4, len(values), 4)
        add = builder.PrependUOffsetTRelative if kind == "o" else builder.PrependInt32
        for value in reversed(values):
            add(value)
        return int(builder.EndVector())

    def _code(self, number: int, custom: str) -> int:
        name = self._builder.CreateString(custom) if custom else None
        tflite.OperatorCodeStart(self._builder)
        tflite.OperatorCodeAddBuiltinCode(self._builder, number)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(self._builder, min(number, 127))
        if name is not None:
            tflite.OperatorCodeAddCustomCode(self._builder, name)
        return int(tflite.OperatorCodeEnd(self._builder))

    def _buffer(self, data: bytes) -> int:
        content = self._builder.CreateByteVector(data) if data else None
        tflite.BufferStart(self._builder)
        if content is not None:
            tflite.BufferAddData(self._builder, content)
        return int(tflite.BufferEnd(self._builder))

    def _options(self, op: str, options: Mapping[str, Any]) -> tuple[int, int | None]:
        if op not in _KINDS or not options:
            return 0, None
        kind = _KINDS[op]
        ready = {
            name: self._vector(value, "i") if isinstance(value, list) else value
            for name, value in options.items()
        }
        getattr(tflite, f"{kind}Start")(self._builder)
        for name, value in ready.items():
            getattr(tflite, f"{kind}Add{name}")(self._builder, value)
        table = getattr(tflite, f"{kind}End")(self._builder)
        return getattr(tflite.BuiltinOptions, kind), table

    def _sparsity(self, sparse: TinySparse) -> int:
        builder = self._builder
        order, blocks = self._vector(sparse.order, "i"), self._vector(sparse.blocks, "i")
        levels = self._vector([self._level(level) for level in sparse.levels], "o")
        tflite.SparsityParametersStart(builder)
        tflite.SparsityParametersAddTraversalOrder(builder, order)
        tflite.SparsityParametersAddBlockMap(builder, blocks)
        tflite.SparsityParametersAddDimMetadata(builder, levels)
        return int(tflite.SparsityParametersEnd(builder))

    def _level(self, level: int | tuple[Array, Array]) -> int:
        builder = self._builder
        if isinstance(level, int):
            tflite.DimensionMetadataStart(builder)
            tflite.DimensionMetadataAddFormat(builder, tflite.DimensionType.DENSE)
            tflite.DimensionMetadataAddDenseSize(builder, level)
            return int(tflite.DimensionMetadataEnd(builder))
        (one, segments), (other, indices) = (self._index_vector(part) for part in level)
        tflite.DimensionMetadataStart(builder)
        tflite.DimensionMetadataAddFormat(builder, tflite.DimensionType.SPARSE_CSR)
        tflite.DimensionMetadataAddArraySegmentsType(builder, one)
        tflite.DimensionMetadataAddArraySegments(builder, segments)
        tflite.DimensionMetadataAddArrayIndicesType(builder, other)
        tflite.DimensionMetadataAddArrayIndices(builder, indices)
        return int(tflite.DimensionMetadataEnd(builder))

    def _index_vector(self, values: Array) -> tuple[int, int]:
        name = {"int32": "Int32Vector", "uint16": "Uint16Vector", "uint8": "Uint8Vector"}[
            values.dtype.name
        ]
        content = self._builder.CreateNumpyVector(values)
        getattr(tflite, f"{name}Start")(self._builder)
        getattr(tflite, f"{name}AddValues")(self._builder, content)
        kind: int = getattr(tflite.SparseIndexVector, name)
        return kind, int(getattr(tflite, f"{name}End")(self._builder))
