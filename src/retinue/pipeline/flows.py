"""The waiting items of one priority: clients take turns, each client's items go by urgency.

Start-time fair queueing (P. Goyal, H. Vin, H. Cheng, 1996) with equal shares: every client has a
turn number, the lowest goes next, and each item served adds one to it. A client that comes back
starts at the turn that is being served, so it is owed nothing for its absence. Where turns are
equal, as when every client has one item, the more urgent item goes first.

Sorted lists, not heaps: what leaves from the middle is gone at once, and an item's place is known.
Moving a list's tail costs microseconds up to many thousands of items.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from typing import Final, NamedTuple

_FORGET_ABOVE: Final = 64


class Terms(NamedTuple):
    """What a request asks for.

    Attributes:
        deadline: When its answer stops being useful, in seconds of the scheduler's clock; ``inf``
            never.
        priority: Larger goes first.
        client: Who asks.
        urgency: A time before the deadline that it is ordered by instead of the deadline.
    """

    deadline: float = math.inf
    priority: int = 0
    client: str = ""
    urgency: float = math.inf


class Item:
    """One thing that waits to be run; a lane subclasses it.

    Attributes:
        arrived: When it came, in seconds.
        deadline: When its answer stops being useful, in seconds of the same clock; ``inf`` never.
        priority: Larger goes first.
        client: Who sent it.
        urgency: Of one client's items the smaller goes first: the deadline, or an earlier time.
        sequence: Order of arrival; set by `Schedule.push`.
    """

    __slots__ = ("arrived", "client", "deadline", "priority", "sequence", "urgency")

    def __init__(self, arrived: float, terms: Terms = Terms()) -> None:  # noqa: B008 - immutable
        self.arrived = arrived
        self.deadline, self.priority, self.client, urgency = terms
        self.urgency = min(self.deadline, urgency)
        self.sequence = 0


class _Flow:
    """What one client has waiting: (urgency, sequence), sorted."""

    __slots__ = ("keys", "turn")

    def __init__(self, turn: int) -> None:
        self.keys: list[tuple[float, int]] = []
        self.turn = turn


class Level:
    """All items of one priority, by client."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._order: list[tuple[int, float, int]] = []
        self._turn = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, item: Item) -> None:
        """Add an item."""
        flow = self._flows.get(item.client)
        if flow is None:
            flow = self._flows[item.client] = self._new_flow()
        key = (item.urgency, item.sequence)
        if not flow.keys:
            flow.turn = max(flow.turn, self._turn)
            insort(self._order, (flow.turn, *key))
        elif key < flow.keys[0]:
            self._unlist(flow)
            insort(self._order, (flow.turn, *key))
        insort(flow.keys, key)
        self._count += 1

    def remove(self, item: Item) -> None:
        """Remove an item; it must be there."""
        flow = self._flows[item.client]
        at = bisect_left(flow.keys, (item.urgency, item.sequence))
        if at == 0:
            self._unlist(flow)
        del flow.keys[at]
        if at == 0 and flow.keys:
            insort(self._order, (flow.turn, *flow.keys[0]))
        self._count -= 1

    def first(self) -> int:
        """Return the sequence of the item that goes next; there must be one."""
        return self._order[0][2]

    def pop(self, client: str) -> None:
        """Remove the item that goes next, which is this client's, and end the client's turn."""
        del self._order[0]
        flow = self._flows[client]
        del flow.keys[0]
        self._turn = flow.turn
        flow.turn += 1
        if flow.keys:
            insort(self._order, (flow.turn, *flow.keys[0]))
        self._count -= 1

    def ahead(self, client: str, urgency: float) -> int:
        """Return about how many items go before one that would be added now.

        Of the client's own the more urgent ones; of every other client as many as it has turns
        until then.
        """
        flow = self._flows.get(client)
        own = 0 if flow is None else bisect_right(flow.keys, (urgency, math.inf))
        waiting = self._count - (0 if flow is None else len(flow.keys))
        if len(self._order) > _FORGET_ABOVE:
            return own + min(waiting, (own + 1) * len(self._order))
        others = (other for name, other in self._flows.items() if name != client)
        return own + sum(min(len(other.keys), own + 1) for other in others)

    def waiting(self, client: str) -> int:
        """Return how many items a client has here."""
        flow = self._flows.get(client)
        return 0 if flow is None else len(flow.keys)

    def last(self) -> tuple[int, int]:
        """Return the sequence of the least urgent item of the client with most, and its number."""
        flow = max(self._flows.values(), key=lambda flow: (len(flow.keys), flow.keys[-1:]))
        return flow.keys[-1][1], len(flow.keys)

    def _new_flow(self) -> _Flow:
        flows = self._flows
        if len(flows) > _FORGET_ABOVE and len(flows) > 2 * len(self._order):
            # Who waits for nothing owes one turn at most: not worth remembering for ever.
            self._flows = {client: flow for client, flow in flows.items() if flow.keys}
        return _Flow(self._turn)

    def _unlist(self, flow: _Flow) -> None:
        del self._order[bisect_left(self._order, (flow.turn, *flow.keys[0]))]
