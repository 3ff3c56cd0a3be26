"""The Open Inference Protocol over HTTP: answers, errors, terms of a request, compression."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from typing import Any

import httpx
import numpy as np
import pytest

from retinue.core.errors import DeadlineExceeded, InvalidRequest, TooManyBytes
from retinue.core.settings import Batching, Server, Settings
from retinue.host import http
from retinue.host.edge import State
from retinue.host.oip import rest
from retinue.host.oip.bodies import parse
from retinue.host.oip.compression import decompress
from retinue.testing.host import FakeHost
from retinue.testing.pipelines import FAKE_MODELS, FakeServed

INFER = "/v2/models/fake/infer"


async def _call(
    host: FakeHost, state: State, method: str, path: str, more: dict[str, Any]
) -> httpx.Response:
    transport = httpx.ASGITransport(http.build(host, state))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, **more)


def call(
    method: str,
    path: str,
    host: FakeHost | None = None,
    state: State | None = None,
    **more: Any,
) -> httpx.Response:
    host = host or FakeHost(Settings())
    return asyncio.run(_call(host, state or State(ready=True), method, path, more))


def request(**more: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    return {"inputs": [tensor], **more}


def test_metadata_and_health() -> None:
    assert "binary_tensor_data" in call("GET", "/v2").json()["extensions"]
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
    assert call("GET", "/v2/models/f%61ke/ready").status_code == 200


def test_a_model_is_ready_when_its_pipeline_and_the_server_are() -> None:
    host = FakeHost(Settings())
    for state in (State(ready=False), State(ready=True, draining=True)):
        assert call("GET", "/v2/models/fake/ready", host, state).status_code == 503
        assert call("GET", "/v2/health/ready", host, state).status_code == 503
    host.pipelines["fake"].ready = False
    assert call("GET", "/v2/models/fake/ready", host).status_code == 503
    assert call("GET", "/v2/models/fake-image/ready", host).status_code == 503


def test_a_fixed_batch_is_listed_as_any_for_the_pipeline_splits_it() -> None:
    spec = FakeServed("fake").specs[0]
    fixed = FakeServed("fake", specs=(type(spec)("x", "float32", (1, 2)),))
    host = FakeHost(Settings(), models=(fixed,))
    assert call("GET", "/v2/models/fake", host).json()["inputs"][0]["shape"] == [-1, 2]
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]}
    assert call("POST", INFER, host, json=body).json()["outputs"][0]["shape"] == [2, 2]


def test_infer_in_json_and_binary() -> None:
    answer = call("POST", "/v2/models/fake/versions/abc123/infer", json=request(id="7"))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "id": "7",
        "model_name": "fake",
        "model_version": "abc123",
        "outputs": [{"name": "x_out", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}],
    }
    answer = call("POST", INFER, json=request(parameters={"binary_data_output": True}))
    size = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    parameters = json.loads(answer.content[:size])["outputs"][0]["parameters"]
    assert parameters == {"binary_data_size": 8}
    assert answer.content[size:] == np.array([1, 2], np.float32).tobytes()


def test_an_output_named_twice_is_answered_once() -> None:
    answer = call("POST", INFER, json=request(outputs=[{"name": "x_out"}, {"name": "x_out"}]))
    assert len(answer.json()["outputs"]) == 1


def test_big_bodies_are_the_same_off_the_event_loop() -> None:
    rows = np.arange(60_000, dtype=np.float32).reshape(-1, 2)
    tensor = {"name": "x", "datatype": "FP32", "shape": list(rows.shape), "data": rows.tolist()}
    raw = json.dumps({"inputs": [tensor]}).encode()
    assert len(raw) > rest.BIG
    answer = call("POST", INFER, content=raw)
    assert answer.json()["outputs"][0]["data"] == rows.reshape(-1).tolist()


@pytest.mark.parametrize("model", ["fake", "fake-image"])
def test_many_strings_are_read_off_the_event_loop_whatever_the_model_takes(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[Any] = []

    async def to_thread(work: Any, *given: Any) -> Any:
        moved.append(work)
        return work(*given)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    size = rest.BIG + 4
    for datatype in ("BYTES", "FP32"):
        parameters = {"binary_data_size": size}
        shape = [size // 4]
        entry = {"name": "x", "datatype": datatype, "shape": shape, "parameters": parameters}
        head = json.dumps({"inputs": [entry]}).encode()
        length = {"inference-header-content-length": str(len(head))}
        path = f"/v2/models/{model}/infer"
        assert call("POST", path, content=head + bytes(size), headers=length).status_code == 400
    assert moved == [parse]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v2/models/other/config", 404),
        ("GET", "/v2/models/other/stats", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/fake/versions/2", 404),
        ("POST", "/v2/models/fake/versions/2/infer", 404),
        ("POST", "/v2/models/fake/infer", 400),
        ("GET", "/v2/models/fake/infer", 405),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/trace/setting", 404),
        ("POST", "/v2/logging", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("POST", "/v2/cudasharedmemory/region/a/register", 404),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/repository/models/fake/unload", 403),
        ("POST", "/v2/repository/models/fake/load", 403),
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
    answer = call("POST", INFER, host, json=request())
    assert answer.status_code == 504
    assert answer.json() == {"error": "too late"}


def test_a_draining_server_takes_no_inference_and_no_change() -> None:
    state = State(ready=True, draining=True)
    assert call("POST", INFER, state=state, json=request()).status_code == 503
    assert call("POST", "/v2/repository/models/fake/load", state=state).status_code == 503


def test_the_terms_of_a_request_reach_the_pipeline() -> None:
    host = FakeHost(Settings())
    pipeline = host.pipelines["fake"]
    for parameters, deadline_in, priority in (
        ({}, None, 0),
        ({"timeout": 0, "priority": 0}, None, 0),
        ({"timeout": 5_000_000, "priority": 1}, 5.0, 100),
        ({"priority": 201}, None, -100),
        ({"priority": 101}, None, 0),
        ({"unknown": "ignored"}, None, 0),
    ):
        assert call("POST", INFER, host, json=request(parameters=parameters)).status_code == 200
        deadline, given, client = pipeline.calls[-1]
        assert given == priority
        assert client == "127.0.0.1"
        assert (deadline is None) is (deadline_in is None)
        if deadline is not None and deadline_in is not None:
            assert deadline - time.monotonic() == pytest.approx(deadline_in, abs=1)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"timeout": -1}, "microseconds"),
        ({"timeout": "5"}, "whole number"),
        ({"timeout": 1.5}, "whole number"),
        ({"timeout": True}, "whole number"),
        ({"priority": -1}, "201"),
        ({"priority": 202}, "201"),
        ({"priority": 2**63}, "201"),
        ({"sequence_id": 7}, "sequence"),
        ({"sequence_start": True}, "sequence"),
        ({"shared_memory_region": "a"}, "shared memory"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(parameters: dict[str, Any], message: str) -> None:
    answer = call("POST", INFER, json=request(parameters=parameters))
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_timeout_counts_from_arrival_and_may_be_too_short() -> None:
    answer = call("POST", INFER, json=request(parameters={"timeout": 1}))
    assert answer.status_code == 504
    answer = call("POST", INFER, json=request(parameters={"timeout": 2**62}))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("classes", "status"),
    [(0, 200), (1, 200), (2**62, 200), (-1, 400), ("1", 400), (1.5, 400), (True, 400)],
)
def test_classification_counts(classes: Any, status: int) -> None:
    outputs = [{"name": "x_out", "parameters": {"classification": classes}}]
    answer = call("POST", INFER, json=request(outputs=outputs))
    assert answer.status_code == status, answer.text
    if status == 200:
        shown = answer.json()["outputs"][0]
        assert shown["datatype"] == ("BYTES" if classes else "FP32")


def test_configuration_is_written_out_as_triton_does() -> None:
    host = FakeHost(Settings(batching=Batching(window_ms=5, max_queue=7)), models=FAKE_MODELS)
    config = call("GET", "/v2/models/scores/config", host).json()
    assert list(config)[:6] == [
        *("name", "platform", "backend", "runtime", "version_policy", "max_batch_size")
    ]
    assert config["max_batch_size"] == 8
    assert config["input"] == [
        {
            "name": "scores",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NONE",
            "dims": [3],
            "is_shape_tensor": False,
            "allow_ragged_batch": False,
            "optional": False,
            "is_non_linear_format_io": False,
        }
    ]
    assert config["output"][0]["label_filename"] == "labels.txt"
    batching = config["dynamic_batching"]
    assert batching["max_queue_delay_microseconds"] == 5000
    assert batching["default_queue_policy"]["max_queue_size"] == 7
    assert config["model_warmup"][0]["inputs"]["scores"]["zero_data"] is True
    text = call("GET", "/v2/models/text/config", host).json()
    assert text["input"][0]["data_type"] == "TYPE_STRING"
    assert text["model_warmup"] == []


def test_statistics_have_the_extensions_shape() -> None:
    host = FakeHost(Settings(), models=FAKE_MODELS)
    call("POST", INFER, host, json=request())
    (found,) = call("GET", "/v2/models/fake/stats", host).json()["model_stats"]
    assert list(found) == [
        *("name", "version", "last_inference", "inference_count", "execution_count"),
        *("inference_stats", "response_stats", "batch_stats", "memory_usage"),
    ]
    assert list(found["inference_stats"]) == [
        *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"),
        *("cache_hit", "cache_miss"),
    ]
    assert found["inference_stats"]["success"] == {"count": 1, "ns": 1000}
    (batch,) = found["batch_stats"]
    assert list(batch) == ["batch_size", "compute_input", "compute_infer", "compute_output"]
    every = call("GET", "/v2/models/stats", host).json()["model_stats"]
    assert [one["name"] for one in every] == ["fake", "scores", "text"]
    (twin,) = call("GET", "/v2/models/fake-image/stats", host).json()["model_stats"]
    assert twin == {**found, "name": "fake-image"}


def test_the_repository_is_listed_and_changed() -> None:
    host = FakeHost(Settings(server=Server(model_control=True)))
    path = "/v2/repository"
    for body in (b"", b"{}", b'{"ready": false}'):
        listed = call("POST", f"{path}/index", host, content=body).json()
        assert [(one["name"], one["state"]) for one in listed] == [
            ("fake", "READY"),
            ("fake-image", "READY"),
            ("spare", "UNAVAILABLE"),
        ]
    assert "reason" not in listed[0]
    assert listed[2]["reason"] == "not loaded"
    ready = call("POST", f"{path}/index", host, json={"ready": True}).json()
    assert [one["name"] for one in ready] == ["fake", "fake-image"]
    answer = call("POST", f"{path}/models/spare/load", host)
    assert (answer.status_code, answer.content) == (200, b"")
    assert call("GET", "/v2/models/spare-image/ready", host).status_code == 200
    unload = {"parameters": {"unload_dependents": True}}
    assert call("POST", f"{path}/models/spare/unload", host, json=unload).status_code == 200
    assert call("GET", "/v2/models/spare/ready", host).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("models/spare/load", b'{"parameters": {"config": "{}"}}', 400),
        ("models/spare/load", b'{"parameters": {"file:1/model.onnx": "AAAA"}}', 400),
        ("models/spare/load", b'{"parameters": {"a": {}}}', 400),
        ("models/spare/load", b'{"parameters": 5}', 400),
        ("models/spare/load", b"[]", 400),
        ("models/spare/load", b"{", 400),
        ("models/fake-image/unload", b"", 400),
        ("models/none/load", b"", 404),
        ("models/none-image/load", b"", 404),
        ("models/none-image/unload", b"", 404),
        ("models/spare/unload", b"", 404),
        ("index", b"[]", 400),
        ("index", b"{", 400),
        ("index", b'{"ready": "yes"}', 400),
    ],
)
def test_wrong_requests_to_the_repository(path: str, body: bytes, status: int) -> None:
    host = FakeHost(Settings(server=Server(model_control=True)))
    answer = call("POST", f"/v2/repository/{path}", host, content=body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]


def test_compressed_requests_are_read_within_the_limit() -> None:
    host = FakeHost(Settings(server=Server(max_body_bytes=100_000)))
    raw = json.dumps(request(id="a" * 50_000)).encode()
    for coding, packed in (("gzip", gzip.compress(raw)), ("deflate", zlib.compress(raw))):
        answer = call("POST", INFER, host, content=packed, headers={"content-encoding": coding})
        assert answer.json()["id"] == "a" * 50_000
    bomb = gzip.compress(b" " * 10_000_000)
    answer = call("POST", INFER, host, content=bomb, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413
    for coding, packed, status in (
        ("gzip", raw, 400),
        ("gzip", gzip.compress(raw)[:-9], 400),
        ("gzip", gzip.compress(raw) * 2, 400),
        ("deflate", zlib.compress(raw, wbits=-15), 400),
        ("gzip", b"", 400),
        ("br", raw, 415),
        ("gzip, deflate", raw, 415),
        ("identity", raw, 200),
    ):
        answer = call("POST", INFER, host, content=packed, headers={"content-encoding": coding})
        assert answer.status_code == status, (coding, answer.text[:200])


def test_decompression_holds_no_more_than_the_limit() -> None:
    packed = zlib.compress(b"\0" * 1000)
    assert decompress(packed, b"deflate", 1000) == b"\0" * 1000
    with pytest.raises(TooManyBytes):
        decompress(packed, b"deflate", 999)
    with pytest.raises(InvalidRequest):
        decompress(packed[:-1], b"deflate", 1000)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_answers_are_compressed_for_clients_that_name_one_coding(coding: str) -> None:
    many = json.dumps(request(id="a" * 100_000)).encode()
    for body in (json.dumps(request(id="a")).encode(), many):
        answer = call("POST", INFER, content=body, headers={"accept-encoding": coding})
        assert answer.headers["content-encoding"] == coding
        assert answer.json()["model_name"] == "fake"
    plain = call("POST", INFER, content=many, headers={"accept-encoding": f"br, {coding}"})
    assert "content-encoding" not in plain.headers
