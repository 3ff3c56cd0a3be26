"""FAISS: exact while small, then inverted lists of short codes with exact re-scoring.

The codes are product quantisation's (H. Jegou et al., TPAMI 2011), with 4 bits for every two
dimensions, which are compared in registers (F. Andre et al., VLDB 2015), or with 8 bits; RaBitQ's
(J. Gao, C. Long: arXiv:2405.12497); or there are none and a graph is walked (HNSW,
arXiv:1603.09320). FAISS sees positions, never ids: a position is given once and never moves,
because FAISS shifts or refuses ids after removals in several of its indexes. What is removed is
hidden at once and dropped later.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import numpy as np

from retinue.core.errors import ConfigError
from retinue.core.protocols import VectorSource
from retinue.index._checks import (
    Floats,
    Ids,
    check_ids,
    check_k,
    check_vectors,
    nearest,
    nearest_rows,
    nothing,
)
from retinue.index._file import corrupt, read_index, write_index
from retinue.index._labels import Labels, Mask
from retinue.index.brute import BruteIndex

# Its types are SWIG's, which name neither arguments nor all classes.
faiss: Any = importlib.import_module("faiss")

Kind = Literal["pq4", "rabitq", "pq", "hnsw"]
KINDS: Final = get_args(Kind)
DROPS: Final = ("rabitq", "pq")
"""Kinds whose codes can be dropped: after that, FAISS 1.15 garbles what is added to the blocks of
"pq4", and nothing leaves a graph."""

KIND: Final = "faiss"
EXACT_AMONG: Final = 5_000
"""Where a filter leaves so few, they are compared exactly instead of searched for."""
MOST_PROBES: Final = 32
"""How many times ``nprobe`` lists are looked at where a filter leaves little of each."""
AT_ONCE: Final = 2**20
"""Floats of candidates' vectors that are read and compared at a time, at least one query's."""
PER_LIST: Final = 39
"""Vectors that an inverted list is trained on, at least."""
DROP_AT: Final = 0.1
"""Share of removed vectors from which their codes are dropped."""


class FaissIndex:
    """An `Index` that is exact up to ``flat_up_to`` vectors, and trains itself beyond.

    Args:
        dim: Length of a vector.
        exact: Gives exact vectors by id. With it the best ``rescore`` candidates are compared
            exactly and distances are exact; without it distances are those of the codes, and
            recall is much lower.
        kind: "pq4", "rabitq" and "pq" (codes in inverted lists, the quickest to ask first), or
            "hnsw" (a graph over 16-bit floats: the most memory). What is removed stays in "pq4" and
            "hnsw", hidden, until the index is built anew; see `hidden`.
        flat_up_to: Vectors up to which nothing is approximated; at least 256.
        expected: Vectors that it is built for; 0 for as many as there are when it trains. Where
            it is large, nothing is approximated until there are enough to train its lists on.
        nprobe: Inverted lists that are looked at; for "hnsw" an eighth of ``efSearch``.
        rescore: Candidates that are compared exactly, at least 4 k.
        code_bytes: Bytes of a code of "pq"; must divide ``dim``.

    Raises:
        ConfigError: an argument is out of range, or ``code_bytes`` does not divide ``dim``.
    """

    def __init__(
        self,
        dim: int,
        *,
        exact: VectorSource | None = None,
        kind: Kind = "pq4",
        flat_up_to: int = 50_000,
        expected: int = 0,
        nprobe: int = 32,
        rescore: int = 200,
        code_bytes: int = 64,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"index kind must be one of {', '.join(KINDS)}, not {kind!r}")
        if flat_up_to < 256 or min(dim, nprobe, rescore, code_bytes) < 1:
            raise ConfigError("flat_up_to must be at least 256, the other sizes at least 1")
        if kind == "pq" and dim % code_bytes:
            raise ConfigError(f"code_bytes {code_bytes} does not divide {dim} dimensions")
        self._dim, self._exact = dim, exact
        self._options: dict[str, Any] = {
            "kind": kind,
            "flat_up_to": flat_up_to,
            "expected": expected,
            "code_bytes": code_bytes,
        }
        self.nprobe, self.rescore = nprobe, rescore
        self._flat: BruteIndex | None = BruteIndex(dim)
        self._coded: Any = None
        self._labels = Labels()

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    @property
    def trained(self) -> bool:
        """Whether it has left exact search behind."""
        return self._flat is None

    @property
    def trained_for(self) -> int:
        """Vectors that its number of inverted lists suits; build anew at four times as many."""
        return int(self._options["expected"])

    @property
    def kind(self) -> str:
        """How it searches now: "flat" until it trains, then as it was asked to."""
        return "flat" if self._flat is not None else str(self._options["kind"])

    @property
    def exact_distances(self) -> bool:
        """Whether distances are those of the vectors, not of their codes."""
        return self._flat is not None or self._exact is not None

    @property
    def lists(self) -> int:
        """Inverted lists; 0 where there are none."""
        if self.kind in ("flat", "hnsw"):
            return 0
        return int(faiss.extract_index_ivf(self._coded).nlist)

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that it takes, about: what grows with vectors, lists and dimensions."""
        if self._flat is not None:
            return self._flat.memory_bytes
        held, square = int(self._coded.ntotal), 4 * self._dim**2
        if self.kind == "hnsw":
            # 16-bit floats; 64 links below and 32 in each of 1/31 levels above; offset, level.
            return held * (2 * self._dim + 4 * 66 + 12) + self._labels.nbytes
        code = int(faiss.extract_index_ivf(self._coded).code_size) + 8
        shared = 4 * self._dim * self.lists + square
        return held * code + shared + self._labels.nbytes

    def stats(self) -> dict[str, int | str]:
        """Return what an operator may want to see of it: kind, sizes, settings of the search."""
        return {
            "kind": self.kind,
            "vectors": len(self),
            "hidden": self.hidden,
            "trained_for": self.trained_for,
            "lists": self.lists,
            "nprobe": self.nprobe,
            "rescore": self.rescore,
            "memory_bytes": self.memory_bytes,
        }

    @property
    def hidden(self) -> int:
        """Removed vectors that still take memory and time."""
        return len(self._labels.hidden)

    def __len__(self) -> int:
        """Vectors that can be found."""
        return len(self._labels) if self._flat is None else len(self._flat)

    def add(self, ids: Ids, vectors: Floats) -> None:
        """Add vectors; see `retinue.core.protocols.Index`."""
        vectors = check_vectors(vectors, self._dim)
        ids = check_ids(ids, len(vectors))
        if self._flat is None:
            self._add_coded(ids, vectors)
            return
        self._flat.add(ids, vectors)
        if len(self._flat) > self._flat_up_to():
            self._train(self._flat)

    def _flat_up_to(self) -> int:
        """Return the vectors up to which it stays exact: enough to train its lists on, if it can.

        A build of ten million in parts would otherwise learn from its first few parts, and have
        so few lists that each is long.
        """
        bound, expected = int(self._options["flat_up_to"]), int(self._options["expected"])
        if self._options["kind"] == "hnsw":
            return bound
        return max(bound, min(expected // 2, PER_LIST * _lists(expected, expected)))

    def _train(self, flat: BruteIndex) -> None:
        count = max(int(self._options["expected"]), len(flat))
        self._options["expected"] = count
        self._coded = _make(self._dim, self._options, _lists(count, len(flat)))
        order = np.argsort(flat.ids)
        vectors = flat.vectors[order]
        self._coded.train(vectors)
        self._flat = None
        self._add_coded(flat.ids[order], vectors)

    def _add_coded(self, ids: Ids, vectors: Floats) -> None:
        self._labels.remove(ids)
        positions = self._labels.append(ids)
        if self._options["kind"] == "hnsw":
            self._coded.add(vectors)
        else:
            self._coded.add_with_ids(vectors, positions)
        self._drop()

    def remove(self, ids: Ids) -> int:
        """Remove ids; they are hidden at once, their codes are dropped many at a time."""
        if self._flat is not None:
            return self._flat.remove(ids)
        removed = self._labels.remove(np.asarray(ids, np.int64).ravel())
        self._drop()
        return removed

    def _drop(self) -> None:
        hidden = self._labels.hidden
        if self._options["kind"] not in DROPS or len(hidden) <= DROP_AT * len(self._labels):
            return
        self._coded.remove_ids(faiss.IDSelectorBatch(hidden))
        self._labels.dropped()

    def query(self, vectors: Floats, k: int, *, among: Ids | None = None) -> tuple[Ids, Floats]:
        """Find the nearest; see `retinue.core.protocols.Index`."""
        if self._flat is not None:
            return self._flat.query(vectors, k, among=among)
        vectors = check_vectors(vectors, self._dim)
        found, distances = nothing(len(vectors), check_k(k))
        if not len(vectors):
            return found, distances
        mask = None if among is None else self._labels.mask(np.asarray(among, np.int64).ravel())
        allowed = len(self._labels) if mask is None else int(np.count_nonzero(mask))
        if mask is not None and self._exact is not None and allowed <= EXACT_AMONG:
            ids = self._labels.ids(np.flatnonzero(mask))
            if len(ids):
                known = self._exact(ids)
                for row, vector in enumerate(vectors):
                    best, away = nearest(ids, known @ vector, k)
                    found[row, : len(best)], distances[row, : len(best)] = best, away
            return found, distances
        wanted = max(self.rescore, 4 * k) if self._exact is not None else k
        wanted = min(wanted, allowed)
        if not wanted:
            return found, distances
        share = allowed / len(self._labels)
        selector = self._selector(mask)
        cosines, positions = self._search(vectors, wanted, selector, share)
        # So many queries at a time that the vectors of their candidates fit into caches.
        step = max(1, AT_ONCE // (wanted * self._dim))
        for start in range(0, len(vectors), step):
            rows = slice(start, start + step)
            ids, values = self._rescored(vectors[rows], cosines[rows], positions[rows])
            best, away = nearest_rows(ids, values, k)
            found[rows, : best.shape[1]], distances[rows, : best.shape[1]] = best, away
        return found, distances

    def _rescored(self, vectors: Floats, cosines: Floats, positions: Ids) -> tuple[Ids, Floats]:
        """Return candidates (Q, N) as ids, -1 for none, with cosines that are exact if they can."""
        hit = positions >= 0
        ids, values = np.full(hit.shape, -1, np.int64), np.full(hit.shape, -np.inf, np.float32)
        ids[hit] = self._labels.ids(positions[hit])
        if self._exact is None:
            values[hit] = cosines[hit]
        elif hit.any():
            known, start = self._exact(ids[hit]), 0
            for row, count in enumerate(hit.sum(axis=1).tolist()):
                values[row, hit[row]] = known[start : start + count] @ vectors[row]
                start += count
        return ids, values

    def _selector(self, mask: Mask | None) -> Any:
        """Return FAISS' selector of positions, None where all that FAISS holds may be found."""
        if mask is None and not self._labels.hides:
            return None
        packed = self._labels.packed() if mask is None else np.packbits(mask, bitorder="little")
        return faiss.IDSelectorBitmap(packed)

    def _search(
        self, vectors: Floats, wanted: int, selector: Any, share: float
    ) -> tuple[Floats, Ids]:
        # Where a filter hides most of a list, more lists are needed for as many candidates.
        probes = self.nprobe * min(MOST_PROBES, math.ceil(1 / max(share, 1e-6)))
        if self._options["kind"] == "hnsw":
            depth = max(wanted, 8 * probes)
            parameters = faiss.SearchParametersHNSW(efSearch=depth, sel=selector)
        else:
            inner = faiss.SearchParametersIVF(nprobe=min(probes, self.lists), sel=selector)
            parameters = faiss.SearchParametersPreTransform(index_params=inner)
        cosines, positions = self._coded.search(vectors, wanted, params=parameters)
        return cosines, positions

    def save(self, path: Path) -> None:
        """Write the index whole; see `retinue.core.protocols.Index`."""
        header = {
            "kind": KIND,
            "dim": self._dim,
            "options": self._options,
            "nprobe": self.nprobe,
            "rescore": self.rescore,
            "faiss": faiss.__version__,
            "trained": self.trained,
        }

        def body(file: Any) -> None:
            if self._flat is not None:
                np.save(file, self._flat.ids, allow_pickle=False)
                np.save(file, self._flat.vectors, allow_pickle=False)
                return
            for array in self._labels.state():
                np.save(file, array, allow_pickle=False)
            faiss.write_index(self._coded, faiss.PyCallbackIOWriter(file.write))

        write_index(path, header, body)

    @classmethod
    def load(cls, path: Path, *, exact: VectorSource | None = None) -> Self:
        """Read what `save` wrote; see `retinue.core.protocols.IndexFactory`."""
        with read_index(path, KIND) as (header, file):
            sizes = {"nprobe": header["nprobe"], "rescore": header["rescore"]}
            index = cls(int(header["dim"]), exact=exact, **header["options"], **sizes)
            try:
                first = np.load(file, allow_pickle=False)
                second = np.load(file, allow_pickle=False)
                if header["trained"]:
                    index._coded = faiss.read_index(faiss.PyCallbackIOReader(file.read))
            except (ValueError, EOFError, RuntimeError) as error:
                raise corrupt(path, error) from error
        if header["trained"]:
            index._flat = None
            index._labels = Labels.restored(first, second)
        else:
            index.add(first, second)
        return index


def _lists(expected: int, training: int) -> int:
    """Return the number of inverted lists: about 4 sqrt(n), each with vectors enough to train it.

    Source: https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index
    """
    return max(1, min(round(4 * math.sqrt(expected)), training // PER_LIST))


def _make(dim: int, options: dict[str, Any], lists: int) -> Any:
    match options["kind"]:
        case "hnsw":
            recipe = "HNSW32,SQfp16"
        case "pq":
            # "np": without polysemous training, which may not end.
            recipe = f"RR{dim},IVF{lists},PQ{options['code_bytes']}x8np"
        case "rabitq":
            recipe = f"RR{dim},IVF{lists},RaBitQ"
        case _:
            recipe = f"RR{dim},IVF{lists},PQ{dim if dim % 2 else dim // 2}x4fs"
    return faiss.index_factory(dim, recipe, faiss.METRIC_INNER_PRODUCT)


INDEX: Final = FaissIndex
