"""Milvus: vectors in a server of their own, or in a file by milvus-lite.

What `MilvusIndex.save` writes only names the collection; the vectors stay where they are. Scores
are inner products of unit vectors. Reads are strongly consistent: what was added is found at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from retinue.core.errors import ConfigError, IndexCorrupt
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
from retinue.index._file import read_index, write_index
from retinue.index._milvus import address, among_ids, connect, errors, library, named, remote

KIND: Final = "milvus"
CHUNK: Final = 16_000
"""Ids of one expression, and candidates of one search: Milvus allows 16,384."""
MESSAGE: Final = 16 * 2**20
"""Bytes of vectors of one request; servers refuse 64 MB."""
CANDIDATES: Final = 1_000_000
"""Candidates of one answer, over all of its queries."""


class MilvusIndex:
    """An `Index` whose vectors are in a collection of Milvus.

    The collection belongs to one writer. An index that is made is empty: a collection that has its
    name is replaced.

    Args:
        dim: Length of a vector.
        exact: Gives exact vectors by id. With it the best ``rescore`` candidates are compared
            exactly, and so is what a filter leaves where that is 16,000 or fewer.
        uri: ``http://host:19530`` (or https), or a file's path that ends in ".db" for milvus-lite,
            which one process at a time may open.
        collection: Its name; "" for a new one. Characters that Milvus does not take become "_",
            and a checksum of the whole name is put behind.
        index_type: Milvus' name of the index, such as AUTOINDEX, HNSW, IVF_SQ8 or FLAT.
        search: Milvus' parameters of a search, such as ``{"ef": 200}``.
        rescore: Candidates that are compared exactly, at least 4 k.
        token: ``user:password`` or an API key; else the variable MILVUS_TOKEN. Never saved.
        timeout_s: Seconds that a call may take.

    Raises:
        ConfigError: an argument is out of range, or the address holds a password.
        MissingExtra: pymilvus is not installed, or milvus-lite is not and a file is named.
        Unavailable: the server does not answer, or another process has the file open.
        StorageError: Milvus refuses.
    """

    def __init__(
        self,
        dim: int,
        *,
        exact: VectorSource | None = None,
        uri: str = "http://localhost:19530",
        collection: str = "",
        index_type: str = "AUTOINDEX",
        search: dict[str, Any] | None = None,
        rescore: int = 200,
        token: str = "",
        timeout_s: float = 60.0,
    ) -> None:
        if not 2 <= dim <= 32_768 or not 1 <= rescore <= CHUNK or timeout_s <= 0:
            raise ConfigError(
                f"Milvus takes 2 to 32,768 dimensions, rescore 1 to {CHUNK:,} and a timeout"
                f" above 0, not {dim}, {rescore} and {timeout_s}"
            )
        self._dim, self._exact, self.rescore = dim, exact, rescore
        self._uri, self._name = address(uri), named(collection)
        self._search, self._timeout = search or {}, timeout_s
        self._client = connect(self._uri, token, timeout_s)
        self._count: int | None = 0
        self._create(index_type)

    def _create(self, index_type: str) -> None:
        milvus = library()
        with errors("making a collection", self._uri):
            if self._client.has_collection(self._name, timeout=self._timeout):
                self._client.drop_collection(self._name, timeout=self._timeout)
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", milvus.DataType.INT64, is_primary=True)
            schema.add_field("vector", milvus.DataType.FLOAT_VECTOR, dim=self._dim)
            index = self._client.prepare_index_params()
            index.add_index("vector", index_type=index_type, metric_type="IP")
            self._client.create_collection(
                self._name,
                schema=schema,
                index_params=index,
                consistency_level="Strong",
                timeout=self._timeout,
            )

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    @property
    def uri(self) -> str:
        """The server's address, or the file's absolute path."""
        return self._uri

    @property
    def collection(self) -> str:
        """The collection's name in Milvus."""
        return self._name

    def __len__(self) -> int:
        """Vectors that can be found; asks the server where something was added."""
        if self._count is None:
            with errors("counting", self._uri):
                rows = self._client.query(
                    self._name, filter="", output_fields=["count(*)"], timeout=self._timeout
                )
            self._count = int(rows[0]["count(*)"])
        return self._count

    def add(self, ids: Ids, vectors: Floats) -> None:
        """Add vectors; see `retinue.core.protocols.Index`."""
        vectors = check_vectors(vectors, self._dim)
        ids = check_ids(ids, len(vectors))
        step = max(1, min(CHUNK, MESSAGE // (4 * self._dim)))
        for start in range(0, len(ids), step):
            part = slice(start, start + step)
            rows = [
                {"id": one, "vector": vector}
                for one, vector in zip(ids[part].tolist(), vectors[part], strict=True)
            ]
            self._count = None
            with errors("adding vectors", self._uri):
                self._client.upsert(self._name, rows, timeout=self._timeout)

    def remove(self, ids: Ids) -> int:
        """Remove ids; return how many existed."""
        known = self._known(np.asarray(ids, np.int64).ravel())
        for start in range(0, len(known), CHUNK):
            self._count = None
            with errors("removing vectors", self._uri):
                some = known[start : start + CHUNK].tolist()
                self._client.delete(self._name, ids=some, timeout=self._timeout)
        return len(known)

    def _known(self, ids: Ids) -> Ids:
        """Return those of ids that the collection holds, sorted."""
        ids = np.unique(ids)
        found: list[int] = []
        for start in range(0, len(ids), CHUNK):
            some = ids[start : start + CHUNK]
            with errors("looking up ids", self._uri):
                rows = self._client.query(
                    self._name,
                    filter=among_ids(some),
                    output_fields=["id"],
                    limit=len(some),
                    timeout=self._timeout,
                )
            found += [row["id"] for row in rows]
        return np.array(sorted(found), np.int64)

    def query(self, vectors: Floats, k: int, *, among: Ids | None = None) -> tuple[Ids, Floats]:
        """Find the nearest; see `retinue.core.protocols.Index`.

        Raises:
            ConfigError: ``k`` is above 16,000.
        """
        vectors = check_vectors(vectors, self._dim)
        found, distances = nothing(len(vectors), check_k(k))
        if k > CHUNK:
            raise ConfigError(f"Milvus finds at most {CHUNK:,} neighbours, not {k:,}")
        allowed = None if among is None else np.unique(np.asarray(among, np.int64))
        if not len(vectors) or (allowed is not None and not len(allowed)):
            return found, distances
        if allowed is not None and self._exact is not None and len(allowed) <= CHUNK:
            ids = self._known(allowed)
            known = self._exact(ids) if len(ids) else np.empty((0, self._dim), np.float32)
            candidates = [(ids, known @ vector) for vector in vectors]
        else:
            candidates = self._candidates(vectors, k, allowed)
        for row, (ids, cosines) in enumerate(candidates):
            best, away = nearest(ids, cosines, k)
            found[row, : len(best)], distances[row, : len(best)] = best, away
        return found, distances

    def _candidates(self, vectors: Floats, k: int, allowed: Ids | None) -> list[tuple[Ids, Floats]]:
        """Return each query's candidates and their cosines, exact ones where there is a source."""
        wanted = k if self._exact is None else min(CHUNK, max(self.rescore, 4 * k))
        step = max(1, min(CANDIDATES // wanted, MESSAGE // (4 * self._dim)))
        filters = [""]
        if allowed is not None:
            filters = [among_ids(allowed[i : i + CHUNK]) for i in range(0, len(allowed), CHUNK)]
        found: list[tuple[Ids, Floats]] = []
        for start in range(0, len(vectors), step):
            some = vectors[start : start + step]
            parts = [self._ask(some, wanted, expression) for expression in filters]
            for vector, *answers in zip(some, *parts, strict=True):
                ids = np.concatenate([one for one, _ in answers])
                cosines = np.concatenate([values for _, values in answers])
                ids, places = np.unique(ids, return_index=True)
                if self._exact is not None and len(ids):
                    found.append((ids, self._exact(ids) @ vector))
                else:
                    found.append((ids, cosines[places]))
        return found

    def _ask(self, vectors: Floats, wanted: int, expression: str) -> list[tuple[Ids, Floats]]:
        with errors("searching", self._uri):
            answers = self._client.search(
                self._name,
                data=list(vectors),
                filter=expression,
                limit=wanted,
                output_fields=["id"],
                search_params={"metric_type": "IP", "params": self._search},
                timeout=self._timeout,
            )
        return [
            (
                np.array([hit["id"] for hit in hits], np.int64),
                np.array([hit["distance"] for hit in hits], np.float32),
            )
            for hits in answers
        ]

    def save(self, path: Path) -> None:
        """Make the collection durable and write a file that names it.

        Raises:
            DiskFull, NotWritable, StorageError: it could not be written; the old one is as it was.
            Unavailable: the server does not answer.
        """
        with errors("flushing", self._uri):
            self._client.flush(self._name, timeout=self._timeout)
        header = {
            "kind": KIND,
            "dim": self._dim,
            "uri": self._uri,
            "collection": self._name,
            "count": len(self),
            "search": self._search,
            "rescore": self.rescore,
        }
        write_index(path, header, lambda file: None)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        exact: VectorSource | None = None,
        token: str = "",
        timeout_s: float = 60.0,
    ) -> Self:
        """Connect to the collection that a file names.

        Raises:
            IndexCorrupt: the file is damaged, or the collection is gone or is not as it was saved:
                of another length, or with more or fewer vectors. Build it anew.
            NotFound: there is no such file.
            MissingExtra, Unavailable, StorageError: as in the constructor.
        """
        with read_index(path, KIND) as (header, _):
            pass
        index = cls.__new__(cls)
        index._dim, index._exact, index.rescore = int(header["dim"]), exact, header["rescore"]
        index._uri, index._name = str(header["uri"]), str(header["collection"])
        index._search, index._timeout = dict(header["search"]), timeout_s
        index._count = None
        if not remote(index._uri) and not Path(index._uri).exists():
            raise _changed(path, f"its database {index._uri} is gone")
        index._client = connect(index._uri, token, timeout_s)
        index._attach(path, int(header["count"]))
        return index

    def _attach(self, path: Path, count: int) -> None:
        with errors("opening a collection", self._uri):
            if not self._client.has_collection(self._name, timeout=self._timeout):
                raise _changed(path, f"there is no collection {self._name} at {self._uri}")
            about = self._client.describe_collection(self._name, timeout=self._timeout)
            self._client.load_collection(self._name, timeout=self._timeout)
        lengths = [field["params"].get("dim") for field in about["fields"]]
        if str(self._dim) not in {str(length) for length in lengths}:
            raise _changed(path, f"collection {self._name} does not hold {self._dim} dimensions")
        if len(self) != count:
            raise _changed(path, f"collection {self._name} holds {len(self)} vectors, not {count}")

    def drop(self) -> None:
        """Remove the collection with all that is in it; the index cannot be used any more."""
        with errors("dropping a collection", self._uri):
            self._client.drop_collection(self._name, timeout=self._timeout)

    def close(self) -> None:
        """Give back the connection. May be called twice."""
        self._client.close()


def _changed(path: Path, reason: str) -> IndexCorrupt:
    return IndexCorrupt(f"index {path}: {reason}; delete it, and it is built anew")


INDEX: Final = MilvusIndex
