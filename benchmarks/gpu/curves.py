"""Section "curves": images a second and the GPU's own counters at each batch size.

Four ways: PyTorch operator by operator and as a CUDA graph, with images that are on the device
already; PyTorch operator by operator from and to the host's memory, and Retinue's torch runtime,
which does the same with CUDA graphs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import networks
import torch
from counters import Counters
from section import Section, arguments, images

from retinue.runtimes.torch import TorchRuntime


def timed(work: Callable[[], Any], seconds: float, wait: Callable[[], Any]) -> float:
    """Return the seconds of one call, from calls that follow each other without a pause."""
    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        calls += 1
        if calls % 8 == 0:
            wait()  # bounds how far the host runs ahead of the device
    wait()
    return (time.perf_counter() - began) / calls


def capture(model: torch.nn.Module, batch: torch.Tensor) -> Callable[[], Any]:
    """Return the replay of one run as a CUDA graph."""
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(batch)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(batch)
    return graph.replay


def ways(
    model: torch.nn.Module, runtime: TorchRuntime, device: str, count: int, size: int
) -> dict[str, Callable[[], Any]]:
    """Return what is timed at one batch size."""
    host = images(count, size)
    there = torch.from_numpy(host).to(device)
    name = runtime.inputs[0].name
    found: dict[str, Callable[[], Any]] = {
        "eager, on the device": lambda: model(there),
        "eager, host to host": lambda: model(torch.from_numpy(host).to(device)).cpu(),
        "Retinue's runtime, host to host": lambda: runtime.run({name: host}),
    }
    if device.startswith("cuda"):
        found["CUDA graph, on the device"] = capture(model, there)
    return found


def measure(section: Section, network: networks.Network) -> None:
    """Add one network's rows."""
    device, plan = section.device, section.plan
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    model = network.build("cpu").to(device)
    runtime = TorchRuntime(
        section.program(network.name),
        device=device,
        precision=network.precision,  # type: ignore[arg-type]
    )
    for count in plan.batches:
        for way, work in ways(model, runtime, device, count, network.size).items():
            if not section.left(5 * plan.curve_s):
                return
            for _ in range(3):
                work()
            wait()
            with Counters() as counters:
                seconds = timed(work, plan.curve_s, wait)
            section.add(
                network=network.title,
                way=way,
                batch=count,
                images_per_s=count / seconds,
                ms=1e3 * seconds,
                counters=counters.figures,
                why=counters.why,
            )
    runtime.close()


def main() -> None:
    """Measure each network."""
    section = arguments()
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode():
        for network in networks.chosen(section.networks, tiny=section.quick):
            measure(section, network)


if __name__ == "__main__":
    main()
