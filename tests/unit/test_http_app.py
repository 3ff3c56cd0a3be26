"""The HTTP application in process: answers, errors, access, headers, pages, metrics."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import httpx
import pytest

from retinue.apps.detect import APP as DETECT
from retinue.core.apps import Page
from retinue.core.errors import PluginError
from retinue.core.settings import Server, Settings
from retinue.host import http
from retinue.host.access import digest, new_key
from retinue.host.edge import State
from retinue.testing.host import ECHO, FakeHost


async def _call(host: FakeHost, state: State, method: str, path: str, more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(http.build(host, state))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, **more)


def call(
    method: str,
    path: str,
    host: FakeHost | None = None,
    state: State | None = None,
    **more: Any,
) -> httpx.Response:
    host = host or FakeHost(Settings())
    return asyncio.run(_call(host, state or State(ready=True), method, path, more))


def test_a_route_gets_the_upload_and_its_mapping_is_the_answer() -> None:
    answer = call("POST", "/v1/echo?wait_ms=0", content=b"abc", headers={"x-request-id": "my-1"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "my-1"
    assert answer.headers["retinue-recorded"] == "false"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert not any(name.startswith("access-control") for name in answer.headers)
    body = answer.json()
    assert body["bytes"] == 3
    assert body["query"] == {"wait_ms": "0"}
    assert body["request_id"] == "my-1"
    assert "_headers" not in body


def test_a_form_works_too() -> None:
    answer = call("POST", "/v1/echo", files={"file": ("a/b.jpg", b"abcd", "image/jpeg")})
    assert answer.json()["bytes"] == 4
    assert answer.json()["filename"] == "b.jpg"


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 200, "é", "a\tb"])
def test_a_request_id_that_is_not_sane_is_replaced(wrong: str) -> None:
    answer = call("POST", "/v1/echo", content=b"x", headers={"x-request-id": wrong.encode()})
    assert answer.headers["x-request-id"] != wrong
    assert len(answer.headers["x-request-id"]) == 32


def _error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body = answer.json()
    assert answer.status_code == status
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return dict(body)


def test_an_error_is_the_same_object_as_on_the_command_line() -> None:
    form = {"file": ("dog.jpg", b"x", "image/jpeg")}
    body = _error(call("POST", "/v1/echo?fail=queue_full", files=form), 503, "queue_full")
    assert body["path"] == "dog.jpg"
    answer = call("POST", "/v1/echo?fail=queue_full", files=form)
    assert int(answer.headers["retry-after"]) >= 1


def test_an_error_that_nobody_foresaw_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    answer = call("POST", "/v1/echo?fail=bug", content=b"x")
    _error(answer, 500, "internal")
    assert "secret" not in answer.text
    assert "a secret of the inside" in caplog.text
    assert answer.headers["x-request-id"] in caplog.text


def test_bad_requests() -> None:
    _error(call("POST", "/v1/echo"), 400, "empty_input")
    _error(call("POST", "/v1/echo?colour=red", content=b"x"), 400, "invalid_request")
    _error(call("POST", "/v1/echo?fail=a&fail=b", content=b"x"), 400, "invalid_request")
    _error(call("POST", "/v1/echo?" + "wait_ms=1&" * 100, content=b"x"), 400, "invalid_request")
    _error(call("GET", "/nothing"), 404, "not_found")
    _error(call("GET", "/static/nothing.js"), 404, "not_found")
    _error(call("GET", "/static/"), 404, "not_found")
    _error(call("GET", "/static/%2e%2e/templates/layout.html"), 404, "not_found")
    answer = call("PUT", "/v1/echo")
    _error(answer, 405, "invalid_request")
    assert answer.headers["allow"] == "POST"


def test_too_large() -> None:
    host = FakeHost(Settings(server=Server(max_body_bytes=10)))
    _error(call("POST", "/v1/echo", host, content=b"x" * 11), 413, "too_many_bytes")
    assert call("POST", "/v1/echo", host, content=b"x" * 10).status_code == 200
    assert host.events["started"] == 1


def test_health_and_readiness() -> None:
    assert call("GET", "/healthz").json() == {"status": "ok"}
    assert call("GET", "/readyz").json() == {"status": "ok"}
    loading, draining = State(), State(ready=True, draining=True)
    for state, word in ((loading, "loading"), (draining, "draining")):
        assert call("GET", "/healthz", state=state).status_code == 200
        answer = call("GET", "/readyz", state=state)
        assert answer.status_code == 503
        assert answer.json() == {"status": word}
        assert call("GET", "/v2/health/ready", state=state).status_code == 503
    answer = call("POST", "/v1/echo", state=draining, content=b"x")
    _error(answer, 503, "shutting_down")
    assert answer.headers["retry-after"]


def test_metrics_have_bounded_labels() -> None:
    host = FakeHost(Settings())
    call("POST", "/v1/echo", host, content=b"x")
    call("GET", "/v2/models/fake", host)
    call("GET", "/some/random/path", host)
    call("BREW", "/some/other/path", host)
    call("POST", "/v1/echo", host)
    assert host.metrics.calls == [
        ("/v1/echo", "POST", 200),
        ("/v2/models/{model}", "GET", 200),
        ("unmatched", "GET", 404),
        ("unmatched", "OTHER", 404),
        ("/v1/echo", "POST", 400),
    ]
    answer = call("GET", "/metrics", host)
    assert answer.text == "fake_requests_total 5\n"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4"


def test_status_lists_models_and_apps() -> None:
    body = call("GET", "/v1/status").json()
    assert body["ready"] is True
    assert body["models"][0]["name"] == "fake"
    assert body["models"][0]["input"] == [8, 8]
    assert body["apps"][0]["pipelines"] == [{"task": "detect", "model": "fake"}]


KEY = new_key()
PUBLIC = [
    "/healthz",
    "/readyz",
    "/v2/health/live",
    "/v2/health/ready",
    "/",
    "/docs",
    "/openapi.json",
    "/static/app.js",
    "/favicon.ico",
]
PRIVATE = ["/v1/status", "/metrics", "/v2", "/v2/models/fake", "/nothing"]


def _keyed() -> FakeHost:
    return FakeHost(Settings(server=Server(api_keys=(digest(KEY),))))


@pytest.mark.parametrize("path", PUBLIC)
def test_health_and_pages_need_no_key(path: str) -> None:
    assert call("GET", path, _keyed()).status_code == 200
    assert call("HEAD", path, _keyed()).status_code == 200
    assert call("GET", path, _keyed(), headers={"sec-fetch-site": "cross-site"}).is_success


@pytest.mark.parametrize("path", PRIVATE)
def test_everything_else_does(path: str) -> None:
    answer = call("GET", path, _keyed())
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert call("GET", path, _keyed(), headers={"x-api-key": "wrong"}).status_code == 401
    for headers in ({"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}):
        assert call("GET", path, _keyed(), headers=headers).status_code in (200, 404)


def test_a_post_to_a_public_path_needs_a_key() -> None:
    assert call("POST", "/healthz", _keyed()).status_code == 401
    assert call("POST", "/v1/echo", _keyed(), content=b"x").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_are_refused(headers: dict[str, str]) -> None:
    host = FakeHost(Settings())
    _error(call("POST", "/v1/echo", host, content=b"x", headers=headers), 403, "forbidden")
    _error(call("GET", "/v1/status", host, headers=headers), 403, "forbidden")
    assert call("GET", "/v2", host, headers=headers).json()["error"]
    assert host.events["started"] == 0


def test_a_rebound_name_does_not_even_get_a_page() -> None:
    _error(call("GET", "/", headers={"host": "evil.example"}), 403, "forbidden")
    _error(call("GET", "/healthz", headers={"host": "evil.example"}), 403, "forbidden")


def test_a_preflight_gets_no_permission() -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = call("OPTIONS", "/v1/echo", headers=headers)
    assert answer.status_code == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("path", ["/", "/docs", "/detect"])
def test_pages_have_a_strict_policy_and_no_inline_code(path: str) -> None:
    answer = call("GET", path, FakeHost(Settings(), apps=(ECHO, _detect())))
    policy = answer.headers["content-security-policy"]
    for rule in ("default-src 'none'", "script-src 'self';", "frame-ancestors 'none'"):
        assert rule in policy
    assert "img-src 'self' blob: data:;" in policy
    assert "connect-src 'self';" in policy
    assert ("unsafe-inline" in policy) is (path == "/docs")
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "<style" not in answer.text
    assert " style=" not in answer.text
    assert not re.search(r"\son\w+=", answer.text)
    assert answer.text.count("<script") == answer.text.count("src=") - answer.text.count("<img src")
    assert "http://" not in answer.text
    assert "https://" not in answer.text


def _detect() -> Any:
    return replace(DETECT, routes=(), observers=(), commands=())


def test_navigation_is_made_of_the_manifests() -> None:
    answer = call("GET", "/detect", FakeHost(Settings(), apps=(_detect(),)))
    assert '<a href="/detect" aria-current="page">Detect</a>' in answer.text
    assert '<a href="/">Home</a>' in answer.text
    assert "/detect" not in call("GET", "/").text


def test_static_files_are_revalidated() -> None:
    answer = call("GET", "/static/app.js")
    assert "javascript" in answer.headers["content-type"]
    assert answer.headers["cache-control"] == "no-cache"
    again = call("GET", "/static/app.js", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


def test_a_page_without_its_template_is_a_plugin_error() -> None:
    page = Page(path="/x", title="X", template="missing.html", script="x.js")
    with pytest.raises(PluginError, match="console"):
        http.build(FakeHost(Settings(), apps=(replace(ECHO, pages=(page,)),)), State())
    with pytest.raises(PluginError, match=r"missing\.html"):
        http.build(FakeHost(Settings(), apps=(replace(_detect(), pages=(page,)),)), State())
