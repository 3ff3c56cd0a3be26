"""What every `Index` promises, for built-ins and for plug-ins: run each of `CHECKS`.

An index that approximates is held to a recall, an exact one to the brute-force twin's answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import IndexCorrupt, InvalidTensor, NotFound
from retinue.core.protocols import Index, IndexFactory
from retinue.testing.checks import raises

DIM = 32

Vectors: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Subject:
    """An index under test.

    Attributes:
        factory: What its plug-in exposes.
        options: Further arguments of the factory.
        count: Vectors that it is tried with.
        recall: Least recall@10 against brute force.
    """

    factory: IndexFactory
    options: dict[str, Any] = field(default_factory=dict)
    count: int = 600
    recall: float = 1.0


class World:
    """An index, and the obvious truth beside it."""

    def __init__(self, subject: Subject, seed: int = 7) -> None:
        self.subject = subject
        self.random = np.random.default_rng(seed)
        self.centres = unit(self.random.normal(size=(20, DIM)))
        self.truth: dict[int, Vectors] = {}
        self.index: Index = subject.factory(DIM, exact=self.exact, **subject.options)

    def exact(self, ids: Ids) -> Vectors:
        """Return the vectors of ids."""
        return np.stack([self.truth[one] for one in ids.tolist()])

    def vectors(self, count: int) -> Vectors:
        """Return clustered unit vectors (N, D)."""
        noise = self.random.normal(size=(count, DIM)) * 0.15
        return unit(self.centres[self.random.integers(0, len(self.centres), count)] + noise)

    def add(self, ids: Ids) -> None:
        """Add new vectors under ids, to the truth first."""
        vectors = self.vectors(len(ids))
        self.truth.update(zip(ids.tolist(), vectors, strict=True))
        self.index.add(ids, vectors)

    def remove(self, ids: Ids) -> int:
        """Remove ids."""
        for one in ids.tolist():
            self.truth.pop(one, None)
        return self.index.remove(ids)

    def check(self, index: Index | None = None, among: Ids | None = None) -> None:
        """Compare answers with the truth."""
        found_by = self.index if index is None else index
        queries, k = self.vectors(25), 10
        found, distances = found_by.query(queries, k, among=among)
        assert found.shape == distances.shape == (25, k)
        assert found.dtype == np.dtype(np.int64)
        assert distances.dtype == np.dtype(np.float32)
        allowed = self.truth if among is None else set(among.tolist()) & self.truth.keys()
        ids = np.array(sorted(allowed), np.int64)
        hits = 0
        expected = min(k, len(ids))
        for query, row, away in zip(queries, found, distances, strict=True):
            real = row[row >= 0]
            assert len(set(real.tolist())) == len(real)
            assert set(real.tolist()) <= set(ids.tolist())
            assert (np.diff(away[: len(real)]) >= 0).all()
            assert np.isinf(away[len(real) :]).all()
            if len(real):
                cosines = self.exact(real) @ query
                np.testing.assert_allclose(away[: len(real)], 1 - cosines, atol=2e-3)
            if expected:
                best = ids[np.argsort(-(self.exact(ids) @ query), kind="stable")[:expected]]
                hits += len(set(best.tolist()) & set(real.tolist()))
        if expected:
            assert hits / (25 * expected) >= self.subject.recall


def unit(vectors: NDArray[Any]) -> Vectors:
    """Return vectors of length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def filled(subject: Subject) -> World:
    """Return a world with the subject's number of vectors, added in three parts."""
    world = World(subject)
    for part in np.array_split(np.arange(subject.count, dtype=np.int64) * 3, 3):
        world.add(part)
    return world


def starts_empty(subject: Subject, folder: Path) -> None:
    """An empty index answers, with nothing."""
    world = World(subject)
    assert (len(world.index), world.index.dim) == (0, DIM)
    found, distances = world.index.query(world.vectors(2), 3)
    assert (found == -1).all()
    assert np.isinf(distances).all()
    assert world.index.remove(np.array([5])) == 0
    world.index.add(np.empty(0, np.int64), np.empty((0, DIM), np.float32))
    assert len(world.index) == 0


def finds_what_brute_force_finds(subject: Subject, folder: Path) -> None:
    """Answers are those of the truth, to the promised recall; distances are right."""
    world = filled(subject)
    assert len(world.index) == subject.count
    world.check()


def finds_fewer_than_k(subject: Subject, folder: Path) -> None:
    """Where fewer exist than are asked for, the rest is -1 and infinity."""
    world = World(subject)
    world.add(np.array([4, 9]))
    found, distances = world.index.query(world.vectors(1), 5)
    assert set(found[0, :2].tolist()) == {4, 9}
    assert (found[0, 2:] == -1).all()
    assert np.isinf(distances[0, 2:]).all()


def removes(subject: Subject, folder: Path) -> None:
    """What is removed is never found; the others keep their ids, also when most are gone."""
    world = filled(subject)
    ids = np.array(sorted(world.truth), np.int64)
    world.random.shuffle(ids)
    few, many = ids[: len(ids) // 50], ids[len(ids) // 50 : len(ids) // 2]
    assert world.remove(few) == len(few)
    assert world.remove(few) == 0
    assert len(world.index) == len(world.truth)
    world.check()
    assert world.remove(many) == len(many)
    world.check()
    assert world.remove(np.array(sorted(world.truth), np.int64)) > 0
    assert len(world.index) == 0
    assert (world.index.query(world.vectors(1), 3)[0] == -1).all()


def replaces(subject: Subject, folder: Path) -> None:
    """An id that is added again has its new vector, once; removed ids can be added again."""
    world = filled(subject)
    ids = np.array(sorted(world.truth), np.int64)[::7]
    world.add(ids)
    assert len(world.index) == len(world.truth)
    world.check()
    world.remove(ids[::2])
    world.add(ids[::2])
    assert len(world.index) == len(world.truth)
    world.check()
    found, _ = world.index.query(world.exact(ids[:5]), 1)
    assert found[:, 0].tolist() == ids[:5].tolist()


def takes_ids_in_any_order(subject: Subject, folder: Path) -> None:
    """Ids need not grow."""
    world = World(subject)
    ids = world.random.permutation(10 * subject.count)[: subject.count].astype(np.int64)
    for part in np.array_split(ids, 4):
        world.add(part)
    world.remove(ids[::5])
    world.check()


def finds_among(subject: Subject, folder: Path) -> None:
    """A filter is kept: few allowed, many, none, unknown ones, removed ones."""
    world = filled(subject)
    ids = np.array(sorted(world.truth), np.int64)
    world.check(among=ids[::40])
    world.check(among=ids[::2])
    world.check(among=np.empty(0, np.int64))
    world.check(among=np.array([1, 2, 10**12]))
    gone = ids[::40][:3]
    world.remove(gone)
    world.check(among=ids[::40])


def saves_and_loads(subject: Subject, folder: Path) -> None:
    """What is loaded answers as what was saved, and goes on from there."""
    world = filled(subject)
    world.remove(np.array(sorted(world.truth), np.int64)[::9])
    path = folder / "index"
    world.index.save(path)
    world.index = subject.factory.load(path, exact=world.exact)
    assert len(world.index) == len(world.truth)
    world.check()
    world.add(np.array([7, 8, 10]))
    world.remove(np.array([0, 3]))
    world.check()
    world.index.save(path)
    assert len(subject.factory.load(path, exact=world.exact)) == len(world.truth)
    assert [entry.name for entry in folder.iterdir()] == ["index"]


def refuses_damaged_files(subject: Subject, folder: Path) -> None:
    """A file that is cut, changed, of another kind or version, or missing, is said to be."""
    world = filled(subject)
    path = folder / "index"
    world.index.save(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    other = whole.replace(b'"format": 1', b'"format": 9', 1)
    for damaged in (
        b"",
        b"not an index",
        whole[:20],
        whole[:middle],
        whole[:-1],
        whole + b"x",
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        other,
    ):
        path.write_bytes(damaged)
        raises(IndexCorrupt, subject.factory.load, path)
    raises(NotFound, subject.factory.load, folder / "missing")


def refuses_bad_arguments(subject: Subject, folder: Path) -> None:
    """Wrong shapes and values are refused, and nothing of them is kept."""
    world = World(subject)
    index, good = world.index, world.vectors(2)
    bad = good.copy()
    bad[1, 3] = np.nan
    ids = np.array([1, 2])
    raises(InvalidTensor, index.add, ids, good[:, :-1])
    raises(InvalidTensor, index.add, ids, good[0])
    raises(InvalidTensor, index.add, ids, bad)
    raises(InvalidTensor, index.add, np.array([1]), good)
    raises(InvalidTensor, index.add, np.array([1, 1]), good)
    raises(InvalidTensor, index.add, np.array([-1, 1]), good)
    raises(InvalidTensor, index.query, bad, 1)
    raises(InvalidTensor, index.query, good[:, :-1], 1)
    raises(InvalidTensor, index.query, good, 0)
    assert len(index) == 0


Check: TypeAlias = Callable[[Subject, Path], None]

CHECKS: tuple[Check, ...] = (
    starts_empty,
    finds_what_brute_force_finds,
    finds_fewer_than_k,
    removes,
    replaces,
    takes_ids_in_any_order,
    finds_among,
    saves_and_loads,
    refuses_damaged_files,
    refuses_bad_arguments,
)
