"""Visual search over HTTP: the real program with a real, tiny model."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import cv2
import httpx
import numpy as np
import pytest

from retinue.testing import versions
from retinue.testing.embedders import EMBEDDER, photo

from .conftest import end
from .search_program import add, error, ids, serve, stock, wait_for


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    program = serve(tmp_path_factory.mktemp("search"))
    with httpx.Client(base_url=program.url, timeout=60) as made:
        yield made
    end(program)


@pytest.fixture(scope="module")
def shop(client: httpx.Client) -> str:
    """A collection of 16 that is only asked."""
    stock(client, "shop")
    return "/v1/search/shop"


# Collections and items.


def test_the_life_of_a_collection(client: httpx.Client) -> None:
    made = client.post("/v1/search", json={"name": "life"}).json()
    assert (made["name"], made["items"], made["models"], made["fields"]) == ("life", 0, [], {})
    again = client.post("/v1/search", json={"name": "life"})
    assert again.status_code == 200
    item = add(client, "life", "one", photo(1, "red"), meta='{"price": 3, "new": true}', path="a/b")
    assert {k: v for k, v in item.items() if k not in ("request_id", "group")} == {
        "id": "one",
        "path": "a/b",
        "width": 160,
        "height": 120,
        "meta": {"price": 3, "new": True},
        "thumbnail": "/v1/search/life/items/one/thumbnail",
    }
    shown = client.get("/v1/search/life").json()
    assert shown["items"] == 1
    assert shown["fields"] == {"new": "flag", "price": "number"}
    (model,) = shown["models"]
    assert (model["name"], model["dims"], model["tokens"]) == (
        EMBEDDER,
        {"image": 48, "text": 8},
        True,
    )
    listed = client.get("/v1/search").json()["collections"]
    assert "life" in [one["name"] for one in listed]
    assert client.delete("/v1/search/life").json()["deleted"] == 1
    error(client.get("/v1/search/life"), 404, "not_found")
    error(client.delete("/v1/search/life"), 404, "not_found")
    error(client.post("/v1/search/life", json={"text": "red"}), 404, "not_found")
    add(client, "life", "two", photo(2))
    assert ids(client.post("/v1/search/life", content=photo(1, "red"))) == ["two"]


def test_the_life_of_an_item(client: httpx.Client) -> None:
    add(client, "items", "x", photo(1, "red"), meta='{"n": 1}')
    place = "/v1/search/items/items/x"
    assert client.get(place).json()["meta"] == {"n": 1}
    assert client.patch(place, json={"meta": {"n": 2}}).json()["meta"] == {"n": 2}
    assert client.get(place).json()["meta"] == {"n": 2}
    where = {"text": "red", "where": {"n": 2}}
    assert ids(client.post("/v1/search/items", json=where)) == ["x"]
    add(client, "items", "x", photo(2, "blue"))
    assert client.get(place).json()["meta"] == {}
    assert client.get("/v1/search/items").json()["items"] == 1
    assert client.delete(place).json()["deleted"] == 1
    for answer in (
        client.get(place),
        client.delete(place),
        client.patch(place, json={"meta": {}}),
        client.get(f"{place}/thumbnail"),
    ):
        assert "'x'" in error(answer, 404, "not_found")
    assert ids(client.post("/v1/search/items", json={"text": "red"})) == []


@pytest.mark.parametrize(
    "item", ["a/b/c.jpg", "/lead", "100%", "a%2Fb", "ünï 🚗", "a b+c&d=e?f#g", "../x", "'\""]
)
def test_ids_of_any_kind(client: httpx.Client, item: str) -> None:
    data = photo(sum(item.encode()), "green")
    added = add(client, "odd", item, data)
    assert added["id"] == item
    place = f"/v1/search/odd/items/{quote(item, safe='')}"
    url = httpx.URL(str(client.base_url), raw_path=place.encode())
    assert client.get(url).json()["id"] == item
    thumbnail = httpx.URL(str(client.base_url), raw_path=added["thumbnail"].encode())
    assert client.get(thumbnail).headers["content-type"] == "image/jpeg"
    assert ids(client.post("/v1/search/odd", content=data, params={"k": 1})) == [item]
    assert item not in ids(client.post("/v1/search/odd", json={"id": item, "k": 100}))
    assert client.delete(url).json()["deleted"] == 1


def test_thumbnails_are_jpegs(client: httpx.Client, shop: str) -> None:
    large = add(client, "large", "wide", photo(5, width=1000))
    answer = client.get(large["thumbnail"])
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.startswith(b"\xff\xd8\xff")
    pixels = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (192, 256, 3)
    first = client.post(shop, json={"text": "red", "k": 1}).json()["results"][0]
    assert client.get(first["thumbnail"]).status_code == 200


def test_items_page_by_page(client: httpx.Client, shop: str) -> None:
    found: list[str] = []
    cursor = ""
    while not found or cursor:
        page = client.get(f"{shop}/items", params={"limit": 5, "cursor": cursor}).json()
        assert len(page["items"]) <= 5
        found += [one["id"] for one in page["items"]]
        cursor = page["cursor"]
    assert found == [f"p{n}" for n in range(16)]
    for wrong in ({"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"cursor": "x"}, {"page": 1}):
        error(client.get(f"{shop}/items", params=wrong), 400, "invalid_request")


def test_duplicates(client: httpx.Client) -> None:
    for name, data in {
        "a": photo(1),
        "b": photo(2),
        "a near": photo(1, quality=60),
        "a exact": photo(1),
    }.items():
        add(client, "twice", name, data)

    def groups() -> list[list[str]]:
        found = client.get("/v1/search/twice/duplicates").json()["groups"]
        return [[one["id"] for one in group["items"]] for group in found]

    wait_for(lambda: groups() == [["a", "a near", "a exact"]])
    best = client.post("/v1/search/twice", content=photo(1)).json()["results"]
    assert (len(best), best[0]["duplicates"]) == (2, 2)
    every = client.post("/v1/search/twice", content=photo(1), params={"dedupe": "false"})
    assert len(ids(every)) == 4


# Queries.

FIELDS = {
    *("rank", "id", "path", "score", "relevance", "stages", "width", "height", "meta"),
    *("thumbnail", "duplicates", "regions"),
}


def test_a_picture_in_all_the_ways(client: httpx.Client, shop: str) -> None:
    data = photo(3, "blue")
    encoded = base64.b64encode(data).decode()
    asked = [
        client.post(shop, content=data),
        client.post(shop, content=data, headers={"content-type": "image/jpeg"}),
        client.post(shop, files={"file": ("x.jpg", data)}),
        client.post(shop, files={"anything": ("x.jpg", data)}, data={"k": "20"}),
        client.post(shop, json={"image": encoded}),
        client.post(shop, json={"image": f"data:image/jpeg;base64,{encoded}"}),
        client.post(shop, json={"terms": [{"image": encoded, "weight": 1}]}),
        client.post(shop, content=data, params={"box": "0,0,160,120", "rerank": "true"}),
    ]
    for answer in asked:
        assert ids(answer)[0] == "p3"
    body = asked[0].json()
    assert set(body) == {
        *("collection", "generation", "model", "model_version", "count", "results"),
        *("timings_ms", "skipped", "cached", "request_id"),
    }
    assert (body["collection"], body["model"], body["count"]) == ("shop", EMBEDDER, 16)
    assert all(set(one) == FIELDS for one in body["results"])
    assert [one["rank"] for one in body["results"]] == list(range(1, 17))


def test_texts_items_and_mixtures(client: httpx.Client, shop: str) -> None:
    for ask in (
        {"json": {"text": "red", "k": 2}},
        {"params": {"text": "red", "k": 2}},
        {"data": {"text": "red", "k": "2"}, "files": {}},
    ):
        if "data" in ask:
            ask = {"files": {"text": (None, "red"), "k": (None, "2")}}
        assert set(ids(client.post(shop, **ask))) == {"p1", "p9"}
    assert ids(client.post(shop, json={"id": "p1", "k": 1})) == ["p9"]
    less = {"text": "red", "terms": [{"id": "p1", "weight": -0.9}], "where": {"colour": "red"}}
    assert ids(client.post(shop, json=less))[0] == "p9"
    where = {"text": "red", "where": '{"price": {"gte": 14}}'}
    assert set(ids(client.post(shop, params=where))) == {"p14", "p15"}
    page = {"text": "red", "k": 3, "offset": 3}
    assert [one["rank"] for one in client.post(shop, json=page).json()["results"]] == [4, 5, 6]


def test_an_empty_collection(client: httpx.Client) -> None:
    client.post("/v1/search", json={"name": "empty"})
    for ask in ({"json": {"text": "red"}}, {"content": photo(1)}):
        body = client.post("/v1/search/empty", **ask).json()
        assert (body["results"], body["count"], body["cached"]) == ([], 0, False)
    assert client.get("/v1/search/empty/items").json()["items"] == []
    assert client.get("/v1/search/empty/duplicates").json()["groups"] == []


# All that is wrong.


def test_pictures_that_are_none(client: httpx.Client, shop: str) -> None:
    for place, more in ((shop, {}), (f"{shop}/items", {"params": {"id": "bad"}})):
        for content, status, code in (
            (b"no picture", 415, "unsupported_media"),
            (photo(1)[:400], 400, "corrupt_media"),
        ):
            error(client.post(place, content=content, **more), status, code)
            sent = client.post(place, files={"f": ("a.jpg", content)}, **more)
            assert sent.json()["path"] == "a.jpg"
            error(sent, status, code)
        error(client.post(place, files={"f": ("a.jpg", b"")}, **more), 400, "empty_input")
        two = [("f", ("a.jpg", photo(1))), ("g", ("b.jpg", photo(2)))]
        assert "2 files" in error(client.post(place, files=two, **more), 400, "invalid_request")
    assert client.post(shop).status_code == 400
    error(client.post(f"{shop}/items", params={"id": "bad"}), 400, "empty_input")
    error(client.post(shop, content=b"", headers={"content-type": "image/jpeg"}), 400,
          "invalid_request")  # fmt: skip
    error(client.get(f"{shop}/items/bad"), 404, "not_found")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"k": 0}, "k must be 1 to 1000"),
        ({"k": 10**6}, "k must be 1 to 1000"),
        ({"k": 1e300}, "k must be"),
        ({"k": True}, "whole number"),
        ({"offset": -1}, "offset"),
        ({"where": {"color": "red"}}, "did you mean 'colour'"),
        ({"where": {"price": {"about": 5}}}, "about"),
        ({"where": "red"}, "where"),
        ({"colour": "red"}, "no field 'colour'"),
        ({"text": 5}, "text must be a text"),
        ({"text": "unheard of"}, "vocabulary"),
        ({"image": "!"}, "base64"),
        ({"image": ""}, ""),
        ({"id": "p1", "box": [0, 0, 1]}, "four numbers"),
        ({"id": "p1", "box": [900, 900, 950, 950]}, "outside"),
        ({"box": [0, 0, 9, 9]}, "region of the image"),
        ({"terms": [{"text": "red"}] * 17}, "at most 16"),
        ({"terms": {"text": "red"}}, "list of objects"),
        ({"terms": [{"text": "red", "hight": 1}]}, "hight"),
        ({"rerank": "maybe"}, "rerank"),
        ({"deadline_ms": "soon"}, "deadline_ms"),
    ],
)
def test_questions_that_are_wrong(
    client: httpx.Client, shop: str, asked: dict[str, Any], says: str
) -> None:
    if asked == {"image": ""}:
        assert "nothing is asked" in error(client.post(shop, json=asked), 400, "invalid_request")
        return
    answer = client.post(shop, json={"text": "red", **asked})
    assert says in error(answer, 400, "invalid_request")


def test_a_text_of_ten_megabytes(client: httpx.Client, shop: str) -> None:
    said = error(client.post(shop, json={"text": "x" * 10_000_000}), 400, "invalid_request")
    assert "10,000,000 characters" in said
    assert len(said) < 200
    error(client.post(shop, json={"text": "x" * 40_000_000}), 413, "too_many_bytes")


def test_models_that_do_not_answer(client: httpx.Client, shop: str) -> None:
    for model in ("nobody", versions.NAME, "tiny-text"):
        answer = client.post(shop, json={"text": "red", "model": model})
        assert model in error(answer, 400, "invalid_request")


def test_bodies_that_do_not_fit(client: httpx.Client, shop: str) -> None:
    kind = {"content-type": "application/json"}
    for body in (b"[]", b"5", b"null", b"{", b"", b"\xff", b"[" * 50_000):
        for place in (shop, "/v1/search"):
            answer = client.post(place, content=body, headers=kind)
            assert answer.status_code == 400, answer.text
        assert client.patch(f"{shop}/items/p1", content=body, headers=kind).status_code == 400
    for wrong in ({}, {"name": 5}, {"name": ""}, {"name": "a/b"}, {"name": "a", "more": 1}):
        error(client.post("/v1/search", json=wrong), 400, "invalid_request")
    for wrong in ({}, {"meta": 5}, {"meta": {"a": {}}}, {"meta": {}, "id": "x"}):
        error(client.patch(f"{shop}/items/p1", json=wrong), 400, "invalid_request")
    for path in ("/v1/search", shop, f"{shop}/items", f"{shop}/items/p1", f"{shop}/duplicates"):
        answer = client.request("GET", path, content=b"x")
        assert "takes no body" in error(answer, 400, "invalid_request")
        assert "unknown parameter" in error(
            client.get(path, params={"what": 1}), 400, "invalid_request"
        )
    params = {"id": "x", "meta": "{"}
    for wrong in (params, {"id": "x" * 513}, {"id": "x", "meta": "[1]"}, {"path": "x" * 5000}):
        answer = client.post(f"{shop}/items", content=photo(1), params=wrong)
        error(answer, 400, "invalid_request")
    assert client.get(shop).json()["items"] == 16


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/search", {"GET", "HEAD", "POST"}),
        ("PUT", "/v1/search/shop", {"DELETE", "GET", "HEAD", "POST"}),
        ("PATCH", "/v1/search/shop", {"DELETE", "GET", "HEAD", "POST"}),
        ("DELETE", "/v1/search/shop/items", {"GET", "HEAD", "POST"}),
        ("POST", "/v1/search/shop/items/p1", {"DELETE", "GET", "HEAD", "PATCH"}),
        ("POST", "/v1/search/shop/duplicates", {"GET", "HEAD"}),
    ],
)
def test_methods_that_are_not_taken(
    client: httpx.Client, shop: str, method: str, path: str, allowed: set[str]
) -> None:
    answer = client.request(method, path)
    error(answer, 405, "invalid_request")
    assert set(answer.headers["allow"].split(", ")) == allowed


def test_the_documentation_has_every_route(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    one, item = "/v1/search/{collection}", "/v1/search/{collection}/items/{id}"
    wanted = {
        "/v1/search": {"get", "post"},
        one: {"get", "post", "delete"},
        f"{one}/items": {"get", "post"},
        item: {"get", "patch", "delete"},
        f"{item}/thumbnail": {"get"},
        f"{one}/duplicates": {"get"},
    }
    paths = document["paths"]
    methods = {"get", "post", "put", "patch", "delete"}
    listed = {path: methods & set(paths[path]) for path in paths if path.startswith("/v1/search")}
    assert listed == wanted
    names = [
        paths[path][one]["operationId"] for path in paths for one in methods & set(paths[path])
    ]
    assert len(names) == len(set(names))
