"""Embeddings as bytes, for the cache."""

from __future__ import annotations

import io

import numpy as np

from retinue.core.types import Array, Embedding


def pack(embedding: Embedding) -> bytes:
    """Return an embedding as bytes, exact to the last bit."""
    parts: dict[str, Array] = {
        "vector": embedding.vector,
        "grid": np.array(embedding.grid, np.int32),
    }
    if embedding.tokens is not None:
        parts["tokens"] = embedding.tokens
    if embedding.semantic is not None:
        parts["semantic"] = embedding.semantic
    file = io.BytesIO()
    np.savez(file, **parts)  # type: ignore[arg-type]  # NumPy's stubs know no other use of **
    return file.getvalue()


def unpack(data: bytes) -> Embedding:
    """Return what `pack` packed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as parts:
        rows, columns = (int(side) for side in parts["grid"])
        return Embedding(
            parts["vector"],
            parts.get("tokens"),
            (rows, columns),
            parts.get("semantic"),
        )
