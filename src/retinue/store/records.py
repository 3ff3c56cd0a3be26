"""Records in a SQL database: SQLite (write-ahead log, synchronous FULL) or PostgreSQL."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, delete, false, func, or_, select, tuple_

from retinue.core.errors import InvalidRequest, NotFound, StorageError
from retinue.core.record import Record
from retinue.store.codec import from_row, microseconds, searchable, to_row
from retinue.store.database import database_errors, insert_new, open_engine, writing
from retinue.store.interface import ALL, MAX_PAGE, NO_BLOBS, Filter, Page, RecordStore, StoredRecord
from retinue.store.schema import migrate
from retinue.store.tables import FAILED, records

_CURSOR = re.compile(r"(-?[0-9]{1,18}):(.*)", re.DOTALL)
_TEXTS = ("app", "model", "version", "source", "code")
_NEWEST_FIRST = (records.c.created_us.desc(), records.c.id.desc())
_position = tuple_(records.c.created_us, records.c.id)


def open_records(url: str) -> RecordStore:
    """Open a store of records, making or upgrading its tables when that is needed.

    Args:
        url: A SQLAlchemy URL: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/NAME``.

    Raises:
        ConfigError: the URL is wrong, or of a database that is not supported.
        MissingExtra: the database's driver is not installed.
        NotWritable: the database may not be written.
        DiskFull: there is no space for it.
        StorageError: it is damaged, cannot be reached, or a newer Retinue has written it.
    """
    return SqlRecords(open_engine(url))


class SqlRecords:
    """A `RecordStore` over a SQLAlchemy engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._closed = False
        # SQLite's own wait for a writer polls; threads of one process need not.
        self._write_lock = threading.Lock()
        try:
            with database_errors(engine.url, "opening the records"):
                migrate(engine)
                # A database that is read-only says so now, not at the first record.
                with writing(engine) as connection:
                    connection.execute(delete(records).where(false()))
        except BaseException:
            engine.dispose()
            raise

    def append(self, records_: Sequence[Record], blobs: Mapping[str, str] = NO_BLOBS) -> None:
        """Store records in one transaction; durable when it returns."""
        rows = [to_row(record, blobs.get(record.id, "")) for record in records_]
        if rows:
            with self._writing("storing records") as connection:
                connection.execute(insert_new(connection, records), rows)

    def get(self, record_id: str) -> StoredRecord:
        """Return one record, or raise `NotFound`."""
        query = select(records).where(records.c.id == searchable(record_id))
        with self._reading("reading a record") as connection:
            row = connection.execute(query).first()
        if row is None:
            message = f"no record has the id {record_id!r}; it was never kept, or its time is over"
            raise NotFound(message)
        return from_row(row._asdict())

    def query(self, where: Filter = ALL, *, limit: int = 50, cursor: str = "") -> Page:
        """Return a page of records, newest first."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"limit must be 1 to {MAX_PAGE}, not {limit}")
        query = select(records).where(*_conditions(where)).order_by(*_NEWEST_FIRST)
        if cursor:
            query = query.where(_position < tuple_(*_read_cursor(cursor)))
        with self._reading("reading records") as connection:
            rows = connection.execute(query.limit(limit + 1)).all()
        more = len(rows) > limit
        last = rows[limit - 1] if more else None
        return Page(
            records=tuple(from_row(row._asdict()) for row in rows[:limit]),
            cursor="" if last is None else f"{last.created_us}:{last.id}",
        )

    def count(self, where: Filter = ALL) -> int:
        """Return how many records there are."""
        query = select(func.count()).select_from(records).where(*_conditions(where))
        with self._reading("counting records") as connection:
            return int(connection.execute(query).scalar_one())

    def prune(
        self, *, before: datetime | None = None, keep: int | None = None, limit: int = 500
    ) -> int:
        """Delete the oldest records that are too old or too many."""
        with self._reading("finding old records") as connection:
            condition = _doomed(connection, before, keep)
            if condition is None:
                return 0
            oldest = (records.c.created_us, records.c.id)
            query = select(records.c.id).where(condition).order_by(*oldest).limit(limit)
            ids = connection.execute(query).scalars().all()
        if not ids:
            return 0
        with self._writing("deleting old records") as connection:
            result = connection.execute(delete(records).where(records.c.id.in_(ids)))
            # Another process may have deleted them meanwhile; there may still be more.
            return max(result.rowcount, 1)

    def close(self) -> None:
        """Give back the connections."""
        self._closed = True
        with database_errors(self._engine.url, "closing the records"):
            self._engine.dispose()

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Connection]:
        self._check_open()
        with database_errors(self._engine.url, doing), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self, doing: str) -> Iterator[Connection]:
        self._check_open()
        with (
            database_errors(self._engine.url, doing),
            self._write_lock,
            writing(self._engine) as connection,
        ):
            yield connection

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError("the store of records is closed; open it again")


def _conditions(where: Filter) -> list[ColumnElement[bool]]:
    columns = records.c
    found: list[ColumnElement[bool]] = []
    if where.since is not None:
        found.append(columns.created_us >= microseconds(where.since))
    if where.until is not None:
        found.append(columns.created_us < microseconds(where.until))
    for name in _TEXTS:
        wanted = getattr(where, name)
        if wanted is not None:
            found.append(columns[name] == searchable(wanted))
    if where.failed is False:
        found.append(columns.code == "")
    elif where.failed or where.code:
        # Spelled like the partial index, or SQLite would not use it.
        found.append(FAILED)
    return found


def _doomed(
    connection: Connection, before: datetime | None, keep: int | None
) -> ColumnElement[bool] | None:
    reasons: list[ColumnElement[bool]] = []
    if before is not None:
        reasons.append(records.c.created_us < microseconds(before))
    if keep is not None:
        position = select(records.c.created_us, records.c.id).order_by(*_NEWEST_FIRST)
        first = connection.execute(position.offset(keep).limit(1)).first()
        if first is not None:
            reasons.append(_position <= tuple_(*first))
    return or_(*reasons) if reasons else None


def _read_cursor(cursor: str) -> tuple[int, str]:
    found = _CURSOR.fullmatch(cursor)
    if found is None or searchable(found[2]) != found[2]:
        message = f"{cursor[:80]!r} is no cursor; take the one that the previous page gave"
        raise InvalidRequest(message)
    return int(found[1]), found[2]
