"""Carries finished records to the observers, on a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping

from retinue.core.protocols import Observer
from retinue.core.record import Record
from retinue.core.types import Signal

_log = logging.getLogger(__name__)

OnSignal = Callable[[str, Signal], None]


class ObserverHub:
    """Gives every published record to every observer, in the order of publishing.

    Nothing that an observer does reaches a request: it runs on the hub's thread, what it raises is
    counted (and logged the first time), and when it is too slow records are dropped and counted.

    The thread rests between rounds, so that a busy server pays for some wake-ups a second and not
    for one a record; an observer sees a record ``rest_s`` late at most when it keeps up.

    Attributes:
        dropped: Records that observers never saw, because too many waited or the hub was closed.
        failures: Exceptions by observer's name, those of ``on_signal`` for its signals included.
    """

    def __init__(
        self,
        observers: Mapping[str, Observer],
        on_signal: OnSignal | None = None,
        *,
        capacity: int = 10_000,
        rest_s: float = 0.02,
    ) -> None:
        """Set the hub up; its thread starts with the first record.

        Args:
            observers: By name.
            on_signal: Called on the hub's thread with (observer's name, signal).
            capacity: Most records that wait.
            rest_s: Seconds between rounds.
        """
        self._observers = dict(observers)
        self._on_signal = on_signal
        self._capacity = capacity
        self._rest_s = rest_s
        self._inbox: queue.SimpleQueue[Record | threading.Event | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._abandoned = False
        self.dropped = 0
        self.failures = dict.fromkeys(self._observers, 0)

    def publish(self, record: Record) -> None:
        """Take a record in; never blocks and never raises. Any thread may call it."""
        if not self._observers:
            return
        with self._lock:
            if self._closed or self._inbox.qsize() >= self._capacity:
                self.dropped += 1
                return
            self._inbox.put(record)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="observers", daemon=True)
                self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until the observers saw all that was published before; return whether they did.

        Args:
            timeout: Seconds to wait at most.
        """
        reached = threading.Event()
        with self._lock:
            if self._thread is None:
                return True
            if self._closed:
                thread = self._thread
            else:
                thread = None
                # First, or the thread could clear it before it is set and never rest again.
                self._hurry.set()
                self._inbox.put(reached)
        if thread is None:
            return reached.wait(timeout)
        thread.join(timeout)
        return not thread.is_alive()

    def close(self, timeout: float) -> bool:
        """Refuse further records, let the observers see the waiting ones, end the thread.

        Args:
            timeout: Seconds to wait at most; records that still wait then are dropped, and the
                thread ends when the observer that holds it returns.

        Returns:
            Whether all records were seen.
        """
        with self._lock:
            thread = self._thread
            if not self._closed:
                self._closed = True
                self._inbox.put(None)
                self._hurry.set()
        if thread is None:
            return True
        thread.join(timeout)
        if thread.is_alive():
            self._abandoned = True
        return not self._abandoned

    def _work(self) -> None:
        while self._round():
            self._hurry.wait(self._rest_s)

    def _round(self) -> bool:
        """Wait for a record, take all that wait; return whether to go on."""
        entry = self._inbox.get()
        while True:
            if entry is None:
                return False
            if isinstance(entry, threading.Event):
                self._hurry.clear()
                entry.set()
            elif self._abandoned:
                with self._lock:
                    self.dropped += 1
            else:
                self._show(entry)
            try:
                entry = self._inbox.get_nowait()
            except queue.Empty:
                return True

    def _show(self, record: Record) -> None:
        for name, observer in self._observers.items():
            try:
                for signal in observer.observe(record):
                    if self._on_signal is not None:
                        self._on_signal(name, signal)
            except Exception:  # noqa: BLE001 - isolation boundary: an observer breaks nothing but itself
                self.failures[name] += 1
                if self.failures[name] == 1:
                    _log.exception("observer %s failed; further failures are only counted", name)
