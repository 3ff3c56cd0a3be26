"""The scheduler: a bounded queue and the decision of what to run next.

Pure: no thread, no event loop, no clock of its own. Every method that needs the time is given it,
in seconds of any monotonic clock, so a test can replay a day in a millisecond.

**Order.** Higher priority first; of one priority, clients take turns; of one client, the more
urgent (the earlier deadline) first, then the earlier arrival. A low priority can starve while
higher ones keep coming; its deadline ends its wait.

**Batches.** Work-conserving: as soon as an instance is free, whatever waits is run, up to
``max_batch``, spread evenly over the instances that are free at that moment. With a window, a batch
that is not full waits until its oldest item has waited that long, unless an item would miss its
deadline by it.

**Shedding.** An item is dropped once its deadline has passed, or once it would miss it even if it
were run alone at this moment, by the learnt run time (`RunCost`), its own and that of what comes
after.

**A full queue.** A waiting item of the lowest priority makes room for one of strictly higher
priority; else one of the client that has most waiting does for a client with at least two fewer.
Within those, the latest deadline, then the latest arrival goes. Otherwise the new one is refused. A
deadline alone never pushes another item out: a client could get ahead by asking for less time.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import Generic, Literal, TypeVar

from retinue.core.errors import QueueFull
from retinue.pipeline.cost import RunCost
from retinue.pipeline.flows import Item, Level, Terms

I = TypeVar("I", bound=Item)  # noqa: E741 - "I" for item

Reason = Literal["full", "idle", "window", "deadline"]
"""Why a batch was dispatched: it was full, an instance was idle and there is no window, its window
was over, or its window was cut short for a deadline."""


class Schedule(Generic[I]):
    """A bounded queue that decides what is run next."""

    def __init__(
        self,
        *,
        max_batch: int,
        max_queue: int,
        window_s: float = 0.0,
        after: RunCost | None = None,
    ) -> None:
        """Set the policy.

        Args:
            max_batch: Most items of one run, at least 1.
            max_queue: Most items that wait, at least 1.
            window_s: How long the oldest item may be held back for a fuller batch, in seconds.
            after: What an item still has to go through after this queue's own run.
        """
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.window_s = window_s
        self.cost = RunCost()
        self._after = after
        self._sequence = 0
        self._items: dict[int, I] = {}
        self._levels: dict[int, Level] = {}
        self._priorities: list[int] = []
        self._due: list[tuple[float, int]] = []
        self._arrivals: list[int] = []

    def __len__(self) -> int:
        return len(self._items)

    @property
    def needs_s(self) -> float:
        """Seconds that an item needs at least from now on."""
        return self.cost.alone + (self._after.alone if self._after else 0.0)

    def push(self, item: I) -> I | None:
        """Add an item; return the one that made room for it, if any.

        Raises:
            QueueFull: ``max_queue`` items wait, and none has to make room.
        """
        evicted: I | None = None
        if len(self._items) >= self.max_queue:
            evicted = self.evict(item)
            if evicted is None:
                message = f"{len(self)} items wait already, the most allowed; try again later"
                raise QueueFull(message)
        self._sequence = item.sequence = sequence = self._sequence + 1
        level = self._levels.get(item.priority)
        if level is None:
            level = self._levels[item.priority] = Level()
            insort(self._priorities, item.priority)
        self._items[sequence] = item
        level.add(item)
        insort(self._due, (item.deadline, sequence))
        self._arrivals.append(sequence)
        return evicted

    def evict(self, terms: Terms | Item) -> I | None:
        """Remove and return the item that has to make room for one like this, if any has to."""
        priority, client = terms.priority, terms.client
        if not self._items:
            return None
        lowest = self._priorities[0]
        level = self._levels[lowest]
        sequence, number = level.last()
        if lowest > priority or (lowest == priority and number < level.waiting(client) + 2):
            return None
        item = self._items[sequence]
        self._remove(item)
        return item

    def has(self, item: I) -> bool:
        """Tell whether an item waits."""
        return self._items.get(item.sequence) is item

    def cancel(self, item: I) -> bool:
        """Remove an item; return whether it was waiting."""
        if not self.has(item):
            return False
        self._remove(item)
        return True

    def shed(self, now: float) -> list[I]:
        """Remove and return the items whose deadlines have passed or cannot be met any more."""
        horizon = now + self.needs_s
        if not self._due or self._due[0][0] > horizon:
            return []
        at = bisect_left(self._due, (math.nextafter(horizon, math.inf),))
        dropped = [self._items[sequence] for _, sequence in self._due[:at]]
        for item in dropped:
            self._remove(item)
        if any(item.deadline > now for item in dropped):
            self.cost.doubt()
        return dropped

    def first(self) -> I | None:
        """Return the item that goes next, None when nothing waits."""
        if not self._items:
            return None
        return self._items[self._levels[self._priorities[-1]].first()]

    def due(self) -> float:
        """Return the earliest deadline of all waiting items, ``inf`` if none has one."""
        return self._due[0][0] if self._due else math.inf

    def ahead(self, terms: Terms) -> int:
        """Return about how many waiting items would go before one like this."""
        deadline, priority, client, urgency = terms
        number = 0
        for other in reversed(self._priorities):
            if other < priority:
                break
            level = self._levels[other]
            number += (
                len(level) if other > priority else level.ahead(client, min(deadline, urgency))
            )
        return number

    def hold(self, now: float) -> float:
        """Return until when an unfilled batch is to wait for more; ``-inf`` to run it now."""
        waiting = len(self._items)
        if self.window_s <= 0 or waiting >= self.max_batch:
            return -math.inf
        until = self._items[self._arrivals[0]].arrived + self.window_s
        if now >= until or until + self.cost.predict(waiting) > self.due():
            return -math.inf
        return until

    def take(self, now: float, free: int) -> tuple[list[I], Reason]:
        """Remove and return the batch that goes next, and why it goes now; something must wait.

        Args:
            now: The time in seconds.
            free: Instances that are free, at least 1, this one included.
        """
        waiting = len(self._items)
        size = min(self.max_batch, -(-waiting // free))
        reason: Reason = "full" if size == self.max_batch else "idle"
        if self.window_s > 0 and waiting < self.max_batch:
            over = now >= self._items[self._arrivals[0]].arrived + self.window_s
            reason = "window" if over else "deadline"
        return [self._pop() for _ in range(size)], reason

    def done(self, size: int, seconds: float) -> None:
        """Learn from a run of ``size`` items that took ``seconds``."""
        self.cost.observe(size, seconds)

    def clear(self) -> list[I]:
        """Remove and return all waiting items, in order."""
        return [self._pop() for _ in range(len(self._items))]

    def _pop(self) -> I:
        level = self._levels[self._priorities[-1]]
        item = self._items[level.first()]
        level.pop(item.client)
        self._forget(item, level)
        return item

    def _remove(self, item: I) -> None:
        level = self._levels[item.priority]
        level.remove(item)
        self._forget(item, level)

    def _forget(self, item: I, level: Level) -> None:
        sequence = item.sequence
        del self._items[sequence]
        del self._due[bisect_left(self._due, (item.deadline, sequence))]
        del self._arrivals[bisect_left(self._arrivals, sequence)]
        if not level:
            # A level that was idle owes nobody a turn.
            del self._levels[item.priority]
            self._priorities.remove(item.priority)
