"""How much an index must look at: the quickest setting whose recall is shown to be enough.

Recall depends on what is looked for as much as on what is held: a text's vector lies elsewhere than
any photo's. So the caller gives queries of the kind that will be asked, and tunes for each kind.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import InvalidTensor
from retinue.core.protocols import VectorSource
from retinue.index._checks import Floats, Ids, check_k, check_vectors, nearest, nothing

BLOCK: Final = 16_384
"""Vectors that are read at a time for exact neighbours."""
FEWEST: Final = 40
"""Queries; fewer show little."""
RESCORES: Final = (50, 100, 200, 400, 800, 1600)
GRAPH_PROBES: Final = 256
"""Most probes of a graph: 2,048 candidates."""
TIE: Final = 1e-5
"""Distances that differ by less are of equally good neighbours."""
Z: Final = 1.645
"""The normal distribution's 95 % quantile."""
RESAMPLES: Final = 1000


class Tunable(Protocol):
    """What `tune` needs of an index; `retinue.index.faiss.FaissIndex` is one."""

    nprobe: int
    rescore: int

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def kind(self) -> str:
        """How it searches now; "flat" is exact."""
        ...

    @property
    def lists(self) -> int:
        """Inverted lists; 0 where there are none."""
        ...

    @property
    def exact_distances(self) -> bool:
        """Whether distances are those of the vectors."""
        ...

    def query(self, vectors: Floats, k: int) -> tuple[Ids, Floats]:
        """Find the nearest; see `retinue.core.protocols.Index`."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting, measured.

    Attributes:
        nprobe: Lists that were looked at.
        rescore: Candidates that were compared exactly.
        recall: Mean recall@k over the queries, in [0, 1].
        lower: Its lower 95 % bound.
        p50_ms: Median time of one query in milliseconds.
        p95_ms: 95th percentile of it.
    """

    nprobe: int
    rescore: int
    recall: float
    lower: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was chosen; the figures are those of the queries that were held out.

    Attributes:
        nprobe: As set on the index.
        rescore: As set on the index.
        recall: Mean recall@k, in [0, 1].
        lower: Its lower 95 % bound.
        p50_ms: Median time of one query in milliseconds.
        p95_ms: 95th percentile of it.
        reached: Whether ``lower`` and ``p95_ms`` both are as was wanted.
        why: In a sentence, why this setting.
        tried: All that was measured on the first half of the queries, in that order.
    """

    nprobe: int
    rescore: int
    recall: float
    lower: float
    p50_ms: float
    p95_ms: float
    reached: bool
    why: str
    tried: tuple[Trial, ...]


def exact_neighbours(source: VectorSource, ids: Ids, queries: Floats, k: int) -> tuple[Ids, Floats]:
    """Return the true neighbours of queries by comparing with all vectors, some at a time.

    Args:
        source: Gives the exact vectors of ids.
        ids: (N,) all that may be found.
        queries: (Q, D) unit vectors.
        k: Neighbours of each.

    Returns:
        Ids (Q, k) and distances (Q, k), nearest first; -1 and inf where fewer exist.

    Raises:
        InvalidTensor: queries are not (Q, D) finite floats, or ``k`` is less than 1.
    """
    queries = check_vectors(queries, queries.shape[-1])
    best, away = nothing(len(queries), check_k(k))
    for start in range(0, len(ids), BLOCK):
        some = np.asarray(ids[start : start + BLOCK], np.int64)
        for row, cosines in enumerate(queries @ source(some).T):
            # Only a few of a block are better than what was found so far.
            better = np.flatnonzero(1 - cosines <= away[row, -1])
            real = best[row] >= 0
            both = np.concatenate([best[row, real], some[better]])
            near = np.concatenate([1 - away[row, real], cosines[better]])
            found, distances = nearest(both, near, k)
            best[row, : len(found)], away[row, : len(found)] = found, distances
    return best, away


def tune(
    index: Tunable,
    queries: Floats,
    truth: tuple[Ids, Floats],
    *,
    recall: float = 0.98,
    k: int = 10,
    latency_ms: float = 10.0,
    seed: int = 0,
) -> Tuned:
    """Set ``nprobe`` and ``rescore`` of an index to the quickest that finds enough.

    Half of the queries look for it: for each ``rescore``, the smallest ``nprobe`` is found by
    bisection, for recall grows with it; what takes too long is not exceeded. The other half must
    confirm the choice; where it does not, the next quickest is tried, or more lists. Recall's lower
    bound is the smaller of a bootstrap's over queries and Wilson's over neighbours, so that neither
    alike queries nor few flatter it.

    Args:
        index: It is used by nobody else meanwhile.
        queries: (Q, D) unit vectors of the kind that will be asked, at least 40; not themselves in
            the index, or each finds itself.
        truth: Ids (Q, k) and distances (Q, k) of their exact neighbours, by `exact_neighbours` or
            an exact index.
        recall: Least lower 95 % bound of recall@k.
        k: Neighbours that are asked for.
        latency_ms: Most milliseconds of 95 in 100 queries, each asked by itself.
        seed: Says which queries are held out.

    Raises:
        InvalidTensor: too few queries, or the truth is of another shape.
    """
    queries = check_vectors(queries, index.dim)
    looking, held_out = _halves(index, queries, truth, k, seed)
    search = _Search(index, looking, k, recall, latency_ms)
    passed = [trial for rescore in search.rescores for trial in search.smallest(rescore)]
    chosen, reached = _confirmed(search, held_out, passed, recall, latency_ms)
    if not reached:
        chosen = _best_within(search, held_out, latency_ms)
    index.nprobe, index.rescore = chosen.nprobe, chosen.rescore
    return Tuned(
        **asdict(chosen),
        reached=reached,
        why=_why(chosen, reached, recall, latency_ms),
        tried=tuple(search.tried.values()),
    )


class _Measure:
    """Some queries whose neighbours are known."""

    def __init__(self, index: Tunable, queries: Floats, ids: Ids, away: Floats, k: int) -> None:
        self._index, self._queries, self._ids, self._k = index, queries, ids, k
        real = np.where(ids >= 0, away, -np.inf)
        self._bound = real.max(axis=1) + TIE

    def __call__(self, nprobe: int, rescore: int) -> Trial:
        """Measure one setting, which stays set."""
        index, k = self._index, self._k
        index.nprobe, index.rescore = nprobe, rescore
        for query in self._queries[:3]:
            index.query(query[None], k)
        seconds, shares = np.empty(len(self._queries)), np.ones(len(self._queries))
        for row, query in enumerate(self._queries):
            start = time.perf_counter()
            found, away = index.query(query[None], k)
            seconds[row] = time.perf_counter() - start
            wanted = int((self._ids[row] >= 0).sum())
            hits = np.isin(found[0], self._ids[row])
            if index.exact_distances:
                hits |= away[0] <= self._bound[row]
            if wanted:
                shares[row] = min(1.0, int((hits & (found[0] >= 0)).sum()) / wanted)
        p50, p95 = np.percentile(seconds * 1e3, [50, 95])
        lower = _lower(shares, k)
        return Trial(nprobe, rescore, float(shares.mean()), lower, float(p50), float(p95))


def _halves(
    index: Tunable, queries: Floats, truth: tuple[Ids, Floats], k: int, seed: int
) -> list[_Measure]:
    ids, distances = truth
    if len(queries) < FEWEST:
        raise InvalidTensor(f"tuning needs at least {FEWEST} queries, not {len(queries)}")
    if ids.shape != (len(queries), check_k(k)) or distances.shape != ids.shape:
        raise InvalidTensor(f"the truth must be ({len(queries)}, {k}) twice, not {ids.shape}")
    order = np.random.default_rng(seed).permutation(len(queries))
    return [
        _Measure(index, queries[half], ids[half], distances[half], k)
        for half in np.array_split(order, 2)
    ]


def _lower(shares: NDArray[np.float64], k: int) -> float:
    """Return the lower 95 % bound of a mean of shares (Q,), each of k."""
    picks = np.random.default_rng(0).integers(0, len(shares), (RESAMPLES, len(shares)))
    bootstrap = float(np.percentile(shares[picks].mean(axis=1), 5))
    mean, count = float(shares.mean()), len(shares) * k
    centre = mean + Z**2 / (2 * count)
    spread = Z * math.sqrt(mean * (1 - mean) / count + Z**2 / (4 * count**2))
    return min(bootstrap, (centre - spread) / (1 + Z**2 / count))


class _Search:
    """The grid, what of it was tried, and where recall is enough."""

    def __init__(
        self, index: Tunable, measure: _Measure, k: int, recall: float, latency_ms: float
    ) -> None:
        self._measure, self._recall, self._latency_ms = measure, recall, latency_ms
        self.tried: dict[tuple[int, int], Trial] = {}
        most = index.lists or GRAPH_PROBES
        self.probes = sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most})
        # The index itself takes at least 4 k.
        self.rescores = [4 * k, *(one for one in RESCORES if one > 4 * k)]
        if index.kind == "flat":
            self.probes = [index.nprobe]
        if index.kind == "flat" or not index.exact_distances:
            self.rescores = [index.rescore]

    def trial(self, place: int, rescore: int) -> Trial:
        """Return a setting's figures, which are measured once."""
        key = (self.probes[place], rescore)
        if key not in self.tried:
            self.tried[key] = self._measure(*key)
        return self.tried[key]

    def smallest(self, rescore: int) -> list[Trial]:
        """Return the trial of the fewest probes that are enough; none where none are in time."""

        def stops(place: int) -> bool:
            trial = self.trial(place, rescore)
            return trial.lower >= self._recall or trial.p50_ms > self._latency_ms

        place = bisect_left(range(len(self.probes)), True, key=stops)
        if place == len(self.probes) or self.trial(place, rescore).lower < self._recall:
            return []
        return [self.trial(place, rescore)]

    def more(self, trial: Trial) -> list[Trial]:
        """Return the trial of the next more probes; none where there are no more."""
        place = self.probes.index(trial.nprobe) + 1
        return [self.trial(place, trial.rescore)] if place < len(self.probes) else []


def _confirmed(
    search: _Search, held_out: _Measure, passed: list[Trial], recall: float, latency_ms: float
) -> tuple[Trial, bool]:
    """Return the quickest of the passed that the other queries confirm, and whether any is."""
    trial = Trial(0, 0, 0, 0, math.inf, math.inf)
    while passed:
        quickest = min(passed, key=lambda one: one.p50_ms)
        passed.remove(quickest)
        trial = held_out(quickest.nprobe, quickest.rescore)
        if trial.lower >= recall and trial.p95_ms <= latency_ms:
            return trial, True
        if trial.lower < recall:
            passed += search.more(quickest)
    return trial, False


def _best_within(search: _Search, held_out: _Measure, latency_ms: float) -> Trial:
    """Return the best recall within the time, of the quickest such; the quickest where none is."""
    within = [trial for trial in search.tried.values() if trial.p95_ms <= latency_ms]
    if within:
        best = max(within, key=lambda trial: (trial.recall, -trial.p50_ms))
    else:
        best = min(search.tried.values(), key=lambda trial: trial.p95_ms)
    return held_out(best.nprobe, best.rescore)


def _why(chosen: Trial, reached: bool, recall: float, latency_ms: float) -> str:
    figures = (
        f"recall {chosen.recall:.3f} (at least {chosen.lower:.3f})"
        f" and {chosen.p95_ms:.1f} ms at 95 %"
    )
    if reached:
        return f"the quickest with recall {recall:g} within {latency_ms:g} ms: {figures}"
    return (
        f"no setting has recall {recall:g} within {latency_ms:g} ms for both halves of the"
        f" queries; the best that can be had has {figures}"
    )
