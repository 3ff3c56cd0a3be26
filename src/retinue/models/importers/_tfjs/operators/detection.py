"""Non-maximum suppression of one image and one class."""

from __future__ import annotations

import numpy as np

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._build.graph import Graph, Tensor, Value
from retinue.models.importers._tfjs.operators.table import operator
from retinue.models.importers._tfjs.source import Node


def _one(graph: Graph, value: Value, dtype: type) -> Tensor:
    return graph.reshape(graph.cast(value.tensor, dtype), [1])


def _suppress(
    graph: Graph, boxes: Value, scores: Value, limit: Value, iou: Value, score: Value
) -> Tensor:
    """Return the kept indices (M,), best first."""
    found = graph.emit(
        "NonMaxSuppression",
        graph.unsqueeze(boxes.tensor, [0]),
        graph.unsqueeze(scores.tensor, [0, 1]),
        _one(graph, limit, np.int64),
        _one(graph, iou, np.float32),
        _one(graph, score, np.float32),
    )
    # A row is (batch, class, box).
    index = graph.emit("Gather", found, graph.constant(np.array(2, np.int64)), axis=1)
    return graph.cast(index, np.int32)


@operator("NonMaxSuppressionV3")
def suppress_v3(
    graph: Graph, node: Node, boxes: Value, scores: Value, limit: Value, iou: Value, score: Value
) -> Value:
    return Value(_suppress(graph, boxes, scores, limit, iou, score))


@operator("NonMaxSuppressionV5")
def suppress_v5(
    graph: Graph,
    node: Node,
    boxes: Value,
    scores: Value,
    limit: Value,
    iou: Value,
    score: Value,
    sigma: Value,
) -> list[Value]:
    if float(graph.static(sigma, "sigma")) > 0:
        raise UnsupportedModel(f"node {node.name!r} uses soft suppression, which ONNX lacks")
    if node.flag("pad_to_max_output_size"):
        raise UnsupportedModel(f"node {node.name!r} pads its output")
    kept = _suppress(graph, boxes, scores, limit, iou, score)
    chosen = graph.emit("Gather", scores.tensor, kept, axis=0)
    count = graph.emit("Squeeze", graph.emit("Shape", kept), graph.ints([0]))
    return [Value(kept), Value(chosen), Value(graph.cast(count, np.int32))]
