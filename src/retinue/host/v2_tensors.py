"""The Open Inference Protocol's tensors: JSON and binary to NumPy arrays and back.

Sources: the protocol's REST specification
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md)
and its binary tensor data extension
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson

from retinue.core.errors import InvalidTensor
from retinue.core.types import Array, Tensors, TensorSpec

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
NAMES: Mapping[np.dtype[Any], str] = {dtype: name for name, dtype in DATATYPES.items()}
MAX_DIMENSIONS = 32
_TYPES: Mapping[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
_CHANGES_MEANING = ("shared_memory_region", "classification")


def datatype(dtype: str) -> str:
    """Return the protocol's name of a NumPy dtype, for example "FP32" of "float32"."""
    return NAMES[np.dtype(dtype).newbyteorder("<")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that the caller wants: its name, and whether as binary data."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class Inference:
    """A parsed inference request.

    Attributes:
        id: To be echoed; None when the caller gave none.
        tensors: The inputs by name.
        outputs: What to answer with, in order.
        timeout_us: Microseconds that the caller gives it, None for the default.
    """

    id: str | None
    tensors: Tensors
    outputs: tuple[Wanted, ...]
    timeout_us: float | None = None


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidTensor(f"{what} must be an object")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidTensor(f"{what} must be a list")
    return value


def _parameters(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    found = _mapping(value.get("parameters") or {}, f"{what}: parameters")
    for name in _CHANGES_MEANING:
        if found.get(name):
            raise InvalidTensor(f"{what}: parameter {name!r} is not supported here; leave it out")
    return found


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidTensor(f"parameter {name!r} must be true or false")
    return value


def _shape(value: object, what: str) -> tuple[int, ...]:
    shape = _list(value, f"{what}: shape")
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidTensor(f"{what}: shape has more than {MAX_DIMENSIONS} dimensions")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise InvalidTensor(f"{what}: shape must be a list of integers that are 0 or more")
    return tuple(shape)


def _check_spec(name: str, kind: object, shape: tuple[int, ...], spec: TensorSpec) -> None:
    expected = datatype(spec.dtype)
    if kind != expected:
        known = "" if str(kind) in DATATYPES else f" (known: {', '.join(DATATYPES)})"
        raise InvalidTensor(f"input {name!r}: datatype must be {expected}, not {kind!r}{known}")
    fits = len(shape) == len(spec.shape) and all(
        want in (-1, got) for want, got in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        wanted = list(spec.shape)
        raise InvalidTensor(f"input {name!r}: shape must be {wanted}, not {list(shape)}")


def _flatten(values: list[Any], what: str) -> tuple[list[Any], list[int], set[type]]:
    """Return the elements, the nesting's shape and the elements' types.

    Level by level, so that nothing is recursive; and the types are known before NumPy sees the
    data, for it would pad a list of strings to the longest one.
    """
    shape = [len(values)]
    types = set(map(type, values))
    while list in types:
        lengths = set(map(len, values)) if types == {list} else set()
        if len(lengths) != 1 or len(shape) == MAX_DIMENSIONS:
            raise InvalidTensor(f"{what}: data is ragged or too deeply nested")
        shape.append(lengths.pop())
        values = list(chain.from_iterable(values))
        types = set(map(type, values))
    return values, shape, types


def from_json(data: object, dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> Array:
    """Return JSON tensor data, flat or nested, as an array.

    Raises:
        InvalidTensor: ragged, of other numbers than the shape or datatype allows, or out of range.
    """
    values, nesting, types = _flatten(_list(data, f"{what}: data"), what)
    size = math.prod(shape)
    if len(values) != size or (len(nesting) > 1 and tuple(nesting) != shape):
        raise InvalidTensor(
            f"{what}: shape {list(shape)} asks for {size} elements, and data is {nesting}"
        )
    if not types <= _TYPES[dtype.kind]:
        raise InvalidTensor(f"{what}: data holds other values than {NAMES[dtype]}")
    try:
        with np.errstate(over="raise"):
            return np.array(values, dtype).reshape(shape)
    except (FloatingPointError, OverflowError) as error:
        raise InvalidTensor(f"{what}: data goes beyond the range of {NAMES[dtype]}") from error


def from_binary(data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> Array:
    """Return little-endian row-major binary tensor data as an array, without a copy if aligned.

    Raises:
        InvalidTensor: its length is not that of the shape and datatype, or a BOOL is not 0 or 1.
    """
    need = math.prod(shape) * dtype.itemsize
    if len(data) != need:
        raise InvalidTensor(
            f"{what}: {NAMES[dtype]} of shape {list(shape)} takes {need} bytes, not {len(data)}"
        )
    if dtype.kind == "b":
        raw = np.frombuffer(data, np.uint8)
        if raw.size and raw.max() > 1:
            raise InvalidTensor(f"{what}: a BOOL is one byte, 0 or 1")
        return raw.view(np.bool_).reshape(shape)
    array = np.frombuffer(data, dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


class _Binary:
    """What follows the JSON object; handed out in order."""

    def __init__(self, data: memoryview) -> None:
        self._left = data

    def take(self, size: object, what: str) -> memoryview:
        if type(size) is not int or size < 0:
            raise InvalidTensor(f"{what}: binary_data_size must be an integer, 0 or more")
        if size > len(self._left):
            raise InvalidTensor(
                f"{what}: binary_data_size is {size}, and only {len(self._left)} bytes are left"
            )
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def finish(self) -> None:
        if len(self._left):
            raise InvalidTensor(f"{len(self._left)} bytes follow the last binary tensor")


def _split(body: bytes, header_length: bytes | None) -> tuple[dict[str, Any], _Binary]:
    view = memoryview(body)
    size = len(body)
    if header_length is not None:
        if not header_length.isdigit() or int(header_length[:20]) > len(body):
            raise InvalidTensor(
                "Inference-Header-Content-Length must be the JSON object's length in bytes, at "
                f"most the body's {len(body)}"
            )
        size = int(header_length)
    try:
        request = orjson.loads(view[:size])
    except orjson.JSONDecodeError as error:
        raise InvalidTensor(f"the request is not JSON: {error}") from error
    return _mapping(request, "the request"), _Binary(view[size:])


def _input(item: object, specs: Mapping[str, TensorSpec], binary: _Binary) -> tuple[str, Array]:
    entry = _mapping(item, "an input")
    name = entry.get("name")
    if not isinstance(name, str) or name not in specs:
        raise InvalidTensor(f"no input is called {str(name)[:80]!r}; known: {', '.join(specs)}")
    what = f"input {name!r}"
    parameters = _parameters(entry, what)
    shape = _shape(entry.get("shape"), what)
    _check_spec(name, entry.get("datatype"), shape, specs[name])
    dtype = DATATYPES[entry["datatype"]]
    if "binary_data_size" in parameters:
        if "data" in entry:
            raise InvalidTensor(f"{what}: give data or binary_data_size, not both")
        taken = binary.take(parameters["binary_data_size"], what)
        return name, from_binary(taken, dtype, shape, what)
    if "data" not in entry:
        raise InvalidTensor(f"{what}: give data, or binary_data_size and the bytes")
    return name, from_json(entry["data"], dtype, shape, what)


def _outputs(request: Mapping[str, Any], names: Sequence[str], binary: bool) -> tuple[Wanted, ...]:
    listed = request.get("outputs")
    if not listed:
        return tuple(Wanted(name, binary) for name in names)
    wanted: dict[str, Wanted] = {}
    for item in _list(listed, "outputs"):
        entry = _mapping(item, "an output")
        name = entry.get("name")
        if not isinstance(name, str) or name not in names:
            raise InvalidTensor(
                f"no output is called {str(name)[:80]!r}; known: {', '.join(names)}"
            )
        if name in wanted:
            raise InvalidTensor(f"output {name!r} is asked for twice")
        wanted[name] = Wanted(
            name, _flag(_parameters(entry, f"output {name!r}"), "binary_data", binary)
        )
    return tuple(wanted.values())


def parse(
    body: bytes,
    header_length: bytes | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> Inference:
    """Read an inference request.

    Args:
        body: JSON, followed by binary tensors when ``header_length`` is given.
        header_length: The Inference-Header-Content-Length header.
        inputs: What the model needs.
        outputs: What the model gives.

    Raises:
        InvalidTensor: anything that does not follow the protocol or does not fit the model.
    """
    request, binary = _split(body, header_length)
    identity = request.get("id")
    if identity is not None and not isinstance(identity, str):
        raise InvalidTensor("id must be a string")
    parameters = _parameters(request, "the request")
    timeout = parameters.get("timeout")
    if timeout is not None and not (type(timeout) in (int, float) and timeout > 0):
        raise InvalidTensor("parameter 'timeout' must be microseconds, more than 0")
    specs = {spec.name: spec for spec in inputs}
    tensors: dict[str, Array] = {}
    for item in _list(request.get("inputs"), "inputs"):
        name, array = _input(item, specs, binary)
        if name in tensors:
            raise InvalidTensor(f"input {name!r} is given twice")
        tensors[name] = array
    binary.finish()
    missing = [name for name in specs if name not in tensors]
    if missing:
        raise InvalidTensor(f"inputs are missing: {', '.join(missing)}")
    as_binary = _flag(parameters, "binary_data_output", False)
    wanted = _outputs(request, [spec.name for spec in outputs], as_binary)
    return Inference(identity, tensors, wanted, timeout)


def render(
    model: str, version: str, inference: Inference, outputs: Tensors
) -> tuple[bytes, int | None]:
    """Return the answer's body, and the JSON object's length when binary tensors follow it.

    NaN and infinity have no JSON form and become null; ask for binary data to get them.
    """
    described: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for wanted in inference.outputs:
        array = outputs[wanted.name]
        name = datatype(array.dtype.name)
        array = np.ascontiguousarray(array, DATATYPES[name])
        entry: dict[str, Any] = {
            "name": wanted.name,
            "datatype": name,
            "shape": list(outputs[wanted.name].shape),
        }
        if wanted.binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail.append(array.tobytes())
        else:
            entry["data"] = array.reshape(-1)
        described.append(entry)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if inference.id is not None:
        answer = {"id": inference.id, **answer}
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return (head + b"".join(tail), len(head)) if tail else (head, None)
