"""The real server when things go wrong: clients that leave, kills, and the drain."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import skimage.data  # type: ignore[import-untyped]

from retinue.store.interface import Filter
from retinue.store.records import open_records

PHOTO = (Path(skimage.data.data_dir) / "rocket.jpg").read_bytes()
Start = Callable[..., "object"]


@pytest.fixture
def fresh(start_server: Callable[[Path], Iterator[object]], tmp_path: Path):
    """A server of this test's own, with its state in ``tmp_path``."""
    yield from start_server(tmp_path)


def _failures(server, code: str) -> float:
    text = server.get("/metrics").text
    found = re.findall(rf'^retinue_failures_total{{.*code="{code}".*}} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found))


def _in_threads(count: int, work: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_clients_that_leave_while_queued_cost_no_work(fresh) -> None:
    def impatient() -> None:
        with pytest.raises(httpx.TimeoutException):
            httpx.post(fresh.url + "/v1/detect", content=PHOTO, timeout=httpx.Timeout(5, read=0.05))

    patient: list[int] = []

    def ask() -> None:
        patient.append(fresh.post("/v1/detect", content=PHOTO).status_code)

    for thread in _in_threads(8, ask) + _in_threads(40, impatient):
        thread.join()
    assert patient == [200] * 8
    end = time.monotonic() + 20
    while _failures(fresh, "client_closed") < 20:
        assert time.monotonic() < end, fresh.get("/metrics").text
        time.sleep(0.1)
    assert fresh.is_alive()
    assert fresh.post("/v1/detect", content=PHOTO).status_code == 200


def test_records_of_answered_requests_survive_a_kill(fresh, tmp_path: Path) -> None:
    answered: list[str] = []

    def ask() -> None:
        while True:
            name = f"photo-{os.urandom(8).hex()}.jpg"
            try:
                answer = fresh.post("/v1/detect", files={"file": (name, PHOTO, "image/jpeg")})
            except httpx.TransportError:
                return
            assert answer.headers["retinue-recorded"] == "true"
            answered.append(name)

    threads = _in_threads(4, ask)
    end = time.monotonic() + 60
    while len(answered) < 12:
        assert time.monotonic() < end
        time.sleep(0.01)
    fresh.stop(signal.SIGKILL)
    for thread in threads:
        thread.join()
    store = open_records(f"sqlite:///{tmp_path / 'home' / 'records.sqlite3'}")
    for name in answered:
        (kept,) = store.query(Filter(source=name)).records
        assert kept.record.app == "detect"
        assert len(kept.record.input_sha256) == 64
    store.close()


def test_sigterm_finishes_what_was_accepted_and_exits_0(fresh) -> None:
    results: list[int] = []

    def ask() -> None:
        results.append(fresh.post("/v1/detect", content=PHOTO).status_code)

    threads = _in_threads(12, ask)
    end = time.monotonic() + 30
    while not results:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert fresh.stop(signal.SIGTERM) == 0
    for thread in threads:
        thread.join()
    assert results == [200] * 12
