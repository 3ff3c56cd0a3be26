"""The HTTP application: routes made from the apps' manifests, health, metrics, status, console."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

import retinue
from retinue.core import apps as manifests
from retinue.core import plugins
from retinue.core.apps import App, AppRequest, Content, RouteHandler
from retinue.core.errors import InvalidRequest, PluginError, ShuttingDown
from retinue.host import openapi, pages
from retinue.host.access import Policy
from retinue.host.contract import Host
from retinue.host.edge import Edge, Headers, State, header_map, respond, respond_json
from retinue.host.oip import rest
from retinue.host.sent import read_sent
from retinue.host.upload import read_body, unless_client_leaves

MAX_QUERY_FIELDS = 64
PRIVATE_HEADERS = "_headers"
PRIVATE_STATUS = "_status"
PUBLIC = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json"})


def parse_query(raw: bytes, known: Mapping[str, Any]) -> dict[str, str]:
    """Read a query string; a name may be given once.

    Raises:
        InvalidRequest: a parameter is unknown, repeated, or there are far too many.
    """
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError as error:
        raise InvalidRequest(f"the query cannot be read: {error}") from error
    query: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            names = ", ".join(known) or "none"
            raise InvalidRequest(f"unknown parameter {name[:60]!r}; this route takes: {names}")
        if name in query:
            raise InvalidRequest(f"parameter {name!r} is given more than once")
        query[name] = value
    return query


class AppEndpoint:
    """One route of an app: reads the request within its limits, calls the handler, answers."""

    def __init__(self, host: Host, state: State, route: manifests.Route) -> None:
        self._host = host
        self._state = state
        self._route = route
        self._handler: RouteHandler = plugins.resolve(route.handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._state.draining:
            raise ShuttingDown("the server is stopping; send the request again to another one")
        server = self._host.settings.server
        headers = header_map(scope)
        query = parse_query(scope["query_string"], self._route.parameters)
        body = await read_body(
            receive, headers, limit=server.max_body_bytes, timeout_s=server.body_timeout_s
        )
        sent = read_sent(self._route.body, body, headers.get(b"content-type", b""))
        scope["filename"] = sent.filename
        request = AppRequest(
            sent.file,
            sent.filename,
            query,
            scope["request_id"],
            scope["client_id"],
            dict(scope.get("path_params", {})),
            sent.fields,
            sent.json,
        )
        answer = await unless_client_leaves(receive, self._call(request))
        if isinstance(answer, Content):
            kind = answer.media_type.encode("latin-1")
            await respond(send, 200, answer.body, kind, _lines(answer.headers))
            return
        shown = dict(answer)
        more = _lines(shown.pop(PRIVATE_HEADERS, {}))
        await respond_json(send, shown, shown.pop(PRIVATE_STATUS, 200), more)

    async def _call(self, request: AppRequest) -> Mapping[str, Any] | Content:
        return await self._handler(self._host, request)


def _lines(headers: Mapping[str, str]) -> Headers:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


class Status:
    """What the console's home page shows: models, apps, version."""

    def __init__(self, host: Host, state: State) -> None:
        self._host = host
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the state of the server."""
        settings = self._host.settings
        await respond_json(
            send,
            {
                "name": "retinue",
                "version": retinue.__version__,
                "python": platform.python_version(),
                "ready": self._state.ready and not self._state.draining,
                "uptime_s": round(time.monotonic() - self._state.started, 1),
                "runtime": settings.execution.runtime,
                "precision": settings.execution.precision,
                "models": [self._model(name) for name in self._host.models],
                "apps": [self._app(app) for app in self._host.apps],
            },
        )

    def _model(self, name: str) -> dict[str, Any]:
        pipeline = self._host.pipeline(name)
        card = pipeline.model.card
        return {
            "name": name,
            "version": pipeline.model.version,
            "task": card.task,
            "summary": card.summary,
            "license": card.license,
            "homepage": card.homepage,
            "classes": len(card.classes),
            "input": [card.input.height, card.input.width],
            "queue_depth": pipeline.queue_depth,
            "versions": [
                {
                    "version": one.version,
                    "role": one.role,
                    "share": round(one.share, 6),
                    "guard": dict(one.guard),
                }
                for one in self._host.versions(name)
            ],
        }

    def _app(self, app: App) -> dict[str, Any]:
        settings = self._host.app_settings(app.name)
        return {
            "name": app.name,
            "title": app.title,
            "summary": app.summary,
            "pages": [{"path": page.path, "title": page.title} for page in app.pages],
            "routes": [
                {"method": route.method, "path": route.path, "summary": route.summary}
                for route in app.routes
            ],
            "pipelines": [
                {"task": spec.task, "model": getattr(settings, spec.setting)}
                for spec in app.pipelines
            ],
        }


class Health:
    """``/healthz`` (the process answers) and ``/readyz`` (it takes work)."""

    def __init__(self, state: State, *, readiness: bool) -> None:
        self._state = state
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 200 or 503."""
        ok = not self._readiness or (self._state.ready and not self._state.draining)
        word = "ok" if ok else ("draining" if self._state.draining else "loading")
        await respond_json(send, {"status": word}, 200 if ok else 503)


class MetricsEndpoint:
    """``/metrics`` in Prometheus' exposition format."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with all metrics."""
        body, content_type = self._host.metrics.render()
        await respond(send, 200, body, content_type.encode("latin-1"))


class Fixed:
    """A body that never changes."""

    def __init__(self, body: bytes, content_type: bytes) -> None:
        self._body = body
        self._content_type = content_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with it."""
        await respond(send, 200, self._body, self._content_type)


class _ByMethod:
    """The routes of one path: the method chooses."""

    def __init__(self, endpoints: Mapping[str, AppEndpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._endpoints[method](scope, receive, send)


def _app_routes(host: Host, state: State, console: pages.Console) -> list[BaseRoute]:
    paths: dict[str, dict[str, AppEndpoint]] = {}
    public = PUBLIC | console.public
    for app in host.apps:
        for route in app.routes:
            served = paths.setdefault(route.path, {})
            # What is public is answered without a key, and without knowing who asks.
            open_to_all = route.path in public or route.path.startswith(console.public_prefixes)
            if route.method in served or (route.method == "GET" and open_to_all):
                raise PluginError(
                    f"app {app.name!r}: {route.method} {route.path} is served already; choose "
                    "another path"
                )
            served[route.method] = AppEndpoint(host, state, route)
    return [
        Route(path, _ByMethod(endpoints), methods=list(endpoints))
        for path, endpoints in paths.items()
    ]


def build(host: Host, state: State) -> ASGIApp:
    """Return the whole HTTP application.

    Raises:
        PluginError: a manifest names a handler that cannot be imported, or a route that is taken.
    """
    document = openapi.render(host.apps)
    console = pages.Console(host.apps)
    routes: list[BaseRoute] = [
        *_app_routes(host, state, console),
        *rest.routes(host, state),
        Route("/v1/status", Status(host, state), methods=["GET"]),
        Route("/healthz", Health(state, readiness=False), methods=["GET"]),
        Route("/readyz", Health(state, readiness=True), methods=["GET"]),
        Route("/metrics", MetricsEndpoint(host), methods=["GET"]),
        Route("/openapi.json", Fixed(document, b"application/json"), methods=["GET"]),
        *console.routes(),
    ]
    return Edge(
        Router(routes, redirect_slashes=False),
        policy=Policy(host.settings.server),
        metrics=host.metrics,
        state=state,
        public=PUBLIC | console.public,
        public_prefixes=console.public_prefixes,
    )
