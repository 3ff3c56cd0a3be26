"""The console: pages made from the apps' manifests, their static files, the API's documentation.

Pages hold no data: what they show, their scripts fetch through the API with the caller's key.
They are therefore rendered once, at the start, and may be read without a key.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, TemplateError
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

import retinue
from retinue.core.apps import App, Page
from retinue.core.errors import PluginError
from retinue.host.edge import Headers, header_map, respond

CONSOLE = Path(__file__).parent / "console"
SWAGGER = Path(importlib.import_module("swagger_ui_bundle").swagger_ui_path)  # it has no types

_POLICY = (
    "default-src 'none'; script-src 'self'{script}; style-src 'self'{style}; "
    "img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_NO_MARKUP = "; require-trusted-types-for 'script'"
PAGE_POLICY = _POLICY.format(script="", style="") + _NO_MARKUP
DOCS_POLICY = _POLICY.format(script="", style=" 'unsafe-inline'")
STATIC_CACHE = b"no-cache"  # kept, and revalidated by its ETag: an upgrade shows at once


_PACKED: Headers = [
    (b"content-type", b"application/wasm"),
    (b"content-encoding", b"gzip"),
    (b"vary", b"accept-encoding"),
]


def page_policy(page: Page) -> str:
    """Return the content security policy of an app's page: nothing comes from elsewhere."""
    script = " 'wasm-unsafe-eval'" if page.wasm else ""
    media = "; media-src 'self' blob:" if page.camera else ""
    return _POLICY.format(script=script, style="") + media + _NO_MARKUP


def page_headers(policy: str, *, camera: bool = False) -> Headers:
    """Return the security headers of a page."""
    own = b"self" if camera else b""
    return [
        (b"content-security-policy", policy.encode("ascii")),
        (b"referrer-policy", b"same-origin"),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (
            b"permissions-policy",
            b"camera=(%b), microphone=(), geolocation=(), payment=()" % own,
        ),
        (b"cache-control", b"no-cache"),
    ]


class RenderedPage:
    """A page, rendered."""

    def __init__(self, html: str, policy: str = PAGE_POLICY, *, camera: bool = False) -> None:
        self._body = html.encode("utf-8")
        self._headers = page_headers(policy, camera=camera)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the page."""
        await respond(send, 200, self._body, b"text/html; charset=utf-8", self._headers)


class Static:
    """A folder of static files, of the kinds that a page uses and no others.

    WebAssembly is kept compressed, as ``NAME.wasm.gz``, and sent so; all browsers read that.
    """

    SUFFIXES = (".js", ".css", ".svg", ".png", ".webmanifest", ".map", ".wasm", ".txt")

    def __init__(self, folder: Path) -> None:
        self._files = StaticFiles(directory=folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a file."""
        packed = scope["path"].endswith(".wasm")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                if packed and message["status"] in (200, 206):
                    headers[:] = [pair for pair in headers if pair[0] != b"content-type"]
                    headers += _PACKED
                headers.append((b"cache-control", STATIC_CACHE))
            await send(message)

        if not scope["path"].endswith(self.SUFFIXES):
            scope = {**scope, "path": scope["path"] + "/not-a-static-file"}
        elif packed:
            if b"gzip" not in header_map(scope).get(b"accept-encoding", b""):
                message = "this file is sent compressed; ask for it with Accept-Encoding: gzip"
                await respond(send, 406, message.encode(), b"text/plain; charset=utf-8", [])
                return
            scope = {**scope, "path": scope["path"] + ".gz"}
        await self._files(scope, receive, with_headers)


def console_folder(app: App) -> Path:
    """Return the folder of an app's templates and scripts: ``console`` beside its settings class.

    Raises:
        PluginError: the app names pages and has no such folder.
    """
    name = app.settings.partition(":")[0]
    while name:
        package = Path(importlib.import_module(name).__file__ or "").parent
        if (package / "console").is_dir():
            return package / "console"
        name = name.rpartition(".")[0]
    raise PluginError(f"app {app.name!r} names console pages and has no folder console/ beside it")


@cache
def _environment(folder: Path | None) -> Environment:
    shared = FileSystemLoader(CONSOLE / "templates")
    loader = shared if folder is None else ChoiceLoader([FileSystemLoader(folder), shared])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)


class Console:
    """All pages of the console."""

    def __init__(self, apps: Iterable[App]) -> None:
        """Render the pages.

        Raises:
            PluginError: an app's template is missing or broken.
        """
        self._apps = tuple(apps)
        self._navigation = [
            {"path": "/", "title": "Home"},
            *({"path": page.path, "title": page.title} for _, page in self._pages()),
        ]
        self.public = frozenset(
            {"/", "/docs", "/favicon.ico", *(page.path for _, page in self._pages())}
        )
        self.public_prefixes = ("/static/", "/swagger/", "/apps/")

    def _pages(self) -> list[tuple[App, Page]]:
        return [(app, page) for app in self._apps for page in app.pages]

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the pages and of their static files."""
        home = self._render(None, "home.html", "/", "Home", "/static/home.js")
        docs = self._render(None, "docs.html", "/docs", "API", "/static/docs.js")
        routes: list[BaseRoute] = [
            Route("/", RenderedPage(home), methods=["GET"]),
            Route("/docs", RenderedPage(docs, DOCS_POLICY), methods=["GET"]),
            Route("/favicon.ico", _Favicon(), methods=["GET"]),
            Mount("/static", Static(CONSOLE / "static")),
            Mount("/swagger", Static(SWAGGER)),
        ]
        for app, page in self._pages():
            folder = console_folder(app)
            script = f"/apps/{app.name}/{page.script}"
            html = self._render(folder, page.template, page.path, page.title, script)
            rendered = RenderedPage(html, page_policy(page), camera=page.camera)
            routes.append(Route(page.path, rendered, methods=["GET"]))
        routes += [
            Mount(f"/apps/{app.name}", Static(console_folder(app)))
            for app in self._apps
            if app.pages
        ]
        return routes

    def _render(
        self, folder: Path | None, template: str, path: str, title: str, script: str
    ) -> str:
        try:
            return (
                _environment(folder)
                .get_template(template)
                .render(
                    title=title,
                    path=path,
                    script=script,
                    navigation=self._navigation,
                    version=retinue.__version__,
                )
            )
        except TemplateError as error:
            raise PluginError(f"console page {path} ({template}): {error}") from error


class _Favicon:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (CONSOLE / "static" / "icon.svg").read_bytes()
        await respond(send, 200, body, b"image/svg+xml", [(b"cache-control", b"max-age=86400")])
