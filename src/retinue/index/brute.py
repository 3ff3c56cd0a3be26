"""The obvious index: all cosines, then the best. Exact, and fast enough for some ten thousands."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

import numpy as np

from retinue.core.protocols import VectorSource
from retinue.index._checks import (
    Floats,
    Ids,
    check_ids,
    check_k,
    check_vectors,
    nearest,
    nothing,
)
from retinue.index._file import corrupt, read_index, write_index

KIND: Final = "brute"
# Cosines of so many vectors are held at once: 16 MB for a query.
BLOCK: Final = 4_000_000


class BruteIndex:
    """An `Index` that keeps vectors as they are and compares a query with each.

    Args:
        dim: Length of a vector.
        exact: Not needed here: the vectors themselves are kept.
    """

    def __init__(self, dim: int, *, exact: VectorSource | None = None) -> None:
        self._dim = dim
        self._ids = np.empty(0, np.int64)
        self._vectors = np.empty((0, dim), np.float32)
        self._count = 0
        self._place: dict[int, int] = {}

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    def __len__(self) -> int:
        """Vectors that can be found."""
        return self._count

    @property
    def ids(self) -> Ids:
        """All ids (N,), in no order."""
        return self._ids[: self._count]

    @property
    def vectors(self) -> Floats:
        """All vectors (N, D), in the order of `ids`."""
        return self._vectors[: self._count]

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that it takes, about."""
        # A place is an entry of a dict with two integers.
        return self._ids.nbytes + self._vectors.nbytes + 100 * self._count

    def add(self, ids: Ids, vectors: Floats) -> None:
        """Add vectors; see `retinue.core.protocols.Index`."""
        vectors = check_vectors(vectors, self._dim)
        ids = check_ids(ids, len(vectors))
        self.remove(ids)
        start, end = self._count, self._count + len(ids)
        if end > len(self._ids):
            self._grow(end)
        self._ids[start:end] = ids
        self._vectors[start:end] = vectors
        self._place.update(zip(ids.tolist(), range(start, end), strict=True))
        self._count = end

    def _grow(self, needed: int) -> None:
        size = max(needed, len(self._ids) * 3 // 2, 1024)
        ids, vectors = np.empty(size, np.int64), np.empty((size, self._dim), np.float32)
        ids[: self._count], vectors[: self._count] = self.ids, self.vectors
        self._ids, self._vectors = ids, vectors

    def remove(self, ids: Ids) -> int:
        """Remove ids; the last vector takes the place of each."""
        removed = 0
        for one in np.asarray(ids, np.int64).ravel().tolist():
            place = self._place.pop(one, None)
            if place is None:
                continue
            removed += 1
            self._count -= 1
            if place != self._count:
                moved = int(self._ids[self._count])
                self._ids[place], self._vectors[place] = moved, self._vectors[self._count]
                self._place[moved] = place
        return removed

    def query(self, vectors: Floats, k: int, *, among: Ids | None = None) -> tuple[Ids, Floats]:
        """Find the nearest; see `retinue.core.protocols.Index`."""
        vectors = check_vectors(vectors, self._dim)
        found, distances = nothing(len(vectors), check_k(k))
        ids, known = self.ids, self.vectors
        places = None
        if among is not None:
            places = np.flatnonzero(np.isin(ids, among))
            ids = ids[places]
            # Where most are allowed, comparing with all is cheaper than copying those.
            if 2 * len(places) < len(known):
                known, places = known[places], None
        if not len(ids):
            return found, distances
        step = max(1, BLOCK // len(known))
        for start in range(0, len(vectors), step):
            for row, cosines in enumerate(vectors[start : start + step] @ known.T, start):
                best, away = nearest(ids, cosines if places is None else cosines[places], k)
                found[row, : len(best)], distances[row, : len(best)] = best, away
        return found, distances

    def save(self, path: Path) -> None:
        """Write the index whole; see `retinue.core.protocols.Index`."""
        header = {"kind": KIND, "dim": self._dim, "count": self._count}

        def body(file: object) -> None:
            np.save(file, self.ids, allow_pickle=False)  # type: ignore[arg-type]
            np.save(file, self.vectors, allow_pickle=False)  # type: ignore[arg-type]

        write_index(path, header, body)

    @classmethod
    def load(cls, path: Path, *, exact: VectorSource | None = None) -> Self:
        """Read what `save` wrote; see `retinue.core.protocols.IndexFactory`."""
        with read_index(path, KIND) as (header, file):
            index = cls(int(header["dim"]))
            try:
                ids = np.load(file, allow_pickle=False)
                vectors = np.load(file, allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise corrupt(path, error) from error
        index.add(ids, vectors)
        return index


INDEX: Final = BruteIndex
