"""Which id stands at which position of an index, and which positions are hidden."""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from retinue.index._checks import Ids

Mask = NDArray[np.bool_]

SPARSE: Final = 4
"""Ids are looked up in a table while the largest is below so many times the positions."""
SMALL: Final = 2**16
"""Ids below this are always in the table."""
MOST: Final = 2**31 - 1
"""Positions and the table's ids are 32-bit integers."""


class Labels:
    """Positions are given in order and never again; 9 to 21 bytes each, or 9 for large ids.

    Ids that are dense, as slots of a file are, stand in a table of positions and take 32 bits. Any
    others take 64 bits and are looked up by a scan.
    """

    def __init__(self) -> None:
        self._ids: NDArray[Any] = np.empty(0, np.int32)
        self._visible = np.empty(0, np.bool_)
        self._count = 0
        self._alive = 0
        self._table: NDArray[np.int32] | None = np.empty(0, np.int32)
        self._hidden: list[Ids] = []
        self._packed: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        """Positions that are visible."""
        return self._alive

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        table = 0 if self._table is None else self._table.nbytes
        return self._ids.nbytes + self._visible.nbytes + table

    @property
    def hidden(self) -> Ids:
        """Positions that were hidden since `dropped`."""
        return np.concatenate(self._hidden) if self._hidden else np.empty(0, np.int64)

    @property
    def hides(self) -> bool:
        """Whether any position is hidden that was not dropped."""
        return bool(self._hidden)

    def append(self, ids: Ids) -> Ids:
        """Give new positions to ids (N,), none of which is visible."""
        start, end = self._count, self._count + len(ids)
        self._count = end
        largest = int(ids.max()) if len(ids) else -1
        self._tabulate(largest)
        if largest > MOST and self._ids.dtype != np.int64:
            self._ids = self._ids.astype(np.int64)
        if end > len(self._visible):
            size = max(end, len(self._visible) * 5 // 4, 1024)
            grown, visible = np.empty(size, self._ids.dtype), np.zeros(size, np.bool_)
            grown[:start], visible[:start] = self._ids[:start], self._visible[:start]
            self._ids, self._visible = grown, visible
        self._ids[start:end], self._visible[start:end] = ids, True
        positions = np.arange(start, end, dtype=np.int64)
        if self._table is not None:
            self._table[ids] = positions
        self._alive, self._packed = self._alive + len(ids), None
        return positions

    def _tabulate(self, largest: int) -> None:
        """Make the table long enough for an id, or give it up."""
        if self._table is None or largest < len(self._table):
            return
        if largest >= min(max(SPARSE * self._count, SMALL), MOST):
            self._table = None
            return
        grown = np.full(max(largest + 1, len(self._table) * 5 // 4), -1, np.int32)
        grown[: len(self._table)] = self._table
        self._table = grown

    def mask(self, ids: Ids) -> Mask:
        """Return which positions are visible and belong to ids."""
        if self._table is None:
            return np.isin(self._ids[: self._count], ids) & self._visible[: self._count]
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self._table)):
            ids = ids[(ids >= 0) & (ids < len(self._table))]
        places = self._table[ids]
        # Those without a position mark one place more, which is cut off.
        mask = np.zeros(self._count + 1, np.bool_)
        mask[places] = True
        return mask[:-1]

    def remove(self, ids: Ids) -> int:
        """Hide the positions of ids; return how many there were."""
        places = np.flatnonzero(self.mask(ids))
        if len(places):
            if self._table is not None:
                self._table[self._ids[places]] = -1
            self._visible[places] = False
            self._alive -= len(places)
            self._hidden.append(places)
            self._packed = None
        return len(places)

    def dropped(self) -> None:
        """Forget what was hidden: the index does not hold it any more."""
        self._hidden = []

    def packed(self) -> NDArray[np.uint8]:
        """Return which positions are visible, eight in a byte, the first in the lowest bit."""
        if self._packed is None:
            self._packed = np.packbits(self._visible[: self._count], bitorder="little")
        return self._packed

    def ids(self, positions: Ids) -> Ids:
        """Return the ids that stand at positions."""
        return self._ids[positions].astype(np.int64)

    def state(self) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return what `restored` needs: ids, and each position's state (0 visible, 1 hidden, 2
        hidden and dropped)."""
        states = np.where(self._visible[: self._count], 0, 2).astype(np.uint8)
        states[self.hidden] = 1
        return self._ids[: self._count], states

    @classmethod
    def restored(cls, ids: NDArray[Any], states: NDArray[Any]) -> Self:
        """Return what `state` described."""
        labels = cls()
        labels.append(ids.astype(np.int64))
        gone = states > 0
        labels._visible[: len(ids)][gone] = False
        labels._alive -= int(gone.sum())
        if labels._table is not None and gone.any():
            # An id may stand at several positions, of which the one that is visible counts.
            labels._table[ids[gone]] = -1
            labels._table[ids[~gone]] = np.flatnonzero(~gone)
        hidden = np.flatnonzero(states == 1)
        labels._hidden = [hidden] if len(hidden) else []
        return labels
