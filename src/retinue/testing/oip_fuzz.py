"""Requests of the Open Inference Protocol, good, nearly good and bad, for both of its fronts.

Each strategy is of whole requests, so that a run of any length can be made of them: the tests draw
some hundreds, ``benchmarks/fuzz.py`` 100,000.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from retinue.host.oip import messages

T = TypeVar("T")

DATATYPES = ("FP32", "BYTES", "INT64", "UINT8", "BOOL", "FP16", "BF16", "fp32", "")
NAMES = ("x", "image", "y", "", "x\0")
MODELS = ("fake", "fake-image", "nope", "", "fake/../x", "ü" * 50)
PARAMETERS = ("timeout", "priority", "classification", "sequence_id", "binary_data_size", "conf")

GRPC_ANSWERS = frozenset(
    {
        "OK",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
    }
)
"""Statuses that a request may get of a front that is well: never INTERNAL or UNKNOWN."""

_number = st.sampled_from([0, 1, 2, -1, 101, 201, 202, 2**31, 2**53, 2**63 - 1, -(2**63)])
_shape = st.one_of(
    st.just([1, 2]),
    st.lists(st.one_of(st.integers(0, 4), _number), max_size=4),
    st.lists(st.just(1), min_size=30, max_size=40),
)
_strings = st.lists(st.binary(max_size=6), max_size=3).map(
    lambda values: b"".join(len(v).to_bytes(4, "little") + v for v in values)
)
_data = st.one_of(st.just(b"\0" * 8), st.binary(max_size=24), _strings)


def _mostly(usual: st.SearchStrategy[T], rare: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Draw from the first strategy about nine times of ten."""
    return st.sampled_from([usual] * 9 + [rare]).flatmap(lambda chosen: chosen)


def _damaged(raw: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return what strategy gives as it is, cut off, with a byte changed, or twice."""

    def cut(pair: tuple[bytes, int]) -> bytes:
        return pair[0][: pair[1] % (len(pair[0]) + 1)]

    def changed(given: tuple[bytes, int, int]) -> bytes:
        body, at, value = given
        return body[: at % (len(body) + 1)] + bytes([value]) + body[at % (len(body) + 1) + 1 :]

    place = st.integers(0, 2**16)
    return _mostly(
        raw,
        st.one_of(
            st.tuples(raw, place).map(cut),
            st.tuples(raw, place, st.integers(0, 255)).map(changed),
            raw.map(lambda body: body + body),
        ),
    )


def _message(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=fields).map(lambda drawn: messages.new(kind, **drawn))


def _grpc_parameters() -> st.SearchStrategy[Any]:
    value = _message("InferParameter", int64_param=_number) | st.one_of(
        st.builds(lambda v: messages.new("InferParameter", string_param=v), st.text(max_size=5)),
        st.builds(lambda v: messages.new("InferParameter", bool_param=v), st.booleans()),
        st.builds(lambda v: messages.new("InferParameter", double_param=v), st.floats()),
        st.builds(
            lambda v: messages.new("InferParameter", uint64_param=v), st.integers(0, 2**64 - 1)
        ),
    )
    names = st.sampled_from([*PARAMETERS, "shared_memory_region"]) | st.text(max_size=5)
    return _mostly(st.just({}), st.dictionaries(names, value, max_size=2))


def grpc_requests() -> st.SearchStrategy[bytes]:
    """Return bytes that are, or nearly are, a ``ModelInferRequest``."""
    contents = _message(
        "InferTensorContents",
        fp32_contents=st.lists(st.floats(width=32), max_size=3),
        int_contents=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        bool_contents=st.lists(st.booleans(), max_size=3),
        bytes_contents=st.lists(st.binary(max_size=4), max_size=3),
    )
    parameters = _grpc_parameters()
    tensor = st.fixed_dictionaries(
        {
            "name": st.sampled_from(NAMES),
            "datatype": st.sampled_from(DATATYPES),
            "shape": _shape,
            "parameters": parameters,
        },
        optional={"contents": contents},
    )
    good = st.just({"name": "x", "datatype": "FP32", "shape": [1, 2]})
    output = st.fixed_dictionaries(
        {
            "name": st.sampled_from(["x_out"] * 5 + ["scores", "labels", "boxes", "y"]),
            "parameters": parameters,
        }
    )
    request = st.fixed_dictionaries(
        {
            "model_name": st.sampled_from(["fake"] * 20 + ["fake-image"] * 5 + list(MODELS)),
            "inputs": _mostly(good.map(lambda one: [one]), st.lists(tensor, max_size=3)),
            "raw_input_contents": _mostly(st.just([b"\0" * 8]), st.lists(_data, max_size=3)),
            "parameters": parameters,
        },
        optional={
            "model_version": st.sampled_from(["", "", "", "abc123", "abc123", "1", "x" * 300]),
            "id": st.text(max_size=8),
            "outputs": st.lists(output, max_size=2),
        },
    )
    built = request.map(
        lambda fields: messages.new("ModelInferRequest", **fields).SerializeToString()
    )
    return _mostly(_damaged(built), st.binary(max_size=64))


def _json_values() -> st.SearchStrategy[Any]:
    plain = st.one_of(st.none(), st.booleans(), _number, st.floats(), st.text(max_size=5))
    return st.recursive(
        plain,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=5,
    )


def rest_requests() -> st.SearchStrategy[tuple[str, dict[str, str], bytes]]:
    """Return path, headers and body of what is, or nearly is, a REST inference request."""
    anything = _json_values()
    sizes = st.sampled_from([8, 0, 4, -1, 2**63, "8", None, True, 1.5])
    parameters = _mostly(
        st.just({}), st.dictionaries(st.sampled_from(PARAMETERS), _number | anything, max_size=2)
    )
    tensor = st.fixed_dictionaries(
        {"name": st.sampled_from(NAMES), "datatype": st.sampled_from(DATATYPES), "shape": _shape},
        optional={
            "data": st.just([1, 2]) | st.lists(anything, max_size=3),
            "parameters": st.builds(lambda size: {"binary_data_size": size}, sizes) | parameters,
        },
    )
    good = st.sampled_from(
        [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]},
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [1, 2],
                "parameters": {"binary_data_size": 8},
            },
            {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["picture"]},
        ]
    )
    output = st.fixed_dictionaries(
        {"name": _mostly(st.sampled_from(["x_out", "x_out", "boxes", "y"]), anything)},
        optional={
            "parameters": st.fixed_dictionaries({"binary_data": st.booleans()}) | parameters,
        },
    )
    request = st.fixed_dictionaries(
        {"inputs": _mostly(good.map(lambda one: [one]), st.lists(tensor | anything, max_size=3))},
        optional={
            "id": _mostly(st.text(max_size=5), anything),
            "outputs": _mostly(st.lists(output, max_size=2), st.lists(anything) | anything),
            "parameters": _mostly(parameters, anything),
        },
    )
    head = _mostly(request, anything).map(_dumped)
    path = st.builds(
        lambda model, version: f"/v2/models/{model}{version}/infer",
        st.sampled_from(["fake"] * 20 + ["fake-image"] * 5 + ["nope", "%00", "a%2Fb"]),
        st.sampled_from([""] * 5 + ["/versions/abc123", "/versions/1"]),
    )
    return st.builds(_rest_request, path, _damaged(head), _data, _framing())


def _framing() -> st.SearchStrategy[tuple[str | None, str | None]]:
    lengths = _mostly(
        st.sampled_from(["exact", None]), st.sampled_from(["0", "-1", "abc", "9" * 30, ""])
    )
    codings = st.sampled_from(["gzip", "deflate", "br", "identity"])
    return st.tuples(lengths, _mostly(st.none(), codings))


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # an integer that JSON here does not hold, a lone surrogate
        return b'{"inputs": [' + repr(value).encode(errors="replace") + b"]}"


def _rest_request(
    path: str, head: bytes, tail: bytes, framing: tuple[str | None, str | None]
) -> tuple[str, dict[str, str], bytes]:
    length, encoding = framing
    headers: dict[str, str] = {}
    if length is not None:
        shown = str(len(head)) if length == "exact" else length
        headers["inference-header-content-length"] = shown
    if encoding is not None:
        headers["content-encoding"] = encoding
    return path, headers, head + (tail if length else b"")


def rest_answer_is_fine(status: int) -> bool:
    """Return whether a front that is well may answer so: no 5xx but for overload and deadlines."""
    return 200 <= status < 500 or status in (503, 504)


async def post(app: ASGIApp, path: str, headers: Mapping[str, str], body: bytes) -> int:
    """Send one POST request to an ASGI application in this process and return the status."""
    status = 0
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        return await asyncio.Event().wait() and {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    lines = {"host": "127.0.0.1", "content-length": str(len(body)), **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(k.encode(), v.encode()) for k, v in lines.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8900),
    }
    await app(scope, receive, send)
    return status
