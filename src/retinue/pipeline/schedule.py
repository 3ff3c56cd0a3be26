"""The scheduler: a bounded queue and the decision of what to run next.

Pure: no thread, no event loop, no clock of its own. Every method that needs the time is given it,
in seconds of any monotonic clock, so a test can replay a day in a millisecond.

**Order.** Higher priority first, then the earlier deadline, then the earlier arrival. A low
priority can starve while higher ones keep coming; its deadline ends its wait.

**Batches.** Work-conserving: as soon as an instance is free, whatever waits is run, up to
``max_batch``, spread evenly over the instances that are free at that moment. With a window, a batch
that is not full waits until its oldest item has waited that long, unless an item would miss its
deadline by it.

**Shedding.** An item is dropped once its deadline has passed, or once it would miss it even if it
were run alone at this moment, by the learnt run time (`RunCost`). What was started is answered,
however late.

**A full queue.** The waiting item of the lowest priority (of these the latest deadline, then the
latest arrival) makes room for one of strictly higher priority; otherwise the new one is refused. A
deadline alone never pushes another item out: a client could get ahead by asking for less time.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Final, Generic, NamedTuple, TypeVar

from retinue.core.errors import QueueFull

_SWEEP_ABOVE: Final = 64


class Item:
    """One thing that waits to be run; the batcher subclasses it.

    Attributes:
        arrived: When it came, in seconds.
        deadline: When its answer stops being useful, in seconds of the same clock; ``inf`` never.
        priority: Larger goes first.
        sequence: Order of arrival; set by `Schedule.push`.
    """

    __slots__ = ("arrived", "deadline", "priority", "sequence")

    def __init__(self, arrived: float, deadline: float = math.inf, priority: int = 0) -> None:
        self.arrived = arrived
        self.deadline = deadline
        self.priority = priority
        self.sequence = 0


I = TypeVar("I", bound=Item)  # noqa: E741 - "I" for item


class Decision(NamedTuple, Generic[I]):
    """What to do now.

    Attributes:
        batch: Items to run now, in order; empty when there is nothing to run yet.
        dropped: Items that left the queue because their deadlines cannot be met.
        until: When to ask again, in seconds; ``inf`` when nothing waits.
    """

    batch: Sequence[I]
    dropped: Sequence[I]
    until: float = math.inf


class RunCost:
    """Learns how long a run of n items takes: an exponentially weighted mean for each size.

    A size that was never run is bounded from below by its neighbours: a larger batch takes no less
    time than a smaller one, and no more for each item.
    """

    def __init__(self, weight: float = 0.2) -> None:
        """Take the weight in (0, 1] of the newest run."""
        self._weight = weight
        self._sizes: list[int] = []
        self._seconds: dict[int, float] = {}
        self.alone = 0.0
        """Seconds that one item alone takes, 0 while nothing is known."""

    def observe(self, size: int, seconds: float) -> None:
        """Learn from a run of ``size`` items."""
        known = self._seconds.get(size)
        if known is None:
            insort(self._sizes, size)
            self._seconds[size] = seconds
        else:
            self._seconds[size] = known + self._weight * (seconds - known)
        self.alone = self.predict(1)

    def predict(self, size: int) -> float:
        """Return the seconds that a run of ``size`` items takes at least; 0 if nothing is known."""
        known = self._seconds.get(size)
        if known is not None:
            return known
        at = bisect_left(self._sizes, size)
        below = self._seconds[self._sizes[at - 1]] if at else 0.0
        if at == len(self._sizes):
            return below
        larger = self._sizes[at]
        return max(below, self._seconds[larger] * size / larger)

    def doubt(self) -> None:
        """Lower all that was learnt by a tenth.

        Called when an item was dropped on a prediction alone. Without it, one run slower than the
        deadline would have every later item dropped, and nothing would ever be run and learnt.
        """
        for size in self._sizes:
            self._seconds[size] *= 0.9
        self.alone = self.predict(1)


class _Heap(Generic[I]):
    """A heap of keys that end in an item's sequence; keys of items that left are skipped.

    They are swept out when they outnumber the waiting ones, so the cost stays O(log n) amortised.
    The heap holds no item, so what left the queue is not kept in memory by it.
    """

    __slots__ = ("_items", "_keys")

    def __init__(self, items: dict[float, I]) -> None:
        self._items = items
        self._keys: list[tuple[float, ...]] = []

    def push(self, *key: float) -> None:
        keys, items = self._keys, self._items
        heappush(keys, key)
        if len(keys) > _SWEEP_ABOVE and len(keys) > 2 * len(items):
            keys[:] = [key for key in keys if key[-1] in items]
            heapify(keys)

    def peek(self) -> I | None:
        keys, items = self._keys, self._items
        while keys:
            item = items.get(keys[0][-1])
            if item is not None:
                return item
            heappop(keys)
        return None

    def pop(self) -> I:
        """Remove and return the first item; there must be one."""
        keys, items = self._keys, self._items
        while True:
            item = items.pop(heappop(keys)[-1], None)
            if item is not None:
                return item

    def fill(self, keys: list[tuple[float, ...]]) -> None:
        """Replace all keys."""
        heapify(keys)
        self._keys = keys


class Schedule(Generic[I]):
    """A bounded queue that decides what is run next. All operations are O(log n) amortised.

    While all waiting items have one priority, the order of service is the order of deadlines too
    and none can push another out, so one heap is enough. The heaps of deadlines and of the least
    urgent are made when a second priority comes, and forgotten when the queue is empty.
    """

    def __init__(self, *, max_batch: int, max_queue: int, window_s: float = 0.0) -> None:
        """Set the policy.

        Args:
            max_batch: Most items of one run, at least 1.
            max_queue: Most items that wait, at least 1.
            window_s: How long the oldest item may be held back for a fuller batch, in seconds.
        """
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.window_s = window_s
        self.cost = RunCost()
        self._sequence = 0
        self._items: dict[float, I] = {}
        self._order = _Heap(self._items)
        self._oldest = _Heap(self._items)
        self._mixed = False
        self._priority = 0
        self._least = _Heap(self._items)
        self._due = _Heap(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: I) -> I | None:
        """Add an item; return the one that made room for it, if any.

        Raises:
            QueueFull: ``max_queue`` items wait, none of them of a lower priority.
        """
        evicted: I | None = None
        if len(self._items) >= self.max_queue:
            evicted = self.evict(item.priority)
            if evicted is None:
                message = f"{len(self)} items wait already, the most allowed; try again later"
                raise QueueFull(message)
        priority, deadline = item.priority, item.deadline
        if not self._items:
            self._mixed = False
            self._priority = priority
        elif not self._mixed and priority != self._priority:
            self._mix()
        self._sequence = item.sequence = sequence = self._sequence + 1
        self._items[sequence] = item
        self._order.push(-priority, deadline, sequence)
        if self._mixed:
            self._least.push(priority, -deadline, -sequence, sequence)
            self._due.push(deadline, sequence)
        if self.window_s > 0:
            self._oldest.push(item.arrived, sequence)
        return evicted

    def evict(self, priority: int) -> I | None:
        """Remove and return the least urgent item if its priority is below this one."""
        if not self._mixed:
            if not self._items or self._priority >= priority:
                return None
            self._mix()
        item = self._least.peek()
        if item is None or item.priority >= priority:
            return None
        return self._items.pop(item.sequence)

    def cancel(self, item: I) -> bool:
        """Remove an item; return whether it was waiting."""
        return self._items.pop(item.sequence, None) is not None

    def shed(self, now: float) -> list[I]:
        """Remove and return the items whose deadlines have passed or cannot be met any more."""
        dropped: list[I] = []
        guessed = False
        horizon = now + self.cost.alone
        due = self._due if self._mixed else self._order
        while (item := due.peek()) is not None and item.deadline <= horizon:
            guessed = guessed or item.deadline > now
            del self._items[item.sequence]
            dropped.append(item)
        if guessed:
            self.cost.doubt()
        return dropped

    def first(self) -> I | None:
        """Return the item that goes next, None when nothing waits."""
        return self._order.peek()

    def due(self) -> float:
        """Return the earliest deadline of all waiting items, ``inf`` if none has one."""
        item = (self._due if self._mixed else self._order).peek()
        return math.inf if item is None else item.deadline

    def next(self, now: float, free: int = 1) -> Decision[I]:
        """Decide what a free instance does now.

        Args:
            now: The time in seconds.
            free: Instances that are free, at least 1, this one included.
        """
        dropped = self.shed(now)
        waiting = len(self._items)
        if not waiting:
            return Decision((), dropped)
        if self.window_s > 0 and waiting < self.max_batch:
            until = self._hold()
            if now < until:
                return Decision((), dropped, min(until, self.due()))
        size = min(self.max_batch, -(-waiting // free))
        return Decision([self._order.pop() for _ in range(size)], dropped)

    def done(self, size: int, seconds: float) -> None:
        """Learn from a run of ``size`` items that took ``seconds``."""
        self.cost.observe(size, seconds)

    def clear(self) -> list[I]:
        """Remove and return all waiting items, in order."""
        return [self._order.pop() for _ in range(len(self._items))]

    def _mix(self) -> None:
        items = self._items.values()
        self._mixed = True
        self._least.fill([(i.priority, -i.deadline, -i.sequence, i.sequence) for i in items])
        self._due.fill([(i.deadline, i.sequence) for i in items])

    def _hold(self) -> float:
        """Return until when an unfilled batch waits; ``-inf`` if a deadline does not allow it."""
        oldest = self._oldest.peek()
        assert oldest is not None
        until = oldest.arrived + self.window_s
        if until + self.cost.predict(len(self._items)) > self.due():
            return -math.inf
        return until
