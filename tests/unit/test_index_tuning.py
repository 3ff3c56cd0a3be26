"""The tuner: exact neighbours, what it chooses, and what it says when nothing is enough."""

from dataclasses import dataclass

import numpy as np
import pytest

from retinue.core.errors import InvalidTensor
from retinue.index import tuning
from retinue.index.brute import BruteIndex
from retinue.index.faiss import FaissIndex
from retinue.index.tuning import exact_neighbours, tune
from retinue.testing.index_suite import DIM, Ids, Subject, Vectors, World, unit


def world_of(count: int = 1500, **options: object) -> World:
    world = World(Subject(FaissIndex, {"flat_up_to": 500, **options}))
    world.centres = unit(world.random.normal(size=(400, DIM)))
    world.add(np.arange(count, dtype=np.int64) * 2)
    return world


def index_of(world: World) -> FaissIndex:
    assert isinstance(world.index, FaissIndex)
    return world.index


def test_exact_neighbours_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tuning, "BLOCK", 70)
    world = world_of(500)
    ids = np.array(sorted(world.truth), np.int64)
    brute = BruteIndex(DIM)
    brute.add(ids, world.exact(ids))
    queries = world.vectors(20)
    found, away = exact_neighbours(world.exact, ids, queries, 10)
    expected, distances = brute.query(queries, 10)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(away, distances, atol=1e-6)
    few, far = exact_neighbours(world.exact, ids[:3], queries, 5)
    assert (few[:, 3:] == -1).all()
    assert np.isinf(far[:, 3:]).all()


@pytest.mark.parametrize("kind", ["pq4", "rabitq", "pq", "hnsw"])
def test_it_finds_a_setting_that_is_enough(kind: str):
    world = world_of(kind=kind, code_bytes=16, nprobe=1, rescore=1)
    index, queries = index_of(world), world.vectors(60)
    truth = exact_neighbours(world.exact, np.array(sorted(world.truth)), queries, 10)
    tuned = tune(index, queries, truth, recall=0.95, latency_ms=1000)
    assert tuned.reached, tuned.why
    assert tuned.recall >= tuned.lower >= 0.95
    assert (index.nprobe, index.rescore) == (tuned.nprobe, tuned.rescore)
    assert tuned.nprobe <= (index.lists or tuning.GRAPH_PROBES)
    assert len(tuned.tried) < 40
    assert tuned.why.startswith("the quickest with recall 0.95")


@dataclass
class Known:
    """An index whose recall and time are formulas, beside the truth that it hides."""

    truth: Ids
    queries: Vectors
    least: int
    nprobe: int = 1
    rescore: int = 1
    dim: int = DIM
    kind: str = "rabitq"
    lists: int = 100
    exact_distances: bool = True

    def query(self, vectors: Vectors, k: int) -> tuple[Ids, Vectors]:
        row = int(np.argmax(self.queries @ vectors[0]))
        found = self.truth[row : row + 1].copy()
        if self.nprobe < self.least or self.rescore < 100:
            found[0, k // 2 :] = 10**6 + np.arange(k - k // 2)
        return found, np.where(found < 10**6, 0.1, 0.9).astype(np.float32)


def known(least: int) -> tuple[Known, Vectors, tuple[Ids, Vectors]]:
    queries = World(Subject(BruteIndex)).vectors(300)
    ids = np.arange(3000, dtype=np.int64).reshape(300, 10)
    return Known(ids, queries, least), queries, (ids, np.full((300, 10), 0.1, np.float32))


def test_bisection_finds_the_fewest_probes():
    index, queries, truth = known(20)
    tuned = tune(index, queries, truth, latency_ms=1e6)
    assert tuned.reached
    assert tuned.nprobe == 32
    assert tuned.rescore >= 100
    assert tuned.recall == 1
    assert tuned.lower < 1
    halves = {(trial.nprobe, trial.rescore): trial.recall for trial in tuned.tried}
    assert halves[16, 100] == 0.5


def test_what_cannot_be_reached_is_said():
    index, queries, truth = known(1000)
    tuned = tune(index, queries, truth, latency_ms=1e6)
    assert not tuned.reached
    assert tuned.recall == 0.5
    assert "no setting has recall 0.98" in tuned.why
    index, queries, truth = known(20)
    assert not tune(index, queries, truth, latency_ms=0).reached


def test_equally_near_neighbours_are_as_good():
    index, queries, truth = known(1)
    index.truth = truth[0] + 5000
    assert tune(index, queries, truth, latency_ms=1e6).recall == 1
    index.exact_distances = False
    assert tune(index, queries, truth, latency_ms=1e6).recall == 0


def test_exact_search_needs_no_tuning():
    world = world_of(400)
    queries = world.vectors(160)
    truth = exact_neighbours(world.exact, np.array(sorted(world.truth)), queries, 10)
    tuned = tune(index_of(world), queries, truth, latency_ms=1000)
    assert (tuned.reached, len(tuned.tried)) == (True, 1)
    assert (tuned.nprobe, tuned.rescore) == (32, 200)


def test_few_queries_show_nothing():
    index, queries, (ids, away) = known(1)
    with pytest.raises(InvalidTensor, match="at least 40"):
        tune(index, queries[:39], (ids[:39], away[:39]))
    with pytest.raises(InvalidTensor, match="truth must be"):
        tune(index, queries, (ids, away), k=5)
