"""How a write of items reaches the tables: in the caller's transaction."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy import Connection, Select, bindparam, delete, insert, select, update

from retinue.core.errors import NotFound
from retinue.store._collection_rows import Collection, Failure, Put, clean
from retinue.store.database import insert_new
from retinue.store.tables import collections, dropped, failures, fields, items, spaces, vectors

SPACE_FIELDS: Final = (
    *("model", "version", "image_dim", "text_dim"),
    *("grid_rows", "grid_columns", "token_bytes"),
)
_AT_ONCE = 500
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Old:
    number: int
    sha256: str
    duplicate_of: int
    spaces: set[int]


def apply(
    connection: Connection,
    collection: Collection,
    puts: Sequence[Put],
    removes: Sequence[str],
    failed: Sequence[Failure],
) -> int:
    """Write all of it; see `retinue.store.collections.Collections.write`."""
    ids = [clean(put.id) for put in puts]
    gone_ids = [clean(one) for one in removes]
    old = _existing(connection, collection, ids + gone_ids)
    gone = [old[one].number for one in gone_ids if one in old]
    added = sum(one not in old for one in ids)
    if not puts and not gone:
        _note_failures(connection, collection, [], failed)
        return generation_of(connection, collection)
    generation = raise_generation(connection, collection, added - len(gone), added)
    first = _next_number(connection, collection) - added
    every = set(connection.execute(_spaces_of(collection)).scalars())
    rows, stale = _rows(collection, puts, ids, old, generation, first)
    drops: dict[int, list[int]] = {space: list(gone) for space in every}
    for number, kept in stale.items():
        for space in every - kept:
            drops[space].append(number)
    for space, numbers in drops.items():
        _drop(connection, space, numbers, generation)
    for some in chunks([*stale, *gone]):
        owned = (items.c.collection == collection.key) & items.c.number.in_(some)
        connection.execute(delete(items).where(owned))
    if rows:
        connection.execute(insert(items), rows)
        _add_vectors(connection, puts, [row["number"] for row in rows], generation)
    note_fields(connection, collection, kinds_of(put.meta for put in puts))
    _note_failures(connection, collection, [put.path for put in puts], failed)
    return generation


def _rows(
    collection: Collection,
    puts: Sequence[Put],
    ids: Sequence[str],
    old: Mapping[str, _Old],
    generation: int,
    first: int,
) -> tuple[list[dict[str, Any]], dict[int, set[int]]]:
    """Return the items' rows, and the numbers that are replaced with the spaces that each keeps."""
    now = time.time_ns() // 1000
    rows: list[dict[str, Any]] = []
    stale: dict[int, set[int]] = {}
    number = first
    for put, one in zip(puts, ids, strict=True):
        known = old.get(one)
        if known is None:
            own, group, number = number, number, number + 1
        else:
            own, same = known.number, known.sha256 == put.sha256
            group = known.duplicate_of if same else own
            # The same content keeps what other models made of it.
            stale[own] = known.spaces - set(put.vectors) if same else set()
        rows.append(
            {
                "collection": collection.key,
                "number": own,
                "id": one,
                "source": clean(put.source),
                "path": clean(put.path),
                "sha256": put.sha256,
                "size": put.size,
                "mtime_us": put.mtime_us,
                "etag": clean(put.etag)[:255],
                "width": put.width,
                "height": put.height,
                "added_us": now,
                "meta": orjson.dumps(dict(put.meta)).decode(),
                "pdq": put.pdq,
                "thumbnail": put.thumbnail,
                "duplicate_of": group,
                "generation": generation,
            }
        )
    return rows, stale


def _spaces_of(collection: Collection) -> Select[Any]:
    return select(spaces.c.key).where(spaces.c.collection == collection.key)


def _existing(
    connection: Connection, collection: Collection, ids: Sequence[str]
) -> dict[str, _Old]:
    names = ("id", "number", "sha256", "duplicate_of")
    query = select(*(items.c[name] for name in names)).where(items.c.collection == collection.key)
    having = select(vectors.c.number, vectors.c.space).where(
        vectors.c.space.in_(_spaces_of(collection))
    )
    found: dict[str, _Old] = {}
    for some in chunks(list(ids)):
        rows = connection.execute(query.where(items.c.id.in_(some))).all()
        places: dict[int, set[int]] = {row.number: set() for row in rows}
        for number, space in connection.execute(having.where(vectors.c.number.in_(places))):
            places[number].add(space)
        for row in rows:
            found[row.id] = _Old(row.number, row.sha256, row.duplicate_of, places[row.number])
    return found


def raise_generation(
    connection: Connection, collection: Collection, more: int, numbers: int = 0
) -> int:
    """Raise a collection's generation, with so many more items and numbers; return it."""
    columns = collections.c
    changed = connection.execute(
        update(collections)
        .where(columns.key == collection.key)
        .values(
            generation=columns.generation + 1,
            count=columns.count + more,
            next_number=columns.next_number + numbers,
        )
    )
    if not changed.rowcount:
        raise NotFound(f"the collection {collection.name!r} was deleted")
    return generation_of(connection, collection)


def generation_of(connection: Connection, collection: Collection) -> int:
    """Return a collection's generation, or raise `NotFound`."""
    query = select(collections.c.generation).where(collections.c.key == collection.key)
    found = connection.execute(query).scalar()
    if found is None:
        raise NotFound(f"the collection {collection.name!r} was deleted")
    return int(found)


def _next_number(connection: Connection, collection: Collection) -> int:
    query = select(collections.c.next_number).where(collections.c.key == collection.key)
    return int(connection.execute(query).scalar_one())


def _drop(connection: Connection, space: int, numbers: Sequence[int], generation: int) -> None:
    for some in chunks(list(numbers)):
        mine = (vectors.c.space == space) & vectors.c.number.in_(some)
        slots = connection.execute(select(vectors.c.slot).where(mine)).scalars().all()
        if slots:
            rows = [{"space": space, "slot": slot, "generation": generation} for slot in slots]
            connection.execute(insert(dropped), rows)
            connection.execute(delete(vectors).where(mine))
            _count(connection, space, -len(slots))


def _count(connection: Connection, space: int, more: int) -> None:
    columns = spaces.c
    query = update(spaces).where(columns.key == space).values(count=columns.count + more)
    connection.execute(query)


def _add_vectors(
    connection: Connection, puts: Sequence[Put], numbers: Sequence[int], generation: int
) -> None:
    rows = [
        {"space": space, "slot": slot, "number": number, "generation": generation}
        for put, number in zip(puts, numbers, strict=True)
        for space, slot in put.vectors.items()
    ]
    if not rows:
        return
    connection.execute(insert(vectors), rows)
    ends: dict[int, int] = {}
    counts: Counter[int] = Counter()
    for row in rows:
        ends[row["space"]] = max(ends.get(row["space"], 0), row["slot"] + 1)
        counts[row["space"]] += 1
    for space, count in counts.items():
        _count(connection, space, count)
    for space, end in ends.items():
        higher = (spaces.c.key == space) & (spaces.c.next_slot < end)
        connection.execute(update(spaces).where(higher).values(next_slot=end))


def kinds_of(metas: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the kinds of the fields of some metadata, by name."""
    kinds: dict[str, str] = {}
    for meta in metas:
        for name, value in meta.items():
            kind = _kind(value)
            if kind:
                kinds[name] = kind if kinds.get(name, kind) == kind else "mixed"
    return kinds


def _kind(value: Any) -> str:
    """Return a metadata value's kind: "text", "number" or "flag"; "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, int | float) else "text"


def note_fields(connection: Connection, collection: Collection, kinds: Mapping[str, str]) -> None:
    """Remember which fields the metadata has, and of which kind."""
    if not kinds:
        return
    mine = fields.c.collection == collection.key
    query = select(fields.c.name, fields.c.kind).where(mine)
    known = {row.name: row.kind for row in connection.execute(query)}
    new = [
        {"collection": collection.key, "name": name, "kind": kind}
        for name, kind in kinds.items()
        if name not in known
    ]
    if new:
        connection.execute(insert_new(connection, fields), new)
    for name, kind in kinds.items():
        if known.get(name, kind) not in (kind, "mixed"):
            connection.execute(
                update(fields).where(mine, fields.c.name == name).values(kind="mixed")
            )


def set_duplicates(connection: Connection, collection: Collection, of: Mapping[int, int]) -> None:
    """Say which items are duplicates of which."""
    generation = raise_generation(connection, collection, 0)
    mine = (items.c.collection == collection.key) & (items.c.number == bindparam("one"))
    connection.execute(
        update(items).where(mine).values(duplicate_of=bindparam("first"), generation=generation),
        [{"one": number, "first": first} for number, first in of.items()],
    )


def _note_failures(
    connection: Connection,
    collection: Collection,
    healed: Sequence[str],
    failed: Sequence[Failure],
) -> None:
    mine = failures.c.collection == collection.key
    paths = [*healed, *(one.path for one in failed)]
    for some in chunks([digest_of(path) for path in paths]):
        connection.execute(delete(failures).where(mine, failures.c.digest.in_(some)))
    rows = {
        digest_of(one.path): {
            "collection": collection.key,
            "digest": digest_of(one.path),
            "source": clean(one.source),
            "path": clean(one.path),
            "code": one.code,
            "message": clean(one.message),
        }
        for one in failed
    }
    if rows:
        connection.execute(insert(failures), list(rows.values()))


def digest_of(path: str) -> str:
    """Return what a failed file is known by: its path may be too long for an index."""
    return hashlib.sha256(clean(path).encode()).hexdigest()


def chunks(values: list[_T]) -> Iterator[list[_T]]:
    """Yield a list in pieces that fit into one statement."""
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
