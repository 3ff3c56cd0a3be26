"""Every index plug-in keeps the contract; FAISS in each of its kinds."""

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
    for kind, more in (("rabitq", {}), ("pq", {"code_bytes": 16}), ("hnsw", {})):
        options = {"kind": kind, **CODED, **more}
        yield f"faiss-{kind}", Subject(faiss, options, count=2400, recall=0.98)


SUBJECTS = dict(subjects())


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("check", index_suite.CHECKS, ids=lambda check: check.__name__)
def test_contract(name: str, check: Check, tmp_path: Path) -> None:
    check(SUBJECTS[name], tmp_path)
