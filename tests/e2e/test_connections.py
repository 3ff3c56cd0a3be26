"""Connections that misbehave, and the server's end; with the echo app in place of models."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.e2e.conftest import connect, post_head, read_all, unread

from retinue.host.protocol import MAX_AHEAD

if TYPE_CHECKING:
    from tests.e2e.conftest import Program

    Start = Callable[..., Program]


@pytest.fixture(scope="module")
def shared(start_echo: Start) -> Program:
    """A server with little patience, for all tests that leave it alive."""
    patience = {"linger_s": 0.5, "header_timeout_s": 0.5}
    return start_echo(body_timeout_s=1.0, protocol=patience)


def _events(program: Program) -> dict[str, int]:
    return dict(program.post("/v1/echo", content=b"x").json()["events"])


def test_a_client_that_leaves_while_its_request_waits_frees_its_place(shared: Program) -> None:
    program = shared
    with connect(program) as sock:
        sock.sendall(post_head("/v1/echo?wait_ms=30000", 1) + b"x")
        time.sleep(0.3)
    end = time.monotonic() + 5
    while _events(program).get("cancelled", 0) == 0:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert program.is_alive()
    assert program.log.read_text() == ""


def test_a_large_body_is_refused_by_its_length_before_it_is_sent(shared: Program) -> None:
    program = shared
    with connect(program) as sock:
        sock.sendall(post_head("/v1/echo", 100_000_000))
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert program.is_alive()


def test_a_large_body_that_is_sent_anyway_costs_no_memory(echo_server: Start) -> None:
    program = echo_server(protocol={"linger_s": 2.0})
    before = program.rss_bytes
    answer = program.post("/v1/echo", content=b"x" * 100_000_000)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_many_bytes"
    chunks = (b"x" * 1_000_000 for _ in range(100))
    assert program.post("/v1/echo", content=chunks).status_code == 413
    assert program.rss_bytes - before < 80e6
    assert program.is_alive()


def test_a_refused_client_cannot_hold_its_connection_by_sending_on(shared: Program) -> None:
    program = shared
    with connect(program) as sock:
        sock.sendall(post_head("/v1/echo", 100_000_000))
        began = time.monotonic()
        text = b""
        try:
            while time.monotonic() - began < 10:
                sock.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            pass
        else:
            text = read_all(sock)
        assert time.monotonic() - began < 5, text
    assert program.is_alive()


def test_a_request_that_is_answered_before_its_body_leaves_the_connection_usable(
    shared: Program,
) -> None:
    length = 500_000
    with connect(shared) as sock:
        sock.sendall(post_head("/v2/models/nope/infer", length))
        assert sock.recv(65536).startswith(b"HTTP/1.1 404")
        for _ in range(10):
            sock.sendall(b"x" * (length // 10))
            time.sleep(0.01)
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"HTTP/1.1 200 OK" in read_all(sock)


def test_a_slow_body_is_given_up(shared: Program) -> None:
    program = shared
    with connect(program) as sock:
        sock.sendall(post_head("/v1/echo", 100) + b"x")
        began = time.monotonic()
        assert b"request_timeout" in read_all(sock)
        assert time.monotonic() - began < 5
    assert program.is_alive()


def test_a_client_that_never_reads_is_cut(echo_server: Start) -> None:
    program = echo_server(protocol={"unread_timeout_s": 0.5})
    files = program.open_files
    socks = [unread(program, 10) for _ in range(5)]
    end = time.monotonic() + 5
    time.sleep(0.2)
    while program.open_files > files:
        assert time.monotonic() < end
        time.sleep(0.1)
    for sock in socks:
        sock.close()
    assert program.is_alive()


def test_a_client_that_reads_slowly_is_not_cut(echo_server: Start) -> None:
    program = echo_server(protocol={"unread_timeout_s": 0.5})
    whole = len(program.get("/swagger/swagger-ui-bundle.js").content)
    with unread(program, 1) as sock:
        read = 0
        while read < whole:
            piece = sock.recv(32768)
            assert piece
            read += len(piece)
            time.sleep(0.02)
    assert program.is_alive()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nA: "])
def test_slow_headers_are_given_up(shared: Program, sent: bytes) -> None:
    program = shared
    with connect(program) as sock:
        sock.sendall(sent)
        began = time.monotonic()
        text = read_all(sock)
        assert time.monotonic() - began < 5
        assert text.startswith(b"HTTP/1.1 408 ") if sent else text == b""
    if not sent:
        return
    with connect(program) as sock:  # the same on a connection that has served a request
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        sock.sendall(sent)
        began = time.monotonic()
        assert b"408" in read_all(sock)
        assert time.monotonic() - began < 5
    assert program.is_alive()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    ],
)
def test_large_headers_are_refused(shared: Program, sent: bytes) -> None:
    program = shared
    with connect(program) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(sent)
        text = read_all(sock)
        assert not text or text.startswith(b"HTTP/1.1 431 ")
    assert program.is_alive()
    assert "Error" not in program.log.read_text()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused(shared: Program, sent: bytes) -> None:
    program = shared
    with connect(program) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        text = read_all(sock)
        assert not text or text.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 "))
    assert program.is_alive()


def test_pipelined_requests_are_answered_in_order(shared: Program) -> None:
    program = shared
    with connect(program) as sock:
        slow, quick = (
            f"POST /v1/echo?wait_ms={wait} HTTP/1.1\r\nHost: localhost\r\n"
            f"X-Request-Id: {name}\r\n{more}Content-Length: 1\r\n\r\nx".encode()
            for wait, name, more in ((200, "first", ""), (0, "second", "Connection: close\r\n"))
        )
        sock.sendall(slow + quick)
        text = read_all(sock)
    assert text.count(b"HTTP/1.1 200") == 2
    assert text.index(b"x-request-id: first") < text.index(b"x-request-id: second")
    assert program.is_alive()


def test_a_client_that_leaves_stops_the_request_that_others_are_pipelined_behind(
    echo_server: Start,
) -> None:
    program = echo_server()
    with connect(program) as sock:
        sock.sendall((post_head("/v1/echo?wait_ms=1500", 1) + b"x") * 3)
        time.sleep(0.3)
    end = time.monotonic() + 5
    while _events(program).get("cancelled", 0) == 0:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert _events(program)["started"] < 10
    time.sleep(1.5)
    assert program.log.read_text() == ""


def test_only_so_many_requests_may_be_sent_ahead(shared: Program) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(shared) as sock:
        sock.sendall(ask * MAX_AHEAD)
        text = b""
        while text.count(b'{"status":"ok"}') < MAX_AHEAD:
            text += sock.recv(65536)
        with contextlib.suppress(OSError):
            sock.sendall(post_head("/v1/echo?wait_ms=30000", 1) + b"x" + ask * 1000)
        assert read_all(sock) == b""
    assert shared.is_alive()
    assert shared.log.read_text() == ""


@pytest.mark.parametrize("piece", [b"x" * 10_000, b"A: b\r\n" * 1000])
def test_large_headers_are_refused_while_a_request_is_under_way(
    shared: Program, piece: bytes
) -> None:
    with connect(shared) as sock:
        sock.sendall(post_head("/v1/echo?wait_ms=30000", 1) + b"x")
        time.sleep(0.1)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ")
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() < began + 5:
                sock.sendall(piece)
                time.sleep(0.01)
    assert shared.is_alive()


def test_one_signal_finishes_accepted_work_and_exits_0(echo_server: Start) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        program = echo_server()
        answers: list[httpx.Response] = []

        def work(program: Program = program, answers: list[Any] = answers) -> None:
            answers.append(program.post("/v1/echo?wait_ms=1500", content=b"x"))

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.5)
        program.process.send_signal(number)
        time.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            program.get("/healthz")
        thread.join()
        assert answers[0].status_code == 200
        assert program.process.wait(10) == 0
        assert program.log.read_text() == ""


def test_work_that_outlasts_the_drain_is_told_and_exits_0(echo_server: Start) -> None:
    program = echo_server(drain_s=1)
    with connect(program) as sock:
        sock.sendall(post_head("/v1/echo?wait_ms=60000", 1) + b"x")
        time.sleep(0.3)
        began = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        text = read_all(sock)
        assert text.startswith(b"HTTP/1.1 503 ")
        assert b"shutting_down" in text
    assert program.process.wait(10) == 0
    assert time.monotonic() - began < 8


def test_idle_connections_do_not_hold_up_the_end(echo_server: Start) -> None:
    program = echo_server()
    with connect(program), connect(program) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 5


def test_a_signal_that_comes_twice_at_once_is_one(echo_server: Start) -> None:
    program = echo_server()
    with connect(program) as sock:
        sock.sendall(post_head("/v1/echo?wait_ms=1000", 1) + b"x")
        time.sleep(0.3)
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        program.process.send_signal(signal.SIGTERM)
        assert b"200 OK" in sock.recv(4096)
    assert program.process.wait(10) == 0


def test_a_second_signal_stops_at_once(echo_server: Start) -> None:
    program = echo_server()
    with connect(program) as sock:
        sock.sendall(post_head("/v1/echo?wait_ms=60000", 1) + b"x")
        time.sleep(0.3)
        program.process.send_signal(signal.SIGTERM)
        time.sleep(0.8)
        assert program.process.poll() is None
        program.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert program.process.wait(10) != 0
        assert time.monotonic() - began < 5
    assert "ShuttingDown" in program.log.read_text()


def _up(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "retinue", "up", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_taken_port_is_found_out_before_any_model_is_loaded() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = _up("--port", str(port))
    assert done.returncode == 71
    assert "address_in_use" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_open_address_without_keys_is_refused() -> None:
    done = _up("--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 78
    assert "keys new" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_of_another_machine_is_refused() -> None:
    done = _up("--host", "192.0.2.1", "--port", "0", "--insecure")
    assert done.returncode in (71, 78)
    assert "192.0.2.1" in done.stderr
    done = _up("--host", "no.such.host.invalid", "--port", "0", "--insecure")
    assert done.returncode == 78
