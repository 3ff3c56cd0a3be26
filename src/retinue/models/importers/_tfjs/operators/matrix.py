"""Matrix products."""

from __future__ import annotations

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._build.graph import Graph, Tensor, Value
from retinue.models.importers._tfjs.operators.elementwise import activate
from retinue.models.importers._tfjs.operators.table import operator
from retinue.models.importers._tfjs.source import Node


def _side(graph: Graph, value: Value, swap: bool) -> Tensor:
    tensor = graph.nhwc(value)
    if not swap:
        return tensor
    order = list(range(value.rank))
    order[-2:] = order[-1], order[-2]
    return graph.transpose(tensor, order)


@operator("MatMul", "_FusedMatMul")
def matmul(graph: Graph, node: Node, a: Value, b: Value, *extra: Value) -> Value:
    left = _side(graph, a, node.flag("transpose_a"))
    right = _side(graph, b, node.flag("transpose_b"))
    result = graph.emit("MatMul", left, right)
    remaining = list(extra)
    for step in node.texts("fused_ops"):
        if step == "BiasAdd":
            result = graph.emit("Add", result, remaining.pop(0).tensor)
        elif step == "Prelu":
            result = graph.emit("PRelu", result, remaining.pop(0).tensor)
        else:
            active = activate(graph, node, result, step)
            if active is None:
                raise UnsupportedModel(f"node {node.name!r} fuses {step}, which is not supported")
            result = active
    return Value(result)


@operator("BatchMatMul", "BatchMatMulV2")
def batch_matmul(graph: Graph, node: Node, a: Value, b: Value) -> Value:
    left = _side(graph, a, node.flag("adj_x"))
    right = _side(graph, b, node.flag("adj_y"))
    return Value(graph.emit("MatMul", left, right))
