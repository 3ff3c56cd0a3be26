"""Sparse constants, made dense.

The format is TACO's (Kjolstad et al. 2017, "The tensor algebra compiler") as TensorFlow Lite's
schema stores it: dimensions in an order of traversal, each dense or compressed, and blocks as
further dimensions behind those of the tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite  # type: ignore[import-untyped]
from numpy.typing import NDArray

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.core.types import Array

Ints = NDArray[np.int64]
_VECTORS = {
    tflite.SparseIndexVector.Int32Vector: (tflite.Int32Vector, np.int32),
    tflite.SparseIndexVector.Uint16Vector: (tflite.Uint16Vector, np.uint16),
    tflite.SparseIndexVector.Uint8Vector: (tflite.Uint8Vector, np.uint8),
}


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One dimension of the traversal.

    Attributes:
        size: Of a dense dimension.
        segments: Of a compressed one: where the indices of each parent begin, and the end.
        indices: Of a compressed one: the places that are filled.
    """

    size: int = 0
    segments: Ints | None = None
    indices: Ints | None = None

    def walk(self, parents: int) -> tuple[Ints, Ints]:
        """Return, for each entry below all parents, its parent and its place."""
        if self.segments is None or self.indices is None:
            owners = np.repeat(np.arange(parents), self.size)
            return owners, np.tile(np.arange(self.size), parents)
        lengths = np.diff(self.segments)
        if len(lengths) != parents or (lengths < 0).any() or lengths.sum() != len(self.indices):
            raise ModelCorrupt("a sparse tensor's segments do not fit its indices")
        return np.repeat(np.arange(parents), lengths), self.indices


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """How the values of a sparse tensor are placed.

    Attributes:
        order: The traversal: dimensions of the tensor, then of its blocks.
        blocks: The tensor's dimension of each block's dimension.
        levels: In the order of the traversal.
    """

    order: tuple[int, ...]
    blocks: tuple[int, ...]
    levels: tuple[Level, ...]

    def dense(self, values: Array, shape: tuple[int, ...]) -> Array:
        """Return the tensor of a shape, zero where it has no value.

        Raises:
            ModelCorrupt: values, places and shape do not fit together.
        """
        rank = len(shape)
        expected = sorted(self.order) == list(range(rank + len(self.blocks)))
        if not expected or len(self.levels) != len(self.order):
            raise ModelCorrupt(f"a sparse tensor of shape {shape} is traversed as {self.order}")
        places: list[Ints] = []
        count = 1
        for level in self.levels:
            if count * max(level.size, 1) > math.prod(shape):
                raise ModelCorrupt(f"a sparse tensor of shape {shape} states more entries")
            owners, here = level.walk(count)
            places = [*(before[owners] for before in places), here]
            count = len(here)
        if count != len(values):
            raise ModelCorrupt(f"a sparse tensor has {len(values)} values for {count} places")
        by_axis = dict(zip(self.order, places, strict=True))
        where = [by_axis[axis] for axis in range(rank)]
        for number, axis in enumerate(self.blocks):
            size = self.levels[self.order.index(rank + number)].size
            where[axis] = where[axis] * size + by_axis[rank + number]
        result = np.zeros(shape, values.dtype)
        inside = [
            (axis >= 0).all() and (axis < n).all() for axis, n in zip(where, shape, strict=True)
        ]
        if not all(inside):
            raise ModelCorrupt(f"a sparse tensor of shape {shape} has values outside of it")
        result[tuple(where)] = values
        return result


def read_sparse(table: Any) -> Sparse:
    """Read the schema's ``SparsityParameters``.

    Raises:
        ModelCorrupt: a part is missing.
        UnsupportedModel: the indices are of an unknown type.
    """
    levels = tuple(_level(table.DimMetadata(i)) for i in range(table.DimMetadataLength()))
    order = _ints(table.TraversalOrderAsNumpy())
    blocks = _ints(table.BlockMapAsNumpy()) if table.BlockMapLength() else np.zeros(0, np.int64)
    if any(not 0 <= axis < len(levels) - len(blocks) for axis in blocks.tolist()):
        raise ModelCorrupt(f"a sparse tensor's blocks are of the dimensions {blocks.tolist()}")
    return Sparse(tuple(order.tolist()), tuple(blocks.tolist()), levels)


def _level(table: Any) -> Level:
    if table.Format() == tflite.DimensionType.DENSE:
        return Level(size=int(table.DenseSize()))
    segments = _vector(table.ArraySegmentsType(), table.ArraySegments())
    indices = _vector(table.ArrayIndicesType(), table.ArrayIndices())
    return Level(segments=segments, indices=indices)


def _vector(kind: int, table: Any) -> Ints:
    if table is None or kind not in _VECTORS:
        raise UnsupportedModel(f"a sparse tensor's indices are of the type {kind}")
    reader, dtype = _VECTORS[kind]
    vector = reader()
    vector.Init(table.Bytes, table.Pos)
    return np.asarray(vector.ValuesAsNumpy(), dtype).astype(np.int64)


def _ints(values: Any) -> Ints:
    if isinstance(values, int):
        raise ModelCorrupt("a sparse tensor does not say how it is stored")
    return np.asarray(values, np.int64)
