"""A network of `networks` as a Retinue model, and the host that serves it."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networks
import numpy as np
from section import images

from retinue.core.settings import Batching, Execution, Server, Settings
from retinue.core.types import Array, Embedding, Image, Outcome, Prepared, Tensors
from retinue.host import serve
from retinue.monitor.metrics import MetricsObserver
from retinue.pipeline.devices import Devices
from retinue.pipeline.pipeline import ModelPipeline
from retinue.runtimes.torch import TorchRuntime
from retinue.testing.host import FakeHost
from retinue.testing.models import fake_card


class ImageNetwork:
    """A network that takes uint8 images (3, H, W); implements `retinue.core.protocols.Model`."""

    def __init__(self, name: str, runtime: TorchRuntime, *, keep: bool = False) -> None:
        """Wrap a runtime; ``keep`` leaves it open when the pipeline closes its models."""
        self.name = name
        self.version = "1"
        self.card = fake_card(name, "embed")
        self.runtime = runtime
        self._input = runtime.inputs[0]
        self._keep = keep

    @property
    def decode_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self._input.shape[2], self._input.shape[3]

    def preprocess(self, image: Image) -> Prepared:
        """Take an image that has the network's size."""
        row = np.ascontiguousarray(image.pixels.transpose(2, 0, 1))
        return Prepared({self._input.name: row}, image.width, image.height)

    def run(self, batch: Sequence[Tensors]) -> list[dict[str, Array]]:
        """Stack, run, split."""
        name = self._input.name
        outputs = self.runtime.run({name: np.stack([row[name] for row in batch])})
        return [{key: value[i] for key, value in outputs.items()} for i in range(len(batch))]

    def postprocess(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Return the first output as an embedding."""
        return Outcome(value=Embedding(next(iter(outputs.values()))))

    def predict(self, inputs: Sequence[Image]) -> list[Outcome]:
        """Run images together."""
        ready = [self.preprocess(image) for image in inputs]
        rows = self.run([one.tensors for one in ready])
        return [self.postprocess(one, row) for one, row in zip(ready, rows, strict=True)]

    def close(self) -> None:
        """Give the runtime's memory back, unless it is kept."""
        if not self._keep:
            self.runtime.close()


def load(
    name: str, program: Path, device: str, instances: int, max_batch: int
) -> list[TorchRuntime]:
    """Load a program several times, with the CUDA graphs of all batch sizes."""
    precision: Any = networks.chosen((name,), tiny=False)[0].precision
    runtimes = [TorchRuntime(program, device=device, precision=precision) for _ in range(instances)]
    spec = runtimes[0].inputs[0]
    for runtime in runtimes:
        for count in range(1, max_batch + 1) if device.startswith("cuda") else (1, max_batch):
            runtime.run({spec.name: images(count, spec.shape[2])})
    return runtimes


def pipeline(
    name: str,
    runtimes: Sequence[TorchRuntime],
    batching: Batching,
    *,
    keep: bool = False,
    **more: Any,
) -> ModelPipeline:
    """Return a pipeline of loaded runtimes, that knows their t(n)."""
    models = [ImageNetwork(name, runtime, keep=keep) for runtime in runtimes]
    return ModelPipeline(models, batching=batching, limits=Settings().limits, warm_up=True, **more)


class Host(FakeHost):
    """Serves networks by Retinue's own pipelines and metrics, without a registry."""

    def __init__(
        self, settings: Settings, programs: Mapping[str, Path], device: str, instances: int
    ) -> None:
        super().__init__(settings, apps=(), models=())
        self.metrics: Any = MetricsObserver()
        self._programs = programs
        self._where = device, instances
        self._devices = Devices(prepare=1, run=instances)

    async def start(self) -> None:
        """Load the networks; several share the device's threads."""
        batching, (device, instances) = self.settings.batching, self._where
        for name, program in self._programs.items():
            runtimes = await asyncio.to_thread(
                load, name, program, device, instances, batching.max_batch
            )
            made = pipeline(name, runtimes, batching, devices=self._devices, monitor=self.metrics)
            await made.start()
            self.pipelines[name] = made  # type: ignore[assignment]

    async def drain(self, timeout_s: float) -> None:
        """Finish accepted work and close the networks."""
        await asyncio.gather(*(one.drain(timeout_s) for one in self.pipelines.values()))  # type: ignore[attr-defined]
        await self._devices.stop(timeout_s)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=Path, nargs="+", help="NAME.pt2 of `prepare.py`")
    parser.add_argument("--device", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--window-ms", type=float, default=5.0)
    given = parser.parse_args()
    os.environ.setdefault("RETINUE_HOME", str(given.programs[0].parent / "home"))
    settings = Settings(
        server=Server(port=given.port, grpc=False, max_connections=4096),
        execution=Execution(runtime="torch", device=given.device, instances=given.instances),
        batching=Batching(max_batch=given.max_batch, window_ms=given.window_ms, max_queue=1024),
    )
    programs = {path.stem: path for path in given.programs}
    serve.run(
        settings,
        on_ready=lambda *where: print("ready", *where, flush=True),
        open_host=lambda one: Host(one, programs, given.device, given.instances),
    )


if __name__ == "__main__":
    main()
