"""A small web server on this machine's loopback, that a test fills and can make misbehave."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path is answered with.

    Attributes:
        body: The body.
        status: The HTTP status.
        headers: Further headers.
        cut: Send only so many bytes of the body, then close the connection; None sends all.
        hold: Wait for this event after the cut, before closing.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    hold: threading.Event | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request that arrived: path with query as sent, headers by lower-case name, and body."""

    path: str
    headers: Mapping[str, str]
    body: bytes = b""


Page = bytes | Answer | Callable[[], Answer]


@dataclass(slots=True)
class Site:
    """A running server.

    Attributes:
        url: Its address, without a slash at the end.
        pages: Path as sent to what it is answered with; change it at will.
        requests: What has been asked, in order.
    """

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def paths(self) -> list[str]:
        """Return the paths that have been asked, in order."""
        return [request.path for request in self.requests]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Write nothing of clients that went away; anything else is a fault of the test's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serve() -> Iterator[Site]:
    """Run a server on a free port of 127.0.0.1 for the length of the block."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.site = Site(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.site  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        site.requests.append(Request(self.path, headers, body))
        page = site.pages.get(self.path, Answer(b"nothing here", 404))
        answer = page if isinstance(page, Answer) else None
        if answer is None:
            answer = Answer(page) if isinstance(page, bytes) else page()  # type: ignore[operator]
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        try:
            self.end_headers()
            self.wfile.write(answer.body[: answer.cut])
            if answer.cut is not None:
                self.wfile.flush()
                if answer.hold is not None:
                    answer.hold.wait()
                self.close_connection = True
        except ConnectionError:
            self.close_connection = True

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write nothing to the standard error."""
