"""A bounded queue between threads that knows when its makers are done, and when all is over."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

POLL_S: Final = 0.05

T = TypeVar("T")


class Pipe(Generic[T]):
    """What one stage of a run hands to the next.

    Args:
        size: Items that may wait; a maker that is ahead waits too.
        stopped: Set when the run is to end: no maker waits any more.
        makers: Threads that put items; each calls `end` once.
    """

    def __init__(self, size: int, stopped: threading.Event, *, makers: int = 1) -> None:
        self._queue: queue.Queue[T] = queue.Queue(size)
        self._stopped = stopped
        self._makers = makers
        self._lock = threading.Lock()

    def put(self, item: T) -> None:
        """Hand an item on; it is dropped when the run is stopped and there is no room for it."""
        while True:
            stopped = self._stopped.is_set()
            try:
                self._queue.put(item, block=not stopped, timeout=POLL_S)
            except queue.Full:
                if stopped:
                    return
            else:
                return

    def end(self) -> None:
        """Say that one maker puts nothing more."""
        with self._lock:
            self._makers -= 1

    def batches(self, most: int, *, wait_s: float = 0.0, drain: bool = False) -> Iterator[list[T]]:
        """Yield items, some together, until all makers have ended and nothing is left.

        Args:
            most: Items of a batch.
            wait_s: How long the first item of a batch waits for others.
            drain: Whether what is left is yielded also when the run is stopped.
        """
        while True:
            batch = self._batch(most, wait_s)
            if self._stopped.is_set() and not drain:
                return
            if batch:
                yield batch
            elif not self._makers and self._queue.empty():
                return

    def _batch(self, most: int, wait_s: float) -> list[T]:
        batch: list[T] = []
        until = time.monotonic() + POLL_S
        while len(batch) < most:
            left = until - time.monotonic()
            try:
                batch.append(self._queue.get(timeout=min(max(0.0, left), POLL_S)))
            except queue.Empty:
                # A last, short batch does not wait for what cannot come.
                over = not self._makers or self._stopped.is_set()
                if not batch or over or time.monotonic() >= until:
                    return batch
            else:
                if len(batch) == 1:
                    until = time.monotonic() + wait_s
        return batch
