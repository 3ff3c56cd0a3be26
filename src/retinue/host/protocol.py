"""The connection's own limits: header size, header time, idle, unread and refused connections.

uvicorn bounds neither the time nor the bytes that a request's headers may take, nor how long a
client goes on sending a body that was refused, nor how long one leaves an answer unread. A proxy in
front would; the embedded default has none, so the protocol does it here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from retinue.core.errors import QueueFull
from retinue.host.edge import (
    API_HEADERS,
    error_body,
    error_headers,
    header_map,
    request_id,
    respond_json,
)

MAX_HEADER_BYTES = 32 * 1024
HEADER_TIMEOUT_S = 10.0
LINGER_S = 5.0
UNREAD_TIMEOUT_S = 30.0


async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that there are too many connections."""
    error = QueueFull("too many connections; try again, or raise server.max_connections")
    body = error_body(error, "", request_id(header_map(scope)))
    headers = [(b"connection", b"close"), *error_headers(error), *API_HEADERS]
    await respond_json(send, body, error.http_status, headers)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on httptools with bounds on what a connection may cost before a request exists.

    Attributes:
        max_connections: Above this, requests are answered 503; twice above, connections are cut.
    """

    max_connections = 1000
    max_header_bytes = MAX_HEADER_BYTES
    header_timeout_s = HEADER_TIMEOUT_S
    linger_s = LINGER_S
    unread_timeout_s = UNREAD_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._served = self.app
        self._open_requests = 0
        self._header_bytes = 0
        self._lingers = False  # a request was answered, and its body still arrives
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, and give it a while to send its first request's headers."""
        super().connection_made(transport)
        if len(self.connections) > 2 * self.max_connections:
            transport.abort()
            return
        self._arm(self.header_timeout_s, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._stop_unread_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to read, but not forever."""
        super().pause_writing()
        self._watch_unread()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._stop_unread_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; while no request is open it is part of a request's headers."""
        if self._open_requests == 0 and not self._lingers:
            self._header_bytes += len(data)
            if self._timer is None:
                self._arm(self.header_timeout_s, self._too_slow)
        super().data_received(data)
        if self._open_requests == 0 and self._header_bytes > self.max_header_bytes:
            self._refuse(b"431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        """Start the request, unless its headers are too large."""
        self._disarm()
        self._open_requests += 1
        self._header_bytes = 0
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.max_header_bytes:
            self._refuse(b"431 Request Header Fields Too Large")
            raise ValueError("headers too large")  # stops the parser; the answer is on its way
        crowded = len(self.connections) > self.max_connections
        self.app = busy if crowded else self._served
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note the end of a request's body."""
        super().on_message_complete()
        self._lingers = False
        if self._open_requests == 0:
            self._disarm()

    def on_response_complete(self) -> None:
        """Go on to the next request; what is still sent of this one is waited out, for a while."""
        self._open_requests -= 1
        self._header_bytes = 0
        unread = self.cycle is not None and self.cycle.more_body
        super().on_response_complete()
        if unread and self._open_requests == 0 and not self.transport.is_closing():
            self._lingers = True
            self._arm(self.linger_s, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request, unless the connection was refused already."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _watch_unread(self) -> None:
        self._stop_unread_timer()
        left = self.transport.get_write_buffer_size()
        self._unread_timer = self.loop.call_later(self.unread_timeout_s, self._check_unread, left)

    def _check_unread(self, before: int) -> None:
        """Cut a client that has read nothing for so long; one that reads slowly may go on."""
        if self.transport.get_write_buffer_size() < before:
            self._watch_unread()
        else:
            self.transport.abort()

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self._header_bytes:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.close()


def bounded(max_connections: int) -> type[BoundedProtocol]:
    """Return the protocol class with this many connections allowed."""
    return type("Bounded", (BoundedProtocol,), {"max_connections": max_connections})
