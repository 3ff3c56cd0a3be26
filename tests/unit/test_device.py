"""A device that lanes share, and what happens when an instance crashes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from retinue.core.errors import (
    DeadlineExceeded,
    InstanceCrashed,
    ModelCorrupt,
    ShuttingDown,
    Superseded,
    Unavailable,
)
from retinue.pipeline import lane as lane_module
from retinue.pipeline.device import Device
from retinue.pipeline.flows import Terms
from retinue.pipeline.lane import Lane
from retinue.pipeline.worker import Instance, nothing, same
from retinue.testing.models import until


class Log:
    """Instances that note what was run, in order, and wait for a gate."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, list[object]]] = []
        self.gate = threading.Event()

    def instance(self, name: str) -> Instance[object, object]:
        def run(rows: Sequence[object]) -> list[object]:
            self.ran.append((name, list(rows)))
            assert self.gate.wait(5)
            return list(rows)

        return Instance(run, nothing)

    def lane(self, device: Device, name: str, *, max_batch: int = 8, **policy) -> Lane:
        return Lane(
            device, [self.instance(name)], name=name, max_batch=max_batch, max_queue=99, **policy
        )


def on_device(main, *, threads: int = 1) -> None:
    async def run() -> None:
        device = Device(threads, name="shared")
        device.start()
        try:
            await main(device)
        finally:
            assert await device.stop(5)

    asyncio.run(run())


def test_lanes_of_a_device_run_by_one_order():
    log = Log()

    async def main(device: Device) -> None:
        a, b = log.lane(device, "a"), log.lane(device, "b", max_batch=1)
        first = a.enqueue("now", same)
        await until(lambda: log.ran)
        soon = time.monotonic() + 60
        jobs = [
            a.enqueue("late", same, Terms(soon + 3)),
            b.enqueue("early", same, Terms(soon)),
            b.enqueue("later", same, Terms(soon + 2)),
            a.enqueue("urgent", same, Terms(soon + 9, priority=1)),
        ]
        log.gate.set()
        for job in (first, *jobs):
            assert (await job.future).error is None

    on_device(main)
    # The lane of the urgent item goes first, and its batch takes along what waits there.
    assert log.ran == [
        ("a", ["now"]),
        ("a", ["urgent", "late"]),
        ("b", ["early"]),
        ("b", ["later"]),
    ]


def test_a_lane_without_a_free_instance_leaves_the_threads_to_others():
    log, other = Log(), Log()
    other.gate.set()

    async def main(device: Device) -> None:
        a, b = log.lane(device, "a", max_batch=1), other.lane(device, "b")
        jobs = [a.enqueue(n, same) for n in range(3)]
        await until(lambda: log.ran)
        assert (await b.submit("through", same)).error is None
        assert len(log.ran) == 1
        log.gate.set()
        for job in jobs:
            await job.future

    on_device(main, threads=2)


def test_a_window_of_one_lane_holds_no_other_back():
    log = Log()
    log.gate.set()

    async def main(device: Device) -> None:
        slow, quick = log.lane(device, "slow", window_s=0.05), log.lane(device, "quick")
        held = slow.enqueue("held", same)
        assert (await quick.submit("quick", same)).queue_ms < 40
        assert (await held.future).queue_ms >= 49

    on_device(main)
    assert [name for name, _ in log.ran] == ["quick", "slow"]


def test_a_lane_leaves_a_device_that_goes_on():
    log = Log()
    log.gate.set()

    async def main(device: Device) -> None:
        a, b = log.lane(device, "a"), log.lane(device, "b")
        assert await a.close(5)
        with pytest.raises(ShuttingDown):
            a.enqueue(1, same)
        assert (await b.submit("b", same)).unwrap() == "b"

    on_device(main)


def test_a_deadline_is_kept_while_the_item_is_run():
    log = Log()

    async def main(device: Device) -> None:
        lane = log.lane(device, "a")
        began = time.monotonic()
        result = await lane.submit(1, same, Terms(began + 0.03))
        assert 0.03 <= time.monotonic() - began < 1
        assert isinstance(result.error, DeadlineExceeded)
        assert lane.running == 0
        assert len(log.ran) == 1
        log.gate.set()
        assert (await lane.submit(2, same)).unwrap() == 2

    on_device(main)


def test_a_waiting_frame_gives_way_and_a_running_one_does_not():
    log = Log()

    async def main(device: Device) -> None:
        lane = log.lane(device, "a", max_batch=1)
        running, waiting = lane.enqueue(1, same), lane.enqueue(2, same)
        await until(lambda: log.ran)
        assert not lane.supersede(running)
        assert lane.supersede(waiting)
        assert isinstance((await waiting.future).error, Superseded)
        log.gate.set()
        assert (await running.future).unwrap() == 1

    on_device(main)


class Fragile:
    """Instances that crash on "crash"; how often one can be made anew is programmed."""

    def __init__(self, *revivals: Exception | None) -> None:
        self.revivals = list(revivals)
        self.closed = 0

    def instance(self) -> Instance[object, object]:
        broken = False

        def run(rows: Sequence[object]) -> list[object]:
            nonlocal broken
            broken = broken or "crash" in rows
            if broken:
                raise InstanceCrashed("the engine died of signal 11")
            return list(rows)

        def close() -> None:
            self.closed += 1

        return Instance(run, close, self.revive if self.revivals else None)

    def revive(self) -> Instance[object, object]:
        error = self.revivals.pop(0) if len(self.revivals) > 1 else self.revivals[0]
        if error is not None:
            raise error
        return self.instance()


def test_a_crash_fails_what_was_running_and_a_new_instance_goes_on(caplog):
    fragile = Fragile(None)

    async def main(device: Device) -> None:
        lane = Lane(device, [fragile.instance()], name="fragile", max_batch=3, max_queue=9)
        jobs = [lane.enqueue(what, same) for what in ("a", "crash", "b", "next", "after")]
        for job in jobs[:3]:
            error = (await job.future).error
            assert isinstance(error, InstanceCrashed)
            assert "signal 11" in error.message
        assert [(await job.future).unwrap() for job in jobs[3:]] == ["next", "after"]
        assert lane.alive == 1
        assert not lane.broken

    on_device(main)
    assert fragile.closed == 2
    assert "a new instance took the place" in caplog.text


def test_other_instances_go_on_while_one_is_made_anew(caplog):
    fragile = Fragile(None)

    async def main(device: Device) -> None:
        instances = [fragile.instance(), fragile.instance()]
        lane = Lane(device, instances, name="fragile", max_batch=1, max_queue=99)
        results = await asyncio.gather(
            *(lane.submit("crash" if n == 3 else n, same) for n in range(30))
        )
        failed = [n for n, result in enumerate(results) if result.error is not None]
        assert failed == [3]
        await until(lambda: lane.alive == 2)

    on_device(main, threads=2)


def test_when_no_instance_can_be_made_callers_are_told_until_one_can(monkeypatch, caplog):
    monkeypatch.setattr(lane_module, "_FIRST_RETRY_S", 0.05)
    fragile = Fragile(ModelCorrupt("the file is gone"), None)

    async def main(device: Device) -> None:
        lane = Lane(device, [fragile.instance()], name="fragile", max_batch=1, max_queue=9)
        crashing, waiting = lane.enqueue("crash", same), lane.enqueue("waiting", same)
        assert isinstance((await crashing.future).error, InstanceCrashed)
        error = (await waiting.future).error
        assert isinstance(error, InstanceCrashed)
        assert "the file is gone" in error.message
        assert lane.alive == 0
        with pytest.raises(Unavailable, match="the file is gone"):
            lane.enqueue("too early", same)
        await until(lambda: lane.alive)
        assert (await lane.submit("again", same)).unwrap() == "again"

    on_device(main)


def test_an_instance_that_cannot_be_restarted_is_out(caplog):
    fragile = Fragile()

    async def main(device: Device) -> None:
        lane = Lane(device, [fragile.instance()], name="fragile", max_batch=1, max_queue=9)
        assert isinstance((await lane.submit("crash", same)).error, InstanceCrashed)
        await until(lambda: lane.broken)
        with pytest.raises(Unavailable, match="cannot be restarted"):
            lane.enqueue(1, same)

    on_device(main)
