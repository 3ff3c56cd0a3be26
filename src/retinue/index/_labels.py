"""Which id stands at which position of an index, and which positions are hidden."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from retinue.index._checks import Ids

Mask = NDArray[np.bool_]


class Labels:
    """Positions are given in order and never again; 9 bytes each.

    Ids that only grow, as slots of a file do, are looked up by bisection; any others by a scan.
    """

    def __init__(self) -> None:
        self._ids = np.empty(0, np.int64)
        self._visible = np.empty(0, np.bool_)
        self._count = 0
        self._alive = 0
        self._grow_only = True
        self._hidden: list[Ids] = []

    def __len__(self) -> int:
        """Positions that are visible."""
        return self._alive

    @property
    def hidden(self) -> Ids:
        """Positions that were hidden since `dropped`."""
        return np.concatenate(self._hidden) if self._hidden else np.empty(0, np.int64)

    def append(self, ids: Ids) -> Ids:
        """Give new positions to ids (N,), none of which is visible."""
        start, end = self._count, self._count + len(ids)
        if end > len(self._ids):
            size = max(end, len(self._ids) * 3 // 2, 1024)
            grown, visible = np.empty(size, np.int64), np.zeros(size, np.bool_)
            grown[:start], visible[:start] = self._ids[:start], self._visible[:start]
            self._ids, self._visible = grown, visible
        last = self._ids[start - 1] if start else -1
        steps = np.diff(ids, prepend=last)
        self._grow_only = self._grow_only and bool((steps > 0).all())
        self._ids[start:end], self._visible[start:end] = ids, True
        self._count, self._alive = end, self._alive + len(ids)
        return np.arange(start, end, dtype=np.int64)

    def find(self, ids: Ids) -> Ids:
        """Return the visible positions of ids, without those that have none, in no order."""
        known = self._ids[: self._count]
        if self._grow_only:
            places = np.searchsorted(known, ids)
            inside = places < self._count
            places, ids = places[inside], ids[inside]
            places = places[known[places] == ids]
        else:
            places = np.flatnonzero(np.isin(known, ids))
        return np.unique(places[self._visible[places]])

    def remove(self, ids: Ids) -> int:
        """Hide the positions of ids; return how many there were."""
        places = self.find(ids)
        if len(places):
            self._visible[places] = False
            self._alive -= len(places)
            self._hidden.append(places)
        return len(places)

    def dropped(self) -> None:
        """Forget what was hidden: the index does not hold it any more."""
        self._hidden = []

    def alive(self, among: Ids | None) -> Ids:
        """Return the visible positions of some ids; nothing is looked up for None."""
        return np.empty(0, np.int64) if among is None else self.find(np.asarray(among, np.int64))

    def visible(self) -> Mask:
        """Return which positions are visible."""
        return self._visible[: self._count]

    def only(self, positions: Ids) -> Mask:
        """Return the mask of some positions."""
        mask = np.zeros(self._count, np.bool_)
        mask[positions] = True
        return mask

    def ids(self, positions: Ids) -> Ids:
        """Return the ids that stand at positions."""
        return self._ids[positions]

    def state(self) -> tuple[Ids, NDArray[np.int64]]:
        """Return what `restored` needs: ids, and each position's state (0 visible, 1 hidden, 2
        hidden and dropped)."""
        states = np.where(self.visible(), 0, 2).astype(np.int64)
        states[self.hidden] = 1
        return self._ids[: self._count], states

    @classmethod
    def restored(cls, ids: Ids, states: NDArray[np.int64]) -> Self:
        """Return what `state` described."""
        labels = cls()
        labels.append(ids)
        gone = states > 0
        labels._visible[: len(ids)][gone] = False
        labels._alive -= int(gone.sum())
        hidden = np.flatnonzero(states == 1)
        labels._hidden = [hidden] if len(hidden) else []
        return labels
