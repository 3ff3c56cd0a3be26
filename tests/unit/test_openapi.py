"""The OpenAPI document says what is served, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.routing import Route, Router

from retinue.apps.detect import APP as DETECT
from retinue.core.settings import Settings
from retinue.host import http, openapi
from retinue.host.edge import Edge, State
from retinue.testing.host import ECHO, FakeHost

PAGES = {"/", "/docs", "/favicon.ico", "/openapi.json"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document((ECHO, DETECT))


def _served(host: FakeHost) -> set[tuple[str, str]]:
    edge = http.build(host, State())
    assert isinstance(edge, Edge)
    router = edge._app
    assert isinstance(router, Router)
    return {
        (route.path, method.lower())
        for route in router.routes
        if isinstance(route, Route) and route.path not in PAGES
        for method in (route.methods or set()) - {"HEAD"}
    }


def test_every_served_route_is_documented_and_the_other_way_round() -> None:
    documented = {
        (path, method)
        for path, item in openapi.document((ECHO,))["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert documented == _served(FakeHost(Settings()))


def test_references_resolve_and_operations_are_named_once(document: dict[str, Any]) -> None:
    text = openapi.render((ECHO, DETECT)).decode()
    for reference in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert reference in document["components"]["schemas"]
    names = re.findall(r'"operationId": "(\w+)"', text)
    assert len(names) == len(set(names)) > 10


def test_path_parameters_are_declared(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        declared = {p["name"] for p in item.get("parameters", []) if p["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))


def test_an_app_route_comes_from_its_manifest(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    operation = document["paths"]["/v1/detect"]["post"]
    route = DETECT.routes[0]
    assert operation["summary"] == route.summary
    assert {p["name"] for p in operation["parameters"]} == set(route.parameters)
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == route.response
    assert set(operation["requestBody"]["content"]) == {"image/*", "multipart/form-data"}


def test_health_needs_no_key_and_the_rest_may(document: dict[str, Any]) -> None:
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert {"bearer": []} in document["security"]
    assert {"key": []} in document["security"]
