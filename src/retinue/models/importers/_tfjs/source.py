"""Reads the files of a TFJS graph-model: its topology and its weights."""

from __future__ import annotations

import base64
import binascii
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from retinue.core.errors import ModelCorrupt, UnsupportedModel, storage_errors
from retinue.core.types import Array
from retinue.models.importers._build.graph import Shape

_STORED = {"float16": "<f2", "float32": "<f4", "int32": "<i4", "uint8": "u1", "uint16": "<u2"}
_MEMORY = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}
_TYPES = {
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float32",
    "DT_HALF": "float32",
    "DT_INT32": "int32",
    "DT_INT64": "int32",
    "DT_INT16": "int32",
    "DT_INT8": "int32",
    "DT_UINT8": "int32",
    "DT_BOOL": "bool",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the topology; attributes are read through the typed methods."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attr: Mapping[str, Any]

    def _get(self, key: str, *fields: str) -> Any:
        value: Any = self.attr.get(key)
        for field in fields:
            if not isinstance(value, Mapping):
                return None
            value = value.get(field)
        return value

    def integer(self, key: str, default: int = 0) -> int:
        """Return an integer attribute."""
        value = self._get(key, "i")
        return default if value is None else int(value)

    def real(self, key: str, default: float = 0.0) -> float:
        """Return a float attribute."""
        value = self._get(key, "f")
        return default if value is None else float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a boolean attribute."""
        value = self._get(key, "b")
        return default if value is None else bool(value)

    def text(self, key: str, default: str = "") -> str:
        """Return a string attribute (base64 in the file)."""
        value = self._get(key, "s")
        return default if value is None else _decoded(value, self.name)

    def texts(self, key: str) -> list[str]:
        """Return a list of strings."""
        return [_decoded(item, self.name) for item in self._get(key, "list", "s") or ()]

    def integers(self, key: str) -> list[int]:
        """Return a list of integers."""
        return [int(item) for item in self._get(key, "list", "i") or ()]

    def dtype(self, key: str, default: str = "DT_FLOAT") -> np.dtype[Any]:
        """Return a type attribute as TFJS computes it: float32, int32 or bool."""
        return dtype(self._get(key, "type") or default, self.name)

    def shape(self, key: str) -> Shape | None:
        """Return a shape attribute; None where the rank is unknown."""
        return shape(self._get(key, "shape"))


def dtype(name: str | int, where: str) -> np.dtype[Any]:
    """Return the NumPy type of a TensorFlow type name."""
    if name not in _TYPES:
        raise UnsupportedModel(f"node {where!r} uses the type {name}, which is not supported")
    return np.dtype(_TYPES[str(name)])


def shape(value: Any) -> Shape | None:
    """Read a TensorShape; None where the rank is unknown."""
    if not isinstance(value, Mapping) or value.get("unknownRank"):
        return None
    sizes = (int(dim.get("size", 0)) for dim in value.get("dim") or ())
    return tuple(None if size < 0 else size for size in sizes)


def _decoded(value: str, where: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise ModelCorrupt(f"node {where!r} has an attribute that is not base64 text") from error


@dataclass(frozen=True, slots=True)
class Source:
    """A TFJS graph-model.

    Attributes:
        nodes: By name, in the file's order.
        weights: Decoded constants by name: float32, int32 or bool.
        outputs: Output name to the reference ("node" or "node:1") of its value.
    """

    nodes: Mapping[str, Node]
    weights: Mapping[str, Array]
    outputs: Mapping[str, str]


def read(files: Mapping[str, Path]) -> Source:
    """Read a graph-model from its `model.json` and weight files.

    Args:
        files: Name inside the package to the local file.

    Raises:
        ModelCorrupt: a file is missing, truncated or not what its name says.
        UnsupportedModel: it is a TFJS layers-model, or a weight's type is not supported.
    """
    name, document = _document(files)
    topology = document["modelTopology"]
    try:
        nodes = {item["name"]: _node(item) for item in topology["node"]}
        weights = _weights(document.get("weightsManifest") or (), name, files)
        return Source(nodes, weights, _outputs(document, nodes))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ModelCorrupt(f"{name} is not a TFJS graph-model: {error!r}") from error


def _document(files: Mapping[str, Path]) -> tuple[str, dict[str, Any]]:
    for name in sorted(files):
        if not name.endswith(".json"):
            continue
        with storage_errors(files[name], "reading the model"):
            content = files[name].read_bytes()
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ModelCorrupt(f"{name} is not JSON: {error}") from error
        if isinstance(document, dict) and "modelTopology" in document:
            if not isinstance(document["modelTopology"], dict):
                raise ModelCorrupt(f"{name}: modelTopology is not an object")
            if "node" not in document["modelTopology"]:
                raise UnsupportedModel(
                    f"{name} is a TFJS layers-model; only graph-models are read: convert it with "
                    "tensorflowjs_converter --output_format tfjs_graph_model"
                )
            return name, document
    raise ModelCorrupt(f"no TFJS model.json among {', '.join(sorted(files)) or 'no files'}")


def _node(item: Mapping[str, Any]) -> Node:
    name, op, inputs, attr = item["name"], item["op"], item.get("input") or [], item.get("attr")
    if not all(isinstance(text, str) for text in (name, op, *inputs)):
        raise TypeError(f"node {name!r} has a name, an operator or an input that is not a text")
    if not isinstance(attr or {}, Mapping):
        raise TypeError(f"node {name!r} has attributes that are not an object")
    return Node(name, op, tuple(inputs), attr or {})


def _outputs(document: Mapping[str, Any], nodes: Mapping[str, Node]) -> dict[str, str]:
    metadata = document.get("userDefinedMetadata") or {}
    signature = document.get("signature") or metadata.get("signature") or {}
    found: dict[str, str] = {}
    for key, info in (signature.get("outputs") or {}).items():
        reference = info.get("name") or key
        if reference.partition(":")[0] not in nodes:
            reference = key
        if reference.partition(":")[0] not in nodes:
            raise ModelCorrupt(f"the signature's output {key!r} is no node of the graph")
        found[key.removesuffix(":0")] = reference
    if found:
        return dict(sorted(found.items()))
    used = {i.lstrip("^").partition(":")[0] for node in nodes.values() for i in node.inputs}
    last = [n for n in nodes if n not in used and nodes[n].op not in ("Const", "NoOp")]
    return {name: name for name in sorted(last)}


def _weights(manifest: Any, document_name: str, files: Mapping[str, Path]) -> dict[str, Array]:
    weights: dict[str, Array] = {}
    for group in manifest:
        shards = [_shard(path, document_name, files) for path in group["paths"]]
        data = memoryview(b"".join(shards))
        offset = 0
        for item in group["weights"]:
            stored, size = _stored(item)
            if offset + size > len(data):
                raise ModelCorrupt(
                    f"weights {', '.join(group['paths'])} are truncated: {item['name']!r} ends at "
                    f"byte {offset + size} of {len(data)}; fetch the model again"
                )
            flat = np.frombuffer(data[offset : offset + size], stored)
            weights[item["name"]] = _decode(item, flat).reshape(item["shape"])
            offset += size
        if offset != len(data):
            raise ModelCorrupt(
                f"weights {', '.join(group['paths'])} have {len(data)} bytes where the manifest "
                f"lists {offset}; fetch the model again"
            )
    return weights


def _shard(path: str, document_name: str, files: Mapping[str, Path]) -> bytes:
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(document_name), path))
    local = files.get(wanted)
    if local is None:
        raise ModelCorrupt(f"{document_name} needs {wanted}, which is not among the files")
    with storage_errors(local, "reading the weights"):
        return local.read_bytes()


def _stored(item: Mapping[str, Any]) -> tuple[str, int]:
    kind = (item.get("quantization") or {}).get("dtype") or item["dtype"]
    stored = "u1" if kind == "bool" else _STORED.get(kind)
    if stored is None or item["dtype"] not in _MEMORY:
        raise UnsupportedModel(
            f"weight {item['name']!r} is {item['dtype']} stored as {kind}, which is not supported"
        )
    if any(size < 0 for size in item["shape"]):
        raise ModelCorrupt(f"weight {item['name']!r} has the shape {item['shape']}")
    return stored, prod(item["shape"]) * np.dtype(stored).itemsize


def _decode(item: Mapping[str, Any], flat: Array) -> Array:
    """Dequantise as TFJS does: in double precision, rounded to the weight's own type."""
    target = np.dtype(_MEMORY[item["dtype"]])
    quantization = item.get("quantization") or {}
    values: Array = flat
    if quantization.get("dtype") in ("uint8", "uint16"):
        values = flat.astype(np.float64) * quantization["scale"] + quantization["min"]
        if target.kind == "i":
            values = np.floor(values + 0.5)
    return values.astype(target)
