"""The records' database: opening, upgrading, refusing, and what goes wrong with a disk."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event

from retinue.core.errors import ConfigError, DiskFull, MissingExtra, NotWritable, StorageError
from retinue.core.record import Record, new_id
from retinue.store import codec, database, schema, tables
from retinue.store.collections import open_collections
from retinue.store.interface import Filter
from retinue.store.records import open_records
from retinue.testing.records import fingerprint, record

MORE = '''"""A later revision."""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", {head!r}, None, None


def upgrade():
    op.add_column("retinue_records", sa.Column("more", sa.Integer, server_default="7"))
'''


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite3"


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def filled(path: Path, count: int = 3) -> Path:
    with closing(open_records(url(path))) as store:
        store.append([record(n) for n in range(count)])
    return path


def later_migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, folder)
    (folder / "versions" / "v9999_more.py").write_text(MORE.format(head=schema.HEAD))
    return folder


def test_a_new_database_is_private_in_its_own_new_folder(tmp_path: Path) -> None:
    filled(tmp_path / "new" / "records.sqlite3")
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def test_commits_reach_the_disk_before_they_return(path: Path) -> None:
    filled(path)
    engine = database.open_engine(url(path))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000
    engine.dispose()


def test_the_head_and_the_table_are_those_of_the_migrations(path: Path) -> None:
    assert ScriptDirectory(str(schema.MIGRATIONS)).get_heads() == [schema.HEAD]
    engine = database.open_engine(url(path))
    schema.migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE}
        )
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()


def test_processes_may_open_a_new_database_at_once(path: Path) -> None:
    program = (
        "import sys\n"
        "from retinue.store.records import open_records\n"
        "from retinue.testing.records import record\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "open_records(sys.argv[1]).append([record(int(sys.argv[2]))])\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, url(path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    with closing(open_records(url(path))) as store:
        assert store.count() == 3


def first_release(path: Path, tmp_path: Path, count: int) -> list[Record]:
    """Make a database of revision 0001, as the first release left it, with records."""
    folder = tmp_path / "first"
    shutil.copytree(schema.MIGRATIONS, folder)
    for later in (folder / "versions").glob("v*.py"):
        if later.name != "v0001_records.py":
            later.unlink()
    engine = database.open_engine(url(path))
    schema.migrate(engine, folder=folder, head="0001")
    engine.dispose()
    records = [record(n) for n in range(count)]
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("SELECT version_num FROM retinue_schema").fetchall() == [
            ("0001",)
        ]
        names = [row[1] for row in connection.execute("PRAGMA table_info(retinue_records)")]
        for one in records:
            row = codec.to_row(one)
            marks = ", ".join("?" * len(names))
            connection.execute(
                f"INSERT INTO retinue_records VALUES ({marks})", [row[name] for name in names]
            )
    return records


def test_an_older_database_is_upgraded_with_its_records(path: Path, tmp_path: Path) -> None:
    records = first_release(path, tmp_path, 3)
    with closing(open_records(url(path))) as store:
        assert store.count() == 3
        for one in records:
            assert fingerprint(store.get(one.id).record) == fingerprint(one)
    engine = database.open_engine(url(path))
    with engine.connect() as connection:
        assert schema.revision(connection) == schema.HEAD
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE}
        )
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()
    with closing(open_collections(url(path))) as collections:
        assert collections.create("", "shop").count == 0


def test_a_later_revision_finds_the_records(path: Path, tmp_path: Path) -> None:
    filled(path)
    engine = database.open_engine(url(path))
    schema.migrate(engine, folder=later_migrations(tmp_path), head="9999")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT more FROM retinue_records").scalars().all()
        assert schema.revision(connection) == "9999"
    engine.dispose()
    assert rows == [7, 7, 7]


def test_a_newer_database_is_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    filled(path)
    engine = database.open_engine(url(path))
    schema.migrate(engine, folder=later_migrations(tmp_path), head="9999")
    engine.dispose()
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"newer Retinue \(schema 9999.*upgrade retinue"):
        open_records(url(path))
    assert path.read_bytes() == before


def test_a_failed_upgrade_changes_nothing(path: Path, tmp_path: Path) -> None:
    filled(path)
    folder = later_migrations(tmp_path)
    with (folder / "versions" / "v9999_more.py").open("a") as file:
        file.write("    op.execute('this is no SQL')\n")
    engine = database.open_engine(url(path))
    with (
        pytest.raises(StorageError, match="upgrading"),
        database.database_errors(engine.url, "upgrading"),
    ):
        schema.migrate(engine, folder=folder, head="9999")
    engine.dispose()
    with closing(open_records(url(path))) as store:
        assert store.count() == 3


@pytest.mark.parametrize("content", [b"this is a letter, not a database\n" * 100, b"\x89PNG" * 999])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"damaged or no database: move it away"):
        open_records(url(path))
    assert path.read_bytes() == content


def test_a_damaged_database_says_so(path: Path) -> None:
    filled(path, 500)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 8192))
    with pytest.raises(StorageError, match="damaged"), closing(open_records(url(path))) as store:
        store.query(limit=500)


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    filled(path)


def test_a_read_only_database_is_not_writable(path: Path) -> None:
    filled(path)
    with pytest.raises(NotWritable, match="readonly"):
        open_records(f"sqlite:///file:{path}?mode=ro&uri=true")


def test_a_folder_that_cannot_be_made_is_not_writable(path: Path) -> None:
    path.write_text("a file")
    with pytest.raises(NotWritable, match="making the records' folder"):
        open_records(url(path / "records.sqlite3"))
    with pytest.raises(NotWritable, match="unable to open"):
        open_records(url(path.parent))


def test_a_full_disk_is_reported_and_loses_no_stored_record(path: Path) -> None:
    def small(connection: sqlite3.Connection, _entry: object) -> None:
        connection.execute("PRAGMA max_page_count = 80")

    event.listen(Engine, "connect", small)
    stored: list[str] = []
    try:
        with closing(open_records(url(path))) as store:
            with pytest.raises(DiskFull, match=r"no space is left; free some"):
                for _ in range(100):
                    group = [record(id=new_id()) for _ in range(10)]
                    store.append(group)
                    stored += [one.id for one in group]
            assert stored
            assert {s.record.id for s in store.query(limit=1000).records} == set(stored)
            assert store.prune(keep=len(stored) // 2, limit=1000) > 0
            store.append([record(id=new_id())])
    finally:
        event.remove(Engine, "connect", small)


def test_a_database_that_another_holds_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    with (
        closing(open_records(url(path))) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another program has held the database"):
            store.append([record()])
        assert store.count() == 0
        other.execute("ROLLBACK")
        store.append([record()])


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (Filter(), "retinue_records_time"),
        (Filter(model="m"), "retinue_records_model"),
        (Filter(source="s"), "retinue_records_source"),
        (Filter(code="queue_full"), "retinue_records_code"),
    ],
)
def test_queries_use_the_indexes(path: Path, where: Filter, index: str) -> None:
    plans: list[str] = []

    def explain(connection, cursor, statement, parameters, context, executemany) -> None:
        if statement.startswith("SELECT retinue_records.id"):
            raw = connection.connection.cursor()
            plans.extend(
                str(row) for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            )

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        with closing(open_records(url(filled(path)))) as store:
            store.query(where)
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
    assert any(index in plan for plan in plans), plans


@pytest.mark.parametrize(
    "wrong",
    ["", "nonsense", "mysql://h/n", "sqlite://", "sqlite:///:memory:", "postgresql+x://h/n"],
)
def test_wrong_urls_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"records\.url"):
        open_records(wrong)


def test_a_wrong_url_does_not_tell_its_password() -> None:
    with pytest.raises(ConfigError) as caught:
        open_records("postgresql:/me:secret@host/name")
    assert "secret" not in caught.value.message


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match="psycopg"):
        open_records("postgresql://me:secret@host/name")
