"""The OpenAPI document says what is served, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.routing import Route, Router

from retinue.apps.detect import APP as DETECT
from retinue.apps.search import APP as SEARCH
from retinue.core.settings import Settings
from retinue.host import http, openapi
from retinue.host.edge import Edge, State
from retinue.testing.host import ECHO, FakeHost

APPS = (ECHO, DETECT, SEARCH)
PAGES = {"/", "/docs", "/favicon.ico", "/openapi.json"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document(APPS)


def _served(host: FakeHost) -> set[tuple[str, str]]:
    edge = http.build(host, State())
    assert isinstance(edge, Edge)
    router = edge._app
    assert isinstance(router, Router)
    pages = {page.path for app in host.apps for page in app.pages}
    return {
        (route.path.replace(":path}", "}"), method.lower())
        for route in router.routes
        if isinstance(route, Route) and route.path not in PAGES | pages
        for method in (route.methods or set()) - {"HEAD"}
    }


def test_every_served_route_is_documented_and_the_other_way_round() -> None:
    documented = {
        (path, method)
        for path, item in openapi.document(APPS)["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert documented == _served(FakeHost(Settings(), apps=APPS))


def test_references_resolve_and_operations_are_named_once(document: dict[str, Any]) -> None:
    text = openapi.render(APPS).decode()
    for reference in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert reference in document["components"]["schemas"]
    names = re.findall(r'"operationId": "(\w+)"', text)
    assert len(names) == len(set(names)) > 10


def test_path_parameters_are_declared(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        shared = item.get("parameters", [])
        for method in set(item) - {"parameters"}:
            parameters = [*shared, *item[method].get("parameters", [])]
            declared = [p["name"] for p in parameters if p["in"] == "path"]
            assert sorted(declared) == sorted(re.findall(r"{(\w+)}", path))


def test_an_app_route_comes_from_its_manifest(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    operation = document["paths"]["/v1/detect"]["post"]
    route = DETECT.routes[0]
    assert operation["summary"] == route.summary
    assert {p["name"] for p in operation["parameters"]} == set(route.parameters)
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == route.response
    assert set(operation["requestBody"]["content"]) == {"image/*", "multipart/form-data"}


def test_methods_bodies_and_binary_answers(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert set(paths["/v1/search/{collection}"]) == {"get", "post", "delete"}
    assert "requestBody" not in paths["/v1/search/{collection}"]["get"]
    query = paths["/v1/search/{collection}"]["post"]["requestBody"]
    assert set(query["content"]) == {"image/*", "multipart/form-data", "application/json"}
    assert not query.get("required")
    fields = query["content"]["multipart/form-data"]["schema"]["properties"]
    assert fields["file"] == {"type": "string", "format": "binary"}
    change = paths["/v1/search/{collection}/items/{id}"]["patch"]["requestBody"]
    assert change["required"]
    assert set(change["content"]) == {"application/json"}
    thumbnail = paths["/v1/search/{collection}/items/{id}/thumbnail"]["get"]
    assert set(thumbnail["responses"]["200"]["content"]) == {"image/jpeg"}


def test_health_needs_no_key_and_the_rest_may(document: dict[str, Any]) -> None:
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert {"bearer": []} in document["security"]
    assert {"key": []} in document["security"]
