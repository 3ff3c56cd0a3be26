"""All that differs between databases: connecting, locking, inserting, reading their errors."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.sql.dml import Insert

from retinue.core.errors import (
    ConfigError,
    DiskFull,
    MissingExtra,
    NotWritable,
    StorageError,
    storage_errors,
)

BUSY_S = 10.0
MAPPED = 2**30
_WRITE = "retinue_write"
_MIGRATION_LOCK = 0x7265_7469_6E75_65  # "retinue"
_SQLITE_NOT_WRITABLE = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")
_PG_FULL = ("53100", "53400")
_PG_NOT_WRITABLE = ("25006", "42501")


def open_engine(url: str) -> Engine:
    """Connect to a database; a SQLite file and its folder are made when they do not exist.

    Raises:
        ConfigError: the URL is wrong, or of a database that is not supported.
        MissingExtra: the database's driver is not installed.
        NotWritable: SQLite's folder cannot be made.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        shown = re.sub(r":[^:@/]+@", ":***@", url)
        message = (
            f"records.url {shown!r} is no database URL; give sqlite:///PATH or postgresql://..."
        )
        raise ConfigError(message) from error
    match parsed.get_backend_name():
        case "sqlite":
            return _open_sqlite(parsed)
        case "postgresql":
            return _open_postgresql(parsed)
        case other:
            raise ConfigError(f"records.url: {other!r} is not supported; use sqlite or postgresql")


def _open_sqlite(url: URL) -> Engine:
    path = url.database or ":memory:"
    if ":memory:" in path or url.query.get("mode") == "memory":
        raise ConfigError("records.url: records in memory are lost at once; give sqlite:///PATH")
    if not path.startswith("file:"):
        folder = Path(path).absolute().parent
        with storage_errors(folder, "making the records' folder"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_S})

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _entry: object) -> None:
        # The driver would otherwise begin and end transactions on its own.
        connection.isolation_level = None
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        # Reads of single rows here and there are else two system calls each.
        connection.execute(f"PRAGMA mmap_size = {MAPPED}")
        connection.execute(f"PRAGMA journal_size_limit = {64 * 2**20}")

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        # A reader that turns writer may find the database changed, so a writer says so first.
        write = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Ask for write-ahead logging; SQLite does not wait for others here, so this does."""
    give_up = time.monotonic() + BUSY_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            name = getattr(error, "sqlite_errorname", "")
            busy = name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
            if not busy or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _open_postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        # psycopg would wait two minutes for a host that does not answer.
        patience = {"connect_timeout": 10} if "psycopg" in url.drivername else {}
        engine = create_engine(url, pool_pre_ping=True, connect_args=patience)
    except NoSuchModuleError as error:
        raise ConfigError(f"records.url: no driver {url.drivername!r}") from error
    except ModuleNotFoundError as error:
        message = f"records.url: {error.name} is not installed: pip install 'retinue[postgresql]'"
        raise MissingExtra(message) from error

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _entry: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
        connection.commit()

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that writes: durable at the block's end, undone when the block raises."""
    with engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
        yield connection


def exclusive(connection: Connection) -> None:
    """Wait until no other process migrates; until the transaction's end.

    SQLite has one writer at a time in any case.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")


def insert_new(connection: Connection, table: Table) -> Insert:
    """Return an INSERT that leaves rows alone that exist."""
    # Here, since the other database's dialect takes long to import.
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).on_conflict_do_nothing()


@contextmanager
def database_errors(url: URL, doing: str) -> Iterator[None]:
    """Turn whatever a database raises in the block into the matching class of `StorageError`.

    Args:
        url: The database; its password is not shown.
        doing: What is being done with it, as in "storing records".
    """
    try:
        yield
    except DBAPIError as error:
        raise _translated(error.orig, url, doing) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _translated(error, url, doing) from error


def _translated(error: BaseException | None, url: URL, doing: str) -> StorageError:
    name = str(getattr(error, "sqlite_errorname", ""))
    state = str(getattr(error, "sqlstate", ""))
    where = f"{doing}: {url.render_as_string()}"
    if name == "SQLITE_FULL" or state in _PG_FULL:
        return DiskFull(f"{where}: no space is left; free some, or lower records.keep_rows")
    if name.startswith(_SQLITE_NOT_WRITABLE) or state in _PG_NOT_WRITABLE:
        return NotWritable(f"{where}: {error}; make it writable or choose another records.url")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StorageError(
            f"{where}: {error}; the file is damaged or no database: move it away with its -wal and "
            "-shm files (a new one is made), and rescue its rows with `sqlite3 FILE .recover`"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        message = f"another program has held the database for {BUSY_S:.0f} s; end it and try again"
        return StorageError(f"{where}: {message}")
    return StorageError(f"{where}: {error}")
