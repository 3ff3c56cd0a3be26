"""The Open Inference Protocol: tensors there and back, and everything that is refused."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinue.core.errors import DeadlineExceeded, InvalidTensor
from retinue.core.settings import Settings
from retinue.core.types import TensorSpec
from retinue.host import http
from retinue.host.edge import State
from retinue.host.v2_tensors import DATATYPES, Inference, Wanted, datatype, parse, render
from retinue.testing.host import FakeHost

NUMBERS = [name for name in DATATYPES if name != "BOOL"]
X = TensorSpec("x", "float32", (-1, 2))
OUT = TensorSpec("x_out", "float32", (-1, 2))


def _body(
    *, inputs: list[dict[str, Any]] | None = None, tail: bytes = b"", **more: Any
) -> tuple[bytes, bytes]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    head = json.dumps({"inputs": [tensor] if inputs is None else inputs, **more}).encode()
    return head + tail, str(len(head)).encode()


def _parse(body: bytes, length: bytes | None = None) -> Inference:
    return parse(body, length, [X], [OUT])


def _slow_decode(entry: dict[str, Any], buffer: bytes) -> np.ndarray[Any, Any]:
    """The obvious twin of a client: one element at a time."""
    dtype = DATATYPES[entry["datatype"]]
    count = int(np.prod(entry["shape"]))
    if "data" in entry:
        values = entry["data"]
    else:
        size = dtype.itemsize
        values = [np.frombuffer(buffer[i * size : (i + 1) * size], dtype)[0] for i in range(count)]
    return np.array(values, dtype).reshape(entry["shape"])


@given(st.sampled_from(sorted(DATATYPES)), st.data())
def test_every_datatype_survives_both_ways(name: str, data: st.DataObject) -> None:
    dtype = DATATYPES[name]
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    array = data.draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **finite)))
    spec = TensorSpec("x", dtype.name, (-1,) * len(shape))
    out = TensorSpec("y", dtype.name, (-1,) * len(shape))
    for form in ("flat", "nested", "binary"):
        entry: dict[str, Any] = {"name": "x", "datatype": name, "shape": list(shape)}
        tail = b""
        if form == "binary":
            tail = array.tobytes()
            entry["parameters"] = {"binary_data_size": len(tail)}
        else:
            entry["data"] = (array if form == "nested" else array.reshape(-1)).tolist()
        if form == "nested" and 0 in shape[:-1]:
            continue  # an empty list has no inner shape
        body, length = _body(inputs=[entry], tail=tail)
        parsed = parse(body, length, [spec], [out])
        assert parsed.tensors["x"].dtype == dtype
        np.testing.assert_array_equal(parsed.tensors["x"], array)
    for binary in (False, True):
        wanted = Inference(None, {}, (Wanted("y", binary),))
        answer, size = render("m", "1", wanted, {"y": array})
        assert (size is not None) is binary
        entry = json.loads(answer[:size])["outputs"][0]
        assert entry["datatype"] == name
        back = _slow_decode(entry, answer[size:] if size else b"")
        np.testing.assert_array_equal(back, array)


def test_binary_tensors_come_in_order_and_may_mix_with_json() -> None:
    specs = [TensorSpec(n, t, (-1,)) for n, t in (("a", "int8"), ("b", "float64"), ("c", "bool"))]
    inputs = [
        {"name": "c", "datatype": "BOOL", "shape": [3], "parameters": {"binary_data_size": 3}},
        {"name": "a", "datatype": "INT8", "shape": [2], "data": [-128, 127]},
        {"name": "b", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}},
    ]
    tail = b"\x01\x00\x01" + np.array([1.5, -2.5]).tobytes()
    body, length = _body(inputs=inputs, tail=tail, id="42")
    parsed = parse(body, length, specs, specs)
    assert parsed.id == "42"
    assert parsed.tensors["a"].tolist() == [-128, 127]
    assert parsed.tensors["b"].tolist() == [1.5, -2.5]
    assert parsed.tensors["b"].flags.aligned
    assert parsed.tensors["c"].tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "y"}, "no input is called 'y'"),
        ({"name": None}, "no input is called"),
        ({"datatype": "FP64"}, "must be FP32"),
        ({"datatype": "BYTES"}, "known: BOOL"),
        ({"datatype": ["FP32"]}, "must be FP32"),
        ({"shape": [2, 1]}, "shape must be"),
        ({"shape": [2]}, "shape must be"),
        ({"shape": [2, 2]}, "asks for 4 elements"),
        ({"shape": [10**30, 2]}, "integers"),
        ({"shape": [2**62, 2]}, "asks for"),
        ({"shape": [-1, 2]}, "0 or more"),
        ({"shape": [1.0, 2]}, "integers"),
        ({"shape": [True, 2]}, "integers"),
        ({"shape": [1] * 40}, "dimensions"),
        ({"shape": "1,2"}, "must be a list"),
        ({"data": [1]}, "asks for 2 elements"),
        ({"data": [[1], [2]]}, "asks for 2 elements"),
        ({"data": [[1, 2], [3]]}, "ragged"),
        ({"data": [1, [2]]}, "ragged"),
        ({"data": ["1", "2"]}, "other values"),
        ({"data": [True, 2]}, "other values"),
        ({"data": [None, 2]}, "other values"),
        ({"data": [{}, 2]}, "other values"),
        ({"data": [1e300, 2]}, "range"),
        ({"data": 3}, "must be a list"),
        ({"data": None}, "must be a list"),
        ({"parameters": {"binary_data_size": 8}}, "not both"),
        ({"parameters": {"shared_memory_region": "r"}}, "not supported"),
        ({"parameters": []}, None),
        ({"parameters": 3}, "must be an object"),
    ],
)
def test_wrong_inputs_are_refused(change: dict[str, Any], message: str | None) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **change}
    body, _ = _body(inputs=[tensor])
    if message is None:
        assert _parse(body).tensors["x"].tolist() == [[1.0, 2.0]]
        return
    with pytest.raises(InvalidTensor, match=message):
        _parse(body)


@pytest.mark.parametrize(
    ("dtype", "data"),
    [
        ("UINT8", [256]),
        ("UINT8", [-1]),
        ("INT64", [2**63]),
        ("INT32", [1.5]),
        ("INT32", [True]),
        ("BOOL", [1]),
        ("FP16", [1e6]),
    ],
)
def test_numbers_beyond_their_datatype_are_refused(dtype: str, data: list[Any]) -> None:
    spec = TensorSpec("x", DATATYPES[dtype].name, (-1,))
    body, _ = _body(inputs=[{"name": "x", "datatype": dtype, "shape": [1], "data": data}])
    with pytest.raises(InvalidTensor):
        parse(body, None, [spec], [spec])


@pytest.mark.parametrize(
    ("size", "tail", "length", "message"),
    [
        (7, b"1234567", None, "takes 8 bytes, not 7"),
        (8, b"1234567", None, "only 7 bytes are left"),
        (8, b"123456789", None, "1 bytes follow"),
        (-8, b"12345678", None, "0 or more"),
        (8.0, b"12345678", None, "integer"),
        (True, b"12345678", None, "integer"),
        (8, b"12345678", b"99999", "at most the body"),
        (8, b"12345678", b"-1", "at most the body"),
        (8, b"12345678", b"1" * 500, "at most the body"),
        (8, b"12345678", b"10", "not JSON"),
    ],
)
def test_wrong_binary_lengths_are_refused(
    size: Any, tail: bytes, length: bytes | None, message: str
) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
    tensor["parameters"] = {"binary_data_size": size}
    body, right = _body(inputs=[tensor], tail=tail)
    with pytest.raises(InvalidTensor, match=message):
        _parse(body, length or right)


def test_a_bool_byte_is_0_or_1() -> None:
    spec = TensorSpec("x", "bool", (-1,))
    tensor = {"name": "x", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}}
    body, length = _body(inputs=[tensor], tail=b"\x02")
    with pytest.raises(InvalidTensor, match="0 or 1"):
        parse(body, length, [spec], [spec])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "must be an object"),
        (b"{}", "inputs must be a list"),
        (b'{"inputs": []}', "missing: x"),
        (b'{"inputs": [3]}', "must be an object"),
        (b"[" * 5000, "not JSON"),
        (_body(id=3)[0], "id must be a string"),
        (_body(parameters={"timeout": -1})[0], "timeout"),
        (_body(parameters={"timeout": "soon"})[0], "timeout"),
        (_body(parameters={"binary_data_output": "yes"})[0], "true or false"),
        (_body(outputs=[{"name": "z"}])[0], "no output is called 'z'"),
        (_body(outputs=[{"name": "x_out"}, {"name": "x_out"}])[0], "twice"),
        (
            _body(outputs=[{"name": "x_out", "parameters": {"classification": 3}}])[0],
            "not supported",
        ),
        (
            _body(inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}] * 2)[
                0
            ],
            "twice",
        ),
    ],
)
def test_wrong_requests_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidTensor, match=message):
        _parse(body)


def test_strings_are_refused_without_padding_them_in_memory() -> None:
    data = ["a" * 100_000, *["b"] * 100_000]
    body, _ = _body(inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": data}])
    with pytest.raises(InvalidTensor):
        _parse(body)
    spec = TensorSpec("x", "float32", (-1,))
    entry = {"name": "x", "datatype": "FP32", "shape": [100_001], "data": data}
    began = time.perf_counter()
    with pytest.raises(InvalidTensor, match="other values"):
        parse(_body(inputs=[entry])[0], None, [spec], [spec])
    assert time.perf_counter() - began < 5


def test_outputs_are_chosen_and_binary_by_the_request_or_one_by_one() -> None:
    specs = [TensorSpec(name, "float32", (-1, 2)) for name in ("p", "q")]

    def wanted(**more: Any) -> tuple[Wanted, ...]:
        return parse(_body(**more)[0], None, [X], specs).outputs

    assert wanted() == (Wanted("p", False), Wanted("q", False))
    assert wanted(outputs=[{"name": "q"}]) == (Wanted("q", False),)
    assert wanted(parameters={"binary_data_output": True}) == (Wanted("p", True), Wanted("q", True))
    mixed = [{"name": "q"}, {"name": "p", "parameters": {"binary_data": False}}]
    assert wanted(outputs=mixed, parameters={"binary_data_output": True}) == (
        Wanted("q", True),
        Wanted("p", False),
    )


def test_nan_is_null_in_json_and_itself_in_binary() -> None:
    array = np.array([[np.nan, 1]], np.float32)
    text, _ = render("m", "1", Inference(None, {}, (Wanted("y", False),)), {"y": array})
    assert json.loads(text)["outputs"][0]["data"] == [None, 1.0]
    raw, size = render("m", "1", Inference(None, {}, (Wanted("y", True),)), {"y": array})
    assert raw[size:] == array.tobytes()


def test_names_of_datatypes() -> None:
    assert datatype("float32") == "FP32"
    assert datatype("int64") == "INT64"
    assert {datatype(DATATYPES[name].name) for name in NUMBERS} == set(NUMBERS)


async def _call(host: FakeHost, method: str, path: str, **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(http.build(host, State(ready=True)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, **more)


def call(method: str, path: str, host: FakeHost | None = None, **more: Any) -> httpx.Response:
    return asyncio.run(_call(host or FakeHost(Settings()), method, path, **more))


def test_metadata_and_health() -> None:
    assert call("GET", "/v2").json()["extensions"] == ["binary_tensor_data"]
    assert call("GET", "/v2/health/live").json() == {"live": True}
    assert call("GET", "/v2/health/ready").json() == {"ready": True}
    model = call("GET", "/v2/models/fake").json()
    assert model == call("GET", "/v2/models/fake/versions/abc123").json()
    assert model == {
        "name": "fake",
        "versions": ["abc123"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "x_out", "datatype": "FP32", "shape": [-1, 2]}],
    }
    assert call("GET", "/v2/models/fake/ready").json() == {"name": "fake", "ready": True}
    assert call("GET", "/v2/models/fake/versions/abc123/ready").status_code == 200


def test_infer_over_http_json_and_binary() -> None:
    body, length = _body(id="7")
    answer = call("POST", "/v2/models/fake/versions/abc123/infer", content=body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "id": "7",
        "model_name": "fake",
        "model_version": "abc123",
        "outputs": [{"name": "x_out", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}],
    }
    body, length = _body(parameters={"binary_data_output": True})
    answer = call("POST", "/v2/models/fake/infer", content=body)
    size = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    parameters = json.loads(answer.content[:size])["outputs"][0]["parameters"]
    assert parameters == {"binary_data_size": 8}
    assert answer.content[size:] == np.array([1, 2], np.float32).tobytes()
    assert length


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/fake/versions/2", 404),
        ("POST", "/v2/models/fake/versions/2/infer", 404),
        ("POST", "/v2/models/fake/infer", 400),
        ("GET", "/v2/models/fake/infer", 405),
        ("GET", "/v2/nothing", 404),
    ],
)
def test_errors_have_the_protocols_own_shape(method: str, path: str, status: int) -> None:
    answer = call(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert isinstance(answer.json()["error"], str)


def test_an_error_of_the_pipeline_keeps_its_status() -> None:
    host = FakeHost(Settings())
    host.pipelines["fake"].error = DeadlineExceeded("too late")
    answer = call("POST", "/v2/models/fake/infer", host, content=_body()[0])
    assert answer.status_code == 504
    assert answer.json() == {"error": "too late"}
