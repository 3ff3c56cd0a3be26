"""The queue between threads: order, several makers and takers, stopping, draining."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from retinue.apps.search.pipe import POLL_S, Pipe

WAIT_S = 20.0


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[], None]], threading.Thread]]:
    """Start threads that must have ended when the test does."""
    threads: list[threading.Thread] = []

    def start(work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(WAIT_S)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"


def flat(batches: Iterator[list[int]]) -> list[int]:
    return [one for batch in batches for one in batch]


def fill(pipe: Pipe[int], items: range) -> None:
    for one in items:
        pipe.put(one)
    pipe.end()


def test_one_maker_and_one_taker_keep_the_order(run) -> None:
    pipe: Pipe[int] = Pipe(3, threading.Event())
    run(lambda: fill(pipe, range(500)))
    assert flat(pipe.batches(7)) == list(range(500))


def test_a_batch_has_at_most_so_many(run) -> None:
    pipe: Pipe[int] = Pipe(100, threading.Event())
    fill(pipe, range(10))
    assert list(pipe.batches(4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(pipe.batches(4)) == []


def test_no_item_is_lost_or_doubled_between_many(run) -> None:
    pipe: Pipe[int] = Pipe(4, threading.Event(), makers=4)
    taken: list[list[int]] = [[] for _ in range(3)]

    def take(place: int) -> None:
        for batch in pipe.batches(5, wait_s=0.001):
            assert 1 <= len(batch) <= 5
            taken[place] += batch

    takers = [run(lambda place=place: take(place)) for place in range(3)]
    for maker in range(4):
        run(lambda maker=maker: fill(pipe, range(maker * 1000, maker * 1000 + 300)))
    for taker in takers:
        taker.join(WAIT_S)
    want = [maker * 1000 + n for maker in range(4) for n in range(300)]
    assert sorted(flat(iter(taken))) == want
    for one in taken:  # what comes from one maker stays in its order for each taker
        for maker in range(4):
            mine = [item for item in one if item // 1000 == maker]
            assert mine == sorted(mine)


def test_a_maker_waits_while_it_is_full(run) -> None:
    pipe: Pipe[int] = Pipe(2, threading.Event())
    put: list[int] = []

    def make() -> None:
        for one in range(5):
            pipe.put(one)
            put.append(one)
        pipe.end()

    run(make)
    while len(put) < 2:
        time.sleep(POLL_S)
    time.sleep(2 * POLL_S)
    assert put == [0, 1]
    assert flat(pipe.batches(1)) == list(range(5))


def test_a_taker_waits_for_a_slow_maker(run) -> None:
    pipe: Pipe[int] = Pipe(2, threading.Event())

    def make() -> None:
        for one in range(3):
            time.sleep(2 * POLL_S)
            pipe.put(one)
        pipe.end()

    run(make)
    assert flat(pipe.batches(10)) == [0, 1, 2]


def test_the_first_of_a_batch_waits_for_others(run) -> None:
    pipe: Pipe[int] = Pipe(10, threading.Event())
    taken = threading.Event()

    def make() -> None:
        for one in range(4):
            pipe.put(one)
            time.sleep(POLL_S / 2)
        taken.wait(WAIT_S)
        fill(pipe, range(4, 5))

    run(make)
    batches = pipe.batches(10, wait_s=1)
    assert next(batches) == [0, 1, 2, 3]
    taken.set()
    assert list(batches) == [[4]]


def test_a_full_batch_does_not_wait() -> None:
    pipe: Pipe[int] = Pipe(10, threading.Event())
    for one in range(3):
        pipe.put(one)
    start = time.monotonic()
    assert next(pipe.batches(3, wait_s=60)) == [0, 1, 2]
    assert time.monotonic() - start < 10


def test_the_last_batch_does_not_wait_for_what_cannot_come(run) -> None:
    pipe: Pipe[int] = Pipe(10, threading.Event())
    pipe.put(1)
    run(lambda: (time.sleep(4 * POLL_S), pipe.end()))
    start = time.monotonic()
    assert list(pipe.batches(3, wait_s=60)) == [[1]]
    assert time.monotonic() - start < 10


def test_all_makers_must_have_ended(run) -> None:
    pipe: Pipe[int] = Pipe(10, threading.Event(), makers=2)
    found: list[int] = []
    taker = run(lambda: found.extend(flat(pipe.batches(1))))
    fill(pipe, range(2))
    taker.join(4 * POLL_S)
    assert taker.is_alive()
    fill(pipe, range(2, 4))
    taker.join(WAIT_S)
    assert found == [0, 1, 2, 3]


def test_a_maker_at_a_full_pipe_ends_when_the_run_is_stopped(run) -> None:
    stopped = threading.Event()
    pipe: Pipe[int] = Pipe(1, stopped)
    maker = run(lambda: fill(pipe, range(1000)))
    time.sleep(2 * POLL_S)
    assert maker.is_alive()
    stopped.set()
    maker.join(100 * POLL_S)  # not as long as 1000 items would wait
    assert not maker.is_alive()


def test_a_taker_ends_when_the_run_is_stopped_though_no_maker_does(run) -> None:
    stopped = threading.Event()
    pipe: Pipe[int] = Pipe(1, stopped)
    taker = run(lambda: flat(pipe.batches(1)))
    stopped.set()
    taker.join(WAIT_S)
    assert not taker.is_alive()


def test_a_batch_that_waits_for_others_ends_when_the_run_is_stopped(run) -> None:
    stopped = threading.Event()
    pipe: Pipe[int] = Pipe(4, stopped)
    pipe.put(1)
    found: list[int] = []

    def take() -> None:
        for batch in pipe.batches(9, wait_s=600, drain=True):
            found.extend(batch)

    taker = run(take)
    time.sleep(2 * POLL_S)
    stopped.set()
    pipe.end()
    taker.join(WAIT_S)
    assert found == [1]


def test_what_waits_is_left_when_the_run_is_stopped_or_drained_where_it_counts() -> None:
    for drain, left in ((False, []), (True, [0, 1, 2])):
        stopped = threading.Event()
        pipe: Pipe[int] = Pipe(5, stopped)
        fill(pipe, range(3))
        stopped.set()
        assert flat(pipe.batches(2, drain=drain)) == left


def test_stopping_at_any_moment_leaves_no_thread_behind(run) -> None:
    for moment in range(12):
        stopped = threading.Event()
        first: Pipe[int] = Pipe(2, stopped)
        second: Pipe[int] = Pipe(2, stopped, makers=2)
        seen: list[int] = []

        def work(first: Pipe[int] = first, second: Pipe[int] = second) -> None:
            for batch in first.batches(3):
                for one in batch:
                    second.put(one)
            second.end()

        def take(second: Pipe[int] = second, seen: list[int] = seen) -> None:
            for batch in second.batches(3, wait_s=0.01, drain=True):
                seen.extend(batch)

        threads = [run(lambda first=first: fill(first, range(400))), run(work), run(work)]
        threads.append(run(take))
        time.sleep(moment / 1000)
        stopped.set()
        for thread in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        assert len(seen) == len(set(seen))
