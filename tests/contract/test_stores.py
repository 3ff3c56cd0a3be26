"""Every store of records and blobs keeps its contract."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from retinue.store.blobs import open_blobs
from retinue.store.records import open_records
from retinue.testing import blob_store_suite, record_store_suite
from retinue.testing.postgresql import postgresql_server


def _name(check: Callable[..., None]) -> str:
    return check.__name__


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def records_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/not yet there/100% records.sqlite3"
    url: str = request.getfixturevalue("postgresql")
    with closing(open_records(url)) as store:
        while store.prune(keep=0):
            pass
    return url


@pytest.mark.parametrize("check", record_store_suite.CHECKS, ids=_name)
def test_record_stores(records_url: str, check: record_store_suite.Check) -> None:
    check(lambda: open_records(records_url))


@pytest.fixture(params=["file", "path", "memory"])
def blobs_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "not yet there" / "100% blobs"
    if request.param == "memory":
        yield f"memory://{uuid.uuid4()}/blobs"
    else:
        yield folder.as_uri() if request.param == "file" else str(folder)
        assert folder.is_dir()


@pytest.mark.parametrize("check", blob_store_suite.CHECKS, ids=_name)
def test_blob_stores(blobs_url: str, check: blob_store_suite.Check) -> None:
    check(lambda: open_blobs(blobs_url))
