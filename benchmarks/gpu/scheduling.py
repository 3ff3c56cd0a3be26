"""Section "scheduling": Retinue's pipeline without HTTP.

Its ceiling, with requests kept under way; windows compared at the same Poisson arrivals; and two
models that share the device, together and each alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import uvloop
from counters import Counters
from section import Section, arguments, images
from served import load, pipeline

from open_loop import quantile, times
from retinue.core.errors import RetinueError
from retinue.core.settings import Batching
from retinue.pipeline.devices import Devices
from retinue.pipeline.pipeline import ModelPipeline
from retinue.runtimes.torch import TorchRuntime

SHARES = (0.1, 0.5, 0.9)
SHARED = 0.4  # of its own ceiling, each of the two models that share


class Client:
    """Sends one image again and again, and keeps what became of it."""

    def __init__(self, served: ModelPipeline, size: int, deadline_s: float) -> None:
        self._served = served
        self._tensors = {served.model.runtime.inputs[0].name: images(1, size)}
        self._deadline_s = deadline_s
        self.took: list[float] = []
        self.errors: Counter[str] = Counter()

    async def once(self) -> None:
        """Send one request."""
        began = time.monotonic()
        try:
            await self._served.infer(self._tensors, deadline=began + self._deadline_s)
        except RetinueError as error:
            self.errors[error.code] += 1
        else:
            self.took.append(time.monotonic() - began)

    async def keep(self, count: int, seconds: float) -> None:
        """Keep so many requests under way."""
        until = time.monotonic() + seconds

        async def one() -> None:
            while time.monotonic() < until:
                await self.once()

        await asyncio.gather(*(one() for _ in range(count)))

    async def arrive(self, rate: float, seconds: float) -> None:
        """Send requests at the moments of a Poisson process."""
        began, tasks = time.monotonic(), []
        for at in times(rate, seconds):
            if (wait := began + at - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self.once()))
        await asyncio.gather(*tasks)

    def summary(self, seconds: float, deadline_s: float) -> dict[str, Any]:
        """Return throughput, goodput and latencies."""
        return {
            "throughput_per_s": len(self.took) / seconds,
            "goodput_per_s": sum(took <= deadline_s for took in self.took) / seconds,
            "p50_ms": 1e3 * quantile(self.took, 0.5),
            "p99_ms": 1e3 * quantile(self.took, 0.99),
            "errors": dict(self.errors),
        }


def mean_batch(served: ModelPipeline) -> float:
    """Return the images of a run in the mean, since the start."""
    done = served.statistics()
    return done.inference_count / max(1, done.execution_count)


async def ceiling(
    section: Section, name: str, runtimes: Sequence[TorchRuntime], instances: int
) -> float:
    """Add and return the images a second with requests kept under way."""
    plan = section.plan
    batching = Batching(max_batch=plan.max_batch, max_queue=2 * plan.in_flight)
    async with pipeline(name, runtimes[:instances], batching, keep=True) as served:
        client = Client(served, section.size, 10.0)
        began, cpu = time.monotonic(), time.process_time()
        with Counters() as counters:
            await client.keep(plan.in_flight, plan.load_s / 2)
        seconds = time.monotonic() - began
        cpu = time.process_time() - cpu
        found = client.summary(seconds, 10.0)
        section.add(
            what="ceiling",
            network=name,
            instances=instances,
            in_flight=plan.in_flight,
            **found,
            cpu_us=1e6 * cpu / max(1, len(client.took)),
            mean_batch=mean_batch(served),
            counters=counters.figures,
        )
    return float(found["throughput_per_s"])


async def windows(
    section: Section, name: str, runtimes: Sequence[TorchRuntime], most: float
) -> None:
    """Compare windows at the same arrivals."""
    plan, deadline_s = section.plan, section.plan.deadline_ms / 1000
    for window_ms in plan.windows_ms:
        batching = Batching(max_batch=plan.max_batch, max_queue=1024, window_ms=window_ms)
        for share in SHARES:
            if not section.left(plan.load_s):
                return
            async with pipeline(name, runtimes, batching, keep=True) as served:
                client, rate = Client(served, section.size, deadline_s), share * most
                with Counters() as counters:
                    await client.arrive(rate, plan.load_s / 2)
                section.add(
                    what="window",
                    network=name,
                    window_ms=window_ms,
                    rate=rate,
                    **client.summary(plan.load_s / 2, deadline_s),
                    mean_batch=mean_batch(served),
                    counters=counters.figures,
                )


async def sharing(
    section: Section, loaded: dict[str, list[TorchRuntime]], most: dict[str, float]
) -> None:
    """Serve both models at once, from threads that they share, or each with its own."""
    plan, deadline_s = section.plan, section.plan.deadline_ms / 1000
    for shared in (True, False):
        for window_ms in (0.0, plan.window_ms):
            if not section.left(plan.load_s):
                return
            devices = Devices(prepare=1, run=plan.instances) if shared else None
            batching = Batching(max_batch=plan.max_batch, max_queue=1024, window_ms=window_ms)
            served = {
                name: pipeline(name, runtimes, batching, keep=True, devices=devices)
                for name, runtimes in loaded.items()
            }
            for one in served.values():
                await one.start()
            clients = {name: Client(one, section.size, deadline_s) for name, one in served.items()}
            with Counters() as counters:
                await asyncio.gather(
                    *(
                        client.arrive(SHARED * most[name], plan.load_s / 2)
                        for name, client in clients.items()
                    )
                )
            for name, client in clients.items():
                section.add(
                    what="sharing",
                    network=name,
                    threads="shared" if shared else "own",
                    window_ms=window_ms,
                    rate=SHARED * most[name],
                    **client.summary(plan.load_s / 2, deadline_s),
                    mean_batch=mean_batch(served[name]),
                    counters=counters.figures,
                )
            for one in served.values():
                await one.drain(5.0)
            if devices is not None:
                await devices.stop(5.0)


async def measure(section: Section) -> None:
    """Measure everything."""
    plan = section.plan
    loaded, most = {}, {}
    for name in section.networks:
        loaded[name] = load(
            name, section.program(name), section.device, plan.instances, plan.max_batch
        )
        for instances in sorted({1, 2, plan.instances}):
            if section.left(plan.load_s):
                most[name] = await ceiling(section, name, loaded[name], instances)
    for name, runtimes in loaded.items():
        if name in most:
            await windows(section, name, runtimes, most[name])
    if len(most) > 1:
        await sharing(section, loaded, most)


def main() -> None:
    """Measure on the loop that the server uses."""
    section = arguments()
    uvloop.run(measure(section))


if __name__ == "__main__":
    main()
