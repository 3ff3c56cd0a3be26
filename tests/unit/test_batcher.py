"""The batcher: results are never swapped; threads, windows, deadlines, cancelling."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import (
    DeadlineExceeded,
    InvalidTensor,
    ModelRunFailed,
    QueueFull,
    ShuttingDown,
    Unavailable,
)
from retinue.pipeline.batcher import Batcher
from retinue.pipeline.worker import Instance, Result, nothing, same


class Echo:
    """Runs payloads by returning them; counts, and fails on the bad ones."""

    def __init__(self, bad: Sequence[object] = (), gate: threading.Event | None = None) -> None:
        self.bad, self.gate = set(bad), gate
        self.batches: list[list[object]] = []
        self.threads: set[int] = set()
        self.entered = threading.Event()
        self.closed_on = 0

    def run(self, rows: Sequence[object]) -> list[object]:
        self.threads.add(threading.get_ident())
        self.batches.append(list(rows))
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(5)
        for row in rows:
            if row in self.bad:
                raise ZeroDivisionError(f"bad row {row}")
        return list(rows)

    def close(self) -> None:
        self.closed_on = threading.get_ident()

    def instance(self) -> Instance[object, object]:
        return Instance(self.run, self.close)


@asynccontextmanager
async def batching(*echoes: Echo, max_batch=8, max_queue=1000, window_s=0.0):
    batcher = Batcher(
        [echo.instance() for echo in echoes],
        name="test batcher",
        max_batch=max_batch,
        max_queue=max_queue,
        window_s=window_s,
    )
    batcher.start()
    try:
        yield batcher
    finally:
        for echo in echoes:
            if echo.gate is not None:
                echo.gate.set()
        assert await batcher.stop(5)
        assert not [t for t in threading.enumerate() if t.name.startswith("test batcher")]
        assert batcher.running == batcher.waiting == 0


async def entered(echo: Echo) -> None:
    assert await asyncio.to_thread(echo.entered.wait, 5)


plans = st.lists(
    st.tuples(
        st.integers(-1, 1),  # priority
        st.booleans(),  # a deadline, or none
        st.sampled_from(["good"] * 6 + ["bad", "cancel", "bad finish"]),
        st.integers(0, 2),  # turns of the loop to wait before
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(plans, st.integers(1, 9), st.integers(1, 3), st.sampled_from([0.0, 0.001]), st.randoms())
def test_everyone_gets_the_answer_of_its_own_item(plan, max_batch, instances, window, random):
    numbers = list(range(len(plan)))
    random.shuffle(numbers)
    bad = [n for n, (_, _, kind, _) in zip(numbers, plan, strict=True) if kind == "bad"]
    echoes = [Echo(bad) for _ in range(instances)]

    def finish(kind: str, output: object) -> object:
        if kind == "bad finish":
            raise InvalidTensor(f"finish {output}")
        return ("done", output)

    async def one(batcher: Batcher, number: int, priority: int, timed: bool, kind: str) -> None:
        deadline = time.monotonic() + 100 if timed else math.inf
        result = await batcher.submit(
            number, lambda out: finish(kind, out), deadline=deadline, priority=priority
        )
        if kind == "bad":
            assert isinstance(result.error, ModelRunFailed)
            assert f"bad row {number}" in result.error.message
        elif kind == "bad finish":
            assert isinstance(result.error, InvalidTensor)
            assert result.error.message == f"finish {number}"
        else:
            assert result.unwrap() == ("done", number)
        assert 1 <= result.batch_size <= max_batch
        assert result.queue_ms >= 0
        assert result.run_ms >= 0

    async def main() -> None:
        async with batching(*echoes, max_batch=max_batch, window_s=window) as batcher:
            tasks = []
            for number, (priority, timed, kind, turns) in zip(numbers, plan, strict=True):
                for _ in range(turns):
                    await asyncio.sleep(0)
                task = asyncio.create_task(one(batcher, number, priority, timed, kind))
                tasks.append(task)
                if kind == "cancel":
                    asyncio.get_running_loop().call_soon(task.cancel)
            done = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome, (_, _, kind, _) in zip(done, plan, strict=True):
            assert outcome is None or (
                kind == "cancel" and isinstance(outcome, asyncio.CancelledError)
            )

    logging.disable(logging.CRITICAL)
    try:
        asyncio.run(main())
    finally:
        logging.disable(logging.NOTSET)
    assert all(len(echo.threads) <= 1 for echo in echoes)


def test_what_comes_in_one_turn_of_the_loop_runs_together():
    echo = Echo()

    async def main() -> list[Result[object]]:
        async with batching(echo, max_batch=4) as batcher:
            return await asyncio.gather(*(batcher.submit(n, same) for n in range(6)))

    results = asyncio.run(main())
    assert echo.batches == [[0, 1, 2, 3], [4, 5]]
    assert [r.batch_size for r in results] == [4, 4, 4, 4, 2, 2]


def test_instances_share_what_waits_each_on_its_own_thread():
    echoes = [Echo(gate=threading.Event()) for _ in range(2)]

    async def main() -> None:
        async with batching(*echoes) as batcher:
            jobs = [batcher.enqueue(n, same) for n in range(6)]
            for echo in echoes:
                await entered(echo)
            assert batcher.running == 6
            for echo in echoes:
                echo.gate.set()
            for job in jobs:
                await job.future

    asyncio.run(main())
    assert sorted(len(echo.batches[0]) for echo in echoes) == [3, 3]
    assert all(echo.threads == {echo.closed_on} for echo in echoes)
    assert echoes[0].closed_on != echoes[1].closed_on


def test_a_window_gathers_a_fuller_batch():
    echo = Echo()

    async def main() -> None:
        async with batching(echo, window_s=0.03) as batcher:
            first = asyncio.create_task(batcher.submit(1, same))
            await asyncio.sleep(0.005)
            second = await batcher.submit(2, same)
            assert (await first).queue_ms >= 29
            assert second.batch_size == 2

    asyncio.run(main())
    assert echo.batches == [[1, 2]]


def test_a_deadline_ends_the_wait_while_all_instances_are_busy():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        async with batching(echo, max_batch=1) as batcher:
            running = batcher.enqueue("running", same)
            await entered(echo)
            result = await batcher.submit("late", same, deadline=time.monotonic() + 0.01)
            assert isinstance(result.error, DeadlineExceeded)
            assert "in the queue" in result.error.message
            assert not running.future.done()
            assert batcher.waiting == 0

    asyncio.run(main())
    assert echo.batches == [["running"]]


def test_a_full_queue_refuses_or_makes_room():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        async with batching(echo, max_batch=1, max_queue=2) as batcher:
            jobs = [batcher.enqueue("running", same)]
            await entered(echo)
            jobs += [batcher.enqueue(name, same) for name in ("a", "b")]
            with pytest.raises(QueueFull):
                batcher.enqueue("c", same)
            jobs.append(batcher.enqueue("urgent", same, priority=1))
            evicted = await jobs[2].future
            assert isinstance(evicted.error, QueueFull)
            assert not batcher.make_room(0)
            assert batcher.make_room(1)
            assert isinstance((await jobs[1].future).error, QueueFull)
            echo.gate.set()
            assert (await jobs[3].future).unwrap() == "urgent"

    asyncio.run(main())
    assert echo.batches == [["running"], ["urgent"]]


def test_a_full_queue_drops_what_is_late_before_it_refuses():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        async with batching(echo, max_batch=1, max_queue=1) as batcher:
            batcher.enqueue("running", same)
            await entered(echo)
            late = batcher.enqueue("late", same, deadline=time.monotonic() + 0.002)
            time.sleep(0.003)  # noqa: ASYNC251 - the loop must not get to its alarm
            batcher.enqueue("new", same)
            assert isinstance((await late.future).error, DeadlineExceeded)

    asyncio.run(main())


def test_cancelling_frees_the_place_or_discards_the_result():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        async with batching(echo, max_batch=1) as batcher:
            running = asyncio.create_task(batcher.submit("running", same))
            await entered(echo)
            waiting = asyncio.create_task(batcher.submit("waiting", same))
            await asyncio.sleep(0)
            assert (batcher.running, batcher.waiting) == (1, 1)
            for task in (waiting, running):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (batcher.running, batcher.waiting) == (0, 0)
            echo.gate.set()
            assert (await batcher.submit("next", same)).unwrap() == "next"

    asyncio.run(main())
    assert echo.batches == [["running"], ["next"]]


def test_it_refuses_before_its_start_and_after_its_end():
    echo = Echo()

    async def main() -> None:
        batcher = Batcher([echo.instance()], name="test batcher", max_batch=1, max_queue=1)
        with pytest.raises(Unavailable, match="not started"):
            batcher.enqueue(1, same)
        batcher.start()
        assert await batcher.stop(5)
        assert await batcher.stop(5)
        with pytest.raises(ShuttingDown):
            batcher.enqueue(1, same)

    asyncio.run(main())


def test_stopping_fails_what_is_left_and_a_stuck_thread_ends_later():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        batcher = Batcher([echo.instance()], name="stuck", max_batch=1, max_queue=9)
        batcher.start()
        jobs = [batcher.enqueue(n, same) for n in range(3)]
        await entered(echo)
        assert not await batcher.stop(0.01)
        assert not echo.closed_on
        for job in jobs:
            assert isinstance((await job.future).error, ShuttingDown)
        echo.gate.set()
        assert await batcher.stop(5)
        assert echo.closed_on

    asyncio.run(main())


def test_a_thread_outlives_its_loop_without_harm(caplog):
    echo = Echo(gate=threading.Event())

    async def main() -> Batcher:
        batcher = Batcher([echo.instance()], name="orphan", max_batch=1, max_queue=9)
        batcher.start()
        batcher.enqueue(1, same)
        await entered(echo)
        return batcher

    batcher = asyncio.run(main())
    (thread,) = (t for t in threading.enumerate() if t.name == "orphan 0")
    echo.gate.set()
    batcher._workers[0].end()
    thread.join(5)
    assert not thread.is_alive()
    assert "event loop was closed" in caplog.text


def test_an_idle_instance_keeps_nothing_alive():
    class Big:
        pass

    async def main() -> None:
        async with batching(Echo()) as batcher:
            batcher._instances[0].run.__self__.batches = Forgetful()
            for _ in range(3):
                big = Big()
                alive = weakref.ref(big)
                await batcher.submit(big, lambda output: None)
                del big
                for _ in range(100):
                    gc.collect()
                    if alive() is None:
                        break
                    await asyncio.sleep(0.001)
                assert alive() is None

    asyncio.run(main())


class Forgetful(list):
    def append(self, item: object) -> None:
        pass


def test_nothing_is_done_by_the_close_of_nothing():
    nothing()
