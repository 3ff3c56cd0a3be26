"""``retinue search`` as a user runs it: a real process with a real, tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retinue.apps.search.api import Collection
from retinue.core.settings import Settings
from retinue.testing.embedders import COLOURS, EMBEDDER, install, photo

NAMES = list(COLOURS)
FIELDS = {
    *("rank", "id", "path", "score", "relevance", "stages", "width", "height", "meta"),
    *("thumbnail", "duplicates", "regions"),
}


# Each command is a process of its own; what all import is imported once, before they part.
PARENT = """
import json, os, sys
from retinue.host import cli
import cv2, faiss, onnxruntime, pdqhash, rich.table, tokenizers
import retinue.apps.search.api, retinue.apps.search.indexing, retinue.apps.search.evaluate
import retinue.apps.search.command, retinue.models.text
for line in sys.stdin:
    words = json.loads(line)
    child = os.fork()
    if not child:
        sys.argv = ["retinue", "search", *words]
        for number, name in ((1, "out"), (2, "errors")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = 99
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Shell:
    """A folder with settings, in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        install(folder / "cache", folder / "made")
        (folder / "retinue.toml").write_text(f'[apps.search]\nmodel = "{EMBEDDER}"\n')
        self.environment = {
            **os.environ,
            "RETINUE_HOME": str(folder / "home"),
            "RETINUE_CACHE": str(folder / "cache"),
            "COLUMNS": "200",
        }

        self.parent = self.start("-c", PARENT)

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )

    def run(self, *words: str | Path, code: int = 0) -> tuple[str, str]:
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        self.parent.stdin.write(json.dumps([*map(str, words)]) + "\n")
        self.parent.stdin.flush()
        said = self.parent.stdout.readline()
        out, errors = ((self.folder / name).read_text() for name in ("out", "errors"))
        assert said == f"{code}\n", (said, out, errors)
        assert "Traceback" not in errors
        return out, errors

    def lines(self, *words: str | Path) -> list[dict[str, Any]]:
        out, errors = self.run(*words, "--json")
        assert errors == ""
        return [json.loads(line) for line in out.splitlines()]

    def ids(self, *words: str | Path) -> list[str]:
        return [one["id"] for one in self.lines("query", *words, "-c", "shop")]

    def fails(self, code: int, says: str, *words: str | Path) -> None:
        out, errors = self.run(*words, code=code)
        assert out == ""
        assert says in errors, errors
        assert errors.startswith("retinue: [")
        assert len(errors.splitlines()) == 1

    def library(self) -> Settings:
        return Settings(
            home=self.folder / "home",
            cache=self.folder / "cache",
            apps={"search": {"model": EMBEDDER}},
        )


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Commands where a table of 16 photos, and one that is none, is indexed already."""
    made = Shell(tmp_path_factory.mktemp("cli"))
    folder = made.folder / "photos"
    folder.mkdir()
    rows = ["id,path,colour,price"]
    for number in range(16):
        (folder / f"{number}.jpg").write_bytes(photo(number, NAMES[number % 8]))
        rows.append(f"p{number},photos/{number}.jpg,{NAMES[number % 8]},{number}")
    (folder / "bad.jpg").write_bytes(b"no picture")
    (made.folder / "red").write_bytes(photo(5, NAMES[5]))  # a file that is called like a word
    (made.folder / "shop.csv").write_text("\n".join([*rows, "bad,photos/bad.jpg,none,0"]))
    (report,) = made.lines("index", "shop.csv", "-c", "shop")
    expected = {
        "collection": "shop",
        "model": EMBEDDER,
        "indexed": 16,
        "unchanged": 0,
        "failed": 1,
        "removed": 0,
        "in_groups_of_duplicates": 0,
        "whole": True,
    }
    assert {name: report[name] for name in expected} == expected
    assert set(report) == {*expected, "seconds", "images_a_second"}
    yield made
    with made.parent:
        made.parent.communicate(timeout=30)


def test_a_second_run_is_told_to_people(shell: Shell) -> None:
    out, errors = shell.run("index", "shop.csv", "-c", "shop", "--remove")
    assert "shop: 0 indexed" in out
    assert "16 unchanged, 1 failed, 0 removed" in out
    assert "retinue search failures -c shop" in out
    assert errors == ""


def test_lines_have_exactly_these_fields(shell: Shell) -> None:
    found = shell.lines("query", "photos/3.jpg", "-c", "shop", "-k", "4")
    assert [one["rank"] for one in found] == [1, 2, 3, 4]
    assert all(set(one) == FIELDS for one in found)
    first = found[0]
    assert (first["id"], first["width"], first["height"]) == ("p3", 160, 120)
    assert first["path"].endswith("photos/3.jpg")
    assert first["meta"] == {"colour": "blue", "price": 3}
    assert first["thumbnail"] == "/v1/search/shop/items/p3/thumbnail"
    assert {"ann", "tokens"} <= set(first["stages"])


def test_a_table_for_people(shell: Shell) -> None:
    out, _ = shell.run("query", "green", "-c", "shop", "-k", "2")
    assert out.split()[:4] == ["rank", "id", "score", "relevance"]
    assert "16 items of shop searched in" in out
    assert f"({EMBEDDER}@" in out


def test_a_text_that_is_a_files_name(shell: Shell) -> None:
    assert shell.ids("red", "-k", "1") == ["p5"]
    assert set(shell.ids("red", "--text", "-k", "2")) == {"p1", "p9"}


def test_items_mixtures_and_conditions(shell: Shell) -> None:
    assert shell.ids("p1", "--id", "-k", "1") == ["p9"]
    more = ("--and", "green", "--where", '{"price": {"lt": 8}}', "-k", "3")
    assert set(shell.ids("red", "--text", *more)) < {"p0", "p1", "p2", "p4"}  # all without blue
    less = shell.ids("yellow", "--not", "green", "-k", "16")
    assert less.index("p1") < less.index("p2")
    whole = shell.ids("photos/3.jpg", "--box", "0,0,160,120", "-k", "1", "--offset", "0")
    assert whole == ["p3"]


def test_what_cannot_be_asked_has_its_exit_code(shell: Shell) -> None:
    at = ("-c", "shop")
    shell.fails(64, "k must be 1 to 1000", "query", "red", *at, "-k", "0")
    shell.fails(64, "did you mean 'colour'", "query", "blue", *at, "--where", '{"color": "red"}')
    shell.fails(66, "nobody", "query", "blue", "-c", "nobody")
    shell.fails(65, "looks like plain text", "query", "photos/bad.jpg", *at)


def test_what_cannot_be_indexed_has_its_exit_code(shell: Shell) -> None:
    shell.fails(66, "nowhere", "index", "nowhere", "-c", "other")
    shell.fails(64, "no collection's name", "index", "photos", "-c", "a/b")
    shell.fails(66, "nobody", "index", "photos", "-c", "other", "--model", "nobody")


def test_failures_are_listed(shell: Shell) -> None:
    out, _ = shell.run("failures", "-c", "shop")
    (one,) = map(json.loads, out.splitlines())
    assert one["path"].endswith("photos/bad.jpg")
    assert one["error"]["code"] == "unsupported_media"


def test_collections_are_listed(shell: Shell) -> None:
    (one,) = [row for row in shell.lines("list") if row["name"] == "shop"]
    assert one["items"] == 16
    assert one["failures"] == 1
    assert one["models"][0].startswith(f"{EMBEDDER}@")
    out, _ = shell.run("list")
    assert "Collections" in out
    assert "shop" in out


def test_known_answers_are_measured(shell: Shell) -> None:
    rows = [
        {"image": "photos/1.jpg", "relevant": ["p1"]},
        {"text": "green", "relevant": ["p2", "p10"]},
        {"id": "p3", "relevant": ["p11"]},
    ]
    truth = shell.folder / "truth.jsonl"
    truth.write_text("\n".join(map(json.dumps, rows)))
    ask = ("eval", "--collection", "shop", "-k", "3", "--ground-truth")
    (report,) = shell.lines(*ask, truth)
    assert report["queries"] == 3
    assert report["recall@3"]["value"] == report["mAP@3"]["value"] == 1
    table = shell.folder / "truth.csv"
    table.write_text("text,relevant\ngreen,p2|p10\nblue,p3|p11\n")
    out, _ = shell.run(*ask, table)
    assert "recall@3" in out
    table.write_text("text,relevant\ngreen,p2|p10\nblue\n")
    shell.fails(64, "line 3", *ask, table)
    truth.write_text('{"text": "green", "relevant": ["p2"]}\n{"text": green}\n')
    shell.fails(64, "line 2 is no JSON", *ask, truth)


def test_an_index_is_measured(shell: Shell) -> None:
    (report,) = shell.lines("bench", "-c", "shop", "-k", "5", "--queries", "10")
    assert (report["collection"], report["items"]) == ("shop", 16)
    assert report["image"]["recall@5"]["value"] == 1


def test_items_and_collections_are_deleted(shell: Shell) -> None:
    with Collection.open("bin", settings=shell.library()) as opened:
        for number in range(3):
            opened.add(photo(number), id=f"b{number}")
    shell.fails(64, "--yes", "delete", "-c", "bin")
    assert "2 items deleted" in shell.run("delete", "-c", "bin", "b0", "b2", "nobody")[0]
    assert "1 items deleted" in shell.run("delete", "-c", "bin", "--yes")[0]
    shell.fails(66, "bin", "delete", "-c", "bin", "--yes")


def test_a_run_beside_another_is_refused(shell: Shell) -> None:
    with (
        Collection.open("held", settings=shell.library()) as held,
        held._library.writer(held._opened.collection),
    ):
        shell.fails(75, f"(process {os.getpid()})", "index", "photos", "-c", "held")
        assert shell.lines("query", "red", "--text", "-c", "held") == []


def test_a_run_that_is_interrupted_goes_on(shell: Shell) -> None:
    many = shell.folder / "many"
    many.mkdir()
    pictures = [photo(number, width=1200) for number in range(8)]
    for number in range(300):
        (many / f"{number:03}.jpg").write_bytes(pictures[number % 8])
    words = ("-m", "retinue", "search", "index", "many", "-c", "many", "--json", "--threads", "1")
    with (
        Collection.open("many", settings=shell.library()) as watched,
        shell.start(*words) as process,
    ):
        end = time.monotonic() + 60
        while not len(watched) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
        kept = len(watched)
    assert 0 < kept < 300
    (report,) = shell.lines("index", "many", "-c", "many")
    assert report["indexed"] + report["unchanged"] == 300
    assert report["unchanged"] == kept
