"""Every source keeps the contract, against packages that the test publishes on this machine."""

from pathlib import Path

import pytest

from retinue.core import plugins
from retinue.models.sources import SOURCES
from retinue.testing import source_suite, web


@pytest.mark.parametrize("check", source_suite.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("key", plugins.names(SOURCES))
def test_contract(
    key: str, check: source_suite.Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, into = tmp_path / "shop", tmp_path / "into"
    shop.mkdir()
    into.mkdir()
    with web.serve() as site:
        published = source_suite.PUBLISHERS[key](source_suite.FILES, shop, site)
        for name, value in published.environment.items():
            monkeypatch.setenv(name, value)
        check(plugins.load(SOURCES, key), published, into)
