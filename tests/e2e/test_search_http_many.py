"""Visual search over HTTP: many clients at once, other programs, restarts, tenants, the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from retinue.apps.search.api import Collection
from retinue.core.settings import Settings
from retinue.host.access import digest
from retinue.testing.embedders import EMBEDDER, photo

from .conftest import Program, end
from .search_program import NAMES, add, error, ids, serve, stock, wait_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def program(folder: Path) -> Iterator[Program]:
    made = serve(folder)
    yield made
    end(made)


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=program.url, timeout=60) as made:
        yield made


def test_answers_are_kept_until_something_is_written(client: httpx.Client) -> None:
    stock(client, "cache", 6)
    place, ask = "/v1/search/cache", {"text": "red", "k": 3}

    def cached(**more: Any) -> bool:
        answer = client.post(place, json=ask | more).json()
        assert not answer["skipped"]
        return bool(answer["cached"])

    # Who was added last may still be compared with the others.
    wait_for(lambda: cached() and cached())
    first = client.post(place, json=ask).json()
    again = client.post(place, json=ask).json()
    same = ("results", "generation", "count", "timings_ms")
    assert [again[name] for name in same] == [first[name] for name in same]
    assert again["request_id"] != first["request_id"]
    assert not cached(k=4)
    assert not cached(rerank=False)
    assert not cached(where={"price": {"lt": 99}})
    assert cached()
    writes: list[Callable[[], httpx.Response]] = [
        lambda: client.patch(f"{place}/items/p1", json={"meta": {"price": 5}}),
        lambda: client.delete(f"{place}/items/p1"),
        lambda: client.post(f"{place}/items?id=p1", content=photo(1, "red")),
        lambda: client.post(f"{place}/items?id=p1", content=photo(9, "red")),
    ]
    for write in writes:
        assert write().status_code == 200
        assert not cached()
        wait_for(cached)
    for read in ("", "/items", "/items/p1", "/duplicates"):
        client.get(place + read)
    error(client.post(f"{place}/items?id=bad", content=b"no picture"), 415, "unsupported_media")
    assert cached()


def test_many_adds_at_once(client: httpx.Client, folder: Path) -> None:
    def one(number: int) -> int:
        item = f"n{number % 50}"
        answer = client.post(f"/v1/search/crowd/items?id={item}", content=photo(1000 + number % 50))
        return answer.status_code

    with ThreadPoolExecutor(12) as threads:
        assert set(threads.map(one, range(100))) == {200}
    assert client.get("/v1/search/crowd").json()["items"] == 50
    for number in range(0, 50, 7):
        answer = client.post("/v1/search/crowd", content=photo(1000 + number), params={"k": 1})
        assert ids(answer) == [f"n{number}"]


def test_all_kinds_of_writes_at_once(client: httpx.Client) -> None:
    stock(client, "mixed", 8)
    place = "/v1/search/mixed"

    def one(number: int) -> int:
        item = f"{place}/items/p{number % 8}"
        match number % 4:
            case 0:
                return client.patch(item, json={"meta": {"n": number}}).status_code
            case 1:
                return client.delete(item).status_code
            case 2:
                answer = client.post(f"{place}/items?id=p{number % 8}", content=photo(number))
                return answer.status_code
        return client.post(place, json={"text": "red"}).status_code

    with ThreadPoolExecutor(8) as threads:
        said = list(threads.map(one, range(120)))
    assert set(said) <= {200, 404}
    shown = client.get(place).json()["items"]
    listed = client.get(f"{place}/items").json()["items"]
    assert shown == len(listed) == len({one["id"] for one in listed})
    assert len(ids(client.post(place, json={"text": "red", "dedupe": False}))) == shown


def test_a_collection_deleted_while_it_is_written(client: httpx.Client, program: Program) -> None:
    def one(number: int) -> int:
        if number % 5 == 4:
            return client.delete("/v1/search/gone").status_code
        place = f"/v1/search/gone/items?id=g{number}"
        return client.post(place, content=photo(number)).status_code

    with ThreadPoolExecutor(6) as threads:
        said = list(threads.map(one, range(60)))
    assert set(said) <= {200, 404, 409}, program.log.read_text()
    add(client, "gone", "last", photo(7))
    assert "last" in ids(client.post("/v1/search/gone", content=photo(7), params={"k": 1}))


def test_a_write_while_another_program_writes(client: httpx.Client, folder: Path) -> None:
    stock(client, "held", 3)
    place = "/v1/search/held"
    given = Settings(home=folder / "home", cache=folder / "cache")
    with Collection.open("held", settings=given, model=EMBEDDER) as held:
        with held._library.writer(held._opened.collection):
            for answer in (
                client.post(f"{place}/items?id=x", content=photo(9)),
                client.delete(f"{place}/items/p1"),
                client.patch(f"{place}/items/p1", json={"meta": {}}),
                client.delete(place),
            ):
                assert "being written by another program" in error(answer, 409, "conflict")
            assert len(ids(client.post(place, json={"text": "red"}))) == 3
        held.add(photo(10, "cyan"), id="theirs")
    assert ids(client.post(place, json={"text": "cyan", "k": 1})) == ["theirs"]
    add(client, "held", "x", photo(9))


def test_a_restart_finds_all(tmp_path: Path) -> None:
    first = serve(tmp_path)
    with httpx.Client(base_url=first.url, timeout=60) as client:
        stock(client, "kept", 8)
    assert first.stop() == 0
    end(first)
    second = serve(tmp_path)
    try:
        with httpx.Client(base_url=second.url, timeout=60) as client:
            assert client.get("/v1/search/kept").json()["items"] == 8
            for number in range(8):
                data = photo(number, NAMES[number])
                answer = client.post("/v1/search/kept", content=data, params={"k": 1})
                assert ids(answer) == [f"p{number}"]
            add(client, "kept", "new", photo(50))
        second.process.kill()
    finally:
        end(second)
    given = Settings(home=tmp_path / "home", cache=tmp_path / "cache")
    with Collection.open("kept", settings=given, model=EMBEDDER) as kept:
        assert kept.search(photo(50), k=1)[0].item.id == "new"


def test_clients_do_not_see_each_others_collections(tmp_path: Path) -> None:
    keys = ["retinue_" + letter * 43 for letter in "ab"]
    digests = ", ".join(f'"{digest(key)}"' for key in keys)
    program = serve(tmp_path, search='tenants = "client"', server=f"api_keys = [{digests}]")
    try:
        one, other = (
            httpx.Client(base_url=program.url, timeout=60, headers={"x-api-key": key})
            for key in keys
        )
        with one, other:
            add(one, "shop", "mine", photo(1, "red"))
            assert other.get("/v1/search").json()["collections"] == []
            error(other.get("/v1/search/shop"), 404, "not_found")
            error(other.get("/v1/search/shop/items/mine/thumbnail"), 404, "not_found")
            add(other, "shop", "theirs", photo(2, "red"))
            assert ids(one.post("/v1/search/shop", json={"text": "red"})) == ["mine"]
            assert ids(other.post("/v1/search/shop", json={"text": "red"})) == ["theirs"]
            error(other.delete("/v1/search/shop/items/mine"), 404, "not_found")
            assert other.delete("/v1/search/shop").json()["deleted"] == 1
            assert ids(one.post("/v1/search/shop", json={"text": "red"})) == ["mine"]
            error(httpx.get(program.url + "/v1/search"), 401, "unauthenticated")
    finally:
        end(program)
