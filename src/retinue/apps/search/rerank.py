"""From 200 candidates to the order that is shown: stages under a deadline.

A stage that would end too late is skipped rather than late: its usual time is learnt from its runs.
A stage of one's own is named "module:attribute" in the settings; it is anything with the members of
`Stage`, for example a head that was learnt from clicks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from retinue.apps.search import geometry
from retinue.apps.search.query import Floats, Query, Term
from retinue.apps.search.space import OpenSpace
from retinue.apps.search.tokens import distances, interaction, outstanding
from retinue.core.errors import PluginError
from retinue.core.plugins import resolve

MARGIN: Final = 1.5
"""How much longer than usual a stage may take before it is late."""
LEARN: Final = 0.2
FORGIVE: Final = 0.9
OUTLIER: Final = 4.0
LEAST_MS: Final = 5.0
"""How many times the usual time one run counts as at most: a cold disk is no habit."""


@dataclass(slots=True, eq=False)
class Candidates:
    """What the index found for one query, on its way through the stages.

    Attributes:
        query: What was asked.
        space: Where it was found.
        direction: By field, the unit vector that was looked for.
        slots: (C,) int64.
        numbers: (C,) int64, the items.
        scores: (C,) float32, larger is better; a stage replaces them.
        stages: By stage, its own values (C,) float32; NaN where it has none.
        pictures: Gives thumbnails (H, W, 3) uint8 RGB by number, of those that have one.
        differing: (C, T, Q) bits, where the tokens were compared.
    """

    query: Query
    space: OpenSpace
    direction: Mapping[str, Floats]
    slots: NDArray[np.int64]
    numbers: NDArray[np.int64]
    scores: Floats
    pictures: Callable[[Sequence[int]], Mapping[int, NDArray[np.uint8]]]
    stages: dict[str, Floats] = field(default_factory=dict)
    differing: NDArray[np.uint16] | None = None

    def picture_term(self) -> Term | None:
        """Return the heaviest wanted term that is a picture, or None."""
        pictures = (t for t in self.query.terms if t.tokens is not None or t.pixels is not None)
        wanted = [term for term in pictures if term.weight > 0]
        return max(wanted, key=lambda term: term.weight, default=None)


class Stage(Protocol):
    """One step of the re-ranking."""

    @property
    def name(self) -> str:
        """What its values are called in the answer."""
        ...

    @property
    def usual_ms(self) -> float:
        """How long it takes, before it was ever measured."""
        ...

    def applies(self, candidates: Candidates) -> bool:
        """Whether it has anything to say about this query."""
        ...

    def run(self, candidates: Candidates) -> None:
        """Set its values in ``candidates.stages``, and new ``scores``."""
        ...


class Expansion:
    """Query expansion: the best candidates vote with the query, each as much as it is like it.

    Source: alpha query expansion, F. Radenović, G. Tolias, O. Chum, TPAMI 2019 (arXiv:1711.02512).

    Args:
        voters: Candidates that vote.
        alpha: Power of their cosine.
        weight: Share of the expanded query's cosine in the new score.
    """

    name = "diffusion"
    usual_ms = 1.0

    def __init__(self, voters: int = 5, alpha: float = 3.0, weight: float = 0.5) -> None:
        self._voters, self._alpha, self._weight = voters, alpha, weight

    def applies(self, candidates: Candidates) -> bool:
        """Whether there are enough candidates, compared in one field."""
        return len(candidates.direction) == 1 and len(candidates.slots) > self._voters

    def run(self, candidates: Candidates) -> None:
        """Score all candidates by the expanded query."""
        ((name, vector),) = candidates.direction.items()
        known = candidates.space.fields[name].exact(candidates.slots)
        cosines = known @ vector
        first = np.argsort(-cosines)[: self._voters]
        votes = np.maximum(cosines[first], 0) ** self._alpha
        expanded = vector + votes @ known[first]
        values = known @ (expanded / max(float(np.linalg.norm(expanded)), 1e-12))
        candidates.stages[self.name] = values.astype(np.float32)
        mixed = (1 - self._weight) * candidates.scores + self._weight * values
        candidates.scores = mixed.astype(np.float32)


class PatchTokens:
    """Late interaction of 1-bit patch tokens; see `retinue.apps.search.tokens`.

    It raises those whose patches match far better than the others' do: they show the same thing.

    Args:
        weight: What a similarity above the usual adds to a score.
    """

    name = "tokens"
    usual_ms = 8.0

    def __init__(self, weight: float = 3.0) -> None:
        self._weight = weight

    def applies(self, candidates: Candidates) -> bool:
        """Whether the query is a picture alone, and the model gives tokens."""
        alone = len(candidates.direction) == 1
        term = candidates.picture_term()
        had = term is not None and term.tokens is not None
        return alone and had and candidates.space.tokens is not None

    def run(self, candidates: Candidates) -> None:
        """Compare each patch of the query with each patch of each candidate."""
        term, rows = candidates.picture_term(), candidates.space.tokens
        assert term is not None and term.tokens is not None and rows is not None
        width = candidates.space.space.token_bytes
        tokens = rows.read(candidates.slots).reshape(len(candidates.slots), -1, width)
        candidates.differing = distances(term.tokens, tokens)
        values = interaction(candidates.differing, 8 * width)
        candidates.stages[self.name] = values
        candidates.scores = candidates.scores + np.float32(self._weight) * outstanding(values)


class Geometry:
    """Counts local features that agree with one position, for the first few, when in doubt.

    Args:
        first: So many candidates are looked at.
        sure: From this score on the first candidate is beyond doubt.
        least: Matches that are no accident.
        weight: What many matches add to a score, at most.
    """

    name = "geometric"
    usual_ms = 60.0

    def __init__(
        self, first: int = 8, sure: float = 0.9, least: int = 8, weight: float = 0.5
    ) -> None:
        self._first, self._sure, self._least, self._weight = first, sure, least, weight

    def applies(self, candidates: Candidates) -> bool:
        """Whether the query's pixels are there, and the first candidate is in doubt."""
        term = candidates.picture_term()
        alone = len(candidates.direction) == 1
        if not alone or term is None or term.pixels is None or len(candidates.slots) < 2:
            return False
        return float(candidates.scores.max()) < self._sure

    def run(self, candidates: Candidates) -> None:
        """Raise those that show the same thing in some position."""
        term = candidates.picture_term()
        assert term is not None and term.pixels is not None
        order = np.argsort(-candidates.scores)[: self._first]
        pictures = candidates.pictures([int(candidates.numbers[place]) for place in order])
        asked = geometry.features(term.pixels())
        values = np.full(len(candidates.slots), np.nan, np.float32)
        scores = candidates.scores.copy()
        for place in order:
            if time.monotonic() > candidates.query.deadline:
                break
            picture = pictures.get(int(candidates.numbers[place]))
            if picture is None:
                continue
            count = geometry.inliers(asked, geometry.features(picture))
            values[place] = count
            if count >= self._least:
                scores[place] += self._weight * (1 - self._least / (2 * count))
        candidates.stages[self.name] = values
        candidates.scores = scores


BUILT_IN: Final[Mapping[str, Callable[[], Stage]]] = {
    "diffusion": Expansion,
    "tokens": PatchTokens,
    "geometric": Geometry,
}


_MEMBERS: Final = ("name", "usual_ms", "applies", "run")


def _made(name: str) -> Stage:
    if name not in BUILT_IN and not all(name.partition(":")):
        known = ", ".join(BUILT_IN)
        raise PluginError(
            f"no re-ranking stage is called {name!r}; there are: {known}; name one of your own as "
            "'module:attribute'"
        )
    try:
        stage: Stage = (BUILT_IN.get(name) or resolve(name))()
    except PluginError:
        raise
    except Exception as error:  # an isolation boundary: a stage of one's own may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"the re-ranking stage {name!r} cannot be made: {reason}") from error
    missing = [member for member in _MEMBERS if not hasattr(stage, member)]
    if missing:
        raise PluginError(f"the re-ranking stage {name!r} has no {', '.join(missing)}")
    return stage


class Reranker:
    """Runs the stages that there is time for. May be used by several threads at once.

    Args:
        names: Stages in their order, built in or "module:attribute" of a callable that makes one.

    Raises:
        PluginError: a stage is unknown, cannot be imported or made, or lacks a member.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.stages = tuple(_made(name) for name in names)
        self._usual = {stage.name: float(stage.usual_ms) for stage in self.stages}
        self._lock = threading.Lock()

    def run(self, candidates: Candidates) -> tuple[list[str], dict[str, float]]:
        """Run all stages that apply and can be done in time.

        Returns:
            The names of those that were skipped for the time, and the others' milliseconds.
        """
        skipped: list[str] = []
        timings: dict[str, float] = {}
        for stage in self.stages:
            if not stage.applies(candidates):
                continue
            start = time.monotonic()
            if start + MARGIN * self._usual[stage.name] / 1000 > candidates.query.deadline:
                skipped.append(stage.name)
                self._forgive(stage.name)
                continue
            stage.run(candidates)
            taken = (time.monotonic() - start) * 1000
            timings[stage.name] = taken
            with self._lock:
                usual = self._usual[stage.name]
                most = OUTLIER * max(usual, LEAST_MS)
                self._usual[stage.name] += LEARN * (min(taken, most) - usual)
        return skipped, timings

    def _forgive(self, name: str) -> None:
        """Believe a little less in a time that keeps a stage from being measured again."""
        with self._lock:
            self._usual[name] *= FORGIVE
