"""The records' table, and bringing a database to it.

The table here is what the code reads and writes; the migrations are how a database gets there. A
test checks that both describe the same.
"""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    literal_column,
)

from retinue.core.errors import StorageError
from retinue.store.database import exclusive, writing

HEAD = "0001"
MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "retinue_schema"

# Ordering by id must not depend on the server's language.
Id = String(255).with_variant(String(255, collation="C"), "postgresql")

metadata = MetaData()
records = Table(
    "retinue_records",
    metadata,
    Column("id", Id, primary_key=True),
    Column("created_us", BigInteger, nullable=False),
    Column("app", String(255), nullable=False),
    Column("model", String(255), nullable=False),
    Column("version", String(255), nullable=False),
    Column("source", String(255), nullable=False),
    Column("code", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("items", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("batch_size", Integer, nullable=False),
    Column("queue_depth", Integer, nullable=False),
    Column("input_sha256", String(255), nullable=False),
    Column("blob", String(255), nullable=False),
    Column("meta", Text, nullable=False),
    Column("value", LargeBinary, nullable=True),
    Column("embedding", LargeBinary, nullable=True),
)
FAILED = literal_column("code") != literal_column("''")
Index("retinue_records_time", records.c.created_us, records.c.id)
Index("retinue_records_model", records.c.model, records.c.created_us)
Index("retinue_records_source", records.c.source, records.c.created_us)
Index(
    "retinue_records_code",
    records.c.code,
    records.c.created_us,
    sqlite_where=FAILED,
    postgresql_where=FAILED,
)

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
