"""Every index plug-in keeps the contract; FAISS in each of its kinds, Milvus in a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from retinue.core import plugins
from retinue.testing import index_suite
from retinue.testing.index_suite import Check, Subject

CODED = {"flat_up_to": 500, "nprobe": 64}


def subjects() -> Iterator[tuple[str, Subject]]:
    for name in plugins.names(plugins.INDEXES):
        yield name, Subject(plugins.load(plugins.INDEXES, name))
    faiss = plugins.load(plugins.INDEXES, "faiss")
    for kind, more in (("pq4", {}), ("rabitq", {}), ("pq", {"code_bytes": 16}), ("hnsw", {})):
        options = {"kind": kind, **CODED, **more}
        yield f"faiss-{kind}", Subject(faiss, options, count=2400, recall=0.98)


SUBJECTS = dict(subjects())


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What an index must be told to be made here; one database for all collections."""
    return {"milvus": {"uri": str(tmp_path_factory.mktemp("milvus") / "vectors.db")}}


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("check", index_suite.CHECKS, ids=lambda check: check.__name__)
def test_contract(
    name: str, check: Check, tmp_path: Path, options: dict[str, dict[str, object]]
) -> None:
    subject = SUBJECTS[name]
    more = {**subject.options, **options.get(name, {})}
    check(Subject(subject.factory, more, subject.count, subject.recall), tmp_path)
