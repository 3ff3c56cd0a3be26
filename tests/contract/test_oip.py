"""NVIDIA's client, unmodified, over HTTP against the application with fake models."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from retinue.core.settings import Server, Settings
from retinue.host import http
from retinue.host.edge import State
from retinue.testing import oip_suite
from retinue.testing.host import FakeHost
from retinue.testing.oip_clients import http_front
from retinue.testing.oip_subjects import Images, Subject, identity
from retinue.testing.pipelines import FAKE_CLASSES, FAKE_MODELS


@contextmanager
def serving(host: FakeHost) -> Iterator[str]:
    """Serve a host over HTTP from another thread; yield "host:port"."""
    app = http.build(host, State(ready=True))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    host = FakeHost(Settings(server=Server(model_control=True)), models=FAKE_MODELS)
    with serving(host) as url, http_front(url) as front:
        yield Subject(
            front,
            numbers=identity("fake", "x", "float32", 2),
            texts=identity("text", "text", "object", 1),
            labelled=identity("scores", "scores", "float32", 3, labels=FAKE_CLASSES),
            images=Images("fake-image", (b"x", b"xxx", b"xxxxxx"), (1, 3, 2), b"bad"),
            spare="spare",
        )


CHECKS = oip_suite.PORTABLE + oip_suite.EXTRAS + oip_suite.CONTROL


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_over_http(check: oip_suite.Check, subject: Subject) -> None:
    check(subject)
