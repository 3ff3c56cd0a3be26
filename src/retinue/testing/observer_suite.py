"""The contract of every `Observer`, as checks that any test runner can call.

A check takes a factory (what a plug-in exposes as ``OBSERVER``) and raises `AssertionError` where
the contract is broken. An author of an observer runs them all::

    @pytest.mark.parametrize("check", observer_suite.CHECKS, ids=lambda c: c.__name__)
    def test_contract(check):
        check(MyObserver)
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np

from retinue.core.errors import RetinueError
from retinue.core.protocols import Observer
from retinue.core.record import Record
from retinue.core.types import Alarm, Detections, Embedding, LabelRequest, Outcome, Scores
from retinue.testing.records import ODD_TEXTS, fingerprint, record, records

Check = Callable[[Callable[[], Observer]], None]

_OUTSIDE = ("open", "socket.", "subprocess.", "os.", "shutil.", "sqlite3.", "urllib.", "http.")
_watching = threading.local()


class _ForeignError(RetinueError):
    """An error of a plug-in, with a code that only it knows."""

    code = "not a code\n\0\udce9"


def odd_records() -> list[Record]:
    """Return records as bad as the types allow."""
    nan = np.full(3, np.nan, np.float32)
    boxes = np.zeros((3, 4), np.float32)
    negative = {"decode": -1.0, "run": float("nan"), "total": float("inf"), "no such stage": 1.0}
    return [
        record(outcome=Outcome(value=Detections(boxes, nan, np.arange(3)), timings_ms=negative)),
        record(outcome=Outcome(value=Scores(nan))),
        record(outcome=Outcome(value=Scores(nan[:0]))),
        record(outcome=Outcome(value=Embedding(nan))),
        record(outcome=Outcome(value=Embedding(nan[:0]), embedding=Embedding(nan))),
        record(outcome=Outcome(error=_ForeignError("it failed; nobody knows why"))),
        record(outcome=Outcome(error=RetinueError())),
        record(width=0, height=0, batch_size=0, queue_depth=0, tags={}),
        record(created_at=datetime(1970, 1, 1, tzinfo=UTC)),
        *(
            record(app=text, model=text, version=text, source=text, id=text, tags={text: text})
            for text in ODD_TEXTS
        ),
    ]


def it_is_made_without_arguments_and_more_than_once(factory: Callable[[], Observer]) -> None:
    """Two of them do not get into each other's way."""
    one, other = factory(), factory()
    assert one is not other
    for observer in (one, other):
        assert isinstance(observer, Observer)
        list(observer.observe(record()))


def it_yields_signals_only(factory: Callable[[], Observer]) -> None:
    """For every kind of outcome, for the same record again, and for very odd ones."""
    observer = factory()
    for given in (*records(), *records(), *odd_records()):
        for signal in observer.observe(given):
            assert isinstance(signal, Alarm | LabelRequest), signal
            if isinstance(signal, LabelRequest):
                assert signal.record_id
            else:
                assert signal.name
                assert signal.message


def it_leaves_records_as_they_are(factory: Callable[[], Observer]) -> None:
    """Their arrays are read-only, and nothing else of them changes either."""
    observer = factory()
    for given in records():
        before = fingerprint(given)
        list(observer.observe(given))
        assert fingerprint(given) == before


def it_does_not_leave_the_process(factory: Callable[[], Observer]) -> None:
    """It opens no file, socket or process: what must be kept follows from its signals."""
    observer = factory()
    for given in records():  # what is imported or allocated once is allowed
        list(observer.observe(given))
    with _outside_calls() as seen:
        for given in records():
            list(observer.observe(given))
    assert not seen, f"observe() does I/O: {seen}"


def it_may_be_called_from_another_thread(factory: Callable[[], Observer]) -> None:
    """It is made on one thread and observes on another."""
    observer = factory()
    done: list[str] = []

    def work() -> None:
        for given in records():
            list(observer.observe(given))
            done.append(given.id)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(done) == len(records())


@contextmanager
def _outside_calls() -> Iterator[list[str]]:
    """List the interpreter's audit events of this thread that reach outside the process."""
    if not hasattr(_hook, "installed"):
        sys.addaudithook(_hook)
        _hook.installed = True  # type: ignore[attr-defined]
    seen: list[str] = []
    _watching.seen = seen
    try:
        yield seen
    finally:
        _watching.seen = None


def _hook(event: str, args: object) -> None:
    seen = getattr(_watching, "seen", None)
    if seen is not None and event.startswith(_OUTSIDE):
        seen.append(f"{event} {args!r:.200}")


CHECKS: tuple[Check, ...] = (
    it_is_made_without_arguments_and_more_than_once,
    it_yields_signals_only,
    it_leaves_records_as_they_are,
    it_does_not_leave_the_process,
    it_may_be_called_from_another_thread,
)
