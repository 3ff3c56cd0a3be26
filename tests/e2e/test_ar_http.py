"""``/v1/ar``: what the page in the browser is given, by the real program."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx
import pytest

from retinue.models.catalogue import find

from .conftest import Program


@pytest.fixture
def client(server: Program) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as made:
        yield made


def test_filters_and_all_of_their_files(client: httpx.Client) -> None:
    listed = client.get("/v1/ar/filters").raise_for_status().json()
    assert listed["models"]["detector"] == "blazeface-short-range" and listed["fov"] == 63
    rows = {row["name"]: row for row in listed["filters"]}
    assert len(rows) >= 8 and "filter.toml" in rows["dog"]["files"]
    for name in rows["dog"]["files"]:
        answer = client.get(f"/v1/ar/filters/dog/{name}").raise_for_status()
        assert answer.content
    kinds = {".glb": "model/gltf-binary", ".png": "image/png", ".toml": "text/plain"}
    for suffix, kind in kinds.items():
        name = next(file for file in rows["dog"]["files"] if file.endswith(suffix))
        answer = client.get(f"/v1/ar/filters/dog/{name}")
        assert answer.headers["content-type"].startswith(kind)


@pytest.mark.parametrize(
    "path",
    [
        "filters/nothing/filter.toml",
        "filters/dog/nothing.png",
        "filters/dog/..%2fglasses%2ffilter.toml",
        "filters/dog/%2e%2e/%2e%2e/__init__.py",
        "filters/dog/%2fetc%2fpasswd",
        "models/nothing",
        "models/nanodet-g-416",
    ],
)
def test_nothing_else_is_given(client: httpx.Client, path: str) -> None:
    answer = client.get(f"/v1/ar/{path}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("not_found", "input_not_found")


@pytest.mark.parametrize("name", ["blazeface-short-range", "face-mesh"])
def test_networks_as_their_makers_published_them(client: httpx.Client, name: str) -> None:
    body = client.get(f"/v1/ar/models/{name}").raise_for_status().content
    assert body[4:8] == b"TFL3"
    source = find(name).source
    if not source.parts:
        assert hashlib.sha256(body).hexdigest() in source.files.values()
    assert client.get(f"/v1/ar/models/{name}").content == body
