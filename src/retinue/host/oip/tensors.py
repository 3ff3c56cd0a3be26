"""The Open Inference Protocol's tensors: datatypes, and their JSON and binary forms.

Sources: the protocol's REST specification
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md)
and its binary tensor data extension
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np

from retinue.core.errors import InvalidTensor
from retinue.core.types import Array

BYTES = "BYTES"
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
    BYTES: np.dtype(object),
}
NAMES: Mapping[np.dtype[Any], str] = {dtype: name for name, dtype in DATATYPES.items()}
MAX_DIMENSIONS = 32
MAX_ELEMENTS = 2**48
"""More than fits any memory, and few enough that NumPy can count them."""
LENGTH_BYTES = 4
"""What precedes each element of binary BYTES data: its length, little-endian."""

_TYPES: Mapping[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "O": {str},
}


@lru_cache(256)
def datatype(dtype: str | np.dtype[Any]) -> str:
    """Return the protocol's name of a NumPy dtype: "FP32" of "float32", "BYTES" of "object"."""
    return NAMES[np.dtype(dtype).newbyteorder("<")]


def dtype_of(name: object, what: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a datatype; BYTES is ``object``, an array of `bytes`.

    Args:
        name: As the client gave it.
        what: Whose datatype it is, for the message.

    Raises:
        InvalidTensor: it is none of the protocol's, or BF16, which NumPy and so no model here has.
    """
    found = DATATYPES.get(name) if isinstance(name, str) else None
    if found is None:
        known = ", ".join(DATATYPES)
        raise InvalidTensor(f"{what}: datatype {str(name)[:40]!r} is not read here; known: {known}")
    return found


def check_shape(shape: Iterable[object], what: str) -> tuple[int, ...]:
    """Return a shape as a client gave it.

    Raises:
        InvalidTensor: a dimension is no integer or below 0, or there are too many of them or of
            the elements that they announce.
    """
    found = tuple(shape)
    if len(found) > MAX_DIMENSIONS:
        raise InvalidTensor(f"{what}: shape has more than {MAX_DIMENSIONS} dimensions")
    sizes = [n for n in found if type(n) is int and n >= 0]
    if len(sizes) != len(found):
        raise InvalidTensor(f"{what}: shape must be a list of integers that are 0 or more")
    if math.prod(n or 1 for n in sizes) > MAX_ELEMENTS:
        raise InvalidTensor(f"{what}: shape {sizes} asks for more elements than any tensor has")
    return tuple(sizes)


def check_count(count: int, shape: tuple[int, ...], what: str) -> None:
    """Check that there are as many elements as the shape asks for.

    Raises:
        InvalidTensor: there are not.
    """
    if count != math.prod(shape):
        raise InvalidTensor(
            f"{what}: shape {list(shape)} asks for {math.prod(shape)} elements, and there are "
            f"{count}"
        )


def objects(values: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    """Return strings as an ``object`` array; their number must be that of the shape."""
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


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
    """Return JSON tensor data, flat or nested, as an array; strings become their UTF-8 bytes.

    Raises:
        InvalidTensor: ragged, of other values than the shape or datatype allows, or out of range.
    """
    if not isinstance(data, list):
        raise InvalidTensor(f"{what}: data must be a list")
    values, nesting, types = _flatten(data, what)
    size = math.prod(shape)
    if len(values) != size or (len(nesting) > 1 and tuple(nesting) != shape):
        raise InvalidTensor(
            f"{what}: shape {list(shape)} asks for {size} elements, and data is {nesting}"
        )
    if not types <= _TYPES[dtype.kind]:
        raise InvalidTensor(f"{what}: data holds other values than {NAMES[dtype]}")
    if dtype.kind == "O":
        return objects([value.encode() for value in values], shape)
    try:
        with np.errstate(over="raise"):
            return np.array(values, dtype).reshape(shape)
    except (FloatingPointError, OverflowError) as error:
        raise InvalidTensor(f"{what}: data goes beyond the range of {NAMES[dtype]}") from error


def from_binary(
    data: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], what: str
) -> Array:
    """Return little-endian row-major binary tensor data as an array, without a copy if aligned.

    Raises:
        InvalidTensor: its length is not that of the shape and datatype, or a BOOL is not 0 or 1.
    """
    if dtype.kind == "O":
        return objects(_strings(memoryview(data), math.prod(shape), what), shape)
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


def _strings(data: memoryview, count: int, what: str) -> list[bytes]:
    if count * LENGTH_BYTES > len(data):
        raise InvalidTensor(
            f"{what}: {count} BYTES elements take {count * LENGTH_BYTES} bytes or more, not "
            f"{len(data)}"
        )
    found: list[bytes] = []
    start, end = 0, len(data)
    while start < end:
        body = start + LENGTH_BYTES
        stop = body + int.from_bytes(data[start:body], "little")
        if body > end or stop > end or len(found) == count:
            break
        found.append(bytes(data[body:stop]))
        start = stop
    if start != end or len(found) != count:
        raise InvalidTensor(
            f"{what}: binary BYTES data must be {count} times a 4-byte little-endian length and "
            f"so many bytes; after {len(found)} of them {end - start} bytes are left"
        )
    return found


def little_endian(array: Array) -> Array:
    """Return an array of a protocol's datatype, row-major and little-endian."""
    return np.ascontiguousarray(array, DATATYPES[datatype(array.dtype)])


def to_binary(array: Array) -> bytes:
    """Return a tensor's binary form; the elements of an ``object`` array must be `bytes`."""
    if array.dtype.kind != "O":
        return little_endian(array).tobytes()
    values: list[bytes] = array.reshape(-1).tolist()
    return b"".join(
        chain.from_iterable((len(v).to_bytes(LENGTH_BYTES, "little"), v) for v in values)
    )


def to_json(array: Array, what: str) -> Array | list[str]:
    """Return a tensor's flat JSON data: an array that `orjson` can write, or strings.

    Raises:
        InvalidTensor: an element of BYTES is not UTF-8, which JSON cannot hold.
    """
    if array.dtype.kind != "O":
        return little_endian(array).reshape(-1)
    try:
        return [value.decode() for value in array.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise InvalidTensor(
            f"{what} holds bytes that are not UTF-8, which JSON cannot hold; ask for binary data"
        ) from error
