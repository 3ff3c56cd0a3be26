"""What is asked: terms with weights, a condition, a page, a time."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.search.filters import Condition
from retinue.core.errors import InvalidRequest
from retinue.core.types import Embedding

MAX_K: Final = 1000
MAX_REACH: Final = 10_000
MAX_TERMS: Final = 16
MAX_WEIGHT: Final = 100.0

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One thing that the results should be like, or unlike.

    Attributes:
        vectors: Unit vector by the field that it is compared in: "image" or "text".
        weight: Negative for "not this".
        tokens: (T, B) uint8 patch tokens of a picture; None for a text.
        pixels: Gives (H, W, 3) uint8 RGB of a picture, for the geometric check; None if they are
            not had.
    """

    vectors: Mapping[str, Floats]
    weight: float = 1.0
    tokens: NDArray[np.uint8] | None = None
    pixels: Callable[[], NDArray[np.uint8]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A query that is ready to be answered.

    Attributes:
        terms: At least one, one of them with a positive weight.
        where: Which items may be found; None for all.
        k: Results of the page, 1 to 1000.
        offset: Results before the page.
        rerank: Whether the stages after the index are run.
        dedupe: Whether of each group of duplicates only the best is shown.
        without: Ids that are not results: the item that is searched by, for example.
        deadline: On ``time.monotonic()``'s clock; a stage that would end later is left out.
    """

    terms: Sequence[Term]
    where: Condition | None = None
    k: int = 20
    offset: int = 0
    rerank: bool = True
    dedupe: bool = True
    without: Sequence[str] = ()
    deadline: float = field(default=float("inf"))

    def __post_init__(self) -> None:
        check_page(self.k, self.offset)
        if not 1 <= len(self.terms) <= MAX_TERMS:
            raise InvalidRequest(f"a query has 1 to {MAX_TERMS} terms, not {len(self.terms)}")
        if not any(term.weight > 0 for term in self.terms):
            raise InvalidRequest("a query needs a term with a positive weight: what to look for")


def check_page(k: int, offset: int) -> None:
    """Refuse a page that is out of reach.

    Raises:
        InvalidRequest: ``k`` or ``offset`` is.
    """
    if not 1 <= k <= MAX_K:
        raise InvalidRequest(
            f"k must be 1 to {MAX_K}, not {reprlib.repr(k)}; page with offset for more"
        )
    if not 0 <= offset <= MAX_REACH - k:
        raise InvalidRequest(
            f"offset must be 0 to {MAX_REACH - k} for k = {k}, not {reprlib.repr(offset)}: nobody "
            "reads so far; narrow the query with where"
        )


def check_weight(weight: float) -> float:
    """Return a term's weight.

    Raises:
        InvalidRequest: it is 0, not finite, or beyond 100.
    """
    if not 0 < abs(weight) <= MAX_WEIGHT:
        raise InvalidRequest(f"a weight must be -{MAX_WEIGHT:g} to {MAX_WEIGHT:g} and not 0")
    return weight


def image_term(
    embedding: Embedding,
    weight: float = 1.0,
    pixels: Callable[[], NDArray[np.uint8]] | None = None,
) -> Term:
    """Return the term of a picture, or of a region of one."""
    vectors = {"image": embedding.vector}
    if embedding.semantic is not None:
        vectors["text"] = embedding.semantic
    return Term(vectors, weight, embedding.tokens, pixels)


def directions(terms: Sequence[Term]) -> dict[str, Floats]:
    """Return, by field, the weighted sum of the terms that are compared there.

    A picture is compared as a picture; a text where the model can compare texts.
    """
    sums: dict[str, Floats] = {}
    for term in terms:
        name = "image" if "image" in term.vectors else "text"
        vector = np.float32(term.weight) * term.vectors[name]
        sums[name] = sums[name] + vector if name in sums else vector
    return sums
