"""Databases for the tests that run on each kind, and what draws on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retinue.testing.postgresql import postgresql_server

if TYPE_CHECKING:
    from retinue.apps.ar.render.scene import Renderer


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL database that all tests of one run share."""
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new SQLite database, or of the PostgreSQL database that all share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.sqlite3"
    url: str = request.getfixturevalue("postgresql")
    return url


@pytest.fixture(scope="module")
def drawing() -> Iterator[Renderer]:
    """The renderer that an app would take here."""
    from retinue.apps.ar.render.choose import open_renderer

    renderer = open_renderer()
    yield renderer
    renderer.close()
