"""Lanes on a device: results are never swapped; threads, windows, deadlines, cancelling."""

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
from retinue.pipeline.device import Device
from retinue.pipeline.flows import Terms
from retinue.pipeline.lane import Lane
from retinue.pipeline.worker import Instance, Result, nothing, same
from retinue.testing.models import until


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
    device = Device(len(echoes), name="test device")
    lane = Lane(
        device,
        [echo.instance() for echo in echoes],
        name="test lane",
        max_batch=max_batch,
        max_queue=max_queue,
        window_s=window_s,
    )
    device.start()
    try:
        yield lane
    finally:
        for echo in echoes:
            if echo.gate is not None:
                echo.gate.set()
        assert await device.stop(5)
        await until(lambda: not [t for t in threading.enumerate() if "test " in t.name])
        assert lane.running == lane.waiting == 0


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

    async def one(lane: Lane, number: int, priority: int, timed: bool, kind: str) -> None:
        deadline = time.monotonic() + 100 if timed else math.inf
        terms = Terms(deadline, priority, client=str(number % 3))
        result = await lane.submit(number, lambda out: finish(kind, out), terms)
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
        async with batching(*echoes, max_batch=max_batch, window_s=window) as lane:
            tasks = []
            for number, (priority, timed, kind, turns) in zip(numbers, plan, strict=True):
                for _ in range(turns):
                    await asyncio.sleep(0)
                task = asyncio.create_task(one(lane, number, priority, timed, kind))
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


def test_what_comes_in_one_turn_of_the_loop_runs_together():
    echo = Echo()

    async def main() -> list[Result[object]]:
        async with batching(echo, max_batch=4) as lane:
            return await asyncio.gather(*(lane.submit(n, same) for n in range(6)))

    results = asyncio.run(main())
    assert echo.batches == [[0, 1, 2, 3], [4, 5]]
    assert [r.batch_size for r in results] == [4, 4, 4, 4, 2, 2]


def test_instances_share_what_waits_and_run_side_by_side():
    echoes = [Echo(gate=threading.Event()) for _ in range(2)]

    async def main() -> None:
        async with batching(*echoes) as lane:
            jobs = [lane.enqueue(n, same) for n in range(6)]
            for echo in echoes:
                await entered(echo)
            assert lane.running == 6
            for echo in echoes:
                echo.gate.set()
            for job in jobs:
                await job.future

    asyncio.run(main())
    assert sorted(len(echo.batches[0]) for echo in echoes) == [3, 3]
    assert all(echo.closed_on for echo in echoes)
    assert echoes[0].threads != echoes[1].threads


def test_a_window_gathers_a_fuller_batch():
    echo = Echo()

    async def main() -> None:
        async with batching(echo, window_s=0.03) as lane:
            first = asyncio.create_task(lane.submit(1, same))
            await asyncio.sleep(0.005)
            second = await lane.submit(2, same)
            assert (await first).queue_ms >= 29
            assert second.batch_size == 2

    asyncio.run(main())
    assert echo.batches == [[1, 2]]


def test_a_deadline_ends_the_wait_while_all_instances_are_busy():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        async with batching(echo, max_batch=1) as lane:
            running = lane.enqueue("running", same)
            await entered(echo)
            result = await lane.submit("late", same, Terms(time.monotonic() + 0.01))
            assert isinstance(result.error, DeadlineExceeded)
            assert "in the queue" in result.error.message
            assert not running.future.done()
            assert lane.waiting == 0

    asyncio.run(main())
    assert echo.batches == [["running"]]


def test_a_full_queue_refuses_or_makes_room():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        async with batching(echo, max_batch=1, max_queue=2) as lane:
            jobs = [lane.enqueue("running", same)]
            await entered(echo)
            jobs += [lane.enqueue(name, same) for name in ("a", "b")]
            with pytest.raises(QueueFull):
                lane.enqueue("c", same)
            jobs.append(lane.enqueue("urgent", same, Terms(priority=1)))
            evicted = await jobs[2].future
            assert isinstance(evicted.error, QueueFull)
            assert not lane.make_room(Terms())
            assert lane.make_room(Terms(priority=1))
            assert isinstance((await jobs[1].future).error, QueueFull)
            echo.gate.set()
            assert (await jobs[3].future).unwrap() == "urgent"

    asyncio.run(main())
    assert echo.batches == [["running"], ["urgent"]]


def test_a_full_queue_drops_what_is_late_before_it_refuses():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        async with batching(echo, max_batch=1, max_queue=1) as lane:
            lane.enqueue("running", same)
            await entered(echo)
            late = lane.enqueue("late", same, Terms(time.monotonic() + 0.002))
            time.sleep(0.003)  # noqa: ASYNC251 - the loop must not get to its alarm
            lane.enqueue("new", same)
            assert isinstance((await late.future).error, DeadlineExceeded)

    asyncio.run(main())


def test_cancelling_frees_the_place_or_discards_the_result():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        async with batching(echo, max_batch=1) as lane:
            running = asyncio.create_task(lane.submit("running", same))
            await entered(echo)
            waiting = asyncio.create_task(lane.submit("waiting", same))
            await asyncio.sleep(0)
            assert (lane.running, lane.waiting) == (1, 1)
            for task in (waiting, running):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (lane.running, lane.waiting) == (0, 0)
            echo.gate.set()
            assert (await lane.submit("next", same)).unwrap() == "next"

    asyncio.run(main())
    assert echo.batches == [["running"], ["next"]]


def test_it_refuses_before_its_start_and_after_its_end():
    echo = Echo()

    async def main() -> None:
        device = Device(1, name="test device")
        lane = Lane(device, [echo.instance()], name="test lane", max_batch=1, max_queue=1)
        with pytest.raises(Unavailable, match="not started"):
            lane.enqueue(1, same)
        device.start()
        assert await device.stop(5)
        assert await device.stop(5)
        assert await lane.close(5)
        with pytest.raises(ShuttingDown):
            lane.enqueue(1, same)

    asyncio.run(main())


def test_stopping_fails_what_is_left_and_a_stuck_thread_ends_later():
    echo = Echo(gate=threading.Event())

    async def main() -> None:
        device = Device(1, name="stuck")
        lane = Lane(device, [echo.instance()], name="stuck", max_batch=1, max_queue=9)
        device.start()
        jobs = [lane.enqueue(n, same) for n in range(3)]
        await entered(echo)
        assert not await device.stop(0.01)
        assert not echo.closed_on
        for job in jobs:
            assert isinstance((await job.future).error, ShuttingDown)
        echo.gate.set()
        assert await device.stop(5)
        await until(lambda: echo.closed_on)

    asyncio.run(main())


def test_a_thread_outlives_its_loop_without_harm(caplog):
    echo = Echo(gate=threading.Event())

    async def main() -> Device:
        device = Device(1, name="orphan")
        lane = Lane(device, [echo.instance()], name="orphan", max_batch=1, max_queue=9)
        device.start()
        lane.enqueue(1, same)
        await entered(echo)
        return device

    device = asyncio.run(main())
    (thread,) = (t for t in threading.enumerate() if t.name == "orphan 0")
    echo.gate.set()
    device._workers[0].end()
    thread.join(5)
    assert not thread.is_alive()
    assert "event loop was closed" in caplog.text


def test_an_idle_instance_keeps_nothing_alive():
    class Big:
        pass

    async def main() -> None:
        async with batching(Echo()) as lane:
            lane._free[0].run.__self__.batches = Forgetful()
            for _ in range(3):
                big = Big()
                alive = weakref.ref(big)
                await lane.submit(big, lambda output: None)
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


def test_an_item_that_comes_while_the_last_instance_is_given_up_does_not_wait_for_ever():
    async def main() -> None:
        async with batching(Echo()) as lane:
            lock = lane._device.lock

            class Late:
                """Lets another thread, which gives the last instance up, in first."""

                def __enter__(self) -> None:
                    lane.broken = "no instance is left"
                    lock.acquire()

                def __exit__(self, *failure: object) -> None:
                    lock.release()

            lane._device.lock = Late()
            with pytest.raises(Unavailable, match="no instance is left"):
                lane.enqueue(1, same)
            lane._device.lock = lock
            assert lane.waiting == 0

    asyncio.run(main())
