"""The HTTP requests that `observe` sends: right ones, and wrong ones of every kind."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2]}


def infer(*inputs: dict[str, Any], **more: Any) -> bytes:
    """Return the JSON of an inference request."""
    return json.dumps({"inputs": list(inputs or (X,)), **more}).encode()


def x(**change: Any) -> dict[str, Any]:
    """Return the input "x" with something changed; None takes a key away."""
    return {key: value for key, value in {**X, **change}.items() if value is not None}


def binary(head: dict[str, Any], tail: bytes, length: str | None = None) -> Any:
    """Return headers and body of the binary tensor extension."""
    text = json.dumps(head).encode()
    given = str(len(text)) if length is None else length
    return {"Inference-Header-Content-Length": given}, text + tail


RAW = np.array([[1.5, -2]], "<f4").tobytes()
BX = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
FAKE, SLOW = "/v2/models/fake/infer", "/v2/models/slow/infer"
TEXT, SCORES = "/v2/models/text/infer", "/v2/models/scores/infer"
T = {"name": "text", "datatype": "BYTES", "shape": [2, 1]}
S = {"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": [0.1, 0.7, 0.2]}

Case = tuple[str, str, str, dict[str, str], bytes | None]


def plain_cases() -> Iterable[Case]:
    """Return the requests that carry no tensors."""
    for path in (
        "/v2",
        "/v2/",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/nothing",
        "/",
        "/v2/models/fake",
        "/v2/models/fake/versions/1",
        "/v2/models/fake/versions/9",
        "/v2/models/fake/versions/abc",
        "/v2/models/nope",
        "/v2/models/text",
        "/v2/models/fixed",
        "/v2/models/fake/ready",
        "/v2/models/fake/versions/1/ready",
        "/v2/models/fake/versions/9/ready",
        "/v2/models/nope/ready",
        "/v2/models/%66ake",
        "/v2/models/fake/config",
        "/v2/models/fixed/config",
        "/v2/models/nope/config",
        "/v2/models/fake/stats",
        "/v2/models/fake/versions/1/stats",
        "/v2/models/nope/stats",
        "/v2/models",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/status",
        "/v2/trace/setting",
        "/v2/logging",
        "/v2/repository/index",
    ):
        yield "", "GET", path, {}, None
    yield "wrong method", "POST", "/v2", {}, b""
    yield "wrong method", "POST", "/v2/models/fake", {}, b""
    yield "wrong method", "GET", FAKE, {}, None
    yield "HEAD", "HEAD", "/v2", {}, None
    for body in (b"", b"{}", b'{"ready": true}', b"[]", b"{"):
        yield "", "POST", "/v2/repository/index", {}, body
    for path, body in (
        ("nope/load", b""),
        ("half/load", b""),
        ("half/load", b"{}"),
        ("half/load", b"{"),
        ("half/load", b'{"parameters": {"unknown": "1"}}'),
        ("half/load", b'{"parameters": {"config": "{nonsense"}}'),
        ("half/load", b'{"parameters": {"config": 5}}'),
        ("half/unload", b""),
        ("half/unload", b""),
        ("nope/unload", b""),
        ("half/unload", b'{"parameters": {"unload_dependents": true}}'),
    ):
        yield "", "POST", f"/v2/repository/models/{path}", {}, body
    yield "after unload", "GET", "/v2/models/half", {}, None
    yield "after unload", "GET", "/v2/models/half/ready", {}, None
    yield "after unload", "POST", "/v2/models/half/infer", {}, infer()
    yield "after unload", "POST", "/v2/repository/index", {}, b""
    yield "load again", "POST", "/v2/repository/models/half/load", {}, b""
    for path in ("systemsharedmemory/region/a/register", "trace/setting", "logging"):
        yield "", "POST", f"/v2/{path}", {}, b"{}"


def json_cases() -> Iterable[Case]:
    """Return inference requests in JSON."""
    for title, body in (
        ("plain", infer()),
        ("id", infer(id="a1")),
        ("id a number", infer(id=7)),
        ("nested data", infer(x(shape=[2, 2], data=[[1, 2], [3, 4]]))),
        ("requested output", infer(outputs=[{"name": "x_out"}])),
        ("requested output twice", infer(outputs=[{"name": "x_out"}, {"name": "x_out"}])),
        ("outputs []", infer(outputs=[])),
        ("unknown output", infer(outputs=[{"name": "y"}])),
        (
            "binary_data output",
            infer(outputs=[{"name": "x_out", "parameters": {"binary_data": True}}]),
        ),
        ("binary_data_output", infer(parameters={"binary_data_output": True})),
        ("unknown parameter", infer(parameters={"hello": "you"})),
        ("parameter of odd type", infer(parameters={"hello": [1]})),
        ("input parameter", infer(x(parameters={"hello": 1}))),
        ("empty body", b""),
        ("{}", b"{}"),
        ("[]", b"[]"),
        ("null", b"null"),
        ("not JSON", b"{nonsense"),
        ("not UTF-8", b'{"id": "\xff\xfe", "inputs": []}'),
        ("NaN data", infer(x(data=[float("nan"), 1]))),
        ("1e400 data", infer().replace(b"1.5", b"1e400")),
        ("deep nesting", infer().replace(b"[1.5, -2]", b"[" * 500 + b"1" + b"]" * 500)),
        ("inputs []", json.dumps({"inputs": []}).encode()),
        ("inputs {}", b'{"inputs": {}}'),
        ("inputs [1]", b'{"inputs": [1]}'),
        ("input twice", infer(X, X)),
        ("unknown input", infer(x(name="y"))),
        ("extra input", infer(X, x(name="y"))),
        ("no name", infer(x(name=None))),
        ("no datatype", infer(x(datatype=None))),
        ("no shape", infer(x(shape=None))),
        ("no data", infer(x(data=None))),
        ("wrong datatype", infer(x(datatype="INT32", data=[1, 2]))),
        ("unknown datatype", infer(x(datatype="FLOAT"))),
        ("datatype lower case", infer(x(datatype="fp32"))),
        ("wrong shape", infer(x(shape=[1, 3], data=[1, 2, 3]))),
        ("wrong rank", infer(x(shape=[2]))),
        ("negative dim", infer(x(shape=[-1, 2]))),
        ("batch 0", infer(x(shape=[0, 2], data=[]))),
        ("dim a float", infer(x(shape=[1.0, 2]))),
        ("dim a string", infer(x(shape=["1", 2]))),
        ("huge shape", infer(x(shape=[2**62, 2]))),
        ("overflowing dim", infer(x(shape=[2**64, 2]))),
        ("product overflows", infer(x(shape=[2**32, 2**32]))),
        ("too few data", infer(x(data=[1]))),
        ("too many data", infer(x(data=[1, 2, 3]))),
        ("data strings", infer(x(data=["1", "2"]))),
        ("data null", infer(x(data=[None, 1]))),
        ("data bools", infer(x(data=[True, False]))),
        ("data not a list", infer(x(data=3))),
        ("ragged data", infer(x(shape=[2, 2], data=[[1, 2, 3], [4]]))),
        ("batch too large", infer(x(shape=[33, 2], data=[0.5] * 66))),
        (
            "shared memory input",
            infer(
                x(data=None, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 8})
            ),
        ),
        (
            "shared memory output",
            infer(
                outputs=[
                    {
                        "name": "x_out",
                        "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8},
                    }
                ]
            ),
        ),
        ("sequence_id", infer(parameters={"sequence_id": 5, "sequence_start": True})),
        ("priority 1", infer(parameters={"priority": 1})),
        ("priority 201", infer(parameters={"priority": 201})),
        ("priority 0", infer(parameters={"priority": 0})),
        ("priority 202", infer(parameters={"priority": 202})),
        ("priority -1", infer(parameters={"priority": -1})),
        ("priority a string", infer(parameters={"priority": "1"})),
        ("priority 1.5", infer(parameters={"priority": 1.5})),
        ("timeout 1e6 us", infer(parameters={"timeout": 1_000_000})),
        ("timeout 0", infer(parameters={"timeout": 0})),
        ("timeout -1", infer(parameters={"timeout": -1})),
        ("timeout 2**63", infer(parameters={"timeout": 2**63})),
        ("timeout 2**64", infer(parameters={"timeout": 2**64})),
        ("timeout a string", infer(parameters={"timeout": "5"})),
        (
            "classification 1",
            infer(outputs=[{"name": "x_out", "parameters": {"classification": 1}}]),
        ),
    ):
        yield title, "POST", FAKE, {}, body
    for path in (
        "fake/versions/1",
        "fake/versions/9",
        "fake/versions/abc",
        "nope",
        "fa%6be",
        "failing",
    ):
        yield "", "POST", f"/v2/models/{path}/infer", {}, infer()
    yield "batch 1 of a model without batching", "POST", "/v2/models/fixed/infer", {}, infer()
    yield (
        "batch 2 of a model without batching",
        "POST",
        "/v2/models/fixed/infer",
        {},
        infer(x(shape=[2, 2], data=[1, 2, 3, 4])),
    )
    yield (
        "FP16 in JSON",
        "POST",
        "/v2/models/half/infer",
        {},
        infer({"name": "h", "datatype": "FP16", "shape": [1, 2], "data": [1, 2]}),
    )
    yield (
        "BF16 in JSON",
        "POST",
        "/v2/models/brain/infer",
        {},
        infer({"name": "b", "datatype": "BF16", "shape": [1, 2], "data": [1, 2]}),
    )
    for content in ("application/octet-stream", "text/plain", "application/json; charset=utf-8"):
        yield f"Content-Type {content}", "POST", FAKE, {"Content-Type": content}, infer()


def classification_cases() -> Iterable[Case]:
    """Return requests of the classification extension."""
    for count in (1, 2, 3, 5, 0, -1, "2", 1.5):
        output = {"name": "scores_out", "parameters": {"classification": count}}
        yield f"classification {count!r}", "POST", SCORES, {}, infer(S, outputs=[output])
    output = {"name": "scores_out", "parameters": {"classification": 2, "binary_data": True}}
    yield "classification, binary", "POST", SCORES, {}, infer(S, outputs=[output])
    two = {"name": "scores", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 3, 2, 1]}
    output = {"name": "scores_out", "parameters": {"classification": 2}}
    yield "classification, batch 2", "POST", SCORES, {}, infer(two, outputs=[output])
    nans = infer(S, outputs=[output]).replace(b"0.7", b"NaN")
    yield "classification, NaN", "POST", SCORES, {}, nans


def bytes_cases() -> Iterable[Case]:
    """Return requests with BYTES tensors."""
    for title, data in (
        ("", ["ab", "ü☃"]),
        ("nested", [["ab"], ["c"]]),
        ("numbers", [1, 2]),
        ("NUL", ["a\0b", ""]),
    ):
        yield f"BYTES in JSON {title}", "POST", TEXT, {}, infer({**T, "data": data})
    bad = b"\x02\0\0\0\xff\xfe" + b"\x01\0\0\0a"
    for title, tail, size in (
        ("not UTF-8, answered in JSON", bad, None),
        ("cut short", bad[:-1], None),
        ("length beyond the end", b"\xff\xff\xff\x7fab", None),
        ("one element of two", bad[:6], None),
        ("an element too many", bad + b"\0\0\0\0", None),
        ("wrong binary_data_size", bad, 4),
    ):
        head = {**T, "parameters": {"binary_data_size": len(tail) if size is None else size}}
        headers, body = binary({"inputs": [head]}, tail)
        yield f"BYTES binary, {title}", "POST", TEXT, headers, body
    head = {**T, "parameters": {"binary_data_size": len(bad)}}
    headers, body = binary({"inputs": [head], "parameters": {"binary_data_output": True}}, bad)
    yield "BYTES binary both ways", "POST", TEXT, headers, body


def binary_cases() -> Iterable[Case]:
    """Return requests of the binary tensor extension, and compressed ones."""
    one = {"inputs": [BX]}
    size = lambda n: {**BX, "parameters": {"binary_data_size": n}}  # noqa: E731
    for title, (headers, body) in (
        ("binary in", binary(one, RAW)),
        ("binary both ways", binary({**one, "parameters": {"binary_data_output": True}}, RAW)),
        (
            "binary, one output JSON",
            binary(
                {
                    **one,
                    "outputs": [{"name": "x_out", "parameters": {"binary_data": False}}],
                    "parameters": {"binary_data_output": True},
                },
                RAW,
            ),
        ),
        ("tail too short", binary(one, RAW[:4])),
        ("tail too long", binary(one, RAW + b"1234")),
        ("binary_data_size too small", binary({"inputs": [size(4)]}, RAW)),
        ("binary_data_size too large", binary({"inputs": [size(800)]}, RAW)),
        ("binary_data_size negative", binary({"inputs": [size(-8)]}, RAW)),
        ("binary_data_size a string", binary({"inputs": [size("8")]}, RAW)),
        ("data and binary_data_size", binary({"inputs": [{**BX, "data": [3, 4]}]}, RAW)),
        ("no binary_data_size", binary({"inputs": [x(data=None)]}, RAW)),
        ("header length 0", binary(one, RAW, "0")),
        ("header length -1", binary(one, RAW, "-1")),
        ("header length abc", binary(one, RAW, "abc")),
        ("header length beyond", binary(one, RAW, "99999")),
        ("header length too short", binary(one, RAW, "10")),
        ("header length empty", binary(one, RAW, "")),
        ("header length 2**64", binary(one, RAW, str(2**64))),
        ("header length of a JSON-only body", binary({"inputs": [X]}, b"")),
    ):
        yield title, "POST", FAKE, headers, body
    big = infer(x(shape=[32, 2], data=[1.25] * 64))
    for title, headers, body in (
        ("gzip", {"Content-Encoding": "gzip"}, gzip.compress(big)),
        ("deflate", {"Content-Encoding": "deflate"}, zlib.compress(big)),
        ("deflate, raw", {"Content-Encoding": "deflate"}, zlib.compress(big, wbits=-15)),
        ("gzip, cut short", {"Content-Encoding": "gzip"}, gzip.compress(big)[:-9]),
        ("gzip, not gzip", {"Content-Encoding": "gzip"}, big),
        ("unknown encoding", {"Content-Encoding": "br"}, big),
        ("identity", {"Content-Encoding": "identity"}, big),
        ("Accept-Encoding: gzip", {"Accept-Encoding": "gzip"}, big),
        ("Accept-Encoding: deflate", {"Accept-Encoding": "deflate"}, big),
        ("Accept-Encoding: gzip, deflate", {"Accept-Encoding": "gzip, deflate"}, big),
        ("Accept-Encoding: br", {"Accept-Encoding": "br"}, big),
    ):
        yield title, "POST", FAKE, headers, body


def http_groups() -> list[tuple[str, Iterable[Case]]]:
    """Return all HTTP requests by what they are about."""
    return [
        ("Without tensors", plain_cases()),
        ("Inference in JSON", json_cases()),
        ("Classification", classification_cases()),
        ("BYTES", bytes_cases()),
        ("Binary tensors and compression", binary_cases()),
    ]
