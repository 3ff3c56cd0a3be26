"""The Open Inference Protocol's bodies over REST: tensors there and back, and what is refused."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinue.core.errors import InputError, InvalidTensor
from retinue.core.types import Array, TensorSpec
from retinue.host.oip.bodies import Body, json_size, parse, parse_raw, render, split
from retinue.host.oip.inference import Response
from retinue.host.oip.served import checked
from retinue.host.oip.tensors import (
    DATATYPES,
    datatype,
    from_binary,
    from_json,
    objects,
    to_binary,
    to_json,
)

X = TensorSpec("x", "float32", (-1, 2))


def _body(
    *, inputs: list[dict[str, Any]] | None = None, tail: bytes = b"", **more: Any
) -> tuple[bytes, bytes]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    head = json.dumps({"inputs": [tensor] if inputs is None else inputs, **more}).encode()
    return head + tail, str(len(head)).encode()


def _parse(body: bytes, length: bytes | None = None, *specs: TensorSpec) -> dict[str, Array]:
    return checked(parse(*split(body, json_size(body, length))).inputs, specs or (X,))


def _render(array: Array, *, binary: bool) -> tuple[bytes, int | None]:
    return render(Response("m", "1", None, {"y": array}), Body(None, (), binary_default=binary))


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


@given(st.sampled_from(sorted(set(DATATYPES) - {"BYTES"})), st.data())
def test_every_datatype_survives_both_ways(name: str, data: st.DataObject) -> None:
    dtype = DATATYPES[name]
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    array = data.draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **finite)))
    spec = TensorSpec("x", dtype.name, (-1,) * len(shape))
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
        parsed = _parse(*_body(inputs=[entry], tail=tail), spec)
        assert parsed["x"].dtype == dtype
        np.testing.assert_array_equal(parsed["x"], array)
    for binary in (False, True):
        answer, size = _render(array, binary=binary)
        assert (size is not None) is binary
        entry = json.loads(answer[:size])["outputs"][0]
        assert entry["datatype"] == name
        back = _slow_decode(entry, answer[size:] if size else b"")
        np.testing.assert_array_equal(back, array)


@given(st.lists(st.binary(max_size=9), max_size=6))
def test_strings_survive_both_ways(values: list[bytes]) -> None:
    array = objects(values, (len(values),))
    back = from_binary(to_binary(array), array.dtype, array.shape, "x")
    assert back.tolist() == values
    slow = b"".join(len(v).to_bytes(4, "little") + v for v in values)
    assert to_binary(array) == slow
    texts = [value.decode("latin-1") for value in values]
    as_json = from_json(texts, array.dtype, array.shape, "x")
    assert to_json(as_json, "y") == texts


@given(st.binary(max_size=24), st.integers(0, 5))
def test_strings_of_any_bytes_are_read_or_refused(data: bytes, count: int) -> None:
    try:
        found = from_binary(data, DATATYPES["BYTES"], (count,), "x")
    except InvalidTensor:
        return
    assert to_binary(found) == data
    assert len(found) == count


@pytest.mark.parametrize(
    "data",
    [b"", b"\1\0\0\0", b"\1\0\0\0ab", b"\xff\xff\xff\xffa", b"\0\0\0\0\0\0\0\0", b"\0\0\0"],
)
def test_wrong_binary_strings_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidTensor, match="BYTES"):
        from_binary(data, DATATYPES["BYTES"], (1,), "x")


def test_bytes_that_json_cannot_hold_are_not_written() -> None:
    with pytest.raises(InvalidTensor, match="binary data"):
        _render(objects([b"\xff"], (1,)), binary=False)
    answer, size = _render(objects([b"\xff"], (1,)), binary=True)
    assert answer[size:] == b"\1\0\0\0\xff"


def test_binary_tensors_come_in_order_and_may_mix_with_json() -> None:
    specs = [TensorSpec(n, t, (-1,)) for n, t in (("a", "int8"), ("b", "float64"), ("c", "bool"))]
    inputs = [
        {"name": "c", "datatype": "BOOL", "shape": [3], "parameters": {"binary_data_size": 3}},
        {"name": "a", "datatype": "INT8", "shape": [2], "data": [-128, 127]},
        {"name": "b", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}},
    ]
    tail = b"\x01\x00\x01" + np.array([1.5, -2.5]).tobytes()
    parsed = _parse(*_body(inputs=inputs, tail=tail), *specs)
    assert parsed["a"].tolist() == [-128, 127]
    assert parsed["b"].tolist() == [1.5, -2.5]
    assert parsed["b"].flags.aligned
    assert parsed["c"].tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "y"}, "no input is called 'y'"),
        ({"name": None}, "name must be a string"),
        ({"datatype": "FP64"}, "must be FP32"),
        ({"datatype": "BYTES"}, "other values than BYTES"),
        ({"datatype": "BYTES", "data": ["a", "b"]}, "must be FP32"),
        ({"datatype": "BF16"}, "known: BOOL"),
        ({"datatype": "fp32"}, "known: BOOL"),
        ({"datatype": ["FP32"]}, "known: BOOL"),
        ({"datatype": None}, "known: BOOL"),
        ({"shape": [2, 1]}, "shape must be"),
        ({"shape": [2]}, "shape must be"),
        ({"shape": [0, 2**40, 2**40], "data": []}, "more elements"),
        ({"shape": [2, 2]}, "asks for 4 elements"),
        ({"shape": [10**30, 2]}, "integers"),
        ({"shape": [2**62, 2]}, "more elements"),
        ({"shape": [2**40, 2]}, "asks for"),
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
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory"),
        ({"parameters": {"odd": []}}, "string, number or boolean"),
        ({"parameters": []}, None),
        ({"parameters": 3}, "must be an object"),
    ],
)
def test_wrong_inputs_are_refused(change: dict[str, Any], message: str | None) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **change}
    body, _ = _body(inputs=[tensor])
    if message is None:
        assert _parse(body)["x"].tolist() == [[1.0, 2.0]]
        return
    with pytest.raises(InputError, match=message):
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
        _parse(body, None, spec)


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
        (8, b"12345678", b"0" * 20 + b"1" * 5000, "at most the body"),
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
        _parse(body, length, spec)


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
        (_body(parameters={"odd": {}})[0], "string, number or boolean"),
        (_body(parameters={"shared_memory_region": "r"})[0], "shared memory"),
        (_body(parameters=[1])[0], "must be an object"),
        (_body(parameters={"binary_data_output": "yes"})[0], "true or false"),
        (_body(outputs={})[0], None),
        (_body(outputs=3)[0], "must be a list"),
        (_body(outputs=[3])[0], "must be an object"),
        (_body(outputs=[{"name": 3}])[0], "name must be a string"),
        (
            _body(outputs=[{"name": "x_out", "parameters": {"classification": "all"}}])[0],
            "whole number",
        ),
        (
            _body(inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}] * 2)[
                0
            ],
            "twice",
        ),
    ],
)
def test_wrong_requests_are_refused(body: bytes, message: str | None) -> None:
    if message is None:
        assert _parse(body)
        return
    with pytest.raises(InputError, match=message):
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
        _parse(_body(inputs=[entry])[0], None, spec)
    assert time.perf_counter() - began < 5


def test_outputs_are_chosen_and_binary_by_the_request_or_one_by_one() -> None:
    def forms(**more: Any) -> tuple[tuple[str, ...], dict[str, bool], bool]:
        raw = _body(**more)[0]
        body = parse(*split(raw, len(raw)))
        return body.outputs, dict(body.binary), body.binary_default

    assert forms() == ((), {}, False)
    assert forms(outputs=[{"name": "q"}]) == (("q",), {"q": False}, False)
    assert forms(parameters={"binary_data_output": True}) == ((), {}, True)
    mixed = [{"name": "q"}, {"name": "p", "parameters": {"binary_data": False}}]
    assert forms(outputs=mixed, parameters={"binary_data_output": True}) == (
        ("q", "p"),
        {"q": True, "p": False},
        True,
    )


def test_an_answer_names_model_version_and_id() -> None:
    array = np.ones((1, 2), np.float32)
    response = Response("m", "1", "7", {"p": array, "q": array})
    body = Body(None, (), outputs=("p", "q"), binary={"p": True, "q": False})
    answer, size = render(response, body)
    assert size is not None
    shown = {"datatype": "FP32", "shape": [1, 2]}
    assert json.loads(answer[:size]) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "p", **shown, "parameters": {"binary_data_size": 8}},
            {"name": "q", **shown, "data": [1.0, 1.0]},
        ],
    }
    assert answer[size:] == array.tobytes()


def test_nan_is_null_in_json_and_itself_in_binary() -> None:
    array = np.array([[np.nan, 1]], np.float32)
    text, _ = _render(array, binary=False)
    assert json.loads(text)["outputs"][0]["data"] == [None, 1.0]
    raw, size = _render(array, binary=True)
    assert raw[size:] == array.tobytes()


def test_big_endian_and_strided_outputs_are_written_as_the_protocol_has_them() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert to_binary(array) == np.ascontiguousarray(array, "<f4").tobytes()
    assert np.asarray(to_json(array, "y")).tolist() == [0, 3, 1, 4, 2, 5]


def test_names_of_datatypes() -> None:
    assert datatype("float32") == "FP32"
    assert datatype("object") == "BYTES"
    assert {datatype(DATATYPES[name].name) for name in DATATYPES} == set(DATATYPES)


def test_a_raw_body_is_the_data_of_the_only_input() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = checked(parse_raw(rows.tobytes(), [X]).inputs, [X])
    np.testing.assert_array_equal(found["x"], rows)
    image = TensorSpec("image", "object", (-1, 1))
    assert checked(parse_raw(b"photo", [image]).inputs, [image])["image"].tolist() == [[b"photo"]]
    free = TensorSpec("x", "float32", (-1, -1))
    for body, specs in ((b"", [X]), (b"1234567", [X]), (b"12345678", [X, image]), (b"", [free])):
        with pytest.raises(InvalidTensor):
            parse_raw(body, specs)
