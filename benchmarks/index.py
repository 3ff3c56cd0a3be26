"""Indexes side by side: build time, size, recall@10, and the time of one query.

The vectors are synthetic: clustered, with a spectrum that falls as embeddings' does.
``--no-graph`` leaves out HNSW, which takes the longest to build.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Threads that spin while they wait take shared cores from one another; before FAISS is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import faiss
import numpy as np

from common import ms, show
from retinue.index.brute import BruteIndex
from retinue.index.faiss import FaissIndex

K = 10
CHUNK = 20_000


def clustered(random: np.random.Generator, centres: np.ndarray, count: int) -> np.ndarray:
    dim = centres.shape[1]
    spectrum = 1 / np.sqrt(1 + np.arange(dim))
    parts = []
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        noise = random.standard_normal((size, dim), np.float32) * spectrum.astype(np.float32)
        parts.append(centres[random.integers(0, len(centres), size)] + noise)
    vectors = np.concatenate(parts)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class Plain:
    """FAISS as its users have it, without re-scoring."""

    def __init__(self, recipe: str, dim: int, sample: int, setting: str) -> None:
        self.index = faiss.index_factory(dim, recipe, faiss.METRIC_INNER_PRODUCT)
        self.sample, self.setting = sample, setting

    def build(self, vectors: np.ndarray) -> None:
        if not self.index.is_trained:
            self.index.train(vectors[: self.sample])
        self.index.add(vectors)
        faiss.ParameterSpace().set_index_parameters(self.index, self.setting)

    def query(self, vector: np.ndarray) -> np.ndarray:
        return self.index.search(vector, K)[1]

    def size(self, folder: Path) -> int:
        path = folder / "plain"
        faiss.write_index(self.index, str(path))
        return path.stat().st_size


class Ours:
    """An index of Retinue's; exact vectors come from a memory-mapped float16 file."""

    def __init__(self, index: BruteIndex | FaissIndex) -> None:
        self.index = index

    def build(self, vectors: np.ndarray) -> None:
        for start in range(0, len(vectors), 100_000):
            part = vectors[start : start + 100_000]
            self.index.add(np.arange(start, start + len(part)), part)

    def query(self, vector: np.ndarray) -> np.ndarray:
        return self.index.query(vector, K)[0]

    def size(self, folder: Path) -> int:
        path = folder / "ours"
        self.index.save(path)
        return path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--no-graph", action="store_true")
    options = parser.parse_args()
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    random = np.random.default_rng(3)
    dim, count = options.dim, options.count
    centres = random.standard_normal((1000, dim), np.float32) * 0.5 / np.sqrt(dim) * 4
    vectors = clustered(random, centres, count)
    queries = clustered(random, centres, options.queries)
    lists = round(4 * np.sqrt(count))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "rows.npy", vectors.astype(np.float16))
        mapped = np.load(folder / "rows.npy", mmap_mode="r")

        def exact(ids: np.ndarray) -> np.ndarray:
            return mapped[ids].astype(np.float32)

        ways: dict[str, Callable[[], Ours | Plain]] = {
            "retinue brute": lambda: Ours(BruteIndex(dim)),
            "retinue faiss, pq4": lambda: Ours(
                FaissIndex(dim, exact=exact, expected=count, nprobe=64)
            ),
            "retinue faiss, rabitq": lambda: Ours(
                FaissIndex(dim, exact=exact, expected=count, nprobe=64, kind="rabitq")
            ),
            "retinue faiss, pq": lambda: Ours(
                FaissIndex(dim, exact=exact, expected=count, nprobe=64, kind="pq")
            ),
            "plain IVF-PQ64": lambda: Plain(
                f"IVF{lists},PQ64x8np", dim, max(20_000, 40 * lists), "nprobe=64"
            ),
            "plain HNSW32": lambda: Plain("HNSW32", dim, 0, "efSearch=128"),
        }
        if options.no_graph:
            del ways["plain HNSW32"]
        built: dict[str, Ours | Plain] = {}
        seconds: dict[str, float] = {}
        for way, make in ways.items():
            start = time.perf_counter()
            built[way] = make()
            built[way].build(vectors)
            seconds[way] = time.perf_counter() - start
        truth = np.concatenate([built["retinue brute"].query(q[None]) for q in queries])
        taken: dict[str, list[float]] = {way: [] for way in ways}
        hits: dict[str, int] = dict.fromkeys(ways, 0)
        for query, best in zip(queries, truth, strict=True):
            for way, index in built.items():
                start = time.perf_counter()
                found = index.query(query[None])
                taken[way].append(time.perf_counter() - start)
                hits[way] += len(set(found[0].tolist()) & set(best.tolist()))
        for way, index in built.items():
            p50, p95 = np.percentile(taken[way], [50, 95])
            recall = hits[way] / (K * len(queries))
            size = index.size(folder) / count
            rows.append(
                (way, f"{seconds[way]:.1f}", f"{size:.0f}", f"{recall:.3f}", ms(p50), ms(p95))
            )
    show(
        f"{count:,} x {dim}, clustered, synthetic",
        ("", "build s", "bytes a vector", "recall@10", "p50 ms", "p95 ms"),
        rows,
        notes=("bytes: of the index file; the float16 rows of re-scoring are not counted",),
    )


if __name__ == "__main__":
    main()
