"""FAISS beyond the contract: when it trains, what re-scoring gives, crashes and full disks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from retinue.core.errors import ConfigError, IndexCorrupt
from retinue.index import faiss as module
from retinue.index.brute import BruteIndex
from retinue.index.faiss import FaissIndex
from retinue.testing.index_suite import DIM, Subject, World, filled


def coded(count: int = 2400, **options: object) -> World:
    return filled(Subject(FaissIndex, {"flat_up_to": 500, "nprobe": 64, **options}, count, 0.98))


def test_it_trains_itself_once_exact_search_is_too_much():
    world = World(Subject(FaissIndex, {"flat_up_to": 500}))
    index = world.index
    assert isinstance(index, FaissIndex)
    world.add(np.arange(500))
    assert not index.trained
    world.add(np.arange(500, 501))
    assert index.trained
    assert (len(index), index.trained_for) == (501, 501)


def test_distances_without_exact_vectors_are_those_of_the_codes():
    world = coded()
    blind = FaissIndex(DIM, flat_up_to=500, nprobe=64)
    ids = np.array(sorted(world.truth), np.int64)
    blind.add(ids, world.exact(ids))
    queries = world.vectors(50)
    truth, _ = BruteIndex.query(_brute(world), queries, 10)
    recall = {
        name: np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth, found, strict=True)])
        for name, found in (
            ("exact", world.index.query(queries, 10)[0]),
            ("codes", blind.query(queries, 10)[0]),
        )
    }
    assert recall["exact"] >= 0.98
    assert 0.2 < recall["codes"] < recall["exact"]


def _brute(world: World) -> BruteIndex:
    brute = BruteIndex(DIM)
    ids = np.array(sorted(world.truth), np.int64)
    brute.add(ids, world.exact(ids))
    return brute


@pytest.mark.parametrize(
    ("kind", "drops"), [("pq4", False), ("rabitq", True), ("pq", True), ("hnsw", False)]
)
def test_codes_of_what_was_removed_are_dropped_many_at_a_time(kind: str, drops: bool):
    world = coded(kind=kind, code_bytes=16)
    index = world.index
    assert isinstance(index, FaissIndex)
    ids = np.array(sorted(world.truth), np.int64)
    world.remove(ids[:100])
    assert index._coded.ntotal == 2400
    world.remove(ids[100:600])
    assert index._coded.ntotal == (1800 if drops else 2400)
    world.check()


def test_hundreds_are_removed_in_a_second():
    world = coded()
    start = time.perf_counter()
    for one in np.array(sorted(world.truth), np.int64)[:500]:
        world.index.remove(np.array([one]))
    # Not a measurement: a rebuild for each removal would take minutes.
    assert time.perf_counter() - start < 10
    assert len(world.index) == 1900


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "tree"},
        {"flat_up_to": 10},
        {"nprobe": 0},
        {"rescore": 0},
        {"kind": "pq", "code_bytes": 5},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]):
    with pytest.raises(ConfigError):
        FaissIndex(DIM, **options)  # type: ignore[arg-type]


def test_a_body_that_faiss_cannot_read_is_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = coded()
    path = tmp_path / "index"

    def cut(index: object, writer: object) -> None:
        writer.write(b"IxXX")  # type: ignore[attr-defined]

    class Writer:
        def __init__(self, write: object) -> None:
            self.write = write

    with monkeypatch.context() as patch:
        patch.setattr(module.faiss, "PyCallbackIOWriter", Writer)
        patch.setattr(module.faiss, "write_index", cut)
        world.index.save(path)
    with pytest.raises(IndexCorrupt, match="built anew"):
        FaissIndex.load(path)


# Each child is a process of its own, forked once what all import is imported.
PARENT = """
import json, os, sys
from pathlib import Path
import numpy as np
from retinue.index.faiss import FaissIndex

def work(path):
    random = np.random.default_rng(1)
    vectors = random.normal(size=(3000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FaissIndex(64, flat_up_to=500)
    for count in range(1000, 3000):
        index.add(np.arange(len(index), count), vectors[len(index):count])
        index.save(path)
        print(json.dumps(count), flush=True)

for line in sys.stdin:
    child = os.fork()
    if not child:
        work(Path(sys.argv[1]))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


def test_killed_while_saving_the_old_or_the_new_index_is_there(tmp_path: Path):
    path = tmp_path / "index"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for number in range(8):
            parent.stdin.write("go\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            saved = json.loads(parent.stdout.readline())
            time.sleep(0.013 * number)
            os.kill(child, signal.SIGKILL)
            while (line := parent.stdout.readline()) != "ended\n":
                saved = max(saved, int(line))
            assert saved <= len(FaissIndex.load(path)) <= saved + 1
        parent.stdin.close()


FULL = """
import signal, resource, sys
from pathlib import Path
import numpy as np
from retinue.core.errors import StorageError
from retinue.index.brute import BruteIndex
index = BruteIndex(64)
vectors = np.zeros((1000, 64), np.float32); vectors[:, 0] = 1
index.add(np.arange(10), vectors[:10])
index.save(Path(sys.argv[1]))
index.add(np.arange(1000), vectors)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    index.save(Path(sys.argv[1]))
except StorageError as error:
    print("refused", error.message)
"""


def test_on_a_full_disk_the_old_index_stays(tmp_path: Path):
    path = tmp_path / "index"
    done = subprocess.run(
        [sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("refused writing the index")
    assert len(BruteIndex.load(path)) == 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_many_queries_at_once_are_answered_as_one_by_one(monkeypatch: pytest.MonkeyPatch):
    world = coded()
    queries = world.vectors(30)
    single = [world.index.query(one[None], 10) for one in queries]
    monkeypatch.setattr(module, "AT_ONCE", 5 * 200 * DIM)
    for found, away in (world.index.query(queries, 10), world.index.query(queries[:0], 10)):
        assert found.shape == away.shape == (len(found), 10)
        for row in range(len(found)):
            assert found[row].tolist() == single[row][0][0].tolist()
            np.testing.assert_allclose(away[row], single[row][1][0], atol=1e-6)


def test_the_rows_of_a_batch_are_read_together():
    calls: list[int] = []
    world = coded()
    index = world.index
    assert isinstance(index, FaissIndex)

    def exact(ids: np.ndarray) -> np.ndarray:
        calls.append(len(ids))
        return world.exact(ids)

    index._exact = exact
    index.query(world.vectors(10), 10)
    assert calls == [2000]


def test_large_filters_of_coded_vectors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "EXACT_AMONG", 10)
    world = coded()
    ids = np.array(sorted(world.truth), np.int64)
    world.check(among=ids[::2])
    world.check(among=world.random.permutation(np.concatenate([ids[::3], ids[::3] + 1, [-4]])))
    world.remove(ids[::4])
    world.check(among=ids[::2])


def test_it_says_what_it_is_and_takes():
    world = World(Subject(FaissIndex, {"flat_up_to": 500}))
    index = world.index
    assert isinstance(index, FaissIndex)
    world.add(np.arange(500))
    assert index.stats()["kind"] == index.kind == "flat"
    assert index.memory_bytes >= 500 * DIM * 4
    world.add(np.arange(500, 20_500))
    world.remove(np.arange(10))
    stats = index.stats()
    assert (stats["kind"], stats["vectors"], stats["hidden"]) == ("pq4", 20_490, 10)
    shared = 4 * DIM * (index.lists + DIM)
    assert (index.memory_bytes - shared) / 20_490 <= 12 + 8 + 13


@pytest.mark.parametrize("kind", ["pq4", "rabitq", "pq", "hnsw"])
def test_the_estimate_of_memory_is_near_the_file(kind: str, tmp_path: Path):
    world = coded(6000, kind=kind, code_bytes=16)
    index = world.index
    assert isinstance(index, FaissIndex)
    assert index.kind == kind
    index.save(tmp_path / "index")
    # Room to grow is in memory only, links of a graph that lead nowhere are too.
    assert 0.8 < index.memory_bytes / (tmp_path / "index").stat().st_size < 1.6


def test_what_is_added_after_removals_is_found() -> None:
    world = coded(kind="pq4")
    ids = np.array(sorted(world.truth), np.int64)
    world.remove(ids[:900])
    world.add(np.arange(50_000, 50_100))
    vectors = world.exact(np.arange(50_000, 50_100))
    found, _ = world.index.query(vectors, 1)
    assert (found[:, 0] == np.arange(50_000, 50_100)).mean() > 0.95
    index = world.index
    assert isinstance(index, FaissIndex)
    assert index.hidden == 900


def test_a_large_index_trains_on_enough_vectors_for_its_lists() -> None:
    index = FaissIndex(16, flat_up_to=500, expected=40_000)
    vectors = np.random.default_rng(0).standard_normal((31_250, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index.add(np.arange(19_000), vectors[:19_000])
    assert not index.trained
    index.add(np.arange(19_000, 31_250), vectors[19_000:])
    assert index.trained
    # 4 sqrt(40,000), which 39 vectors each of the first 20,000 would not have trained.
    assert index.lists == 800
