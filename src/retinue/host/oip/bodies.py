"""The bodies of the protocol's REST inference: JSON, and the binary tensors that may follow it.

Sources: as `retinue.host.oip.tensors`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from retinue.core.errors import InvalidTensor
from retinue.core.types import Array, TensorSpec
from retinue.host.oip.inference import Response
from retinue.host.oip.served import InputTensor, Parameter, integer, refuse_shared_memory
from retinue.host.oip.tensors import (
    BYTES,
    check_shape,
    datatype,
    dtype_of,
    from_binary,
    from_json,
    objects,
    to_binary,
    to_json,
)

MAX_DIGITS = 20
"""Of a length that a header gives."""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A parsed inference request, but for the model that its path names.

    Attributes:
        id: To be echoed; None when the caller gave none.
        inputs: The tensors, decoded.
        outputs: Names of the outputs that are wanted; empty for all.
        parameters: The request's own.
        classification: Outputs of which the best classes are wanted, and how many.
        binary: Outputs that are wanted as binary data or not, where they say so.
        binary_default: Whether the others are wanted as binary data.
    """

    id: str | None
    inputs: tuple[InputTensor, ...]
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    classification: Mapping[str, int] = field(default_factory=dict)
    binary: Mapping[str, bool] = field(default_factory=dict)
    binary_default: bool = False

    def is_binary(self, output: str) -> bool:
        """Return whether an output is wanted as binary data."""
        return self.binary.get(output, self.binary_default)


def mapping(value: object, what: str) -> dict[str, Any]:
    """Return a JSON value that must be an object.

    Raises:
        InvalidTensor: it is not.
    """
    if not isinstance(value, dict):
        raise InvalidTensor(f"{what} must be an object")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidTensor(f"{what} must be a list")
    return value


def _name(entry: Mapping[str, Any], what: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise InvalidTensor(f"{what}: name must be a string, not {str(name)[:40]!r}")
    return name


def parameters_of(value: Mapping[str, Any], what: str) -> dict[str, Parameter]:
    """Return the parameters of a request or of a tensor.

    Raises:
        InvalidTensor: they are not an object of plain values, or ask for shared memory.
    """
    found = mapping(value.get("parameters") or {}, f"{what}: parameters")
    for name, one in found.items():
        if not isinstance(one, (bool, int, float, str)):
            raise InvalidTensor(
                f"{what}: parameter {name[:40]!r} must be a string, number or boolean"
            )
    refuse_shared_memory(found, what)
    return found


def flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    """Return a parameter that is true or false.

    Raises:
        InvalidTensor: it is something else.
    """
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidTensor(f"parameter {name!r} must be true or false")
    return value


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


def json_size(body: bytes, header_length: bytes | None) -> int:
    """Return how many of a body's bytes are JSON.

    Raises:
        InvalidTensor: the header is no number, or more than there is.
    """
    if header_length is None:
        return len(body)
    sane = header_length.isdigit() and len(header_length) <= MAX_DIGITS
    if not sane or int(header_length) > len(body):
        raise InvalidTensor(
            "Inference-Header-Content-Length must be the JSON object's length in bytes, at "
            f"most the body's {len(body)}"
        )
    return int(header_length)


def _input(item: object, binary: _Binary) -> InputTensor:
    entry = mapping(item, "an input")
    name = _name(entry, "an input")
    what = f"input {name[:80]!r}"
    parameters = parameters_of(entry, what)
    shape = check_shape(_list(entry.get("shape"), f"{what}: shape"), what)
    dtype = dtype_of(entry.get("datatype"), what)
    if "binary_data_size" in parameters:
        if "data" in entry:
            raise InvalidTensor(f"{what}: give data or binary_data_size, not both")
        taken = binary.take(parameters["binary_data_size"], what)
        data = from_binary(taken, dtype, shape, what)
    elif "data" in entry:
        data = from_json(entry["data"], dtype, shape, what)
    else:
        raise InvalidTensor(f"{what}: give data, or binary_data_size and the bytes")
    return InputTensor(name, entry["datatype"], shape, data)


def json_body(raw: bytes) -> dict[str, Any]:
    """Return a body that is a JSON object or empty.

    Raises:
        InvalidTensor: it is something else.
    """
    return _loads(raw) if raw.strip() else {}


def _loads(raw: bytes | memoryview) -> dict[str, Any]:
    try:
        return mapping(orjson.loads(raw), "the request")
    except orjson.JSONDecodeError as error:
        raise InvalidTensor(f"the request is not JSON: {error}") from error


def parse_raw(body: bytes, inputs: Sequence[TensorSpec]) -> Body:
    """Read a raw binary request: no JSON, the body is the data of the model's only input.

    A BYTES input takes the body as its one element; of other inputs the body's length gives the
    batch.

    Raises:
        InvalidTensor: the model has more inputs, another dimension than the batch varies, or the
            length is not that of whole rows.
    """
    if len(inputs) != 1:
        raise InvalidTensor(
            f"a raw binary request is for models with one input; this one has {len(inputs)}"
        )
    spec, what = inputs[0], f"input {inputs[0].name!r}"
    name = datatype(spec.dtype)
    if name == BYTES:
        data = objects([body], (1,) * len(spec.shape))
        return Body(None, (InputTensor(spec.name, name, data.shape, data),))
    dtype, rest = dtype_of(name, what), spec.shape[1:]
    if any(size < 1 for size in rest):
        raise InvalidTensor(f"{what}: its shape {list(spec.shape)} does not follow from raw data")
    row = math.prod(rest) * dtype.itemsize
    if not body or len(body) % row:
        raise InvalidTensor(f"{what}: raw data must be one or more rows of {row} bytes")
    shape = (len(body) // row, *rest)
    return Body(None, (InputTensor(spec.name, name, shape, from_binary(body, dtype, shape, what)),))


def split(body: bytes, size: int) -> tuple[dict[str, Any], memoryview]:
    """Return an inference request's JSON object, and the binary tensors that follow it.

    Args:
        body: Both.
        size: How many bytes of it are JSON; see `json_size`.

    Raises:
        InvalidTensor: it does not begin with a JSON object.
    """
    view = memoryview(body)
    return _loads(view[:size]), view[size:]


def has_strings(request: Mapping[str, Any]) -> bool:
    """Return whether a request, not checked yet, has BYTES: they are read one by one."""
    inputs = request.get("inputs")
    return isinstance(inputs, list) and any(
        isinstance(one, dict) and one.get("datatype") == BYTES for one in inputs
    )


def parse(request: Mapping[str, Any], tail: memoryview) -> Body:
    """Read an inference request; see `split`.

    Raises:
        InvalidTensor: it does not follow the protocol.
        InvalidRequest: a classification is no whole number.
    """
    binary = _Binary(tail)
    identity = request.get("id")
    if identity is not None and not isinstance(identity, str):
        raise InvalidTensor("id must be a string")
    parameters = parameters_of(request, "the request")
    inputs = tuple(_input(item, binary) for item in _list(request.get("inputs"), "inputs"))
    binary.finish()
    names: list[str] = []
    classes: dict[str, int] = {}
    forms: dict[str, bool] = {}
    default = flag(parameters, "binary_data_output", False)
    for item in _list(request.get("outputs") or [], "outputs"):
        entry = mapping(item, "an output")
        name = _name(entry, "an output")
        own = parameters_of(entry, f"output {name[:80]!r}")
        names.append(name)
        forms[name] = flag(own, "binary_data", default)
        classes[name] = integer(own, "classification", 0)
    return Body(identity, inputs, tuple(names), parameters, classes, forms, default)


def render(response: Response, body: Body) -> tuple[bytes, int | None]:
    """Return the answer's body, and the JSON object's length when binary tensors follow it.

    NaN and infinity have no JSON form and become null; ask for binary data to get them.

    Raises:
        InvalidTensor: an output is wanted as JSON and holds bytes that are not UTF-8.
    """
    described: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, array in response.outputs.items():
        entry = _described(name, array)
        if body.is_binary(name):
            data = to_binary(array)
            entry["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            entry["data"] = to_json(array, f"output {name!r}")
        described.append(entry)
    answer: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id is not None:
        answer["id"] = response.id
    answer["outputs"] = described
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return (head + b"".join(tail), len(head)) if tail else (head, None)


def _described(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "datatype": datatype(array.dtype), "shape": list(array.shape)}
