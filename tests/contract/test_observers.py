"""Every observer plug-in keeps the contract."""

import pytest

from retinue.core import plugins
from retinue.testing import observer_suite


@pytest.mark.parametrize("check", observer_suite.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", plugins.names(plugins.OBSERVERS))
def test_contract(name: str, check: observer_suite.Check) -> None:
    check(plugins.load(plugins.OBSERVERS, name))


def test_the_suite_notices_an_observer_that_does_io(tmp_path) -> None:
    class Scribbler:
        def observe(self, record):
            (tmp_path / "log").write_text(record.id)
            return ()

    with pytest.raises(AssertionError, match="does I/O"):
        observer_suite.it_does_not_leave_the_process(Scribbler)


def test_the_suite_notices_what_is_no_signal() -> None:
    class Chatterbox:
        def observe(self, record):
            return ["look!"]

    with pytest.raises(AssertionError, match="look!"):
        observer_suite.it_yields_signals_only(Chatterbox)
