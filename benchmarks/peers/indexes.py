"""Vector indexes that ``index_peers.py`` compares; it starts this file once for each.

    python benchmarks/peers/indexes.py NAME DATA FOLDER BUDGET_S RECALL CORES

prints one line of JSON. DATA holds rows, queries and their true neighbours; FOLDER is the index's;
queries may use so many CORES.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

K, CHUNK = 10, 50_000
CORES = len(os.sched_getaffinity(0))


class Stopped(Exception):
    """The budget is spent."""


class Peer:
    """How an index is built, asked, and made to look further.

    Attributes:
        efforts: What `effort` takes, from the quickest to the most thorough.
    """

    efforts: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)

    def __init__(self, rows: np.ndarray, folder: Path) -> None:
        self.rows, self.folder = rows, folder
        self.count, self.dim = rows.shape

    def build(self, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        """Take all parts: ids (N,), vectors (N, D) float32."""
        raise NotImplementedError

    def effort(self, value: int) -> None:
        """Look so far."""
        raise NotImplementedError

    def query(self, vector: np.ndarray) -> np.ndarray:
        """Return the ids of the nearest."""
        raise NotImplementedError


def code_bytes(dim: int) -> int:
    """Return the bytes of a product quantiser's code: at most 64, of two dimensions or more."""
    return max(b for b in range(1, 65) if dim % b == 0 and 2 * b <= dim)


class Retinue(Peer):
    kind = "pq4"

    def build(self, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        from retinue.index.faiss import FaissIndex

        def exact(ids: np.ndarray) -> np.ndarray:
            return self.rows[ids].astype(np.float32)

        self.index = FaissIndex(
            self.dim,
            exact=exact,
            kind=self.kind,
            flat_up_to=max(256, min(50_000, self.count // 2)),
            expected=self.count,
            code_bytes=code_bytes(self.dim),
        )
        for ids, vectors in parts:
            self.index.add(ids, vectors)

    def effort(self, value: int) -> None:
        self.index.nprobe = value

    def query(self, vector: np.ndarray) -> np.ndarray:
        return self.index.query(vector[None], K)[0][0]


class RetinueRabitq(Retinue):
    kind = "rabitq"


class RetinuePq(Retinue):
    kind = "pq"


class FaissGraph(Peer):
    efforts = (16, 32, 64, 128, 256, 512, 1024)

    def build(self, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        import faiss

        self.index = faiss.index_factory(self.dim, self.recipe(), faiss.METRIC_INNER_PRODUCT)
        if not self.index.is_trained:
            # Rows are in random order: the first are a sample.
            sample = self.rows[: min(self.count, 40 * self.lists())]
            self.index.train(sample.astype(np.float32))
        for _, vectors in parts:
            self.index.add(vectors)

    def lists(self) -> int:
        return round(4 * np.sqrt(self.count))

    def recipe(self) -> str:
        return "HNSW32"

    def effort(self, value: int) -> None:
        self.index.hnsw.efSearch = value

    def query(self, vector: np.ndarray) -> np.ndarray:
        return self.index.search(vector[None], K)[1][0]


class FaissPq(FaissGraph):
    efforts = Peer.efforts

    def recipe(self) -> str:
        return f"IVF{self.lists()},PQ{code_bytes(self.dim)}x8np"

    def effort(self, value: int) -> None:
        self.index.nprobe = value


class Usearch(Peer):
    efforts = FaissGraph.efforts

    def build(self, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        from usearch.index import Index

        self.index = Index(ndim=self.dim, metric="ip", dtype="f16")
        for ids, vectors in parts:
            self.index.add(ids, vectors, threads=CORES)

    def effort(self, value: int) -> None:
        self.index.expansion_search = value

    def query(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.index.search(vector, K).keys)


class Lance(Peer):
    """On disk: 8-bit codes of sub-vectors in lists, the best 20 k compared exactly."""

    def build(self, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        import lancedb
        import pyarrow as pa

        vector = pa.list_(pa.float32(), self.dim)
        schema = pa.schema([("id", pa.int64()), ("vector", vector)])

        def batches() -> Iterator[Any]:
            for ids, vectors in parts:
                values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.dim)
                yield pa.record_batch([pa.array(ids), values], schema=schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        self.table = lancedb.connect(self.folder).create_table("rows", reader)
        lists = max(1, self.count // 4096)
        self.table.create_index(
            metric="cosine",
            vector_column_name="vector",
            index_type="IVF_PQ",
            num_partitions=lists,
            num_sub_vectors=code_bytes(self.dim),
        )

    def effort(self, value: int) -> None:
        self.probes = value

    def query(self, vector: np.ndarray) -> np.ndarray:
        asked = self.table.search(vector).distance_type("cosine").nprobes(self.probes)
        found = asked.refine_factor(20).limit(K).select(["id", "_distance"]).to_arrow()
        return found["id"].to_numpy()


class MilvusLite(Peer):
    efforts = FaissGraph.efforts

    def build(self, parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        from retinue.index.milvus import MilvusIndex

        self.index = MilvusIndex(
            self.dim, uri=str(self.folder / "vectors.db"), index_type="HNSW", timeout_s=3600
        )
        for ids, vectors in parts:
            self.index.add(ids, vectors)
        self.index.save(self.folder / "saved")
        # What was written in pieces is searched several times faster once it is loaded anew.
        self.index._client.release_collection(self.index.collection)
        self.index._client.load_collection(self.index.collection)

    def effort(self, value: int) -> None:
        self.index._search = {"ef": value}

    def query(self, vector: np.ndarray) -> np.ndarray:
        return self.index.query(vector[None], K)[0][0]


PEERS: dict[str, type[Peer]] = {
    "retinue faiss, pq4": Retinue,
    "retinue faiss, rabitq": RetinueRabitq,
    "retinue faiss, pq": RetinuePq,
    "faiss IVF-PQ": FaissPq,
    "faiss HNSW32": FaissGraph,
    "usearch f16": Usearch,
    "lancedb IVF-PQ, refined": Lance,
    "milvus-lite HNSW": MilvusLite,
}
OUTSIDE = ("usearch f16", "lancedb IVF-PQ, refined")


class Memory:
    """The process's own memory, without pages of mapped files; its peak is sampled."""

    def __init__(self) -> None:
        self.peak = self.now()
        threading.Thread(target=self._watch, daemon=True).start()

    @staticmethod
    def now() -> int:
        """Return bytes."""
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        return 0

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.05)


def confine(cores: int) -> None:
    """Let all threads of this process, and of FAISS, have so many cores and no more."""
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    for task in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(task.name), chosen)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(cores)


def child(
    name: str, data: Path, folder: Path, *, budget: float, recall: float, cores: int
) -> dict[str, Any]:
    """Build one peer and ask it; return its figures."""
    rows = np.load(data / "rows.npy", mmap_mode="r")
    queries, truth = np.load(data / "queries.npy"), np.load(data / "truth.npy")
    peer = PEERS[name](rows, folder)
    start, given = time.perf_counter(), 0
    before, memory = Memory.now(), Memory()

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal given
        for begin in range(0, len(rows), CHUNK):
            if time.perf_counter() - start > budget:
                raise Stopped
            part = rows[begin : begin + CHUNK].astype(np.float32)
            yield np.arange(begin, begin + len(part), dtype=np.int64), part
            given = begin + len(part)
            progress = folder / "progress"
            progress.write_text(str(given), "utf-8")

    figures: dict[str, Any] = {"before": before}
    try:
        peer.build(parts())
    except Exception as error:
        # Some engines wrap what their reader raises.
        if time.perf_counter() - start <= budget:
            raise
        return {**figures, "stopped": budget, "given": given, "error": type(error).__name__}
    figures |= {"build_s": time.perf_counter() - start, "after": Memory.now()}
    confine(cores)
    figures["steps"] = list(asked(peer, queries, truth, recall, budget))
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {**figures, "peak": memory.peak, "disk": disk}


def asked(
    peer: Peer, queries: np.ndarray, truth: np.ndarray, recall: float, budget: float
) -> Iterator[dict[str, float]]:
    """Raise the effort until recall is reached; give each step's figures."""
    began = time.perf_counter()
    for effort in peer.efforts:
        peer.effort(effort)
        for query in queries[:5]:
            peer.query(query)
        taken, hits = [], 0
        for query, best in zip(queries, truth, strict=True):
            start = time.perf_counter()
            found = peer.query(query)
            taken.append(time.perf_counter() - start)
            hits += len(set(found.tolist()) & set(best.tolist()))
            if len(taken) >= 20 and time.perf_counter() - began > budget:
                break
        p50, p95 = np.percentile(taken, [50, 95])
        reached = hits / (K * len(taken))
        yield {"effort": effort, "recall": reached, "p50": p50, "p95": p95}
        if reached >= recall or time.perf_counter() - began > budget:
            return


def main() -> None:
    """Be one of the peers."""
    name, data, folder, budget, recall, cores = sys.argv[1:]
    limits = {"budget": float(budget), "recall": float(recall), "cores": int(cores)}
    figures = child(name, Path(data), Path(folder), **limits)
    print(json.dumps(figures), flush=True)
    # Engines' threads may linger; all is written.
    os._exit(0)


if __name__ == "__main__":
    main()
