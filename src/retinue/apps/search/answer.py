"""The results of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from retinue.store.collections import Item


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """One result.

    Attributes:
        rank: From 1.
        item: The item.
        score: What the results are ordered by; comparable within one answer.
        relevance: 0 for as alike as any two items of the collection, 1 for the same; in [0, 1].
        stages: Each stage's own value; "ann" is the cosine by which the index found it.
        duplicates: Other items of the same group of duplicates, which are not shown.
        regions: Boxes [x1, y1, x2, y2, strength] that match, in pixels of the item's original.
    """

    rank: int
    item: Item
    score: float
    relevance: float
    stages: Mapping[str, float]
    duplicates: int = 0
    regions: Sequence[Sequence[float]] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The results of a query.

    Attributes:
        hits: Best first.
        model: Whose vectors were compared.
        version: Of the model.
        generation: State of the collection that was searched.
        count: Items that the query could have found.
        skipped: Stages for which there was no time.
        timings_ms: By part: "filter", "ann", each stage, "items".
    """

    hits: tuple[Hit, ...]
    model: str
    version: str
    generation: int
    count: int
    skipped: tuple[str, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
