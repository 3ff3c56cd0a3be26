"""Tables of operators: the translations of a format register themselves by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from retinue.models.importers._build.graph import Graph, Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def registering(table: dict[str, Any]) -> Callable[..., Callable[[Function], Function]]:
    """Return a decorator that takes operators' names and puts the function into the table."""

    def operator(*names: str) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            for name in names:
                if name in table:
                    raise ValueError(f"operator {name} is registered twice")
                table[name] = function
            return function

        return register

    return operator


def scalar(graph: Graph, number: float, like: Tensor) -> Tensor:
    """Return a 0-d constant of the tensor's type."""
    return graph.constant(np.array(number, like.dtype))
