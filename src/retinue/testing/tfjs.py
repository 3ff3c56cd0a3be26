"""Writes tiny TFJS graph-models, so that operators and importers are tested with no download."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinue.core.types import Array

_NAMES = {"f": "float32", "i": "int32", "b": "bool"}


def attribute(value: Any) -> dict[str, Any]:
    """Return an attribute as the file spells it.

    A text that starts with "DT_" is a type; a tuple is a shape, in which None is an open size.
    """
    match value:
        case bool():
            return {"b": value}
        case int():
            return {"i": str(value)}
        case float():
            return {"f": value}
        case str():
            return {"type": value} if value.startswith("DT_") else {"s": _text(value)}
        case tuple():
            sizes = [{"size": str(-1 if size is None else size)} for size in value]
            return {"shape": {"dim": sizes}}
        case list() if value and isinstance(value[0], str):
            return {"list": {"s": [_text(item) for item in value]}}
        case list():
            return {"list": {"i": [str(item) for item in value]}}
    raise TypeError(f"no attribute is made from {type(value).__name__}")


def _text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


class TinyGraph:
    """A graph-model built node by node; every method returns the node's name."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.weights: list[dict[str, Any]] = []
        self.outputs: dict[str, str] = {}
        self._data: list[bytes] = []

    def input(self, name: str, shape: Sequence[int | None], dtype: str = "DT_FLOAT") -> str:
        """Add an input."""
        return self.node(name, "Placeholder", dtype=dtype, shape=tuple(shape))

    def node(self, name: str, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node."""
        attr = {key: attribute(value) for key, value in attributes.items()}
        self.nodes.append({"name": name, "op": op, "input": list(inputs), "attr": attr})
        return name

    def const(self, name: str, values: Any, quantization: Mapping[str, Any] | None = None) -> str:
        """Add a constant.

        Args:
            name: Of the node.
            values: What the file stores: the quantised numbers where ``quantization`` is given.
            quantization: As in the manifest.
        """
        array = np.asarray(values)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        if array.dtype == np.int64:
            array = array.astype(np.int32)
        kind = "float32" if quantization else _NAMES[array.dtype.kind]
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": kind}
        if quantization:
            entry["quantization"] = {"original_dtype": "float32", **quantization}
        self.weights.append(entry)
        self._data.append(array.tobytes())
        return self.node(name, "Const")

    def data(self) -> bytes:
        """Return the weights' bytes."""
        return b"".join(self._data)

    def document(self, shards: Sequence[str] = ("model.bin",)) -> dict[str, Any]:
        """Return the content of model.json."""
        document: dict[str, Any] = {
            "format": "graph-model",
            "modelTopology": {"node": self.nodes},
            "weightsManifest": [{"paths": list(shards), "weights": self.weights}],
        }
        if self.outputs:
            outputs = {key: {"name": name} for key, name in self.outputs.items()}
            document["signature"] = {"outputs": outputs}
        return document

    def write(self, folder: Path, shards: int = 1) -> dict[str, Path]:
        """Write the files; return name inside a package to local path."""
        data = self.data()
        size = -(-len(data) // shards)
        parts = {f"shard{i}.bin": data[i * size : (i + 1) * size] for i in range(shards)}
        files = {f"m/{name}": folder / name for name in ["model.json", *parts]}
        for name, part in parts.items():
            (folder / name).write_bytes(part)
        (folder / "model.json").write_text(json.dumps(self.document(list(parts))))
        return files


def to_model_order(array: Array, wanted: Sequence[object]) -> Array:
    """Return a picture (N, H, W, C) as the ONNX model takes it.

    Args:
        array: In TensorFlow's order.
        wanted: The ONNX input's shape; a text stands for the batch. Height, width and channels
            must not all be equal.
    """
    if array.ndim == 4 and list(array.shape[1:]) != list(wanted[1:]):
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    return array
