"""The truth of visual search: collections, their models' spaces, items, and which slots are theirs.

Every write raises its collection's **generation**. A reader that knows generation G asks for the
`changes` since G and applies them to what it holds; it need not know who wrote. Vectors themselves
are in files (`retinue.store.rows`): their rows are made durable before `write` names their slots.

A collection has one writer at a time, which is its caller's business; readers may be many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, delete, func, select, update

from retinue.core.errors import InvalidRequest, NotFound
from retinue.store import _collection_writes as writes
from retinue.store._collection_catalogue import Catalogue
from retinue.store._collection_rows import (
    Changes,
    Collection,
    Failure,
    Item,
    Known,
    Put,
    Space,
    clean,
    item_of,
)
from retinue.store._collection_writes import chunks
from retinue.store.tables import collections, dropped, failures, items, spaces, vectors

__all__ = (
    "Changes",
    "Collection",
    "Collections",
    "Failure",
    "Item",
    "Known",
    "Page",
    "Put",
    "Space",
    "open_collections",
)

FETCHED: Final = 50_000
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Page:
    """Some items, in the order in which they were first added.

    Attributes:
        items: At most as many as were asked for.
        cursor: Give it to the next call to go on; -1 when there are no more.
    """

    items: tuple[Item, ...]
    cursor: int


def open_collections(url: str) -> Collections:
    """Open the collections of a database, making or upgrading its tables when that is needed.

    Args:
        url: As of `retinue.store.records.open_records`.

    Raises:
        ConfigError, MissingExtra, NotWritable, DiskFull, StorageError: as `open_records`.
    """
    return Collections(url)


class Collections(Catalogue):
    """All collections of one database. May be used by several threads at once."""

    def write(
        self,
        collection: Collection,
        puts: Sequence[Put] = (),
        removes: Sequence[str] = (),
        failed: Sequence[Failure] = (),
    ) -> int:
        """Put items, remove ids and note failures in one transaction; durable when it returns.

        An item whose id exists is replaced and keeps its number. If its content changed, its
        vectors of all spaces are dropped; else those of the spaces that are given anew.

        Returns:
            The new generation; the old one when nothing was to be done.

        Raises:
            InvalidRequest: an id is given twice.
            NotFound: the collection was deleted meanwhile.
        """
        times = Counter(clean(one) for one in (*(put.id for put in puts), *removes))
        twice, most = next(iter(times.most_common(1)), ("", 0))
        if most > 1:
            raise InvalidRequest(f"the id {twice[:80]!r} is given twice; an item has one")
        with self.writing("writing items") as connection:
            return writes.apply(connection, collection, puts, removes, failed)

    def set_meta(self, collection: Collection, item_id: str, meta: Mapping[str, Any]) -> int:
        """Replace the metadata of one item; return the new generation.

        Raises:
            NotFound: no item has this id.
        """
        with self.writing("writing metadata") as connection:
            generation = writes.raise_generation(connection, collection, 0)
            changed = connection.execute(
                update(items)
                .where(items.c.collection == collection.key, items.c.id == clean(item_id))
                .values(meta=orjson.dumps(dict(meta)).decode(), generation=generation)
            )
            if not changed.rowcount:
                raise _no_item(collection, item_id)
            writes.note_fields(connection, collection, writes.kinds_of([meta]))
            return generation

    def set_duplicates(self, collection: Collection, of: dict[int, int]) -> None:
        """Say which items (by number) are duplicates of which first one."""
        if not of:
            return
        with self.writing("writing duplicates") as connection:
            writes.set_duplicates(connection, collection, of)

    def changes(self, space: Space, collection: Collection, since: int) -> Changes:
        """Return what happened to a space's slots after a generation, up to the present one.

        ``whole`` says that all living slots are given instead, because what was dropped since then
        is no longer known in detail.
        """
        with self.reading("reading changes") as connection:
            at = select(collections.c.generation).where(collections.c.key == collection.key)
            generation = connection.execute(at).scalar()
            floor = connection.execute(select(spaces.c.floor).where(spaces.c.key == space.key))
            if generation is None:
                raise NotFound(f"the collection {collection.name!r} was deleted")
            # A database that was restored may be older than what its reader has kept.
            whole = since < (floor.scalar() or 0) or not 0 < since <= generation
            put = select(vectors.c.slot, vectors.c.number).where(vectors.c.space == space.key)
            gone = select(dropped.c.slot, dropped.c.slot).where(dropped.c.space == space.key)
            if not whole:
                # All else is read in the order of the slots, without a look at the generations.
                put = put.where(vectors.c.generation > since, vectors.c.generation <= generation)
                gone = gone.where(dropped.c.generation > since, dropped.c.generation <= generation)
            found = _pairs(connection, put.order_by(vectors.c.slot))
            lost = np.empty((0, 2), np.int64) if whole else _pairs(connection, gone)
        return Changes(generation, found[:, 0], found[:, 1], lost[:, 0], whole)

    def forget_dropped(self, space: Space, before: int) -> None:
        """Forget which slots were dropped up to a generation; older readers read all anew."""
        with self.writing("forgetting dropped slots") as connection:
            old = (dropped.c.space == space.key) & (dropped.c.generation <= before)
            connection.execute(delete(dropped).where(old))
            query = update(spaces).where(spaces.c.key == space.key, spaces.c.floor < before)
            connection.execute(query.values(floor=before))

    def item(self, collection: Collection, item_id: str) -> Item:
        """Return one item by its id.

        Raises:
            NotFound: no item has it.
        """
        query = select(items).where(
            items.c.collection == collection.key, items.c.id == clean(item_id)
        )
        with self.reading("reading an item") as connection:
            row = connection.execute(query).first()
        if row is None:
            raise _no_item(collection, item_id)
        return item_of(row)

    def items(self, collection: Collection, numbers: Sequence[int]) -> dict[int, Item]:
        """Return those items of the given numbers that exist, by number."""
        query = select(items).where(items.c.collection == collection.key)
        found: dict[int, Item] = {}
        with self.reading("reading items") as connection:
            for some in chunks(list(numbers)):
                for row in connection.execute(query.where(items.c.number.in_(some))):
                    found[row.number] = item_of(row)
        return found

    def page(self, collection: Collection, *, limit: int = 50, cursor: int = -1) -> Page:
        """Return items in the order of their numbers, those behind a cursor."""
        query = (
            select(items)
            .where(items.c.collection == collection.key, items.c.number > cursor)
            .order_by(items.c.number)
            .limit(limit + 1)
        )
        with self.reading("listing items") as connection:
            rows = connection.execute(query).all()
        more = len(rows) > limit
        return Page(
            tuple(item_of(row) for row in rows[:limit]), rows[limit - 1].number if more else -1
        )

    def rows(self, collection: Collection, since: int, names: Sequence[str]) -> Iterator[Row[Any]]:
        """Yield number and the named columns of items that changed after a generation."""
        query = select(items.c.number, *(items.c[name] for name in names)).where(
            items.c.collection == collection.key, items.c.generation > since
        )
        with self.reading("reading items") as connection:
            result = connection.execution_options(yield_per=10_000).execute(query)
            yield from result

    def known(self, collection: Collection, ids: Iterable[str]) -> dict[str, Known]:
        """Return what tells a changed file from one that was indexed already, by id."""
        names = ("number", "id", "source", "size", "mtime_us", "etag", "sha256", "meta")
        query = select(*(items.c[name] for name in names)).where(
            items.c.collection == collection.key
        )
        found: dict[str, Known] = {}
        with self.reading("reading known items") as connection:
            for some in chunks([clean(one) for one in ids]):
                rows = connection.execute(query.where(items.c.id.in_(some))).all()
                slots = select(vectors.c.number, vectors.c.space).where(
                    vectors.c.space.in_(
                        select(spaces.c.key).where(spaces.c.collection == collection.key)
                    ),
                    vectors.c.number.in_([row.number for row in rows]),
                )
                having: dict[int, set[int]] = {}
                for number, space in connection.execute(slots):
                    having.setdefault(number, set()).add(space)
                for row in rows:
                    known = Known(**row._asdict(), spaces=frozenset(having.get(row.number, ())))
                    found[row.id] = known
        return found

    def ids(self, collection: Collection, source: str) -> Iterator[str]:
        """Yield the ids of all items that came from a source."""
        query = select(items.c.id).where(
            items.c.collection == collection.key, items.c.source == clean(source)
        )
        with self.reading("reading ids") as connection:
            yield from connection.execution_options(yield_per=10_000).execute(query).scalars()

    def slots(self, space: Space, numbers: Sequence[int]) -> dict[int, int]:
        """Return the slots of items in a space, by number; absent where one has no vector."""
        query = select(vectors.c.number, vectors.c.slot).where(vectors.c.space == space.key)
        found: dict[int, int] = {}
        with self.reading("reading slots") as connection:
            for some in chunks(list(numbers)):
                rows = connection.execute(query.where(vectors.c.number.in_(some)))
                found.update((row.number, row.slot) for row in rows)
        return found

    def same_content(self, collection: Collection, sha256: str) -> list[int]:
        """Return the numbers of items whose files have this digest, oldest first."""
        query = select(items.c.number).where(
            items.c.collection == collection.key, items.c.sha256 == sha256
        )
        with self.reading("reading duplicates") as connection:
            return list(connection.execute(query.order_by(items.c.number)).scalars())

    def duplicates(
        self, collection: Collection, *, limit: int = 50, cursor: int = -1
    ) -> tuple[list[list[Item]], int]:
        """Return groups of duplicates, each with its first item in front, and a cursor or -1."""
        first = (
            select(items.c.duplicate_of)
            .where(
                items.c.collection == collection.key,
                items.c.duplicate_of > cursor,
                items.c.duplicate_of != items.c.number,
            )
            .distinct()
            .order_by(items.c.duplicate_of)
            .limit(limit + 1)
        )
        with self.reading("reading duplicates") as connection:
            heads = list(connection.execute(first).scalars())
            query = select(items).where(
                items.c.collection == collection.key, items.c.duplicate_of.in_(heads[:limit])
            )
            rows = connection.execute(query.order_by(items.c.number)).all()
        groups: dict[int, list[Item]] = {head: [] for head in heads[:limit]}
        for row in rows:
            groups[row.duplicate_of].append(item_of(row))
        found = [group for group in groups.values() if len(group) > 1]
        return found, heads[limit - 1] if len(heads) > limit else -1

    def group_sizes(self, collection: Collection, heads: Sequence[int]) -> dict[int, int]:
        """Return how many items each group of duplicates has, by the number of its first one."""
        mine = (items.c.collection == collection.key) & items.c.duplicate_of.in_(list(heads))
        query = select(items.c.duplicate_of, func.count()).where(mine)
        with self.reading("counting duplicates") as connection:
            rows = connection.execute(query.group_by(items.c.duplicate_of)).all()
        return {row[0]: row[1] for row in rows}

    def count_failures(self, collection: Collection) -> int:
        """Return how many files could not be indexed."""
        query = select(func.count()).where(failures.c.collection == collection.key)
        with self.reading("counting failures") as connection:
            return int(connection.execute(query).scalar_one())

    def forget_failures(self, collection: Collection, source: str, still: Iterable[str]) -> None:
        """Forget the failures of a source, but for those of the paths that still fail."""
        mine = (failures.c.collection == collection.key) & (failures.c.source == clean(source))
        kept = {writes.digest_of(path) for path in still}
        with self.writing("forgetting failures") as connection:
            known = connection.execute(select(failures.c.digest).where(mine)).scalars().all()
            for some in chunks([digest for digest in known if digest not in kept]):
                connection.execute(delete(failures).where(mine, failures.c.digest.in_(some)))

    def failures(self, collection: Collection, *, limit: int = 1000) -> list[Failure]:
        """Return the files that could not be indexed, by path."""
        names = ("source", "path", "code", "message")
        query = select(*(failures.c[name] for name in names)).where(
            failures.c.collection == collection.key
        )
        with self.reading("reading failures") as connection:
            rows = connection.execute(query.order_by(failures.c.path).limit(limit)).all()
        return [Failure(**row._asdict()) for row in rows]


def _no_item(collection: Collection, item_id: str) -> NotFound:
    return NotFound(f"collection {collection.name!r} has no item {item_id[:80]!r}")


def _pairs(connection: Connection, query: Select[tuple[int, int]]) -> Numbers:
    """Return two columns of whole numbers as (N, 2), by the driver's rows: a million a second."""
    result = connection.execute(query)
    parts = []
    assert result.cursor is not None
    while rows := result.cursor.fetchmany(FETCHED):
        flat = np.fromiter(chain.from_iterable(rows), np.int64, 2 * len(rows))
        parts.append(flat.reshape(-1, 2))
    result.close()
    return np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
