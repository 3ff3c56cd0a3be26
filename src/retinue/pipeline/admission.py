"""Admission: who may come in, so that what is accepted can be answered in time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from retinue.core.errors import DeadlineExceeded, QueueFull
from retinue.core.settings import Batching
from retinue.pipeline.cost import Forecast
from retinue.pipeline.counters import Counters
from retinue.pipeline.flows import Terms
from retinue.pipeline.lane import Lane


class Admission:
    """Counts items in and out of a pipeline and refuses those that it has no room or time for.

    Use it on the event loop; `depth` may be read from any thread.
    """

    def __init__(
        self,
        name: str,
        batching: Batching,
        preparing: Lane[Any, Any],
        running: Lane[Any, Any],
        counters: Counters,
    ) -> None:
        """Bind it to the two lanes of a model's pipeline."""
        self._name = name
        self._batching = batching
        self._preparing = preparing
        self._running = running
        self._counters = counters
        self._forecast = Forecast()
        self._clients: Counter[str] = Counter()
        self.accepted = 0
        """Items that are in the pipeline."""
        self.empty = asyncio.Event()
        """Set when the last of them left."""

    @property
    def depth(self) -> int:
        """Items that were accepted and are not being run yet."""
        return max(0, self.accepted - self._running.running)

    def check_deadline(self, deadline: float, now: float) -> None:
        """Refuse a deadline that is no time to come.

        Raises:
            DeadlineExceeded: it has passed, or it is NaN, which no queue can order.
        """
        if not deadline > now:
            self._counters.shed("admission")
            late = (now - deadline) * 1000
            message = f"the deadline had passed {late:.3g} ms before the request came in"
            raise DeadlineExceeded(f"{message}; allow more time")

    def enter(
        self,
        count: int,
        terms: Terms,
        *,
        may_evict: bool,
        freed: int = 0,
    ) -> float:
        """Count items in.

        Args:
            count: How many.
            terms: What is asked for them; times on ``time.monotonic()``'s clock.
            may_evict: Whether they may take the place of what waits.
            freed: Waiting items of the same client that leave if these come in.

        Returns:
            The seconds that they are expected to take, before any correction.

        Raises:
            QueueFull: there are too many, of all clients or of this one.
            DeadlineExceeded: what goes before them leaves no time.
        """
        client = terms.client
        limit = self._batching.max_per_client
        under_way = self._clients[client] - freed if limit else 0
        if limit and under_way + count > limit:
            self._counters.shed("client")
            message = f"{self._name}: {under_way} of this client's items are under way, of {limit}"
            raise QueueFull(f"{message} that may be; send fewer at a time")
        # First, so that nobody has to make room for what is refused.
        estimate = self._foresee(count, terms)
        most = self._batching.max_queue
        if self.depth - freed + count > most and not (may_evict and self._make_room(terms)):
            self._counters.shed("full")
            message = f"{self._name}: {self.depth} items wait already and {most} may"
            raise QueueFull(f"{message}; send fewer at a time or try again later")
        self.accepted += count
        self.empty.clear()
        if limit:
            self._clients[client] += count
        return estimate

    def leave(self, count: int, client: str) -> None:
        """Count items out."""
        self.accepted -= count
        if not self.accepted:
            self.empty.set()
        if self._batching.max_per_client:
            self._clients[client] -= count
            if not self._clients[client]:
                del self._clients[client]

    def learn(self, estimate: float, seconds: float) -> None:
        """Learn from a request that was answered, or that ran out of time."""
        self._forecast.observe(estimate, seconds)

    def _make_room(self, terms: Terms) -> bool:
        return self._preparing.make_room(terms) or self._running.make_room(terms)

    def _foresee(self, count: int, terms: Terms) -> float:
        lane = self._running
        ahead = sum(one.ahead(terms) for one in (self._preparing, lane))
        size = min(lane.schedule.max_batch, ahead + count)
        run_s = lane.schedule.cost.predict(size)
        before = (ahead + count - 1) / (size * max(1, lane.alive))
        estimate = self._preparing.schedule.cost.alone + run_s * (1 + before)
        left = terms.deadline - time.monotonic()
        needs = self._forecast.correct(estimate) + lane.schedule.window_s
        if ahead and needs > left:
            self._forecast.doubt()
            self._counters.shed("admission")
            message = f"{self._name}: {ahead} items go before this one, about {needs * 1000:.0f} ms"
            raise DeadlineExceeded(
                f"{message}, and {left * 1000:.0f} ms are left; allow more time or send less"
            )
        return estimate
