"""Bringing a database to the tables of `retinue.store.tables`."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect

from retinue.core.errors import StorageError
from retinue.store.database import exclusive, writing

HEAD = "0002"
MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "retinue_schema"

# Alembic keeps the migration that is running in module globals.
_one_at_a_time = threading.Lock()


def revision(connection: Connection) -> str | None:
    """Return the schema revision of a database, None when it has no records yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()  # noqa: S608 (a constant)
    return None if found is None else str(found)


def migrate(engine: Engine, *, folder: Path = MIGRATIONS, head: str = HEAD) -> None:
    """Bring a database to a revision, whole or not at all; several processes may do it at once.

    Args:
        engine: The database.
        folder: Where the migrations are.
        head: The newest revision in the folder.

    Raises:
        StorageError: a newer Retinue has written the database.
    """
    with engine.connect() as connection:
        if revision(connection) == head:
            return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    with _one_at_a_time, writing(engine) as connection:
        exclusive(connection)
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes["connection"] = connection
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        current = revision(connection)
        if current is not None and current not in known:
            raise StorageError(
                f"the records in {engine.url.render_as_string()} were written by a newer Retinue "
                f"(schema {current}, this one knows {head}): upgrade retinue, or choose another "
                "records.url"
            )
        command.upgrade(config, head)
