"""What every index asks of its arguments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import InvalidTensor

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]

FEW = 1024
"""So many candidates are sorted sooner than they are partitioned."""


def check_vectors(vectors: Floats, dim: int) -> Floats:
    """Return vectors as contiguous float32; see `retinue.core.protocols.Index` for the errors."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidTensor(f"vectors must be (N, {dim}), not {vectors.shape}; another model's?")
    if vectors.dtype.kind != "f" or not np.isfinite(vectors).all():
        raise InvalidTensor(f"vectors must be finite floats, not {vectors.dtype} with NaN or inf")
    return np.ascontiguousarray(vectors, np.float32)


def check_ids(ids: Ids, count: int) -> Ids:
    """Return ids as contiguous int64: one for each vector, none negative, none twice."""
    if ids.shape != (count,) or ids.dtype.kind not in "iu":
        raise InvalidTensor(f"ids must be ({count},) integers, not {ids.dtype} {ids.shape}")
    if count and (ids.min() < 0 or _twice(ids)):
        raise InvalidTensor("ids must not be negative, nor given twice in one call")
    return np.ascontiguousarray(ids, np.int64)


def _twice(ids: Ids) -> bool:
    # Sorting is many times faster than the hashing of np.unique.
    return bool((np.diff(np.sort(ids)) == 0).any())


def check_k(k: int) -> int:
    """Return k, which must be at least 1."""
    if k < 1:
        raise InvalidTensor(f"k must be at least 1, not {k}")
    return k


def nothing(queries: int, k: int) -> tuple[Ids, Floats]:
    """Return the answer of an index in which nothing can be found: ids (Q, k) and distances."""
    return np.full((queries, k), -1, np.int64), np.full((queries, k), np.inf, np.float32)


def nearest(ids: Ids, cosines: Floats, k: int) -> tuple[Ids, Floats]:
    """Return the k best of one query's candidates, nearest first, ties by id.

    Args:
        ids: (N,) candidates.
        cosines: (N,) their cosines.
        k: At most so many.

    Returns:
        At most k ids, and their distances.
    """
    if len(ids) > max(k, FEW):
        # Ties at the border are kept, so that the order below decides and not the partition.
        bound = np.partition(cosines, len(cosines) - k)[len(cosines) - k]
        kept = np.flatnonzero(cosines >= bound)
        ids, cosines = ids[kept], cosines[kept]
    order = np.lexsort((ids, -cosines))[:k]
    return ids[order], np.maximum(1 - cosines[order], 0).astype(np.float32)


def nearest_rows(ids: Ids, cosines: Floats, k: int) -> tuple[Ids, Floats]:
    """Return the k best of each query's few candidates, nearest first, ties by id.

    Args:
        ids: (Q, N) candidates; -1 where there is none.
        cosines: (Q, N) their cosines, -inf where there is none.
        k: At most so many.

    Returns:
        Ids (Q, k') and distances (Q, k') with k' at most k; -1 and inf where there is none.
    """
    order = np.lexsort((ids, -cosines), axis=-1)[:, :k]
    best = np.take_along_axis(ids, order, -1)
    away = 1 - np.take_along_axis(cosines, order, -1)
    return best, np.maximum(away, 0).astype(np.float32)
