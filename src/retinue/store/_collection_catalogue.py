"""Which collections a database has."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Select, delete, select

from retinue.core.errors import NotFound
from retinue.store import _collection_writes as writes
from retinue.store._collection_rows import Collection, Space
from retinue.store.database import database_errors, insert_new, open_engine, writing
from retinue.store.schema import migrate
from retinue.store.tables import collections, dropped, failures, fields, items, spaces, vectors


class Catalogue:
    """Which collections a database has, with their models and fields."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._write_lock = threading.Lock()
        try:
            with database_errors(self._engine.url, "opening the collections"):
                migrate(self._engine)
        except BaseException:
            self._engine.dispose()
            raise

    def create(self, tenant: str, name: str) -> Collection:
        """Return the collection of a tenant by name; it is made when there is none."""
        row = {
            "tenant": tenant,
            "name": name,
            "folder": secrets.token_hex(8),
            "created_us": time.time_ns() // 1000,
            "generation": 0,
            "next_number": 0,
            "count": 0,
        }
        with self.writing("making a collection") as connection:
            connection.execute(insert_new(connection, collections), [row])
        return self.get(tenant, name)

    def get(self, tenant: str, name: str) -> Collection:
        """Return a collection as it is now.

        Raises:
            NotFound: the tenant has none of this name; the message lists those that exist.
        """
        query = self._collections().where(collections.c.tenant == tenant)
        with self.reading("reading a collection") as connection:
            row = connection.execute(query.where(collections.c.name == name)).first()
            if row is not None:
                return Collection(**row._asdict())
            names = connection.execute(query.order_by(collections.c.name).limit(20)).all()
        known = ", ".join(one.name for one in names) or "none yet"
        raise NotFound(f"no collection is called {name[:80]!r}; there are: {known}")

    def all(self, tenant: str) -> list[Collection]:
        """Return all collections of a tenant, by name."""
        query = self._collections().where(collections.c.tenant == tenant)
        with self.reading("listing the collections") as connection:
            rows = connection.execute(query.order_by(collections.c.name)).all()
        return [Collection(**row._asdict()) for row in rows]

    def refresh(self, collection: Collection) -> Collection:
        """Return a collection as it is now.

        Raises:
            NotFound: it was deleted, also when another one has its name now.
        """
        query = self._collections().where(collections.c.key == collection.key)
        with self.reading("reading a collection") as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFound(f"the collection {collection.name!r} was deleted")
        return Collection(**row._asdict())

    def delete(self, collection: Collection) -> int:
        """Delete a collection with all that the database knows of it; return its items."""
        key = collection.key
        with self.writing("deleting a collection") as connection:
            # First, so that whoever writes it now is waited for, and nothing of it is left.
            connection.execute(delete(collections).where(collections.c.key == key))
            found = connection.execute(select(spaces.c.key).where(spaces.c.collection == key))
            for space in found.scalars().all():
                for table in (vectors, dropped):
                    connection.execute(delete(table).where(table.c.space == space))
            removed = connection.execute(delete(items).where(items.c.collection == key)).rowcount
            for table in (spaces, fields, failures):
                connection.execute(delete(table).where(table.c.collection == key))
        return int(removed)

    def add_space(self, collection: Collection, space: Space) -> Space:
        """Return the collection's space of a model's version; made as given when there is none.

        Raises:
            NotFound: the collection was deleted meanwhile.
        """
        row = {name: getattr(space, name) for name in writes.SPACE_FIELDS}
        row |= {"collection": collection.key, "count": 0, "next_slot": 0, "floor": 0}
        with self.writing("adding a model to a collection") as connection:
            writes.generation_of(connection, collection)
            connection.execute(insert_new(connection, spaces), [row])
        found = self.spaces(collection)
        return next(s for s in found if (s.model, s.version) == (space.model, space.version))

    def spaces(self, collection: Collection) -> list[Space]:
        """Return the spaces of a collection, oldest first."""
        names = [
            spaces.c[name] for name in ("key", *writes.SPACE_FIELDS, "count", "next_slot", "floor")
        ]
        query = select(*names).where(spaces.c.collection == collection.key).order_by(spaces.c.key)
        with self.reading("reading a collection's models") as connection:
            rows = connection.execute(query).all()
        return [Space(**row._asdict()) for row in rows]

    def fields(self, collection: Collection) -> dict[str, str]:
        """Return the metadata's field names, each with "text", "number", "flag" or "mixed"."""
        query = select(fields.c.name, fields.c.kind).where(fields.c.collection == collection.key)
        with self.reading("reading the fields") as connection:
            return {row.name: row.kind for row in connection.execute(query.order_by(fields.c.name))}

    def close(self) -> None:
        """Give back the connections."""
        with database_errors(self._engine.url, "closing the collections"):
            self._engine.dispose()

    def _collections(self) -> Select[Any]:
        names = ("key", "tenant", "name", "folder", "created_us", "generation", "count")
        return select(*(collections.c[name] for name in names))

    @contextmanager
    def reading(self, doing: str) -> Iterator[Connection]:
        """A connection that reads one state of the database; what that raises is translated."""
        with database_errors(self._engine.url, doing), self._engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                # Else each statement would see what was committed before it.
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def writing(self, doing: str) -> Iterator[Connection]:
        """A transaction that writes; what the database raises is translated."""
        # SQLite's own wait for a writer polls; threads of one process need not.
        with (
            database_errors(self._engine.url, doing),
            self._write_lock,
            writing(self._engine) as connection,
        ):
            yield connection
