"""Walks the topology from its outputs and lets each operator emit its part.

TensorFlow's control flow (Enter, Merge, Switch, NextIteration, Exit) is unrolled: a loop whose
condition depends on sizes only, as those over the images of a batch do, becomes its iterations,
and a branch whose condition is a constant becomes the branch taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers._build.graph import BATCH, Graph, Shape, Tensor, Value
from retinue.models.importers._tfjs.operators import OPERATORS
from retinue.models.importers._tfjs.operators.table import Operand
from retinue.models.importers._tfjs.source import Node, Source

Context = tuple[tuple[str, int], ...]
"""The loops that a node runs in, outermost first, and their iterations."""
Key = tuple[str, Context]

CONTROL = {
    "Const",
    "Enter",
    "Exit",
    "LoopCond",
    "Merge",
    "NextIteration",
    "NoOp",
    "Placeholder",
    "PlaceholderWithDefault",
    "Switch",
}
_MOST_ITERATIONS = 64
_MISFITS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What Python and NumPy raise where an attribute or a shape is not what an operator needs."""
_IMAGE_CHANNELS = (1, 3, 4)


class _Dead:
    """The output of a branch that is not taken."""


DEAD = _Dead()
Result = list["Operand | _Dead"]


def _is_image(shape: Shape) -> bool:
    return len(shape) == 4 and (shape[3] in _IMAGE_CHANNELS or shape[1] in _IMAGE_CHANNELS)


class _Needs(Exception):
    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.key = key


class Executor:
    """Translates one graph.

    Args:
        source: The graph-model.
        shapes: Shapes of inputs, over those of the file.
        constants: Values of inputs that become constants.
        batch: Size of the inputs' first dimension where the file has 1 or leaves it open.
    """

    def __init__(
        self,
        source: Source,
        *,
        shapes: Mapping[str, tuple[int, ...]],
        constants: Mapping[str, float],
        batch: int = BATCH,
    ) -> None:
        self.graph = Graph()
        self._source = source
        self._shapes = shapes
        self._constants = constants
        self._batch = batch
        self._done: dict[Key, Result] = {}
        self._reached = self._reachable()

    def run(self) -> dict[str, Tensor]:
        """Return the outputs, in TensorFlow's order of dimensions.

        Raises:
            UnsupportedModel: operators are missing (all are named), or an input's shape is open.
            ModelCorrupt: a node names an input that does not exist, or nodes form a circle.
        """
        self._check_operators()
        results = {}
        for name, reference in self._source.outputs.items():
            value = self._evaluate(reference)
            if not isinstance(value, Value):
                raise UnsupportedModel(f"output {name!r} is not a tensor that is always computed")
            self.graph.scope = name
            results[name] = self.graph.nhwc(value)
        order = {name: at for at, name in enumerate(self._source.nodes)}
        self.graph.inputs.sort(key=lambda tensor: order.get(tensor.name, -1))
        return results

    def _reachable(self) -> set[str]:
        reached: set[str] = set()
        waiting = [ref.partition(":")[0] for ref in self._source.outputs.values()]
        while waiting:
            name = waiting.pop()
            if name in reached:
                continue
            reached.add(name)
            refs = [ref for ref in self._node(name).inputs if not ref.startswith("^")]
            waiting.extend(ref.partition(":")[0] for ref in refs)
        return reached

    def _check_operators(self) -> None:
        ops = {self._node(name).op for name in self._reached}
        missing = sorted(ops - CONTROL - set(OPERATORS))
        if missing:
            raise UnsupportedModel(
                f"the graph uses operators that are not supported: {', '.join(missing)}"
            )

    def _node(self, name: str) -> Node:
        try:
            return self._source.nodes[name]
        except KeyError:
            raise ModelCorrupt(f"the graph names a node {name!r} that it does not have") from None

    def _evaluate(self, reference: str) -> Operand | _Dead:
        goal: Key = (reference.partition(":")[0], ())
        stack = [goal]
        waiting = {goal}
        while stack:
            key = stack[-1]
            if key not in self._done:
                try:
                    self._done[key] = self._step(*key)
                except _Needs as needs:
                    if needs.key in waiting:
                        raise ModelCorrupt(f"node {key[0]!r} depends on itself") from None
                    stack.append(needs.key)
                    waiting.add(needs.key)
                    continue
                except _MISFITS as error:
                    message = f"node {key[0]!r} ({self._node(key[0]).op}) cannot be translated"
                    raise ModelCorrupt(
                        f"{message}: its attributes or inputs do not fit it ({error})"
                    ) from error
            waiting.discard(stack.pop())
        return self._get(reference, ())

    def _get(self, reference: str, context: Context) -> Operand | _Dead:
        name, _, index = reference.partition(":")
        key = (name, () if self._node(name).op in ("Const", "Placeholder") else context)
        if key not in self._done:
            raise _Needs(key)
        results, at = self._done[key], int(index or 0)
        if at >= len(results):
            raise ModelCorrupt(f"node {name!r} has {len(results)} outputs; {reference!r} is wanted")
        return results[at]

    def _value(self, reference: str, context: Context) -> Value:
        value = self._get(reference, context)
        if not isinstance(value, Value):
            raise UnsupportedModel(f"{reference!r} is not a tensor that is always computed")
        return value

    def _step(self, name: str, context: Context) -> Result:
        node = self._node(name)
        inputs = [ref for ref in node.inputs if not ref.startswith("^")]
        match node.op:
            case "Const":
                return [self._constant(name)]
            case "Placeholder":
                return [self._placeholder(node)]
            case "NoOp":
                return []
            case "Enter":
                return [self._get(inputs[0], context[:-1])]
            case "LoopCond" | "NextIteration" | "PlaceholderWithDefault":
                return [self._get(inputs[0], context)]
            case "Exit":
                return [self._exit(node, context)]
            case "Merge":
                return self._merge(inputs, context)
            case "Switch":
                return self._switch(inputs, context)
        operands = [self._get(ref, context) for ref in inputs]
        return self._operate(node, operands)

    def _operate(self, node: Node, operands: Result) -> Result:
        if any(isinstance(operand, _Dead) for operand in operands):
            return [DEAD] * max(8, len(operands))
        self.graph.scope = node.name
        try:
            result = OPERATORS[node.op](self.graph, node, *operands)
        except TypeError as error:
            if "positional argument" not in str(error):
                raise
            message = f"node {node.name!r} ({node.op}) has {len(operands)} inputs"
            raise ModelCorrupt(message) from error
        return list(result) if isinstance(result, list) else [result]

    def _constant(self, name: str) -> Value:
        if name not in self._source.weights:
            raise ModelCorrupt(f"the manifest has no value for the constant {name!r}")
        return Value(self.graph.constant(self._source.weights[name]))

    def _exit(self, node: Node, context: Context) -> Operand | _Dead:
        switch = self._node(node.inputs[0].partition(":")[0])
        if switch.op != "Switch":
            raise UnsupportedModel(f"node {node.name!r} leaves a loop in an unusual way")
        merge = self._node(switch.inputs[0].partition(":")[0])
        enter = self._node(merge.inputs[0].partition(":")[0])
        frame = enter.text("frame_name")
        for iteration in range(_MOST_ITERATIONS):
            inside = (*context, (frame, iteration))
            again = self._value(switch.inputs[1], inside)
            if not bool(self.graph.static(again, "loop condition").all()):
                return self._get(switch.inputs[0], inside)
        raise UnsupportedModel(f"a loop takes more than {_MOST_ITERATIONS} iterations")

    def _merge(self, inputs: list[str], context: Context) -> Result:
        back = [r for r in inputs if self._node(r.partition(":")[0]).op == "NextIteration"]
        if back:
            frame, iteration = context[-1]
            if iteration == 0:
                first = next(ref for ref in inputs if ref not in back)
                return [self._get(first, context)]
            return [self._get(back[0], (*context[:-1], (frame, iteration - 1)))]
        values = [self._get(ref, context) for ref in inputs]
        for at, value in enumerate(values):
            if not isinstance(value, _Dead):
                return [value, Value(self.graph.constant(np.array(at, np.int32)))]
        return [DEAD, DEAD]

    def _switch(self, inputs: list[str], context: Context) -> Result:
        data = self._get(inputs[0], context)
        if self._node(inputs[1].partition(":")[0]).op == "LoopCond":
            return [data, data]
        chosen = self._get(inputs[1], context)
        if not isinstance(chosen, Value):
            return [DEAD, DEAD]
        taken = bool(self.graph.static(chosen, "branch condition").all())
        return [DEAD, data] if taken else [data, DEAD]

    def _placeholder(self, node: Node) -> Value:
        dtype = node.dtype("dtype")
        if node.name in self._constants:
            return Value(self.graph.constant(np.array(self._constants[node.name], dtype)))
        shape = self._shape(node)
        if not _is_image(shape):
            return Value(self.graph.input(node.name, dtype, shape))
        channels_last = shape[3] in _IMAGE_CHANNELS
        stored = (shape[0], shape[3], shape[1], shape[2]) if channels_last else shape
        name = "images" if self._only_image(node) else node.name
        tensor = self.graph.input(name, np.dtype(np.float32), stored)
        self.graph.scope = node.name
        return Value(self.graph.cast(tensor, dtype), channels_last)

    def _only_image(self, node: Node) -> bool:
        placeholders = [
            self._node(name)
            for name in self._reached
            if self._node(name).op == "Placeholder" and name not in self._constants
        ]
        images = [other.name for other in placeholders if _is_image(self._shape(other))]
        return images == [node.name] and "images" not in self._source.outputs

    def _shape(self, node: Node) -> Shape:
        known = self._shapes.get(node.name, node.shape("shape"))
        if known is None or None in known[1:]:
            raise UnsupportedModel(
                f"input {node.name!r} has no fixed shape in the file ({known}): give one"
            )
        if known and known[0] in (None, 1):
            return (self._batch, *known[1:])
        if prod(size or 0 for size in known) <= 0 and known:
            raise ModelCorrupt(f"input {node.name!r} has the shape {known}")
        return known
