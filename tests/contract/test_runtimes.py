"""Every runtime plug-in keeps the contract, and says nothing on the terminal."""

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from retinue.core import plugins
from retinue.core.errors import ModelNotFound
from retinue.runtimes.isolated import Isolated
from retinue.testing import remote, runtime_suite, torch_models, torch_suite
from retinue.testing.runtime_suite import Check, Subject

EXTRAS = {"openvino": "openvino", "torch": "torch"}
"""Runtimes whose engine is an extra, and the module that it brings."""


def cases() -> Iterator[tuple[str, Check]]:
    """Yield every runtime with all checks, or with the one that is left without its engine."""
    for name in [*plugins.names(plugins.RUNTIMES), "isolated"]:
        missing = name in EXTRAS and find_spec(EXTRAS[name]) is None
        more = torch_suite.CHECKS if name == "torch" else ()
        checks = (*runtime_suite.CHECKS, *more)
        for check in (runtime_suite.names_its_missing_extra,) if missing else checks:
            yield name, check


@pytest.fixture(scope="module")
def server() -> Iterator[remote.RemoteHost]:
    with remote.serving() as host:
        yield host


@pytest.fixture
def subject(name: str, request: pytest.FixtureRequest) -> Subject:
    if name == "isolated":
        return Subject(partial(Isolated, "onnxruntime"))
    if name == "triton":
        host = request.getfixturevalue("server")
        return Subject(host.connect, unreadable=ModelNotFound, unsupported=ModelNotFound)
    factory = plugins.load(plugins.RUNTIMES, name)
    return Subject(factory, torch_models) if name == "torch" else Subject(factory)


@pytest.mark.parametrize(
    ("name", "check"), list(cases()), ids=lambda part: getattr(part, "__name__", part)
)
def test_contract(
    subject: Subject, check: Check, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    check(subject, tmp_path)
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out == ""
