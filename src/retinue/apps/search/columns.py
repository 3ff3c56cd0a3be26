"""Metadata by column, so that a filter over a million items takes milliseconds.

A column is read from the database when a filter first asks for its field, and follows the
generations from then on. Columns are indexed by an item's number; what was removed stays, unseen,
because no slot has its number any more.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from retinue.store.collections import Collection, Collections

BUILT_IN: Final = {
    "id": "id",
    "path": "path",
    "source": "source",
    "width": "width",
    "height": "height",
    "added": "added_us",
}
"""Fields that every item has, and the columns of the table that they are."""

_COMPARE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "gte": operator.ge,
    "gt": operator.gt,
    "lte": operator.le,
    "lt": operator.lt,
}
Mask = NDArray[np.bool_]


class Column:
    """The values of one field: numbers (flags are 0 and 1) and texts, as pairs (item, text)."""

    def __init__(self) -> None:
        self._size = 0
        self._numbers = np.full(0, np.nan)
        self._vocabulary: dict[str, int] = {}
        self._items = np.empty(0, np.int64)
        self._codes = np.empty(0, np.int32)

    def set(self, numbers: Sequence[int], values: Sequence[Any]) -> None:
        """Replace the values of items; None and what cannot be compared count as absent."""
        if not numbers:
            return
        changed = np.asarray(numbers, np.int64)
        self.grow(int(changed.max()) + 1)
        self._numbers[changed] = np.nan
        if len(self._items):
            kept = ~np.isin(self._items, changed)
            self._items, self._codes = self._items[kept], self._codes[kept]
        items: list[int] = []
        codes: list[int] = []
        for number, value in zip(numbers, values, strict=True):
            if isinstance(value, bool | int | float):
                self._numbers[number] = float(value)
            else:
                for text in value if isinstance(value, list) else [value]:
                    if isinstance(text, str):
                        items.append(number)
                        codes.append(self._vocabulary.setdefault(text, len(self._vocabulary)))
        self._items = np.append(self._items, np.asarray(items, np.int64))
        self._codes = np.append(self._codes, np.asarray(codes, np.int32))

    def grow(self, size: int) -> None:
        """Make room for so many items; the new ones have no value."""
        self._size = max(size, self._size)
        if size > len(self._numbers):
            more = max(size, len(self._numbers) * 3 // 2) - len(self._numbers)
            self._numbers = np.append(self._numbers, np.full(more, np.nan))

    def present(self) -> Mask:
        """Return which items have a value."""
        mask: Mask = ~np.isnan(self._numbers[: self._size])
        mask[self._items] = True
        return mask

    def equal(self, values: Iterable[str | float | bool | None]) -> Mask:
        """Return which items have one of some values; None stands for none at all."""
        wanted = set(values)
        numbers = [float(v) for v in wanted if v is not None and not isinstance(v, str)]
        mask: Mask = np.isin(self._numbers[: self._size], numbers)
        fits = np.zeros(len(self._vocabulary), np.bool_)
        fits[[self._vocabulary[v] for v in wanted if v in self._vocabulary]] = True
        mask[self._items[fits[self._codes]]] = True
        if None in wanted:
            mask |= ~self.present()
        return mask

    def texts_where(self, holds: Callable[[str, str], bool], value: str) -> Mask:
        """Return which items have a text that a predicate holds for."""
        fits = np.fromiter((holds(text, value) for text in self._vocabulary), np.bool_)
        mask = np.zeros(self._size, np.bool_)
        if len(fits):
            mask[self._items[fits[self._codes]]] = True
        return mask

    def numbers_where(self, comparison: str, value: float) -> Mask:
        """Return which items have a number for which "gte", "gt", "lte" or "lt" holds."""
        mask: Mask = _COMPARE[comparison](self._numbers[: self._size], value)
        return mask


class Columns:
    """The columns of one collection. One thread at a time prepares and reads, under `lock`."""

    def __init__(self, store: Collections, collection: Collection) -> None:
        self._store = store
        self._collection = collection
        self._columns: dict[str, Column] = {}
        self._generation = 0
        self._size = 0
        self.lock = threading.Lock()

    def prepare(self, names: Iterable[str], generation: int) -> None:
        """Read the columns of some fields, and bring all that were read to a generation."""
        new = {name: Column() for name in names if name not in self._columns}
        if new:
            self._read(new, -1)
        if self._columns and self._generation < generation:
            self._read(self._columns, self._generation)
        self._columns |= new
        # What came later is read again at the next call, which does no harm.
        self._generation = max(self._generation, generation)

    def column(self, name: str) -> Column:
        """Return a column that `prepare` has read; all have the same number of items."""
        column = self._columns[name]
        column.grow(self._size)
        return column

    def _read(self, columns: dict[str, Column], since: int) -> None:
        built_in = [name for name in columns if name in BUILT_IN]
        table = [BUILT_IN[name] for name in built_in]
        numbers: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in columns}
        for row in self._store.rows(self._collection, since, [*table, "meta"]):
            numbers.append(row[0])
            meta = orjson.loads(row[-1]) if len(columns) > len(built_in) else {}
            given: dict[str, Any] = dict(zip(built_in, row[1:-1], strict=True))
            for name, column_values in values.items():
                value: Any = given[name] if name in given else meta.get(name)
                column_values.append(value / 1e6 if name == "added" else value)
        self._size = max([self._size, *(number + 1 for number in numbers)])
        for name, column in columns.items():
            column.set(numbers, values[name])
