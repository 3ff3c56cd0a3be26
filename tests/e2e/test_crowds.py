"""Crowds of connections: who waits makes room, who has a request under way does not."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from tests.e2e.conftest import connect, post_head, read_all, unread

if TYPE_CHECKING:
    from tests.e2e.conftest import Program

    Start = Callable[..., Program]

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _ask(program: Program) -> bytes:
    with connect(program) as sock:
        sock.sendall(HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return read_all(sock)


def _asks_until(program: Program, status: bytes, timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not (text := _ask(program)).startswith(b"HTTP/1.1 " + status):
        assert time.monotonic() < end, text
        time.sleep(0.05)


def _is_cut(sock: socket.socket) -> bool:
    sock.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        read_all(sock)
        return True
    return False


def test_too_many_requests_under_way_are_told_so(echo_server: Start) -> None:
    program = echo_server(max_connections=5)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(program)) for _ in range(5)]
        for sock in socks:
            sock.sendall(post_head("/v1/echo?wait_ms=1500", 1) + b"x")
        _asks_until(program, b"503")
        text = _ask(program)
        assert b"retry-after: 1" in text
        assert b"queue_full" in text
        with connect(program) as sock:
            sock.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine\r\n\r\n")
            text = read_all(sock)
        assert b'{"error":"too many requests under way' in text
        assert b"x-request-id: mine" in text
        crowd = [stack.enter_context(connect(program)) for _ in range(12)]
        assert [_is_cut(sock) for sock in crowd] == [True] * 7 + [False] * 5
        for sock in socks:
            assert b"200 OK" in sock.recv(65536)
        _asks_until(program, b"200")
    assert program.is_alive()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEALTH,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: ",
        post_head("/v1/echo", 1000) + b"x",
        HEALTH + post_head("/v1/echo", 1000) + b"x",
    ],
    ids=["silent", "idle", "slow head", "slow body", "slow body behind a request"],
)
def test_connections_that_wait_do_not_lock_others_out(echo_server: Start, sent: bytes) -> None:
    program = echo_server(max_connections=5)
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(15):
            socks.append(stack.enter_context(connect(program)))
            socks[-1].sendall(sent)
            if sent.startswith(HEALTH):
                assert socks[-1].recv(65536).startswith(b"HTTP/1.1 200 ")
            assert b"200 OK" in _ask(program)
        cut = [_is_cut(sock) for sock in socks]
        assert cut == [True] * sum(cut) + [False] * (15 - sum(cut))  # the oldest went
        assert sum(cut) in (5, 6)
    assert program.is_alive()


def test_an_idle_connection_is_still_of_use_where_others_came_and_went(echo_server: Start) -> None:
    program = echo_server(max_connections=5)
    with connect(program) as sock:
        for _ in range(20):
            assert b"200 OK" in _ask(program)
        sock.sendall(HEALTH)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_requests_that_stall_make_room(echo_server: Start) -> None:
    program = echo_server(max_connections=5, protocol={"stall_s": 0.5})
    with contextlib.ExitStack() as stack:
        bodies = [stack.enter_context(connect(program)) for _ in range(5)]
        for sock in bodies:
            sock.sendall(post_head("/v1/echo", 4000) + b"x" * 2000)
        _asks_until(program, b"503")
        _asks_until(program, b"200")
        bodies[0].sendall(b"x" * 2000)  # room enough: it may go on
        assert b"200 OK" in bodies[0].recv(65536)
        for _ in range(5):
            stack.enter_context(unread(program, 10))
        _asks_until(program, b"503")
        _asks_until(program, b"200")
        crowd = [stack.enter_context(connect(program)) for _ in range(10)]
        assert not any(_is_cut(sock) for sock in crowd)
        assert all(_is_cut(sock) for sock in bodies[1:])
    assert program.is_alive()
