"""How far decoding may run ahead of the model."""

from __future__ import annotations

import threading


class Place:
    """An item's place between its decoding and its result."""

    __slots__ = ("_given_up", "_taken")

    def __init__(self) -> None:
        self._taken = False
        self._given_up = False


class Lead:
    """Counts the items between the start of their decoding and their result, from any thread."""

    def __init__(self, enough: int) -> None:
        """Set the bound: with so many items no further decoding is worth its memory and cores."""
        self._enough = enough
        self._count = 0
        self._lock = threading.Lock()

    def is_enough(self) -> bool:
        """Tell whether decoding should wait."""
        return self._count >= self._enough

    def take(self, place: Place) -> None:
        """Count an item whose decoding starts, unless it was given up before."""
        with self._lock:
            place._taken = not place._given_up
            self._count += place._taken

    def give_up(self, place: Place) -> None:
        """Count an item no more: it has its result, or nobody waits for it."""
        with self._lock:
            place._given_up = True
            self._count -= place._taken
            place._taken = False
