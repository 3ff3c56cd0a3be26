"""Rounds the channels inside a network up to whole blocks, with zeros.

A network that grows by a few channels a stage, as BlazeFace does by a Pad before each sum, never
fills a block of channels, so that every Pad makes ONNX Runtime leave its blocked layout. With the
channels rounded up, most of these Pads do nothing any more. The engine rounds up inside a block
anyway: the added channels cost no time, and they stay 0 through all operators that are passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

BLOCK: Final = 16
"""Channels of a block with AVX-512; other processors' blocks are a part of it."""
_PASSED: Final = ("Add", "MaxPool", "Relu")
"""Operators that keep channels apart and zeros zero; the channels of all their tensors go along."""

Value = Callable[[str], NDArray[np.generic] | None]


def rounded(channels: int) -> int:
    """Return the channels of whole blocks."""
    return -(-channels // BLOCK) * BLOCK


def group_of(node: onnx.NodeProto) -> int:
    """Return a convolution's number of groups."""
    return next((int(a.i) for a in node.attribute if a.name == "group"), 1)


class Widths:
    """Which tensors can be widened, and how wide they become.

    Args:
        graph: The network.
        channels: Tensor to its channels, of those whose shape is a picture's.
        value: Returns a constant.
        pads: Tells whether a node is a Pad that adds channels only.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        channels: Mapping[str, int],
        value: Value,
        pads: Callable[[onnx.NodeProto], bool],
    ) -> None:
        self._channels = channels
        self._value = value
        self._pads = pads
        nodes = list(graph.node)
        free = {
            node.output[0]
            for node in nodes
            if node.op_type == "Conv" or node.op_type in _PASSED or pads(node)
        }
        free = {name for name in free if channels.get(name)}
        free -= {output.name for output in graph.output}
        before = -1
        while len(free) != before:
            before = len(free)
            for node in nodes:
                free -= self._bound(node, free)
        self._free = free

    def of(self, name: str) -> int:
        """Return the width that a tensor gets."""
        count = self._channels.get(name, 0)
        return rounded(count) if name in self._free else count

    def changed(self, node: onnx.NodeProto) -> bool:
        """Tell whether any of a node's tensors is widened."""
        names = (*node.input, *node.output)
        return any(self.of(name) != self._channels.get(name, 0) for name in names)

    def _bound(self, node: onnx.NodeProto, free: set[str]) -> set[str]:
        """Return the tensors of a node that must keep their channels."""
        touched = {*node.input, *node.output}
        if self._pads(node):
            return set() if node.output[0] in free else {node.input[0]}
        if node.op_type == "Conv":
            if any(self._value(name) is None for name in node.input[1:] if name):
                return touched
            group = group_of(node)
            if group == 1:
                return set()
            ends = {node.input[0], node.output[0]}
            apart = group == self._channels.get(node.input[0]) == self._channels.get(node.output[0])
            return set() if apart and ends <= free else ends
        if node.op_type in _PASSED and touched <= free and len(node.output) == 1:
            return set()
        return touched


def grown(array: NDArray[np.generic], *sizes: int) -> NDArray[np.float32]:
    """Return an array with zeros behind, so that its first dimensions have the sizes."""
    more = [(0, size - have) for size, have in zip(sizes, array.shape, strict=False)]
    more += [(0, 0)] * (array.ndim - len(more))
    return np.pad(array, more).astype(np.float32)
