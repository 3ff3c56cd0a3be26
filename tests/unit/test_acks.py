"""Waiting on the loop for another thread's groups."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future

from retinue.host.acks import Acks


def test_everyone_gets_the_result_of_its_own_future_with_one_wake_up_a_group():
    futures: list[Future[bool]] = [Future() for _ in range(100)]

    async def main() -> tuple[list[bool], int]:
        acks = Acks()
        loop = asyncio.get_running_loop()
        wakes = 0
        call = loop.call_soon_threadsafe

        def counting(*given: object, **more: object) -> object:
            nonlocal wakes
            wakes += 1
            return call(*given, **more)

        loop.call_soon_threadsafe = counting  # type: ignore[method-assign, assignment]
        tasks = [asyncio.create_task(acks.wait(future, 5)) for future in futures]
        await asyncio.sleep(0)

        def settle() -> None:
            for number, future in enumerate(futures):
                future.set_result(number % 3 == 0)

        thread = threading.Thread(target=settle)
        thread.start()
        thread.join()
        return [await task for task in tasks], wakes

    results, wakes = asyncio.run(main())
    assert results == [number % 3 == 0 for number in range(100)]
    assert wakes == 1


def test_a_future_that_is_done_needs_no_wait_and_one_that_is_late_is_not_waited_for():
    async def main() -> None:
        acks = Acks()
        done: Future[bool] = Future()
        done.set_result(True)
        assert await acks.wait(done, 0)
        late: Future[bool] = Future()
        began = time.monotonic()
        assert not await acks.wait(late, 0.02)
        assert time.monotonic() - began < 1
        late.set_result(True)
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_closed_loop_is_no_error():
    future: Future[bool] = Future()

    async def main() -> None:
        task = asyncio.create_task(Acks().wait(future, 5))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    future.set_result(True)
