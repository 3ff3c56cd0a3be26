"""The gRPC front's messages: from the wire to what `retinue.host.oip.inference` takes, and back.

The descriptors are our own, compiled from ``protos/*.proto`` and loaded into a pool of their own,
so that another library's messages of the same names, such as Triton's client's, may live in the
same process. After a change of a ``.proto`` file, in its folder::

    python -m grpc_tools.protoc -I. --include_imports --descriptor_set_out=inference.binpb *.proto
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pool,
    json_format,
    message_factory,
)
from google.protobuf.descriptor_pb2 import FileDescriptorSet  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from retinue.core.errors import InvalidRequest, InvalidTensor
from retinue.core.statistics import BatchTotal, Statistics, Total
from retinue.core.types import Array
from retinue.host.contract import RepositoryEntry
from retinue.host.oip.inference import ModelMetadata, ModelStatistics, Request, Response
from retinue.host.oip.served import InputTensor, Parameter, integer
from retinue.host.oip.tensors import (
    BYTES,
    check_count,
    check_shape,
    datatype,
    dtype_of,
    from_binary,
    little_endian,
    objects,
    to_binary,
)

Message = Any
"""An instance of one of the classes that `new` makes; protobuf makes them at run time."""

MAX_TYPED_ELEMENTS = 2**22
"""Of ``contents``, which is read element by element; ``raw_input_contents`` is not bounded so."""

MAX_FIELDS = 4096
"""Most inputs, outputs, tensors and parameters of a message together."""

_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
# Bytes of a field by its wire type, where that alone says so; a group's parts are fields.
_FIXED: Mapping[int, int] = {1: 8, 3: 0, 4: 0, 5: 4}
_FINAL = "triton_final_response"


def _load_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    source = resources.files("retinue.host.oip") / "protos" / "inference.binpb"
    for file in FileDescriptorSet.FromString(source.read_bytes()).file:
        pool.Add(file)
    return pool


POOL = _load_pool()
_TYPES: dict[str, type[Any]] = {}


def _type(name: str) -> type[Any]:
    if name not in _TYPES:
        descriptor = POOL.FindMessageTypeByName(name if "." in name else f"inference.{name}")
        _TYPES[name] = message_factory.GetMessageClass(descriptor)
    return _TYPES[name]


def new(kind: str, /, **fields: Any) -> Message:
    """Return a message of a type, by its name in package ``inference`` or its full name."""
    return _type(kind)(**fields)


def parse(kind: str, raw: bytes) -> Message:
    """Return the message of a type that is on the wire.

    Raises:
        InvalidRequest: these bytes are none, or have more than `MAX_FIELDS` fields.
    """
    _check_fields(raw)
    message = _type(kind)()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        raise InvalidRequest(
            f"the request is no {kind} message: it is truncated, malformed or another message"
        ) from None
    return message


def _check_fields(raw: bytes) -> None:
    """Refuse very many fields before protobuf makes an object of each.

    An input that is empty takes two bytes on the wire, and eighty in memory.
    """
    at = count = 0
    try:
        while at < len(raw):
            count += 1
            _check_number(count, "the message", "fields")
            tag, at = _varint(raw, at)
            if tag & 7 == 0:
                _, at = _varint(raw, at)
            elif tag & 7 == 2:
                size, at = _varint(raw, at)
                at += size
            else:
                at += _FIXED[tag & 7]
    except LookupError:
        return  # malformed: protobuf stops here, too, and says so


def _check_number(count: int, what: str, of: str) -> None:
    if count > MAX_FIELDS:
        raise InvalidRequest(f"{what} has more than {MAX_FIELDS} {of}, which are not read")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError(at)


def is_slow(message: Message) -> bool:
    """Return whether a ``ModelInferRequest`` has tensors that are read element by element."""
    return any(tensor.datatype == BYTES or tensor.HasField("contents") for tensor in message.inputs)


def infer_request(message: Message, client: str = "", deadline: float | None = None) -> Request:
    """Return what a ``ModelInferRequest`` asks for.

    Args:
        message: The request.
        client: Who asks.
        deadline: The call's own, seconds on ``time.monotonic()``'s clock.

    Raises:
        InvalidTensor: a tensor's data is not what its datatype and shape say.
        InvalidRequest: a parameter has no value, or asks for what is not offered, or a tensor
            has more than `MAX_FIELDS` of them.
    """
    outputs = [(output.name, _parameters(output, "output")) for output in message.outputs]
    return Request(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        inputs=_inputs(message),
        outputs=tuple(name for name, _ in outputs),
        parameters=_parameters(message, "request"),
        classification={
            name: _class_count(parameters, name)
            for name, parameters in outputs
            if "classification" in parameters
        },
        client=client,
        deadline=deadline,
    )


def _parameters(owner: Message, what: str) -> dict[str, Parameter]:
    _check_number(len(owner.parameters), what, "parameters")
    found: dict[str, Parameter] = {}
    for name, value in owner.parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidRequest(f"{what}: parameter {name[:80]!r} has no value")
        if name.startswith("shared_memory_"):
            raise InvalidRequest(f"{what}: shared memory is not offered here; send the data")
        found[name] = getattr(value, choice)
    return found


def _class_count(parameters: Mapping[str, Parameter], output: str) -> int:
    count = integer(parameters, "classification", 0)
    if count < 1:
        raise InvalidRequest(f"output {output[:80]!r}: classification must be 1 or more classes")
    return count


def _inputs(message: Message) -> tuple[InputTensor, ...]:
    raw = message.raw_input_contents
    if not raw:
        return tuple(_input(tensor, None) for tensor in message.inputs)
    if any(tensor.HasField("contents") for tensor in message.inputs):
        raise InvalidTensor("give raw_input_contents or the inputs' contents, not both")
    if len(raw) != len(message.inputs):
        raise InvalidTensor(
            f"raw_input_contents has {len(raw)} elements for {len(message.inputs)} inputs; it "
            "must have one for each"
        )
    return tuple(map(_input, message.inputs, raw))


def _input(tensor: Message, raw: bytes | None) -> InputTensor:
    name, kind = tensor.name, tensor.datatype
    what = f"input {name[:80]!r}"
    _parameters(tensor, what)
    shape, dtype = check_shape(tensor.shape, what), dtype_of(kind, what)
    if raw is None:
        data = _typed(tensor.contents, kind, dtype, shape, what)
    else:
        data = from_binary(raw, dtype, shape, what)
    return InputTensor(name, kind, shape, data)


def _typed(
    contents: Message, kind: str, dtype: np.dtype[Any], shape: tuple[int, ...], what: str
) -> Array:
    """Return the elements of an ``InferTensorContents``."""
    if kind not in _CONTENTS:
        raise InvalidTensor(f"{what}: {kind} travels in raw_input_contents only")
    field = _CONTENTS[kind]
    others = [known.name for known, _ in contents.ListFields() if known.name != field]
    if others:
        raise InvalidTensor(f"{what}: {kind} data belongs into {field}, not {', '.join(others)}")
    values = getattr(contents, field)
    check_count(len(values), shape, what)
    if len(values) > MAX_TYPED_ELEMENTS:
        raise InvalidTensor(
            f"{what}: contents holds {len(values)} elements, at most {MAX_TYPED_ELEMENTS} are "
            "read; send raw_input_contents"
        )
    if kind == BYTES:
        return objects(list(values), shape)
    try:
        return np.array(list(values), dtype).reshape(shape)
    except OverflowError:
        raise InvalidTensor(f"{what}: contents goes beyond the range of {kind}") from None


def infer_response(response: Response) -> bytes:
    """Return a ``ModelInferResponse`` on the wire, with all data in ``raw_output_contents``."""
    return b"".join(_infer_response(response, _head(response)))


def stream_response(response: Response) -> bytes:
    """Return a ``ModelStreamInferResponse`` on the wire: the one answer to one request."""
    head = _head(response)
    head.parameters[_FINAL].bool_param = True
    inner = _infer_response(response, head)
    field = _type("ModelStreamInferResponse").DESCRIPTOR.fields_by_name["infer_response"]
    return b"".join([_prefix(field.number, sum(map(len, inner))), *inner])


def stream_error(text: str, request_id: str) -> bytes:
    """Return a ``ModelStreamInferResponse`` on the wire that says why one request failed."""
    answer = new("ModelStreamInferResponse", error_message=text)
    answer.infer_response.id = request_id
    return bytes(answer.SerializeToString())


def _head(response: Response) -> Message:
    head = new(
        "ModelInferResponse",
        model_name=response.model,
        model_version=response.version,
        id=response.id or "",
    )
    for name, array in response.outputs.items():
        head.outputs.add(name=name, datatype=datatype(array.dtype.name), shape=array.shape)
    return head


def _infer_response(response: Response, head: Message) -> list[bytes | memoryview]:
    """Return the parts of the message on the wire.

    The tensors are not put into the message but behind it, where its last field stands: protobuf
    would copy them several times (600 kB: 1 ms instead of 0.02).
    """
    field = head.DESCRIPTOR.fields_by_name["raw_output_contents"]
    parts: list[bytes | memoryview] = [head.SerializeToString()]
    for array in response.outputs.values():
        data = _binary(array)
        parts += [_prefix(field.number, len(data)), data]
    return parts


def _binary(array: Array) -> bytes | memoryview:
    """Return a tensor's binary form, of numbers without a copy."""
    if array.dtype.kind == "O":
        return to_binary(array)
    return little_endian(array).reshape(-1).view(np.uint8).data


def _prefix(number: int, size: int) -> bytes:
    """Return the tag and length before a length-delimited field.

    Source: https://protobuf.dev/programming-guides/encoding/
    """
    found = bytearray()
    for value in (number << 3 | 2, size):
        while value > 0x7F:
            found.append(value & 0x7F | 0x80)
            value >>= 7
        found.append(value)
    return bytes(found)


def model_metadata(metadata: ModelMetadata) -> Message:
    """Return a ``ModelMetadataResponse``."""

    def tensors(specs: Iterable[Any]) -> list[dict[str, Any]]:
        return [
            {"name": spec.name, "datatype": datatype(spec.dtype), "shape": spec.shape}
            for spec in specs
        ]

    return new(
        "ModelMetadataResponse",
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=tensors(metadata.inputs),
        outputs=tensors(metadata.outputs),
    )


def model_config(config: Mapping[str, Any]) -> Message:
    """Return a ``ModelConfigResponse``; the config's keys are the fields' own names."""
    answer = new("ModelConfigResponse")
    json_format.ParseDict(config, answer.config, descriptor_pool=POOL)
    return answer


def statistics(models: Iterable[ModelStatistics]) -> Message:
    """Return a ``ModelStatisticsResponse``."""
    return new("ModelStatisticsResponse", model_stats=[_model_statistics(one) for one in models])


def _model_statistics(model: ModelStatistics) -> dict[str, Any]:
    found = model.statistics
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": found.last_inference_ms,
        "inference_count": found.inference_count,
        "execution_count": found.execution_count,
        "inference_stats": _totals("InferStatistics", found),
        "batch_stats": [
            {"batch_size": size, **_totals("InferBatchStatistics", found.batches[size])}
            for size in sorted(found.batches)
        ],
    }


def _totals(name: str, owner: Statistics | BatchTotal) -> dict[str, dict[str, int]]:
    """Return the durations of a message's type; our names for them are the protocol's."""
    totals: dict[str, Total] = {
        field.name: getattr(owner, field.name)
        for field in _type(name).DESCRIPTOR.fields
        if field.message_type is not None
    }
    return {field: {"count": total.count, "ns": total.ns} for field, total in totals.items()}


def repository_index(entries: Sequence[RepositoryEntry]) -> Message:
    """Return a ``RepositoryIndexResponse``."""
    return new(
        "RepositoryIndexResponse",
        models=[
            {
                "name": entry.name,
                "version": entry.version,
                "state": entry.state,
                "reason": entry.reason,
            }
            for entry in entries
        ],
    )
