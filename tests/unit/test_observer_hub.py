"""The hub keeps observers away from requests."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from retinue.core.errors import EmptyInput
from retinue.core.record import Record
from retinue.core.types import Alarm, Outcome
from retinue.pipeline.observers import ObserverHub


def record(number: int = 0) -> Record:
    return Record("app", "model", "1", Outcome(error=EmptyInput("x")), source=str(number))


class Collect:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def observe(self, record: Record):
        self.seen.append(record.source)
        if record.source == "7":
            yield Alarm("seven", "it is the seventh")


class Broken:
    def observe(self, record: Record):
        raise ZeroDivisionError("observer")


class Stuck:
    def __init__(self) -> None:
        self.entered, self.gate = threading.Event(), threading.Event()

    def observe(self, record: Record):
        self.entered.set()
        self.gate.wait(5)
        return ()


def hubs() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "observers"]


def test_all_observers_see_all_records_in_order_and_signals_come_out():
    one, two, signals = Collect(), Collect(), []
    hub = ObserverHub({"one": one, "two": two}, lambda name, signal: signals.append((name, signal)))
    for number in range(100):
        hub.publish(record(number))
    assert hub.flush(5)
    assert one.seen == two.seen == [str(n) for n in range(100)]
    assert [(name, signal.name) for name, signal in signals] == [("one", "seven"), ("two", "seven")]
    assert hub.close(5)
    assert hub.dropped == 0
    assert not hubs()


def test_a_broken_observer_harms_no_other_and_is_logged_once(caplog):
    good = Collect()
    with caplog.at_level(logging.ERROR):
        hub = ObserverHub({"broken": Broken(), "good": good})
        for number in range(3):
            hub.publish(record(number))
        assert hub.close(5)
    assert good.seen == ["0", "1", "2"]
    assert hub.failures == {"broken": 3, "good": 0}
    assert len(caplog.records) == 1


def test_a_broken_signal_handler_counts_against_the_observer():
    def broken(name, signal):
        raise OSError("no network")

    hub = ObserverHub({"collect": Collect()}, broken)
    hub.publish(record(7))
    assert hub.close(5)
    assert hub.failures == {"collect": 1}


def test_publishing_never_waits_for_a_slow_observer():
    stuck = Stuck()
    hub = ObserverHub({"stuck": stuck}, capacity=10)
    hub.publish(record())
    assert stuck.entered.wait(5)
    began = time.monotonic()
    for _ in range(50):
        hub.publish(record())
    assert time.monotonic() - began < 1
    assert hub.dropped == 40
    assert not hub.flush(0.01)
    assert not hub.close(0.01)
    stuck.gate.set()
    assert not hub.close(5)
    assert hub.dropped == 50
    assert not hubs()


def test_closing_sees_what_waits_and_refuses_what_comes_later():
    collect = Collect()
    hub = ObserverHub({"collect": collect})
    for number in range(50):
        hub.publish(record(number))
    assert hub.close(5)
    assert hub.close(5)
    assert len(collect.seen) == 50
    hub.publish(record())
    assert hub.dropped == 1
    assert hub.flush(1)


@pytest.mark.parametrize("observers", [{}, {"collect": Collect()}])
def test_a_hub_that_was_never_used_has_no_thread(observers):
    hub = ObserverHub(observers)
    if not observers:
        hub.publish(record())
    assert not hubs()
    assert hub.flush(1)
    assert hub.close(1)


def test_many_threads_may_publish():
    collect = Collect()
    hub = ObserverHub({"collect": collect})
    threads = [
        threading.Thread(target=lambda: [hub.publish(record()) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.close(5)
    assert len(collect.seen) == 800
