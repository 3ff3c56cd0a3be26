"""The scheduler against a slow obvious twin, and each of its rules alone."""

from __future__ import annotations

import math
from bisect import insort

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import QueueFull
from retinue.pipeline.cost import RunCost
from retinue.pipeline.flows import Item, Terms
from retinue.pipeline.schedule import Schedule


class Twin:
    """The same rules on plain lists, gone through whenever somebody asks."""

    def __init__(self, max_batch: int, max_queue: int, window_s: float) -> None:
        self.max_batch, self.max_queue, self.window_s = max_batch, max_queue, window_s
        self.items: list[Item] = []
        self.cost = RunCost()
        self.turns: dict[tuple[int, str], int] = {}
        self.serving: dict[int, int] = {}

    def of(self, priority: int, client: str) -> list[Item]:
        mine = [i for i in self.items if (i.priority, i.client) == (priority, client)]
        return sorted(mine, key=lambda i: (i.urgency, i.sequence))

    def forget_idle(self) -> None:
        waiting = {i.priority for i in self.items}
        self.serving = {p: turn for p, turn in self.serving.items() if p in waiting}
        self.turns = {key: turn for key, turn in self.turns.items() if key[0] in waiting}

    def first(self) -> Item:
        top = max(i.priority for i in self.items)
        clients = {i.client for i in self.items if i.priority == top}
        heads = [(self.turns[top, c], self.of(top, c)[0]) for c in clients]
        return min(heads, key=lambda head: (head[0], head[1].urgency, head[1].sequence))[1]

    def pop(self) -> Item:
        item = self.first()
        key = (item.priority, item.client)
        self.serving[item.priority] = self.turns[key]
        self.turns[key] += 1
        self.items.remove(item)
        self.forget_idle()
        return item

    def drop(self, item: Item) -> None:
        self.items.remove(item)
        self.forget_idle()

    def evict(self, item: Item) -> Item | None:
        lowest = min((i.priority for i in self.items), default=math.inf)
        if lowest > item.priority:
            return None
        flows = [self.of(lowest, c) for c in {i.client for i in self.items}]
        longest = max(
            (flow for flow in flows if flow),
            key=lambda f: (len(f), f[-1].urgency, f[-1].sequence),
        )
        own = len(self.of(item.priority, item.client))
        if lowest == item.priority and len(longest) < own + 2:
            return None
        self.drop(longest[-1])
        return longest[-1]

    def push(self, item: Item) -> Item | None:
        evicted = None
        if len(self.items) >= self.max_queue:
            evicted = self.evict(item)
            if evicted is None:
                raise QueueFull
        key = (item.priority, item.client)
        if not self.of(*key):
            serving = self.serving.get(item.priority, 0)
            self.turns[key] = max(self.turns.get(key, 0), serving)
        self.items.append(item)
        return evicted

    def shed(self, now: float) -> set[Item]:
        late = {i for i in self.items if i.deadline <= now + self.cost.predict(1)}
        self.items = [i for i in self.items if i not in late]
        self.forget_idle()
        if any(i.deadline > now for i in late):
            self.cost.doubt()
        return late

    def due(self) -> float:
        return min((i.deadline for i in self.items), default=math.inf)

    def hold(self, now: float) -> float:
        n = len(self.items)
        if self.window_s == 0 or n >= self.max_batch:
            return -math.inf
        until = min(i.arrived for i in self.items) + self.window_s
        affordable = until + self.cost.predict(n) <= self.due()
        return until if affordable and now < until else -math.inf

    def take(self, free: int) -> list[Item]:
        return [self.pop() for _ in range(min(self.max_batch, math.ceil(len(self.items) / free)))]


times = st.integers(0, 40).map(float)
steps = st.one_of(
    st.tuples(
        st.just("push"),
        st.one_of(st.just(math.inf), times),
        st.integers(-1, 1),
        st.sampled_from("abc"),
        st.one_of(st.just(math.inf), times),
    ),
    st.tuples(st.just("push"), times, st.just(0), st.sampled_from("ab"), st.just(math.inf)),
    st.tuples(st.just("next"), st.integers(1, 3)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("evict"), st.integers(-1, 2), st.sampled_from("abcd")),
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
            limit, priority, client, urgency = args
            item = Item(now, Terms(now + limit, priority, client, now + urgency))
            made.append(item)
            item.sequence = len(made)
            try:
                expected = slow.push(item)
            except QueueFull:
                with pytest.raises(QueueFull):
                    fast.push(item)
            else:
                assert fast.push(item) is expected
        elif step == "next":
            assert set(fast.shed(now)) == slow.shed(now)
            if slow.items:
                assert fast.first() is slow.first()
                assert fast.hold(now) == slow.hold(now)
                if slow.hold(now) <= now:
                    batch, _ = fast.take(now, args[0])
                    assert batch == slow.take(args[0])
                    assert len(batch) <= max_batch
        elif step == "cancel" and made:
            item = made[args[0] % len(made)]
            assert fast.cancel(item) == (item in slow.items)
            if item in slow.items:
                slow.drop(item)
        elif step == "evict":
            item = Item(now, Terms(priority=args[0], client=args[1]))
            assert fast.evict(item) is slow.evict(item)
        elif step == "shed":
            assert set(fast.shed(now)) == slow.shed(now)
        elif step == "done":
            fast.done(args[0], float(args[1]))
            slow.cost.observe(args[0], float(args[1]))
        elif step == "pass":
            now += args[0]
        elif step == "clear":
            assert fast.clear() == [slow.pop() for _ in range(len(slow.items))]
        assert len(fast) == len(slow.items) <= max_queue
        assert fast.due() == slow.due()


def test_clients_that_come_once_are_not_remembered():
    schedule: Schedule[Item] = Schedule(max_batch=1, max_queue=1000)
    schedule.push(Item(0.0, Terms(client="always")))
    schedule.push(Item(0.0, Terms(client="always")))
    for number in range(5000):
        schedule.push(Item(0.0, Terms(client=str(number))))
        if number % 3 == 0:
            schedule.push(Item(0.0, Terms(client="always")))
        while len(schedule) > 2:
            schedule.take(0.0, 1)
    assert len(schedule._levels[0]._flows) < 200


def test_clients_that_come_once_each_to_a_queue_that_is_never_empty_are_not_remembered():
    schedule: Schedule[Item] = Schedule(max_batch=1, max_queue=1000)
    schedule.push(Item(0.0, Terms(client="first")))
    for number in range(5000):
        schedule.push(Item(0.0, Terms(client=str(number))))
        schedule.take(0.0, 1)
    assert len(schedule) == 1
    assert len(schedule._levels[0]._flows) < 200


def test_run_times_may_be_asked_for_while_a_new_size_is_learnt(monkeypatch):
    cost = RunCost()
    cost.observe(4, 1.0)

    def listed(sizes: list[int], size: int) -> None:
        insort(sizes, size)
        assert cost.predict(size + 1) == 0.75

    monkeypatch.setattr("retinue.pipeline.cost.insort", listed)
    cost.observe(2, 0.5)


def push(schedule: Schedule[Item], *items: Item) -> None:
    for item in items:
        schedule.push(item)


def test_order_is_priority_then_deadline_then_arrival():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=8)
    late, early = Item(0.0, Terms(20.0)), Item(0.0, Terms(10.0))
    urgent = Item(0.0, Terms(priority=1))
    first, second = Item(0.0, Terms(15.0)), Item(0.0, Terms(15.0))
    push(schedule, late, first, early, second, urgent)
    assert schedule.take(0.0, 1) == ([urgent, early, first, second, late], "idle")


def test_clients_take_turns_and_one_with_few_items_does_not_wait_for_one_with_many():
    schedule: Schedule[Item] = Schedule(max_batch=20, max_queue=20)
    many = [Item(0.0, Terms(1.0 + n, client="many")) for n in range(6)]
    few = [Item(0.0, Terms(50.0 + n, client="few")) for n in range(2)]
    push(schedule, *many, *few)
    assert schedule.ahead(Terms(99.0, client="few")) == 2 + 3
    assert schedule.ahead(Terms(99.0, client="new")) == 1 + 1
    assert schedule.ahead(Terms(3.5, client="many")) == 3 + 2
    assert schedule.ahead(Terms(99.0, 1)) == 0
    assert schedule.ahead(Terms(99.0, -1)) == 8
    order = [many[0], few[0], many[1], few[1], *many[2:]]
    assert schedule.take(0.0, 1)[0] == order


def test_who_was_away_is_owed_nothing():
    schedule: Schedule[Item] = Schedule(max_batch=1, max_queue=20)
    push(schedule, *(Item(0.0, Terms(client="a")) for _ in range(9)))
    for _ in range(5):
        schedule.take(0.0, 1)
    late = [Item(0.0, Terms(client="b")) for _ in range(3)]
    push(schedule, *late)
    order = [schedule.take(0.0, 1)[0][0].client for _ in range(7)]
    assert order == ["b", "a", "b", "a", "b", "a", "a"]


def test_a_client_with_many_items_makes_room_for_one_with_few():
    schedule: Schedule[Item] = Schedule(max_batch=1, max_queue=3)
    greedy = [Item(0.0, Terms(9.0 + n, client="greedy")) for n in range(3)]
    push(schedule, *greedy)
    with pytest.raises(QueueFull):
        schedule.push(Item(0.0, Terms(1.0, client="greedy")))
    assert schedule.push(Item(0.0, Terms(client="modest"))) is greedy[2]
    with pytest.raises(QueueFull):
        schedule.push(Item(0.0, Terms(client="modest")))


def test_an_item_goes_by_its_urgency_and_is_shed_by_its_deadline():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=8)
    frame = Item(0.0, Terms(30.0, urgency=5.0))
    other = Item(0.0, Terms(10.0))
    push(schedule, other, frame)
    assert schedule.first() is frame
    assert schedule.shed(15.0) == [other]


def test_without_a_window_it_never_waits():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=8)
    item = Item(0.0)
    push(schedule, item)
    assert schedule.hold(0.0) == -math.inf
    assert schedule.take(0.0, 1) == ([item], "idle")
    assert schedule.first() is None


def test_what_waits_is_spread_over_the_free_instances():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=8)
    push(schedule, *(Item(0.0) for _ in range(7)))
    assert [len(schedule.take(0.0, free)[0]) for free in (2, 1)] == [4, 3]


def test_a_window_counts_from_the_oldest_item_and_ends_when_the_batch_is_full():
    schedule: Schedule[Item] = Schedule(max_batch=3, max_queue=8, window_s=5.0)
    push(schedule, Item(1.0), Item(2.0))
    assert schedule.hold(2.0) == schedule.hold(5.9) == 6.0
    assert schedule.hold(6.0) == -math.inf
    assert (len(schedule), schedule.take(6.0, 1)[1]) == (2, "window")
    push(schedule, Item(10.0), Item(10.0), Item(10.0))
    assert schedule.hold(10.0) == -math.inf
    assert schedule.take(10.0, 1)[1] == "full"


def test_a_window_does_not_make_an_item_late():
    schedule: Schedule[Item] = Schedule(max_batch=3, max_queue=8, window_s=5.0)
    schedule.done(1, 2.0)
    patient, hurried = Item(0.0, Terms(7.0)), Item(0.0, Terms(6.9))
    push(schedule, patient)
    assert schedule.hold(0.0) == 5.0
    push(schedule, hurried)
    assert schedule.hold(0.0) == -math.inf
    assert schedule.take(0.0, 1) == ([hurried, patient], "deadline")


def test_expired_and_hopeless_items_are_dropped():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=8)
    expired, hopeless, good = Item(0.0, Terms(1.0)), Item(0.0, Terms(2.5)), Item(0.0, Terms(3.5))
    push(schedule, good, hopeless, expired)
    assert schedule.shed(1.0) == [expired]
    schedule.done(1, 1.0)
    assert schedule.shed(2.0) == [hopeless]
    assert schedule.take(2.0, 1)[0] == [good]


def test_what_comes_after_counts_too():
    after = RunCost()
    schedule: Schedule[Item] = Schedule(max_batch=1, max_queue=8, after=after)
    push(schedule, Item(0.0, Terms(2.5)), Item(0.0, Terms(3.5)))
    after.observe(1, 2.0)
    schedule.done(1, 1.0)
    assert len(schedule.shed(0.0)) == 1


def test_one_slow_run_does_not_shut_the_door_for_good():
    schedule: Schedule[Item] = Schedule(max_batch=1, max_queue=8)
    schedule.done(1, 60.0)
    dropped = 0
    while not len(schedule):
        push(schedule, Item(0.0, Terms(10.0)))
        dropped += len(schedule.shed(0.0))
        assert dropped < 30
    assert dropped > 5


def test_a_full_queue_makes_room_for_a_higher_priority_only():
    schedule: Schedule[Item] = Schedule(max_batch=8, max_queue=3)
    soon, later, latest = Item(0.0, Terms(1.0)), Item(0.0, Terms(9.0)), Item(0.0, Terms(9.0))
    push(schedule, soon, later, latest)
    with pytest.raises(QueueFull, match="3 items wait already"):
        schedule.push(Item(0.0, Terms(0.5)))
    assert schedule.push(Item(0.0, Terms(priority=1))) is latest
    assert schedule.push(Item(0.0, Terms(priority=1))) is later
    assert schedule.push(Item(0.0, Terms(priority=1))) is soon
    with pytest.raises(QueueFull):
        schedule.push(Item(0.0, Terms(priority=1)))
