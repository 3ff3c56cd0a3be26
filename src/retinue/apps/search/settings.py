"""Settings of the app."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SearchSettings(BaseModel):
    """Settings of the app, the table ``[apps.search]``.

    Attributes:
        model: The embedding model of a collection that is made without naming one.
        vectors: Where the indexes are: "faiss" (in this process, rebuilt from the files of rows at
            any time), or "milvus://HOST:PORT" or "milvus:///FILE" (extra ``milvus``).
        kind: What FAISS keeps beyond ``flat_up_to`` vectors.
        flat_up_to: Vectors up to which each query is compared with all of them.
        candidates: How many the index finds for the re-ranking.
        stages: Re-ranking stages in their order: "diffusion", "tokens", "geometric", or
            "module:attribute" of one's own.
        deadline_ms: A re-ranking stage that would end later than this after the query came in is
            left out.
        cache: Where embeddings of queries and answers are kept: "memory://" or "redis://...".
        cache_mb: Memory for the cache in this process; 0: no cache.
        tenants: "one": all clients share the collections. "client": each API key has its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "efficientnet-lite0-search"
    vectors: str = Field("faiss", pattern=r"^(faiss|milvus://.+)$")
    kind: Literal["pq4", "rabitq", "pq", "hnsw"] = "pq4"
    flat_up_to: int = Field(50_000, ge=256)
    candidates: int = Field(200, ge=20, le=10_000)
    stages: tuple[str, ...] = ("diffusion", "tokens", "geometric")
    deadline_ms: float = Field(120.0, gt=0)
    cache: str = "memory://"
    cache_mb: float = Field(64.0, ge=0)
    tenants: Literal["one", "client"] = "one"
