"""Milvus beyond the contract: filters in chunks, what a saved file promises, failures."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retinue.core.errors import (
    ConfigError,
    IndexCorrupt,
    MissingExtra,
    StorageError,
    Unavailable,
)
from retinue.index import _milvus
from retinue.index import milvus as module
from retinue.index.milvus import MilvusIndex
from retinue.testing.index_suite import DIM, Subject, World, filled

ONES = np.full((1, DIM), DIM**-0.5, np.float32)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("milvus") / "vectors.db")


def index_of(world: World) -> MilvusIndex:
    assert isinstance(world.index, MilvusIndex)
    return world.index


def test_large_filters_and_requests_are_cut_into_chunks(uri: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CHUNK", 100)
    monkeypatch.setattr(module, "MESSAGE", 4 * DIM * 130)
    world = filled(Subject(MilvusIndex, {"uri": uri, "rescore": 50}, 400, 0.98))
    ids = np.array(sorted(world.truth), np.int64)
    world.check(among=ids[::2])
    world.check(among=np.concatenate([ids[:150], ids[:150] + 1]))
    assert world.remove(ids[:250]) == 250
    assert len(world.index) == 150
    world.check()


def test_without_a_source_the_answers_are_those_of_milvus(uri: str):
    world = World(Subject(MilvusIndex, {"uri": uri}))
    ids = np.arange(300, dtype=np.int64)
    vectors = world.vectors(300)
    world.truth = dict(enumerate(vectors))
    world.index = MilvusIndex(DIM, uri=uri, index_type="FLAT")
    world.index.add(ids, vectors)
    world.check()
    world.check(among=ids[::3])


def test_a_file_promises_a_collection_as_it_was(uri: str, tmp_path: Path):
    world = filled(Subject(MilvusIndex, {"uri": uri}, 60))
    index, path = index_of(world), tmp_path / "index"
    index.save(path)
    assert path.stat().st_size < 1000
    world.add(np.array([1]))
    with pytest.raises(IndexCorrupt, match="61 vectors, not 60"):
        MilvusIndex.load(path)
    world.remove(np.array([1]))
    assert len(MilvusIndex.load(path)) == 60
    other = MilvusIndex(DIM + 2, uri=uri, collection=index.collection)
    assert len(other) == 0
    with pytest.raises(IndexCorrupt, match="does not hold 32 dimensions"):
        MilvusIndex.load(path)
    other.drop()
    with pytest.raises(IndexCorrupt, match="no collection"):
        MilvusIndex.load(path)
    with pytest.raises(StorageError):
        other.query(np.ones((1, DIM + 2), np.float32), 1)


def test_a_database_that_is_gone_is_corrupt(tmp_path: Path):
    path = tmp_path / "index"
    header = {"kind": module.KIND, "dim": 8, "uri": str(tmp_path / "gone.db"), "collection": "x"}
    header |= {"count": 0, "search": {}, "rescore": 9}
    module.write_index(path, header, lambda file: None)
    with pytest.raises(IndexCorrupt, match=r"gone\.db is gone"):
        MilvusIndex.load(path)
    assert not (tmp_path / "gone.db").exists()


def test_a_collection_of_the_same_name_is_replaced(uri: str):
    first = MilvusIndex(DIM, uri=uri, collection="photos-2026.image")
    first.add(np.array([5]), ONES)
    again = MilvusIndex(DIM, uri=uri, collection="photos-2026.image")
    assert again.collection == first.collection != "photos-2026.image"
    assert len(again) == 0


CHILD = """
import sys
from retinue.core.errors import Unavailable
from retinue.index.milvus import MilvusIndex
try:
    MilvusIndex(8, uri=sys.argv[1])
except Unavailable as error:
    print(error.message)
"""


def test_a_file_that_another_process_has_open_is_unavailable(uri: str):
    MilvusIndex(DIM, uri=uri).drop()
    command = [sys.executable, "-c", CHILD, uri]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "another process has it open" in done.stdout


def test_no_server_is_unavailable():
    with pytest.raises(Unavailable, match="try again later"):
        MilvusIndex(8, uri="http://127.0.0.1:1", timeout_s=1)


def test_bad_arguments_are_refused(uri: str, tmp_path: Path):
    for options in (
        {"uri": "http://root:secret@127.0.0.1:19530"},
        {"uri": str(tmp_path / "no-suffix")},
        {"uri": uri, "rescore": 0},
        {"uri": uri, "timeout_s": 0},
    ):
        with pytest.raises(ConfigError):
            MilvusIndex(8, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        MilvusIndex(1, uri=uri)
    with pytest.raises(StorageError, match="make it first"):
        MilvusIndex(8, uri=str(tmp_path / "none" / "x.db"))
    with pytest.raises(ConfigError, match="at most"):
        MilvusIndex(DIM, uri=uri).query(ONES, 20_000)


def test_without_pymilvus_the_extra_is_named(uri: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtra, match=r"retinue\[milvus\]"):
        MilvusIndex(8, uri=uri)


def test_names_that_milvus_does_not_take_stay_distinct():
    assert _milvus.named("plain_1") == "plain_1"
    assert _milvus.named("a-b") != _milvus.named("a.b")
    assert len(_milvus.named("é" * 300)) <= 255
    assert _milvus.named("") != _milvus.named("")
