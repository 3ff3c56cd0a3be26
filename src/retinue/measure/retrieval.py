"""How well a search for nearest neighbours finds what it should.

Two questions, two kinds of truth. `recall_at` asks whether an approximate index finds the
neighbours that an exact search finds. `average_precisions` and `precision_at` ask whether what was
found is of the right kind (the same place, product or person). Each gives one figure a query;
`mean` sums them up. All figures are shares in [0, 1], without a unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinue.measure.paired import paired_mean

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_NONE = -1  # the id that stands for none


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over queries, with its 95 % interval.

    Attributes:
        value: Of all the queries that have a figure.
        low: Lower end of the bootstrap's percentile interval.
        high: Upper end of it.
        queries: How many queries have a figure.
    """

    value: float
    low: float
    high: float
    queries: int


def recall_at(found: Ids, truth: Ids, k: int) -> Floats:
    """Return the share of each query's true ids that are among the first k found.

    With k below the number of true ids the share cannot reach 1.
    Source: M. Aumüller, E. Bernhardsson, A. Faithfull, "ANN-Benchmarks", Information Systems 87
    (2020), where the true ids are the k nearest neighbours.

    Args:
        found: (Q, K) int64 ids, best first; -1 where there is none.
        truth: (Q, T) int64 ids in any order; -1 is padding.
        k: In [1, K].

    Returns:
        (Q,) float64; NaN where a query has no true id.

    Raises:
        ValueError: a shape, a type, k or an id is out of range, or a row has an id twice.
    """
    _check_ids(found, "found")
    _check_ids(truth, "truth")
    if len(found) != len(truth):
        raise ValueError(f"need found (Q, K), truth (Q, T): {found.shape}, {truth.shape}")
    _check_k(found, k)
    shares = np.full(len(found), np.nan)
    for query, (row, true) in enumerate(zip(found[:, :k], truth, strict=True)):
        wanted = true[true != _NONE]
        if len(wanted):
            shares[query] = np.isin(wanted, row).mean()
    return shares


def average_precision(relevant: Flags, total: int) -> float:
    """Return the average precision at K of one ranked list.

    AP@K is the sum, over the ranks i that hold a relevant id, of the precision among the first i,
    divided by min(total, K): the best list of K ids has 1, however many relevant ids there are.
    Source: T. Weyand, A. Araujo, B. Cao, J. Sim, "Google Landmarks Dataset v2", CVPR 2020,
    section on metrics (mAP@100). Others divide by ``total``, which comes out lower where
    total > K.

    Args:
        relevant: (K,) bool, K >= 1: whether what is at each rank is relevant, best first.
        total: How many relevant ids there are, found or not; at least those found.

    Returns:
        In [0, 1]; NaN where ``total`` is 0.

    Raises:
        ValueError: the shape or type is wrong, or there are fewer in total than found.
    """
    if relevant.ndim != 1 or relevant.dtype != np.bool_ or not len(relevant):
        raise ValueError(f"need bool (K,) with K >= 1: {relevant.dtype} {relevant.shape}")
    hits = np.cumsum(relevant)
    if total < hits[-1] or total < 0:
        raise ValueError(f"total must be at least the {hits[-1]} found, not {total}")
    if total == 0:
        return float("nan")
    precisions = hits / np.arange(1, len(relevant) + 1)
    return float(precisions[relevant].sum() / min(total, len(relevant)))


def average_precisions(found: Ids, relevant: Sequence[AbstractSet[int]], k: int) -> Floats:
    """Return each query's average precision at k, as `average_precision` defines it.

    A place without an id (-1) counts as one that holds an irrelevant id.

    Args:
        found: (Q, K) int64 ids, best first; -1 where there is none.
        relevant: Q sets of the ids that are relevant to each query, all >= 0.
        k: In [1, K].

    Returns:
        (Q,) float64; NaN where a query has no relevant id.

    Raises:
        ValueError: a shape, a type, k or an id is out of range, or a row has an id twice.
    """
    hits = _hits(found, relevant, k)
    pairs = zip(hits, relevant, strict=True)
    return np.array([average_precision(row, len(ids)) for row, ids in pairs], np.float64)


def precision_at(found: Ids, relevant: Sequence[AbstractSet[int]], k: int) -> Floats:
    """Return the share of each query's first k places that hold a relevant id.

    The denominator is always k: a place without an id (-1) counts as irrelevant, and a query with
    fewer than k relevant ids cannot reach 1. A query with none has 0, not NaN.
    Source: C. D. Manning, P. Raghavan, H. Schütze, "Introduction to Information Retrieval", 2008,
    section 8.4.

    Args:
        found: (Q, K) int64 ids, best first; -1 where there is none.
        relevant: Q sets of the ids that are relevant to each query, all >= 0.
        k: In [1, K].

    Returns:
        (Q,) float64 in [0, 1].

    Raises:
        ValueError: a shape, a type, k or an id is out of range, or a row has an id twice.
    """
    return np.asarray(_hits(found, relevant, k).mean(axis=1), np.float64)


def mean(values: Floats) -> Mean:
    """Return the mean of one figure a query and its 95 % interval; NaN is left out.

    The interval is the percentile one of 2000 bootstrap resamples of the queries, always the same
    for the same values. See `retinue.measure.paired` for the source and for what it tells.

    Args:
        values: (Q,) real, one a query; NaN where a query has no figure.

    Raises:
        ValueError: the shape is wrong, no query has a figure, or a figure is infinite.
    """
    if values.ndim != 1:
        raise ValueError(f"need values (Q,): {values.shape}")
    kept = values[~np.isnan(values)]
    if not len(kept):
        raise ValueError("no query has a figure")
    interval = paired_mean(kept, kept).a
    return Mean(interval.value, interval.low, interval.high, len(kept))


def _check_ids(ids: Ids, name: str) -> None:
    if ids.ndim != 2 or ids.dtype != np.int64:
        raise ValueError(f"{name} must be int64 with 2 axes: {ids.dtype} {ids.shape}")
    if (ids < _NONE).any():
        raise ValueError(f"{name} has an id below {_NONE}: {ids.min()}")
    ordered = np.sort(ids, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != _NONE)
    if twice.any():
        raise ValueError(f"{name} has an id twice in row {int(twice.any(axis=1).argmax())}")


def _check_k(found: Ids, k: int) -> None:
    if not 1 <= k <= found.shape[1]:
        raise ValueError(f"k must be 1..{found.shape[1]}, not {k}")


def _hits(found: Ids, relevant: Sequence[AbstractSet[int]], k: int) -> Flags:
    """Return (Q, k) bool: whether what was found at each of the first k places is relevant."""
    _check_ids(found, "found")
    if len(found) != len(relevant):
        raise ValueError(f"need one set a query: {len(found)} queries, {len(relevant)} sets")
    _check_k(found, k)
    if any(i < 0 for ids in relevant for i in ids):
        raise ValueError("a relevant id is below 0")
    hits = np.zeros((len(found), k), np.bool_)
    for query, (row, ids) in enumerate(zip(found[:, :k].tolist(), relevant, strict=True)):
        hits[query] = [i in ids for i in row]
    return hits
