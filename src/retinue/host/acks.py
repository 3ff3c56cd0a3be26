"""Waits on the event loop for what another thread confirms in groups."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from functools import partial


class Acks:
    """Turns the futures of a thread that settles many at once into waits on the loop.

    ``asyncio.wrap_future`` would wake the loop once for each of them; this does so once a group.
    """

    def __init__(self) -> None:
        self._ready: deque[tuple[asyncio.Future[bool], bool]] = deque()
        self._told = False

    async def wait(self, future: Future[bool], timeout_s: float) -> bool:
        """Return the future's result, or False when there is none in time."""
        if future.done():
            return future.result()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(timeout_s, _set, waiter, False)
        future.add_done_callback(partial(self._settled, loop, waiter))
        try:
            return await waiter
        finally:
            timer.cancel()

    def _settled(
        self,
        loop: asyncio.AbstractEventLoop,
        waiter: asyncio.Future[bool],
        future: Future[bool],
    ) -> None:
        """On the other thread."""
        self._ready.append((waiter, future.result()))
        if not self._told:
            self._told = True
            try:
                loop.call_soon_threadsafe(self._tell)
            except RuntimeError:
                self._ready.clear()  # the loop was closed: nobody waits any more

    def _tell(self) -> None:
        # First, so that what is added from now on wakes the loop again.
        self._told = False
        while self._ready:
            _set(*self._ready.popleft())


def _set(waiter: asyncio.Future[bool], result: bool) -> None:
    if not waiter.done():
        waiter.set_result(result)
