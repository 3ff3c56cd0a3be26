"""gRPC beside HTTP in one process: ports, drain, clients that stall; with fake models."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import pytest

from retinue.core.settings import Server
from retinue.host import serve
from retinue.host.oip import messages, methods

if TYPE_CHECKING:
    from tests.e2e.conftest import Program

    Start = Callable[..., Program]

METHOD = f"/{methods.SERVICE}/ModelInfer"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _request() -> bytes:
    message = messages.new(
        "ModelInferRequest",
        model_name="fake",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 2]}],
        raw_input_contents=[bytes(8)],
    )
    return bytes(message.SerializeToString())


def _begin(program: Program) -> tuple[grpc.Channel, grpc.Future]:
    """Start a call that takes long, and wait until it is under way."""
    channel = grpc.insecure_channel(program.grpc)
    call = channel.unary_unary(METHOD).future(_request(), timeout=60)
    grpc.channel_ready_future(channel).result(20)
    time.sleep(0.3)
    return channel, call


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """Return an HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _headers(path: str) -> bytes:
    """Return the headers of a call: literals without indexing (RFC 7541, section 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return _frame(1, 4, 1, block)


def _open(program: Program) -> socket.socket:
    host, _, port = program.grpc.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_the_ports_follow_the_settings() -> None:
    assert serve.bind_grpc(Server(grpc=False)) is None
    with serve.bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    for server, expected in (
        (Server(port=port - 1), port),
        (Server(port=1, grpc_port=port), port),
    ):
        kept = serve.bind_grpc(server)
        assert kept is not None
        with kept:
            assert kept.getsockname()[1] == expected
    with pytest.raises(serve.ConfigError, match="grpc_port"):
        serve.bind_grpc(Server(port=65535))


def test_a_taken_port_is_found_out_before_any_model_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "retinue", "up", "--port", "0", "--grpc-port", port],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 71
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "--grpc-port" in done.stderr
    assert time.monotonic() - began < 30


def test_without_grpc_nothing_listens_and_nothing_is_said(echo_server: Start) -> None:
    program = echo_server(grpc=False)
    assert program.grpc == ""
    assert program.is_alive()
    assert program.stop() == 0


def test_one_signal_finishes_accepted_calls_and_exits_0(echo_server: Start) -> None:
    program = echo_server(delay_s=1.5)
    channel, call = _begin(program)
    with channel:
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 10
        assert messages.parse("ModelInferResponse", call.result(10)).model_name == "fake"
    assert program.log.read_text() == ""


def test_a_call_that_outlasts_the_drain_is_cut_off(echo_server: Start) -> None:
    program = echo_server(delay_s=50, drain_s=0.5)
    channel, call = _begin(program)
    with channel:
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 10
        assert isinstance(call.exception(10), grpc.RpcError)
    assert program.log.read_text() == ""


def test_a_second_signal_stops_at_once(echo_server: Start) -> None:
    program = echo_server(delay_s=50)
    channel, call = _begin(program)
    with channel:
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        assert program.process.poll() is None
        began = time.monotonic()
        assert program.stop() != 0
        assert time.monotonic() - began < 5
        assert isinstance(call.exception(10), grpc.RpcError)


def test_a_request_that_arrives_slowly_is_given_up(echo_server: Start) -> None:
    program = echo_server(body_timeout_s=0.5)
    with _open(program) as sock:
        sock.sendall(PREFACE + _frame(4, 0, 0) + _headers(METHOD))
        sock.sendall(_frame(0, 0, 1, b"\0\0\0\0\x64" + b"x" * 10))
        text = b""
        began = time.monotonic()
        while b"grpc-status" not in text and time.monotonic() < began + 10:
            sock.settimeout(10)
            piece = sock.recv(65536)
            if not piece:
                break
            text += piece
    assert b"did not arrive" in text
    assert time.monotonic() - began < 5
    assert program.is_alive()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", PREFACE + b"\xff" * 100])
def test_what_is_no_http2_is_closed(start_echo: Start, sent: bytes) -> None:
    program = start_echo()
    with _open(program) as sock:
        sock.sendall(sent)
        if not sent:
            sock.shutdown(socket.SHUT_WR)
        sock.settimeout(20)
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert program.is_alive()


def test_connections_over_the_limit_are_closed_and_the_others_served(echo_server: Start) -> None:
    program = echo_server(max_connections=5)
    idle = [_open(program) for _ in range(5)]
    for sock in idle:
        sock.sendall(PREFACE + _frame(4, 0, 0))
        assert sock.recv(100)
    with _open(program) as refused:
        refused.settimeout(10)
        try:
            refused.sendall(PREFACE + _frame(4, 0, 0))
            assert refused.recv(100) == b""
        except ConnectionError:
            pass
    for sock in idle:
        sock.close()
    with grpc.insecure_channel(program.grpc) as channel:
        call = channel.unary_unary(METHOD)
        assert call(_request(), timeout=20, wait_for_ready=True)
