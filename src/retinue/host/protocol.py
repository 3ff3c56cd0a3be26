"""The connection's own limits: header size, header time, idle, unread and crowded connections.

uvicorn bounds neither the time nor the bytes that a request's headers may take, nor how long a
client goes on sending a body that was refused, nor how long one leaves an answer unread. A proxy in
front would; the embedded default has none, so the protocol does it here.

Nor may a crowd that holds connections and asks for nothing lock others out. A connection counts
against the limit while it has a request under way: enough of the request came for the server to
work on it. Otherwise it waits: it is idle, sends its headers or the start of a body, or neither
sends nor reads any further. As many again may wait, and who has waited longest makes room.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from retinue.core.errors import QueueFull
from retinue.host.edge import (
    API_HEADERS,
    error_body,
    error_headers,
    header_map,
    is_v2,
    request_id,
    respond_json,
)

MAX_HEADER_BYTES = 32 * 1024
HEADER_TIMEOUT_S = 10.0
LINGER_S = 5.0
UNREAD_TIMEOUT_S = 30.0
STALL_S = 5.0
ENOUGH_BYTES = 1024
MAX_AHEAD = 64
"""Most requests that a client may send ahead of their answers; each costs memory."""


async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer that too many connections have a request under way."""
    error = QueueFull("too many requests under way; try again, or raise server.max_connections")
    request = request_id(header_map(scope))
    body = error_body(error, "", request, v2=is_v2(scope["path"]))
    own = [(b"connection", b"close"), (b"x-request-id", request.encode("ascii"))]
    headers = [*own, *error_headers(error), *API_HEADERS]
    await respond_json(send, body, error.http_status, headers)


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 on httptools with bounds on what a connection may cost; `bounded` completes it.

    Attributes:
        max_connections: How many may have a request under way; further requests are answered 503.
            Twice as many may be open; above, the one that waits longest is cut.
        stall_s: A request that is under way counts as waiting again when its client has sent less
            than ``enough_bytes`` of the body, or read nothing of the answer, for so long.
        enough_bytes: So much of a body, or all of it, puts its request under way.
    """

    # Of one server's connections, those that wait, longest first. Not a dict: to find its first
    # takes time in proportion to those that were removed before it.
    _waiting: ClassVar[OrderedDict[BoundedProtocol, None]]

    max_connections: ClassVar[int]
    max_header_bytes = MAX_HEADER_BYTES
    header_timeout_s = HEADER_TIMEOUT_S
    linger_s = LINGER_S
    unread_timeout_s = UNREAD_TIMEOUT_S
    stall_s = STALL_S
    enough_bytes = ENOUGH_BYTES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._served = self.app
        self._open_requests = 0
        self._at_work: RequestResponseCycle | None = None
        self._in_head = True  # what arrives next is no body
        self._header_bytes = 0  # of a head that is not complete
        self._body_bytes = 0  # of the latest request, since a look at it; enough if it has ended
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, and give it a while to send its first request's headers."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > 2 * self.max_connections:
            next(iter(self._waiting))._make_room()
        self._arm(self.header_timeout_s, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._stop_unread_timer()
        self._waiting.pop(self, None)
        super().connection_lost(exc)
        # uvicorn tells only the latest request that its client is gone.
        self.pipeline.clear()
        if self._at_work is not None:
            self._at_work.disconnected = True
            self._at_work.message_event.set()

    def pause_writing(self) -> None:
        """Wait for the client to read, but not forever."""
        super().pause_writing()
        self._watch_unread()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._stop_unread_timer()
        self._stop_waiting()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; what is no body is part of a request's headers."""
        if self._in_head:
            self._header_bytes += len(data)
            if self._open_requests == 0 and self._timer is None:
                self._arm(self.header_timeout_s, self._too_slow)
        super().data_received(data)
        if self._header_bytes > self.max_header_bytes:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._open_requests and self._timer is None and not self.transport.is_closing():
            self._watch_body()

    def on_headers_complete(self) -> None:
        """Start the request, unless its headers are too large or too many go before it."""
        self._disarm()
        self._header_bytes = 0
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.max_header_bytes:
            self._refuse(b"431 Request Header Fields Too Large")
            raise ValueError("headers too large")  # stops the parser; the answer is on its way
        if self._open_requests > MAX_AHEAD:
            self.transport.abort()
            raise ValueError("too many requests sent ahead")
        self._in_head = False
        self._open_requests += 1
        self._body_bytes = 0
        waits = self in self._waiting
        if waits:
            self._waiting.move_to_end(self)
        under_way = len(self.connections) - len(self._waiting) + waits
        self.app = busy if under_way > self.max_connections else self._served
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; enough of it puts the request under way."""
        super().on_body(body)
        self._body_bytes += len(body)
        if self._body_bytes >= self.enough_bytes:
            self._stop_waiting()

    def on_message_complete(self) -> None:
        """Note the end of a request's body."""
        super().on_message_complete()
        self._in_head = True
        self._disarm()
        self._body_bytes = self.enough_bytes
        if self._open_requests:
            self._waiting.pop(self, None)

    def on_response_complete(self) -> None:
        """Go on to the next request; what is still sent of this one is waited out, for a while."""
        self._open_requests -= 1
        super().on_response_complete()
        if self._open_requests == 0 or not self._is_under_way():
            self._wait()
        if not self._in_head and self._open_requests == 0 and not self.transport.is_closing():
            self._arm(self.linger_s, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request, unless the connection was refused already."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def _is_under_way(self) -> bool:
        """Tell whether enough of a request came to work on it."""
        enough = self._body_bytes >= self.enough_bytes
        return self._open_requests > 1 or (self._open_requests == 1 and enough)

    def _wait(self) -> None:
        """Wait for the client behind the others that wait; one that is gone does not."""
        if self in self.connections:
            self._waiting[self] = None

    def _stop_waiting(self) -> None:
        """Count no longer among those that wait, if a request is under way."""
        if self._is_under_way():
            self._waiting.pop(self, None)

    def _make_room(self) -> None:
        """Leave at once, for another connection."""
        del self._waiting[self]
        self.connections.discard(self)
        self.transport.abort()

    def _watch_body(self) -> None:
        if self.cycle.more_body:
            self._arm(self.stall_s, self._check_body)

    def _check_body(self) -> None:
        """Count a request whose body has nearly stopped among those that wait."""
        if not self.flow.read_paused:
            if not self._is_under_way():
                self._wait()
            self._body_bytes = 0
        self._watch_body()

    def _watch_unread(self, unread_s: float = 0.0) -> None:
        self._stop_unread_timer()
        left = self.transport.get_write_buffer_size()
        wait_s = min(self.stall_s, self.unread_timeout_s - unread_s)
        self._unread_timer = self.loop.call_later(
            wait_s, self._check_unread, left, unread_s + wait_s
        )

    def _check_unread(self, before: int, unread_s: float) -> None:
        """Cut a client that has read nothing for so long; one that reads slowly may go on."""
        if self.transport.get_write_buffer_size() < before:
            self._stop_waiting()
            self._watch_unread()
        elif unread_s < self.unread_timeout_s:
            self._wait()
            self._watch_unread(unread_s)
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
        if self.transport.is_closing():
            return
        if self._open_requests == 0:  # else it would pass for another request's answer
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
        self.transport.close()


def bounded(max_connections: int) -> type[BoundedProtocol]:
    """Return the protocol class with this many connections allowed."""
    own = {"max_connections": max_connections, "_waiting": OrderedDict()}
    return type("Bounded", (BoundedProtocol,), own)
