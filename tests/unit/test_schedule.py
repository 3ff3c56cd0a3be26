"""The scheduler against a slow obvious twin, and each of its rules alone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import QueueFull
from retinue.pipeline.schedule import Item, RunCost, Schedule


class Twin:
    """The same rules on one list, sorted whenever somebody asks."""

    def __init__(self, max_batch: int, max_queue: int, window_s: float) -> None:
        self.max_batch, self.max_queue, self.window_s = max_batch, max_queue, window_s
        self.items: list[Item] = []
        self.cost = RunCost()

    def ordered(self) -> list[Item]:
        return sorted(self.items, key=lambda i: (-i.priority, i.deadline, self.items.index(i)))

    def evict(self, priority: int) -> Item | None:
        least = min(
            self.items,
            key=lambda i: (i.priority, -i.deadline, -self.items.index(i)),
            default=None,
        )
        if least is None or least.priority >= priority:
            return None
        self.items.remove(least)
        return least

    def push(self, item: Item) -> Item | None:
        evicted = None
        if len(self.items) >= self.max_queue:
            evicted = self.evict(item.priority)
            if evicted is None:
                raise QueueFull
        self.items.append(item)
        return evicted

    def shed(self, now: float) -> set[Item]:
        late = {i for i in self.items if i.deadline <= now + self.cost.predict(1)}
        self.items = [i for i in self.items if i not in late]
        if any(i.deadline > now for i in late):
            self.cost.doubt()
        return late

    def due(self) -> float:
        return min((i.deadline for i in self.items), default=math.inf)

    def next(self, now: float, free: int) -> tuple[list[Item], set[Item], float]:
        late = self.shed(now)
        n = len(self.items)
        if n == 0:
            return [], late, math.inf
        if self.window_s > 0 and n < self.max_batch:
            until = min(i.arrived for i in self.items) + self.window_s
            affordable = until + self.cost.predict(n) <= self.due()
            if affordable and now < until:
                return [], late, min(until, self.due())
        batch = self.ordered()[: min(self.max_batch, math.ceil(n / free))]
        self.items = [i for i in self.items if i not in batch]
        return batch, late, math.inf


times = st.integers(0, 40).map(float)
steps = st.one_of(
    st.tuples(st.just("push"), st.one_of(st.just(math.inf), times), st.integers(-1, 1)),
    st.tuples(st.just("push"), times, st.just(0)),
    st.tuples(st.just("next"), st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("evict"), st.integers(-1, 2)),
    st.tuples(st.just("shed")),
    st.tuples(st.just("done"), st.integers(1, 6), st.integers(0, 5)),
    st.tuples(st.just("pass"), st.integers(0, 4)),
    st.tuples(st.just("clear")),
)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 8),
    st.sampled_from([0.0, 3.0]),
    st.lists(steps, max_size=80),
)
def test_it_decides_as_its_twin_does(max_batch, max_queue, window, program):
    fast: Schedule[Item] = Schedule(max_batch=max_batch, max_queue=max_queue, window_s=window)
    slow = Twin(max_batch, max_queue, window)
    now, made = 0.0, []
    for step, *args in program:
        if step == "push":
            item = Item(now, now + args[0], args[1])
            made.append(item)
            try:
                expected = slow.push(item)
            except QueueFull:
                with pytest.raises(QueueFull):
                    fast.push(item)
            else:
                assert fast.push(item) is expected
        elif step == "next":
            batch, dropped, until = fast.next(now, args[0])
            assert (list(batch), set(dropped), until) == slow.next(now, args[0])
            assert len(batch) <= max_batch
        elif step == "cancel" and made:
            item = made[args[0] % len(made)]
            assert fast.cancel(item) == (item in slow.items)
            slow.items = [i for i in slow.items if i is not item]
        elif step == "evict":
            assert fast.evict(args[0]) is slow.evict(args[0])
        elif step == "shed":
            assert set(fast.shed(now)) == slow.shed(now)
        elif step == "done":
            fast.done(args[0], float(args[1]))
            slow.cost.observe(args[0], float(args[1]))
        elif step == "pass":
            now += args[0]
        elif step == "clear":
            assert fast.clear() == slow.ordered()
            slow.items = []
        assert len(fast) == len(slow.items) <= max_queue
        assert fast.due() == slow.due()


def test_long_queues_keep_their_heaps_small():
    schedule: Schedule[Item] = Schedule(max_batch=4, max_queue=1000, window_s=1e-9)
    schedule.push(Item(0.0, priority=-5))
    for number in range(5000):
        schedule.push(Item(float(number), 1e9, number % 3))
        if number % 4 == 3:
            assert len(schedule.next(1e6).batch) == 4
    for heap in (schedule._order, schedule._least, schedule._due, schedule._oldest):
        assert len(heap._keys) <= 80


def push(schedule: Schedule[Item], *items: Item) -> None:
    for item in items:
        schedule.push(item)


def test_order_is_priority_then_deadline_then_arrival():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=8)
    late, early = Item(0.0, 20.0), Item(0.0, 10.0)
    urgent = Item(0.0, math.inf, priority=1)
    first, second = Item(0.0, 15.0), Item(0.0, 15.0)
    push(schedule, late, first, early, second, urgent)
    assert schedule.next(0.0).batch == [urgent, early, first, second, late]


def test_without_a_window_it_never_waits():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=8)
    item = Item(0.0)
    push(schedule, item)
    assert schedule.next(0.0) == ([item], [], math.inf)
    assert schedule.next(0.0) == ((), [], math.inf)


def test_what_waits_is_spread_over_the_free_instances():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=8)
    push(schedule, *(Item(0.0) for _ in range(7)))
    assert [len(schedule.next(0.0, free).batch) for free in (2, 1)] == [4, 3]


def test_a_window_counts_from_the_oldest_item_and_ends_when_the_batch_is_full():
    schedule: Schedule[Item] = Schedule(max_batch=3, max_queue=8, window_s=5.0)
    push(schedule, Item(1.0), Item(2.0))
    assert schedule.next(2.0).until == 6.0
    assert not schedule.next(5.9).batch
    assert len(schedule.next(6.0).batch) == 2
    push(schedule, Item(10.0), Item(10.0), Item(10.0))
    assert len(schedule.next(10.0).batch) == 3


def test_a_window_does_not_make_an_item_late():
    schedule: Schedule[Item] = Schedule(max_batch=3, max_queue=8, window_s=5.0)
    schedule.done(1, 2.0)
    patient, hurried = Item(0.0, 7.0), Item(0.0, 6.9)
    push(schedule, patient)
    assert schedule.next(0.0).until == 5.0
    push(schedule, hurried)
    assert schedule.next(0.0).batch == [hurried, patient]


def test_expired_and_hopeless_items_are_dropped():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=8)
    expired, hopeless, good = Item(0.0, 1.0), Item(0.0, 2.5), Item(0.0, 3.5)
    push(schedule, good, hopeless, expired)
    assert schedule.shed(1.0) == [expired]
    schedule.done(1, 1.0)
    assert schedule.next(2.0) == ([good], [hopeless], math.inf)


def test_one_slow_run_does_not_shut_the_door_for_good():
    schedule: Schedule[Item] = Schedule(max_batch=1, max_queue=8)
    schedule.done(1, 60.0)
    dropped = 0
    while not schedule.next(0.0).batch:
        push(schedule, Item(0.0, 10.0))
        dropped += len(schedule.shed(0.0))
        assert dropped < 30
    assert dropped > 5


def test_a_full_queue_makes_room_for_a_higher_priority_only():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=3)
    soon, later, latest = Item(0.0, 1.0), Item(0.0, 9.0), Item(0.0, 9.0)
    push(schedule, soon, later, latest)
    with pytest.raises(QueueFull, match="3 items wait already"):
        schedule.push(Item(0.0, 0.5))
    assert schedule.push(Item(0.0, priority=1)) is latest
    assert schedule.push(Item(0.0, priority=1)) is later
    assert schedule.push(Item(0.0, priority=1)) is soon
    with pytest.raises(QueueFull):
        schedule.push(Item(0.0, priority=1))


def test_run_cost_is_a_moving_mean_bounded_by_its_neighbours():
    cost = RunCost(weight=0.5)
    assert cost.predict(4) == cost.alone == 0.0
    cost.observe(8, 16.0)
    assert cost.predict(4) == 8.0
    assert cost.predict(9) == 16.0
    assert cost.alone == 2.0
    cost.observe(2, 10.0)
    cost.observe(2, 12.0)
    assert cost.predict(2) == 11.0
    assert cost.predict(4) == 11.0
    assert cost.predict(7) == 14.0


@given(st.lists(st.tuples(st.integers(1, 32), st.floats(0, 10)), max_size=30))
def test_run_cost_is_at_least_zero_and_doubt_lowers_it(runs):
    cost = RunCost()
    for size, seconds in runs:
        cost.observe(size, seconds)
    before = [cost.predict(n) for n in range(1, 40)]
    cost.doubt()
    after = [cost.predict(n) for n in range(1, 40)]
    assert all(0 <= a <= b for a, b in zip(after, before, strict=True))
