"""Measuring a collection: known answers as JSONL and CSV, the index against the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from retinue.apps.search.api import Collection
from retinue.apps.search.evaluate import bench, evaluate, probes, read_truth, tune
from retinue.core.errors import (
    InputError,
    InputNotFound,
    InvalidRequest,
    NotFound,
    UnsupportedMedia,
)
from retinue.testing.embedders import COLOURS, DIM, photo, settings

NAMES = list(COLOURS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("eval")


@pytest.fixture(scope="module")
def shop(folder: Path) -> Iterator[Collection]:
    with Collection.open("shop", settings=settings(folder)) as opened:
        for number in range(24):
            colour = NAMES[number % 8]
            opened.add(photo(number, colour), id=f"p{number}", meta={"n": number})
        yield opened


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows) + b"\n\n")
    return path


def test_perfect_answers_measure_as_such(shop: Collection, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(photo(number, NAMES[number]))
    rows = [
        {"image": "1.jpg", "relevant": ["p1"]},
        {"image": "2.jpg", "relevant": ["p2"], "box": [0, 0, 160, 120]},
        {"id": "p3", "relevant": ["p11", "p19"], "where": {"n": {"gt": 3}}},
        {"text": "red", "relevant": ["p1", "p9", "p17"]},
    ]
    truth = read_truth(jsonl(tmp_path / "truth.jsonl", *rows))
    report = evaluate(shop, truth, k=5)
    assert report["queries"] == 4
    assert report["recall@5"]["value"] == 1
    assert report["mAP@5"]["value"] == 1
    assert 0 < report["p50_ms"] <= report["p95_ms"]


def test_wrong_answers_measure_as_such(shop: Collection, tmp_path: Path) -> None:
    rows = [
        {"text": "red", "relevant": ["p2", "nobody"]},
        {"text": "green", "relevant": ["p2", "p10", "p18", "gone"]},
    ]
    report = evaluate(shop, read_truth(jsonl(tmp_path / "t.jsonl", *rows)), k=3, rerank=False)
    assert report["recall@3"]["value"] == pytest.approx(0.5, abs=0.13)
    assert report["mAP@3"]["value"] == pytest.approx(0.5, abs=0.13)
    assert report["recall@3"]["low"] <= report["recall@3"]["value"] <= report["recall@3"]["high"]


def test_csv_is_the_same(shop: Collection, tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(photo(1, NAMES[1]))
    table = tmp_path / "truth.csv"
    table.write_text(
        "image,text,id,where,relevant\n"
        "one.jpg,,,,p1\n"
        ',"red",,"{""n"": {""lt"": 10}}",p1|p9\n'
        ",,p3,,p11|p19|\n"
    )
    truth = read_truth(table)
    assert [one.relevant for one in truth] == [("p1",), ("p1", "p9"), ("p11", "p19")]
    assert truth[1].fields == {"text": "red", "where": '{"n": {"lt": 10}}'}
    assert evaluate(shop, truth, k=5)["recall@5"]["value"] == 1


def test_a_mark_at_the_start_of_a_table_is_no_part_of_its_first_name(tmp_path: Path) -> None:
    table = tmp_path / "truth.csv"
    table.write_bytes(b"\xef\xbb\xbftext,relevant\r\nred,a|b\r\n")
    (one,) = read_truth(table)
    assert (one.fields, one.relevant) == ({"text": "red"}, ("a", "b"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.jsonl", b"", "no query"),
        ("t.jsonl", b"\n\n", "no query"),
        ("t.jsonl", b'{"text": "a", "relevant": ["b"]}\n{"text"', "line 2 is no JSON"),
        ("t.jsonl", b'["a"]', "line 1 is no JSON object"),
        ("t.jsonl", b'{"text": "a"}', "line 1: a query has one of"),
        ("t.jsonl", b'{"text": "a", "relevant": []}', "line 1: a query has one of"),
        ("t.jsonl", b'{"text": "a", "relevant": 5}', "line 1: a query has one of"),
        ("t.jsonl", b'{"text": "a", "id": "b", "relevant": ["c"]}', "line 1: a query has one of"),
        ("t.jsonl", b'{"relevant": ["c"]}', "line 1: a query has one of"),
        ("t.jsonl", b"\xff\xfe\x00", "line 1 is no JSON"),
        ("t.csv", b"", "no query"),
        ("t.csv", b"text,relevant\n", "no query"),
        ("t.csv", b"text,relevant\na,\n", "line 2: a query has one of"),
        ("t.csv", b"text,relevant\na,b\n,c\n", "line 3: a query has one of"),
        ("t.csv", b"text\na\n", "line 2: a query has one of"),
        ("t.csv", b"text,relevant\na,b,c\n", "line 2 has more values than"),
        ("t.csv", b'text,relevant\n"' + b"a" * 200_000 + b'",b\n', "no CSV"),
    ],
)
def test_truth_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequest, match=says):
        read_truth(tmp_path / name)


def test_no_such_truth(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InputNotFound):
            read_truth(path)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"image": "none.jpg"}, InvalidRequest),
        ({"image": "."}, InputError),
        ({"image": "empty.jpg"}, InputError),
        ({"image": "plain.jpg"}, UnsupportedMedia),
        ({"id": "nobody"}, NotFound),
        ({"text": "red", "colour": "red"}, InvalidRequest),
        ({"text": "red", "where": {"nothing": 1}}, InvalidRequest),
        ({"text": "unheard of"}, InvalidRequest),
        ({"text": 5}, InvalidRequest),
    ],
)
def test_queries_that_cannot_be_asked(
    shop: Collection, tmp_path: Path, row: dict[str, Any], error: type[Exception]
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "plain.jpg").write_bytes(b"no picture")
    fine = {"text": "red", "relevant": ["p1"]}
    truth = read_truth(jsonl(tmp_path / "t.jsonl", fine, {**row, "relevant": ["p1"]}))
    with pytest.raises(error, match=row.get("image") or "query 2: "):
        evaluate(shop, truth)


@pytest.mark.parametrize("k", [0, -1, 1001])
def test_k_out_of_its_limits(shop: Collection, tmp_path: Path, k: int) -> None:
    truth = read_truth(jsonl(tmp_path / "t.jsonl", {"text": "red", "relevant": ["p1"]}))
    with pytest.raises(InvalidRequest, match="k must"):
        evaluate(shop, truth, k=k)
    with pytest.raises(InvalidRequest, match="k must"):
        bench(shop, k=k)


def test_an_exact_index_is_exact(shop: Collection) -> None:
    report = bench(shop, queries=20, k=5)
    assert (report["collection"], report["items"]) == ("shop", 24)
    for kind in ("image", "text"):
        assert report[kind]["recall@5"]["value"] == 1
        assert 0 < report[kind]["p50_ms"] <= report[kind]["p95_ms"]


def test_more_results_than_items(shop: Collection, tmp_path: Path) -> None:
    assert bench(shop, queries=10, k=100)["image"]["recall@100"]["value"] == 1
    truth = read_truth(jsonl(tmp_path / "t.jsonl", {"text": "red", "relevant": ["p1"]}))
    assert evaluate(shop, truth, k=1000)["recall@1000"]["value"] == 1


def test_probes_are_like_the_queries(shop: Collection) -> None:
    found = probes(shop, shop.open_space(), 10)
    assert found["image"].shape == (10, DIM)
    assert found["text"].shape[1] == len(COLOURS)


def test_an_exact_index_needs_no_tuning(shop: Collection) -> None:
    report = tune(shop, recall=0.98, latency_ms=10)
    assert report["image"]["kind"] == report["text"]["kind"] == "flat"


def test_an_empty_collection_cannot_be_measured(folder: Path, shop: Collection) -> None:
    with Collection.open("empty", settings=shop._settings) as empty:
        with pytest.raises(InvalidRequest):
            bench(empty)
        empty.add(photo(1), id="a")
        empty.delete("a")
        with pytest.raises(InvalidRequest, match="is empty"):
            bench(empty)
