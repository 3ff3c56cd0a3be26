"""Routes of apps: methods, path parameters, bodies of each kind, answers, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.apps.search import APP as SEARCH
from retinue.core.apps import App, AppRequest, Content, Route, Services
from retinue.core.errors import PluginError, RetinueError
from retinue.core.settings import Server, Settings
from retinue.host import http
from retinue.host.access import digest, new_key
from retinue.host.edge import State
from retinue.host.sent import read_sent
from retinue.testing.host import ECHO, FakeHost

FIELD = 64 * 1024


async def show(_services: Services, request: AppRequest) -> Mapping[str, Any]:
    return {
        "bytes": len(request.body),
        "filename": request.filename,
        "path": dict(request.path),
        "fields": dict(request.fields),
        "json": request.json,
        "client": bool(request.client),
    }


async def create(_services: Services, request: AppRequest) -> Mapping[str, Any]:
    assert request.json is not None
    return {"made": request.json, "_status": 201, "_headers": {"Location": "/v1/things/1"}}


async def picture(_services: Services, request: AppRequest) -> Content:
    return Content(request.path["id"].encode(), "image/jpeg", {"ETag": '"1"'})


def _route(path: str, method: Any, body: Any, handler: str = "show", **more: Any) -> Route:
    return Route(path, f"{__name__}:{handler}", handler, method=method, body=body, **more)


THINGS = App(
    name="things",
    title="Things",
    summary="Shows what arrived",
    settings="retinue.testing.host:EchoSettings",
    pipelines=(),
    routes=(
        _route("/v1/things", "GET", "none"),
        _route("/v1/things", "POST", "json", "create"),
        _route("/v1/things/{name}", "GET", "none"),
        _route("/v1/things/{name}", "POST", "any"),
        _route("/v1/things/{name}", "PUT", "file"),
        _route("/v1/things/{name}", "PATCH", "json"),
        _route("/v1/things/{name}", "DELETE", "none"),
        _route("/v1/things/{name}/items/{id:path}/picture", "GET", "none", "picture"),
        _route("/v1/things/{name}/items/{id:path}", "GET", "none"),
    ),
)


def call(
    method: str, path: str, *, apps: tuple[App, ...] = (THINGS,), server: Any = None, **more: Any
) -> httpx.Response:
    host = FakeHost(Settings(server=server or Server()), apps=apps)

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(http.build(host, State(ready=True)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **more)

    return asyncio.run(main())


def refused(answer: httpx.Response, status: int, code: str, words: str = "") -> None:
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert words in answer.json()["error"]["message"]


def test_the_method_chooses_the_route() -> None:
    assert call("GET", "/v1/things/a").json()["path"] == {"name": "a"}
    assert call("HEAD", "/v1/things/a").status_code == 200
    assert call("PUT", "/v1/things/a", content=b"xy").json()["bytes"] == 2
    assert call("PATCH", "/v1/things/a", json={"b": 1}).json()["json"] == {"b": 1}
    assert call("DELETE", "/v1/things/a").json()["json"] is None
    assert call("DELETE", "/v1/things/a").json()["client"] is True


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "BREW"])
def test_another_method_is_told_those_that_are_there(method: str) -> None:
    answer = call(method, "/v1/things")
    refused(answer, 405, "invalid_request", "POST")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_every_method_needs_a_key_and_the_own_site(method: str) -> None:
    keyed = Server(api_keys=(digest(new_key()),))
    refused(call(method, "/v1/things/a", server=keyed), 401, "unauthenticated")
    evil = {"origin": "https://evil.example"}
    refused(call(method, "/v1/things/a", headers=evil), 403, "forbidden")


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("a", "a"),
        ("a/b.jpg", "a/b.jpg"),
        ("a%2Fb.jpg", "a/b.jpg"),
        ("%C3%A9%20%25", "é %"),
        ("..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
        ("%2Fetc%2Fpasswd", "/etc/passwd"),
        ("a%00b", "a\0b"),
        ("", ""),
    ],
)
def test_a_path_parameter_is_what_was_sent_and_never_a_place(sent: str, name: str) -> None:
    answer = call("GET", f"/v1/things/x/items/{sent}")
    assert answer.json()["path"] == {"name": "x", "id": name}


def test_a_parameter_without_slashes_takes_none() -> None:
    refused(call("GET", "/v1/things/a%2Fb"), 404, "not_found")
    refused(call("GET", "/v1/things/..%2F..%2Fetc"), 404, "not_found")


def test_content_is_sent_as_it_is() -> None:
    answer = call("GET", "/v1/things/x/items/a/b/picture")
    assert answer.content == b"a/b"
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["content-length"] == "3"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_status_and_headers_are_no_part_of_the_answer() -> None:
    answer = call("POST", "/v1/things", json={"name": "a"})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/things/1"
    assert answer.json() == {"made": {"name": "a"}}


def test_a_route_without_a_body_refuses_one() -> None:
    for method in ("GET", "DELETE"):
        refused(call(method, "/v1/things/a", content=b"x"), 400, "invalid_request", "no body")


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_input"),
        (b"{", "invalid_request"),
        (b"[1]", "invalid_request"),
        (b"7", "invalid_request"),
        (b"null", "invalid_request"),
        (b'"text"', "invalid_request"),
        (b'{"a": NaN}', "invalid_request"),
        (b'{"a": "\xff"}', "invalid_request"),
        (b'{"a": 1} {"b": 2}', "invalid_request"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "invalid_request"),
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes, code: str) -> None:
    for method in ("PATCH", "POST"):
        refused(call(method, "/v1/things/a", content=body, headers=JSON), 400, code)


def test_an_object_is_limited_like_any_body() -> None:
    small = Server(max_body_bytes=20)
    answer = call("PATCH", "/v1/things/a", json={"a": "x" * 40}, server=small)
    refused(answer, 413, "too_many_bytes")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_any_body_may_be_json(kind: str) -> None:
    body = call("POST", "/v1/things/a", content=b'{"k": 3}', headers={"content-type": kind}).json()
    assert (body["json"], body["bytes"]) == ({"k": 3}, 0)


@pytest.mark.parametrize("kind", ["image/jpeg", "application/x-www-form-urlencoded", ""])
def test_any_body_may_be_a_file(kind: str) -> None:
    body = call("POST", "/v1/things/a", content=b'{"k"', headers={"content-type": kind}).json()
    assert (body["json"], body["bytes"]) == (None, 4)


def test_any_body_may_be_missing() -> None:
    body = call("POST", "/v1/things/a").json()
    assert (body["bytes"], body["fields"], body["json"]) == (0, {}, None)


PICTURE = ("file", ("dir/a.jpg", b"abc", "image/jpeg"))


def form(*parts: tuple[str, Any], path: str = "/v1/things/a", method: str = "POST") -> Any:
    return call(method, path, files=list(parts))


def test_any_body_may_be_a_form() -> None:
    body = form(("text", (None, "été")), PICTURE, ("empty", (None, b""))).json()
    assert body["fields"] == {"text": "été", "empty": ""}
    assert (body["bytes"], body["filename"]) == (3, "a.jpg")
    assert form(("text", (None, "x" * FIELD))).json()["fields"] == {"text": "x" * FIELD}


def test_a_form_in_which_no_file_was_chosen_has_none() -> None:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    body = (
        b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\ncat\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n"
    )
    answer = call("POST", "/v1/things/a", content=body, headers=kind).json()
    assert (answer["fields"], answer["bytes"]) == ({"text": "cat"}, 0)
    refused(call("PUT", "/v1/things/a", content=body, headers=kind), 400, "empty_input")


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ((PICTURE, PICTURE), "invalid_request", "2 files"),
        ((("file", ("a.jpg", b"", "image/jpeg")),), "empty_input", "zero bytes"),
        ((("text", (None, b"x" * (FIELD + 1))),), "invalid_request", "'text' has more than 65,536"),
        ((("a", (None, "1")), ("a", (None, "2"))), "invalid_request", "'a' is given twice"),
        ((("a", (None, b"\xff\xfe")),), "invalid_request", "'a' is not UTF-8"),
        (tuple((f"f{i}", (None, "1")) for i in range(33)), "invalid_request", "more than 32"),
    ],
)
def test_bad_forms(parts: Any, code: str, words: str) -> None:
    refused(form(*parts), 400, code, words)


def test_where_a_file_is_wanted_other_fields_are_passed_over() -> None:
    bad = (b"\xff", b"x" * (FIELD + 1))
    fields = [("a", (None, value)) for value in (*bad, *bad)]
    assert form(*fields, PICTURE, *fields, PICTURE, method="PUT").json()["bytes"] == 3


@given(
    st.sampled_from(["file", "json", "any", "none"]),
    st.binary(max_size=200),
    st.sampled_from([b"", b"application/json", b"multipart/form-data; boundary=b", b"image/png"]),
)
def test_any_bytes_are_read_or_refused(kind: str, body: bytes, content_type: bytes) -> None:
    for given_body in (body, b"--b\r\n" + body, b"{" + body):
        try:
            sent = read_sent(kind, given_body, content_type)
        except RetinueError:
            continue
        assert len(sent.file) <= len(given_body)
        assert sent.json is None or isinstance(orjson.loads(given_body), dict)


def _with(app: App, **more: Any) -> App:
    return replace(app, routes=(replace(app.routes[0], **more),))


@pytest.mark.parametrize(
    "apps",
    [
        (THINGS, _with(ECHO, path="/v1/things", method="GET")),
        (_with(THINGS, path="/healthz"),),
        (_with(THINGS, path="/docs"),),
        (_with(THINGS, path="/apps/things"),),
        (_with(THINGS, path="/static/x"),),
    ],
)
def test_a_route_that_is_taken_or_open_to_all_stops_the_start(apps: tuple[App, ...]) -> None:
    with pytest.raises(PluginError, match="is served already"):
        http.build(FakeHost(Settings(), apps=apps), State())


def test_status_names_methods() -> None:
    (app,) = call("GET", "/v1/status", apps=(SEARCH,)).json()["apps"]
    routes = {(route["method"], route["path"]) for route in app["routes"]}
    assert {("GET", "/v1/search"), ("POST", "/v1/search")} <= routes
