"""The outermost ASGI layer: request id, access, errors as JSON, security headers, metrics.

One plain ASGI callable rather than a stack of middlewares: each layer would cost every request a
frame, a closure and a look at the headers.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retinue.core.errors import (
    ClientClosed,
    InvalidRequest,
    NotFound,
    RetinueError,
    ShuttingDown,
    Unauthenticated,
    Unavailable,
)
from retinue.core.record import new_id
from retinue.host.access import Caller, Policy
from retinue.host.contract import Metrics

log = logging.getLogger("retinue.host")

RETRY_AFTER_S = b"1"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

Headers = list[tuple[bytes, bytes]]

BASE_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
API_HEADERS: Headers = [
    *BASE_HEADERS,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]


@dataclass(slots=True)
class State:
    """Whether the server takes work.

    Attributes:
        ready: All models are loaded.
        draining: It finishes accepted work and takes no more.
        started: ``time.monotonic()`` at the start.
    """

    ready: bool = False
    draining: bool = False
    started: float = 0.0


def header_map(scope: Scope) -> dict[bytes, bytes]:
    """Return the request's headers by lower-case name; of a repeated one, the last."""
    return dict(scope["headers"])


def caller(scope: Scope) -> Caller:
    """Return the headers that say who calls."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    hosts = tuple(value.decode("latin-1") for name, value in headers if name == b"host")
    found = dict(headers)

    def text(name: bytes) -> str:
        return found.get(name, b"").decode("latin-1")

    return Caller(
        hosts=hosts,
        origin=text(b"origin"),
        site=text(b"sec-fetch-site"),
        authorization=text(b"authorization"),
        api_key=text(b"x-api-key"),
    )


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the client's own request id when it is sane, else a new one."""
    own = headers.get(b"x-request-id", b"")
    return own.decode("ascii") if _REQUEST_ID.fullmatch(own) else new_id()


async def respond(
    send: Send, status: int, body: bytes, content_type: bytes, headers: Headers | None = None
) -> None:
    """Send a whole answer with its length and type."""
    start: Headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode("ascii")),
        *(headers or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


async def respond_json(
    send: Send, value: Any, status: int = 200, headers: Headers | None = None
) -> None:
    """Send a value as JSON; NumPy scalars and arrays are allowed in it."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    await respond(send, status, body, b"application/json", headers)


def error_body(error: RetinueError, path: str, request: str, *, v2: bool = False) -> dict[str, Any]:
    """Return the JSON object of an error: ours, or the Open Inference Protocol's."""
    if v2:
        return {"error": error.message}
    shown = {"code": error.code, "message": error.message}
    return {"path": path, "error": shown, "request_id": request}


def is_v2(path: str) -> bool:
    """Return whether a path is the Open Inference Protocol's, whose errors have its own shape."""
    return path == "/v2" or path.startswith("/v2/")


def error_headers(error: RetinueError) -> Headers:
    """Return the headers that HTTP asks for beside this error."""
    if isinstance(error, Unauthenticated):
        return [(b"www-authenticate", b'Bearer realm="retinue"')]
    if isinstance(error, Unavailable) and error.http_status == 503:
        return [(b"retry-after", RETRY_AFTER_S)]
    return []


class Edge:
    """The outermost ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        policy: Policy,
        metrics: Metrics,
        state: State,
        public: frozenset[str],
        public_prefixes: tuple[str, ...],
    ) -> None:
        """Wrap an application.

        Args:
            app: What answers once access is granted.
            policy: The access rules.
            metrics: Where answered requests are counted.
            state: Whether the server drains.
            public: Paths that anybody may GET without a key and link to from other sites: health,
                and the console's pages, which hold no data of their own.
            public_prefixes: The same, for folders of static files.
        """
        self._app = app
        self._policy = policy
        self._metrics = metrics
        self._state = state
        self._public = public
        self._public_prefixes = public_prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        scope["app"] = self  # Starlette then raises HTTPException where it would answer in text
        scope["request_id"] = request = request_id(header_map(scope))
        scope["filename"] = ""
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers: Headers = message["headers"]
                names = {name for name, _ in headers}
                headers.append((b"x-request-id", request.encode("ascii")))
                headers += [pair for pair in API_HEADERS if pair[0] not in names]
            await send(message)

        try:
            await self._answer(scope, receive, send_with_headers)
        except (Exception, asyncio.CancelledError) as error:
            # line of isolation: a request that fails in an unforeseen way fails alone.
            if status:
                raise
            await self._fail(scope, send_with_headers, error)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in METHODS else "OTHER"
            seconds = time.perf_counter() - began
            self._metrics.http(route, method, status or ClientClosed.http_status, seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        who = caller(scope)
        if who.hosts or scope["http_version"] != "1.0":
            self._policy.check_host(who)  # else: a load balancer's probe; no browser speaks 1.0
        path: str = scope["path"]
        reads = scope["method"] in ("GET", "HEAD")
        if not (reads and (path in self._public or path.startswith(self._public_prefixes))):
            self._policy.check_origin(who)
            self._policy.check_key(who)
            scope["client_id"] = self._policy.client_id(who, (scope.get("client") or ("",))[0])
        await self._app(scope, receive, send)

    async def _fail(self, scope: Scope, send: Send, error: BaseException) -> None:
        request: str = scope["request_id"]
        headers: Headers = []
        if isinstance(error, HTTPException):
            known, status = _from_starlette(error, scope), error.status_code
            headers = [(k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items()]
        elif isinstance(error, RetinueError):
            known, status = error, error.http_status
            if status >= 500 and not isinstance(error, Unavailable):
                log.warning("request %s: %s: %s", request, error.code, error.message)
        elif isinstance(error, asyncio.CancelledError):
            known = ShuttingDown("the server is stopping and could not wait for this request")
            status = known.http_status
        else:
            log.error("request %s failed unexpectedly", request, exc_info=error)
            known, status = RetinueError("internal error; the server's log has the details"), 500
        if isinstance(known, ClientClosed):
            return
        body = error_body(known, scope["filename"], request, v2=is_v2(scope["path"]))
        await respond_json(send, body, status, headers + error_headers(known))


def _from_starlette(error: HTTPException, scope: Scope) -> RetinueError:
    what = f"{scope['method'][:20]} {scope['path'][:200]}"
    if error.status_code == 404:
        return NotFound(f"nothing is served at {what}; /docs lists what is")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "other methods")
        return InvalidRequest(f"{what} is not allowed; the path takes {allowed}")
    return InvalidRequest(f"{what}: {error.detail}")
