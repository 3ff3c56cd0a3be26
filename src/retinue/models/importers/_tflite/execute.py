"""Walks the graph in the file's order and lets each operator emit its part."""

from __future__ import annotations

import numpy as np

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers._build.graph import Graph, Value
from retinue.models.importers._build.graph import Tensor as Built
from retinue.models.importers._tflite.operators import OPERATORS
from retinue.models.importers._tflite.source import Node, Source

_MISFITS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What Python and NumPy raise where an option or a shape is not what an operator needs."""
_IMAGE_CHANNELS = (1, 3, 4)


class Executor:
    """Translates one graph."""

    def __init__(self, source: Source) -> None:
        self.graph = Graph()
        self._source = source
        self._values: dict[int, Value] = {}

    def run(self) -> dict[str, Built]:
        """Return the outputs, in TensorFlow's order of dimensions.

        Raises:
            UnsupportedModel: operators are missing (all are named), or an input's shape is open.
            ModelCorrupt: an operator's inputs or options do not fit it.
        """
        self._check_operators()
        for index in self._source.inputs:
            self._values[index] = self._input(index)
        for node in self._source.nodes:
            self.graph.scope = node.name
            try:
                self._values[node.outputs[0]] = self._operate(node)
            except _MISFITS as error:
                message = f"node {node.name!r} ({node.op}) cannot be translated"
                raise ModelCorrupt(
                    f"{message}: its options or inputs do not fit it ({error})"
                ) from error
        results = {}
        for index in self._source.outputs:
            name = self._source.tensors[index].name
            self.graph.scope = name
            results[name] = self.graph.nhwc(self._value(index))
        return results

    def _check_operators(self) -> None:
        missing = sorted({node.op for node in self._source.nodes} - set(OPERATORS))
        if missing:
            raise UnsupportedModel(
                f"the model uses operators that are not supported: {', '.join(missing)}"
            )

    def _operate(self, node: Node) -> Value:
        if len(node.outputs) != 1:
            raise UnsupportedModel(f"node {node.name!r} ({node.op}) has several outputs")
        inputs = [None if index == -1 else self._value(index) for index in node.inputs]
        return OPERATORS[node.op](self.graph, node, *inputs)

    def _value(self, index: int) -> Value:
        if index not in self._values:
            tensor = self._source.tensors[index]
            if tensor.data is None:
                raise ModelCorrupt(f"tensor {tensor.name!r} is used before it is computed")
            self._values[index] = Value(self.graph.constant(tensor.data))
        return self._values[index]

    def _input(self, index: int) -> Value:
        tensor = self._source.tensors[index]
        shape = tensor.shape
        if not shape or 0 in shape:
            raise UnsupportedModel(f"input {tensor.name!r} has no fixed shape in the file: {shape}")
        if len(shape) != 4 or shape[3] not in _IMAGE_CHANNELS:
            return Value(self.graph.input(tensor.name, tensor.dtype, shape))
        name = "images" if len(self._source.inputs) == 1 else tensor.name
        stored = (shape[0], shape[3], shape[1], shape[2])
        made = self.graph.input(name, np.dtype(np.float32), stored)
        self.graph.scope = tensor.name
        return Value(self.graph.cast(made, tensor.dtype), nchw=True)
