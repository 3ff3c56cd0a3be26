"""TensorArray and TensorList: the lists that loops over a batch fill.

Loops are unrolled (see `execute`), so that a list is a Python tuple while the graph is built.
"""

from __future__ import annotations

import numpy as np

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._build.graph import Graph, Value
from retinue.models.importers._tfjs.operators.shaping import pack, unpack
from retinue.models.importers._tfjs.operators.table import ValueList, operator
from retinue.models.importers._tfjs.source import Node


def _index(graph: Graph, node: Node, values: ValueList, index: Value) -> int:
    (at,) = graph.static_ints(index, "index")
    if not 0 <= at < len(values.items):
        raise UnsupportedModel(f"node {node.name!r}: index {at} of {len(values.items)} items")
    return at


def _set(graph: Graph, node: Node, values: ValueList, index: Value, item: Value) -> ValueList:
    at = _index(graph, node, values, index)
    return ValueList((*values.items[:at], item, *values.items[at + 1 :]))


def _item(graph: Graph, node: Node, values: ValueList, index: Value) -> Value:
    item = values.items[_index(graph, node, values, index)]
    if item is None:
        raise UnsupportedModel(f"node {node.name!r} reads an item that was never written")
    return item


def _empty(graph: Graph, node: Node, size: Value) -> ValueList:
    (count,) = graph.static_ints(size, "length")
    if not 0 <= count <= 1000:
        raise UnsupportedModel(f"node {node.name!r}: a list of {count} items")
    return ValueList((None,) * count)


def _stack(graph: Graph, node: Node, values: ValueList) -> Value:
    items = [item for item in values.items if item is not None]
    if len(items) < len(values.items) or not items:
        raise UnsupportedModel(f"node {node.name!r} stacks items that were never written")
    return pack(graph, Node(node.name, "Pack", (), {}), *items)


def _rows(graph: Graph, node: Node, value: Value) -> ValueList:
    return ValueList(tuple(unpack(graph, Node(node.name, "Unpack", (), {}), value)))


@operator("TensorArrayV3")
def array(graph: Graph, node: Node, size: Value) -> list[ValueList]:
    """Return (handle, flow): the flow carries the items."""
    values = _empty(graph, node, size)
    return [values, values]


@operator("TensorArrayWriteV3")
def array_write(
    graph: Graph, node: Node, handle: ValueList, index: Value, item: Value, flow: ValueList
) -> ValueList:
    return _set(graph, node, flow, index, item)


@operator("TensorArrayReadV3")
def array_read(graph: Graph, node: Node, handle: ValueList, index: Value, flow: ValueList) -> Value:
    return _item(graph, node, flow, index)


@operator("TensorArrayScatterV3")
def array_scatter(
    graph: Graph, node: Node, handle: ValueList, indices: Value, value: Value, flow: ValueList
) -> ValueList:
    items = list(flow.items)
    rows = _rows(graph, node, value).items
    for at, row in zip(graph.static_ints(indices, "indices"), rows, strict=True):
        items[at] = row
    return ValueList(tuple(items))


@operator("TensorArrayGatherV3")
def array_gather(
    graph: Graph, node: Node, handle: ValueList, indices: Value, flow: ValueList
) -> Value:
    chosen = [flow.items[at] for at in graph.static_ints(indices, "indices")]
    return _stack(graph, node, ValueList(tuple(chosen)))


@operator("TensorArraySizeV3")
def array_size(graph: Graph, node: Node, handle: ValueList, flow: ValueList) -> Value:
    return Value(graph.constant(np.array(len(flow.items), np.int32)))


@operator("TensorListReserve")
def list_reserve(graph: Graph, node: Node, shape: Value, size: Value) -> ValueList:
    return _empty(graph, node, size)


@operator("TensorListFromTensor")
def list_from_tensor(graph: Graph, node: Node, value: Value, shape: Value) -> ValueList:
    return _rows(graph, node, value)


@operator("TensorListGetItem")
def list_get(graph: Graph, node: Node, values: ValueList, index: Value, shape: Value) -> Value:
    return _item(graph, node, values, index)


@operator("TensorListSetItem")
def list_set(graph: Graph, node: Node, values: ValueList, index: Value, item: Value) -> ValueList:
    return _set(graph, node, values, index, item)


@operator("TensorListStack")
def list_stack(graph: Graph, node: Node, values: ValueList, shape: Value) -> Value:
    return _stack(graph, node, values)
