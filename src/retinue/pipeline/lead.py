"""How far decoding may run ahead of the model."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort

Rank = tuple[float, float]


class Place:
    """An item's place between its decoding and its result.

    Attributes:
        rank: The item's (-priority, deadline): what is smaller goes first.
    """

    __slots__ = ("_given_up", "_taken", "rank")

    def __init__(self, priority: int = 0, deadline: float = math.inf) -> None:
        self.rank: Rank = (-priority, deadline)
        self._taken = False
        self._given_up = False


class Lead:
    """Knows the items between the start of their decoding and their result, from any thread."""

    def __init__(self, enough: int) -> None:
        """Set the bound: behind so many items no decoding is worth its memory and cores."""
        self._enough = enough
        self._ranks: list[Rank] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ranks)

    def is_enough(self, place: Place) -> bool:
        """Tell whether the decoding of an item should wait.

        Only what goes before it counts: an urgent item waits for no place that less urgent ones
        hold, which would let it starve while raw tensors keep those from being run.
        """
        with self._lock:
            ranks, enough = self._ranks, self._enough
            return len(ranks) >= enough and ranks[enough - 1] <= place.rank

    def take(self, place: Place) -> None:
        """Count an item whose decoding starts, unless it was given up before."""
        with self._lock:
            if not place._given_up:
                place._taken = True
                insort(self._ranks, place.rank)

    def give_up(self, place: Place) -> None:
        """Count an item no more: it has its result, or nobody waits for it."""
        with self._lock:
            place._given_up = True
            if place._taken:
                place._taken = False
                del self._ranks[bisect_left(self._ranks, place.rank)]
