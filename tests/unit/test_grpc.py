"""The gRPC front: access, limits, errors, deadlines, cancellation, streams, drain."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc import aio
from tritonclient.utils import InferenceServerException

from retinue.core.errors import InstanceCrashed, QueueFull, RetinueError
from retinue.host.access import digest, new_key
from retinue.host.oip import grpc as front
from retinue.host.oip import messages, methods
from retinue.testing.grpc_server import GrpcServer

METHOD = f"/{methods.SERVICE}/ModelInfer"
STREAM = f"/{methods.SERVICE}/ModelStreamInfer"


@pytest.fixture(scope="module")
def server() -> Iterator[GrpcServer]:
    with GrpcServer() as running:
        yield running


@pytest.fixture
def client(server: GrpcServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as opened:
        yield opened


def _tensor(rows: int = 1) -> triton.InferInput:
    tensor = triton.InferInput("x", [rows, 2], "FP32")
    tensor.set_data_from_numpy(np.arange(2 * rows, dtype=np.float32).reshape(rows, 2))
    return tensor


def _raw(rows: int = 1, **more: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 2]}
    message = messages.new(
        "ModelInferRequest",
        model_name="fake",
        inputs=[tensor],
        raw_input_contents=[bytes(8 * rows)],
        **more,
    )
    return bytes(message.SerializeToString())


def _refused(address: str, raw: bytes = b"", **call: Any) -> grpc.RpcError:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(METHOD)(raw, timeout=call.pop("timeout", 10), **call)
    return refused.value


def test_health_speaks_grpcs_own_protocol_too(server: GrpcServer) -> None:
    def status(service: str) -> int:
        asked = messages.new("grpc.health.v1.HealthCheckRequest", service=service)
        with grpc.insecure_channel(server.address) as channel:
            check = channel.unary_unary(f"/{methods.HEALTH}/Check")
            raw = check(asked.SerializeToString(), timeout=10)
        return int(messages.parse("grpc.health.v1.HealthCheckResponse", raw).status)

    assert status("") == status(methods.SERVICE) == 1
    server.state.ready = False
    try:
        assert status("") == 2
    finally:
        server.state.ready = True
    with pytest.raises(grpc.RpcError) as refused:
        status("other")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", front.NOT_OFFERED)
def test_what_is_not_offered_says_so(server: GrpcServer, method: str) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/{methods.SERVICE}/{method}")(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "not offered" in refused.value.details()


def test_calls_are_counted_by_method_and_code(
    server: GrpcServer, client: triton.InferenceServerClient
) -> None:
    server.host.metrics.grpc_calls.clear()
    client.infer("fake", [_tensor()])
    with pytest.raises(InferenceServerException, match="nope"):
        client.infer("nope", [_tensor()])
    assert server.host.metrics.grpc_calls == [("ModelInfer", "OK"), ("ModelInfer", "NOT_FOUND")]


def test_bytes_that_are_no_message_are_the_callers_mistake(
    server: GrpcServer, caplog: pytest.LogCaptureFixture
) -> None:
    error = _refused(server.address, b"\xff\xff\xff")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "no ModelInferRequest message" in error.details()
    assert not caplog.records


def test_a_call_without_a_request_is_refused(server: GrpcServer) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.stream_unary(METHOD)(iter(()), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("error", [QueueFull("full"), InstanceCrashed("gone")])
def test_an_error_keeps_its_status(
    server: GrpcServer, client: triton.InferenceServerClient, error: RetinueError
) -> None:
    server.host.pipelines["fake"].error = error
    try:
        with pytest.raises(InferenceServerException, match=error.message) as refused:
            client.infer("fake", [_tensor()])
        assert refused.value.status() == f"StatusCode.{error.grpc_status}"
    finally:
        server.host.pipelines["fake"].error = None


def test_what_nobody_foresaw_is_logged_and_kept_inside(
    server: GrpcServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("the secret")

    monkeypatch.setattr(server.host.pipelines["fake"], "infer", broken)
    error = _refused(server.address, _raw())
    assert (error.code(), "secret" in error.details()) == (grpc.StatusCode.INTERNAL, False)
    assert "failed unexpectedly" in caplog.text


def test_a_long_message_fits_into_the_headers(
    server: GrpcServer, client: triton.InferenceServerClient
) -> None:
    server.host.pipelines["fake"].error = QueueFull("ü\n" * 50_000)
    try:
        with pytest.raises(InferenceServerException) as refused:
            client.infer("fake", [_tensor()])
        assert refused.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert len(refused.value.message().encode()) <= front.DETAILS_BYTES
    finally:
        server.host.pipelines["fake"].error = None


def test_keys_are_asked_for_as_over_http() -> None:
    key = new_key()
    with GrpcServer(api_keys=(digest(key),)) as server:
        with triton.InferenceServerClient(server.address) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            for asked in (client.get_server_metadata, lambda: client.is_model_ready("fake")):
                with pytest.raises(InferenceServerException) as refused:
                    asked()
                assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
            wrong = {"authorization": "Bearer rtn_wrong"}
            with pytest.raises(InferenceServerException, match="not known"):
                client.infer("fake", [_tensor()], headers=wrong)
            for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
                client.infer("fake", [_tensor()], headers=headers)
        clients = {who for _, _, who in server.host.pipelines["fake"].calls}
        assert clients == {f"key:{digest(key)[7:19]}"}


def test_a_peer_is_known_by_its_address() -> None:
    assert front.peer_address("ipv4:127.0.0.1:50000") == "127.0.0.1"
    assert front.peer_address("ipv6:%5B::1%5D:50000") == "::1"
    assert front.peer_address("ipv6:[fe80::1%25eth0]:1") == "fe80::1%eth0"
    assert front.peer_address("unix:") == ""


def test_the_earlier_deadline_counts(
    server: GrpcServer, client: triton.InferenceServerClient
) -> None:
    calls = server.host.pipelines["fake"].calls
    calls.clear()
    before = time.monotonic()
    client.infer("fake", [_tensor()])
    client.infer("fake", [_tensor()], client_timeout=50)
    client.infer("fake", [_tensor()], client_timeout=50, timeout=20_000_000, priority=1)
    client.infer("fake", [_tensor()], client_timeout=20, timeout=50_000_000)
    assert calls[0] == (None, 0, "127.0.0.1")
    for (deadline, priority, _), left, wanted in zip(
        calls[1:], (50, 20, 20), (0, 100, 0), strict=True
    ):
        assert deadline is not None
        assert deadline - before == pytest.approx(left, abs=5)
        assert priority == wanted


def _until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not come to pass in 10 s"
        time.sleep(0.01)


class _Hanging:
    """Stands in for a pipeline's `infer`: never ends, and knows how often it was cancelled."""

    def __init__(self, server: GrpcServer) -> None:
        self.started = self.cancelled = 0
        server.host.pipelines["fake"].infer = self.infer  # type: ignore[method-assign]

    async def infer(self, tensors: Any, **_: Any) -> Any:
        self.started += 1
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@pytest.mark.parametrize("how", ["cancel", "deadline", "hang up"])
def test_a_client_that_leaves_stops_the_work(how: str, caplog: pytest.LogCaptureFixture) -> None:
    with GrpcServer() as server:
        work = _Hanging(server)
        channel = grpc.insecure_channel(server.address)
        call = channel.unary_unary(METHOD).future(_raw(), timeout=1 if how == "deadline" else 60)
        _until(lambda: work.started)
        if how == "cancel":
            call.cancel()
        elif how == "hang up":
            channel.close()
        _until(lambda: work.cancelled and server.host.metrics.grpc_calls)
        assert server.host.metrics.grpc_calls == [("ModelInfer", "CANCELLED")]
        channel.close()
    assert not caplog.records


def test_a_message_over_the_limit_is_refused_also_when_it_is_compressed() -> None:
    with GrpcServer(max_body_bytes=100_000) as server:
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            error = _refused(server.address, _raw(2**20), compression=compression)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with grpc.insecure_channel(server.address) as channel:
            channel.unary_unary(METHOD)(_raw(10_000), timeout=10)


def test_metadata_over_the_limit_is_refused(server: GrpcServer) -> None:
    error = _refused(server.address, _raw(), metadata=[("x-much", "y" * 100_000)])
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_request_that_does_not_arrive_is_not_waited_for() -> None:
    with GrpcServer(body_timeout_s=0.2) as server:
        arrive = threading.Event()

        def slow() -> Iterator[bytes]:
            arrive.wait(30)
            yield _raw()

        try:
            with grpc.insecure_channel(server.address) as channel:
                with pytest.raises(grpc.RpcError) as refused:
                    channel.stream_unary(METHOD)(slow(), timeout=20)
                arrive.set()
        finally:
            arrive.set()
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "did not arrive within 0.2 s" in refused.value.details()


def test_calls_over_the_limit_are_refused() -> None:
    with GrpcServer(delay_s=0.5, max_connections=2) as server:

        async def load() -> list[Any]:
            def opened() -> aio.Channel:
                own = [("grpc.use_local_subchannel_pool", 1)]  # else they share a connection
                return aio.insecure_channel(server.address, options=own)

            async with opened() as one, opened() as other:
                calls = [
                    channel.unary_unary(METHOD)(_raw(), timeout=20)
                    for channel in (one, other)
                    for _ in range(2)
                ]
                return await asyncio.gather(*calls, return_exceptions=True)

        answers = asyncio.run(load())
        refused = [answer for answer in answers if isinstance(answer, aio.AioRpcError)]
        assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert len(refused) == 2


def _streamed(address: str, requests: Iterator[bytes]) -> list[Any]:
    with grpc.insecure_channel(address) as channel:
        answers = channel.stream_stream(STREAM)(requests, timeout=20)
        return [messages.parse("ModelStreamInferResponse", raw) for raw in answers]


def test_a_stream_answers_in_order_and_goes_on_after_a_failure(
    server: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = most = 0

    async def infer(tensors: Any, **_: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01 * (len(tensors["x"]) % 3))
        running -= 1
        return {"x_out": tensors["x"]}

    monkeypatch.setattr(server.host.pipelines["fake"], "infer", infer)
    count = 3 * front.STREAM_AHEAD

    def requests() -> Iterator[bytes]:
        for i in range(count):
            yield b"\xff" if i == 5 else _raw(i + 1, id=str(i))

    answers = _streamed(server.address, requests())
    assert [a.infer_response.id for a in answers] == [
        "" if i == 5 else str(i) for i in range(count)
    ]
    assert [bool(a.error_message) for a in answers] == [i == 5 for i in range(count)]
    assert 1 < most <= front.STREAM_AHEAD


def test_a_silent_stream_is_closed(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "STREAM_IDLE_S", 0.2)
    hold = threading.Event()

    def silent() -> Iterator[bytes]:
        yield _raw(id="1")
        hold.wait(30)

    try:
        with pytest.raises(grpc.RpcError) as refused:
            _streamed(server.address, silent())
    finally:
        hold.set()
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_stream_whose_client_leaves_stops_its_work(caplog: pytest.LogCaptureFixture) -> None:
    with GrpcServer() as server:
        work = _Hanging(server)
        channel = grpc.insecure_channel(server.address)
        answers = channel.stream_stream(STREAM)(iter([_raw()] * 5), timeout=60)
        _until(lambda: work.started == 5)
        answers.cancel()
        _until(lambda: work.cancelled == 5 and server.host.metrics.grpc_calls)
        assert server.host.metrics.grpc_calls == [("ModelStreamInfer", "CANCELLED")]
        channel.close()
    assert not caplog.records


def test_a_drain_finishes_what_was_accepted_and_ends_streams() -> None:
    hold = threading.Event()

    def open_stream() -> Iterator[bytes]:
        yield _raw(id="1")
        hold.wait(30)

    with GrpcServer(delay_s=0.4) as server, grpc.insecure_channel(server.address) as channel:
        calls = server.host.pipelines["fake"].calls
        answers = channel.stream_stream(STREAM)(open_stream(), timeout=20)
        unary = channel.unary_unary(METHOD).future(_raw(), timeout=20)
        try:
            _until(lambda: len(calls) == 2)
            began = time.monotonic()
            server.drain(20)
            assert time.monotonic() - began < 5
            assert unary.result()
            assert messages.parse("ModelStreamInferResponse", next(answers)).infer_response.id
            with pytest.raises(grpc.RpcError) as refused:
                next(answers)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            hold.set()
    assert _refused(server.address, _raw()).code() is grpc.StatusCode.UNAVAILABLE


def test_a_drain_without_time_cuts_calls_off(caplog: pytest.LogCaptureFixture) -> None:
    with GrpcServer() as server, grpc.insecure_channel(server.address) as channel:
        work = _Hanging(server)
        call = channel.unary_unary(METHOD).future(_raw(), timeout=50)
        _until(lambda: work.started)
        began = time.monotonic()
        server.drain(0)
        assert time.monotonic() - began < 5
        assert call.exception(10).code().name in ("UNAVAILABLE", "CANCELLED")
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


def test_a_taken_port_is_found_out(server: GrpcServer) -> None:
    with pytest.raises(RetinueError, match="--grpc-port"):
        server.call(lambda: front.GrpcFront(server.host, server.state).start(server.address))
