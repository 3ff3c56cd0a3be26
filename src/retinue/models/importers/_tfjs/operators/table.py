"""The table of operators, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from retinue.models.importers._build.graph import Graph, Tensor, Value
from retinue.models.importers._build.operators import registering


@dataclass(frozen=True, slots=True, eq=False)
class ValueList:
    """A TensorArray or TensorList: its length is known, its items may be missing."""

    items: tuple[Value | None, ...]


Operand: TypeAlias = Value | ValueList
Operator: TypeAlias = Callable[..., "Operand | list[Value] | list[ValueList]"]
"""Called with (graph, node, *inputs); returns its output, or a list of its outputs."""

OPERATORS: dict[str, Operator] = {}
operator = registering(OPERATORS)
"""Register a function as the translation of TensorFlow operators."""


def promoted(graph: Graph, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Cast to float32 where integers meet floats, as TFJS does."""
    if len({tensor.dtype for tensor in tensors}) == 1:
        return list(tensors)
    wanted = np.float32 if any(t.dtype.kind == "f" for t in tensors) else np.int32
    return [graph.cast(tensor, wanted) for tensor in tensors]
