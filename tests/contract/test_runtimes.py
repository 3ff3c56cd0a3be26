"""Every runtime plug-in keeps the contract, and says nothing on the terminal."""

from pathlib import Path

import pytest

from retinue.core import plugins
from retinue.testing import runtime_suite


@pytest.mark.parametrize("check", runtime_suite.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", plugins.names(plugins.RUNTIMES))
def test_contract(
    name: str, check: runtime_suite.Check, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    check(plugins.load(plugins.RUNTIMES, name), tmp_path)
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out == ""
