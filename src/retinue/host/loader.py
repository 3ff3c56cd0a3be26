"""From an installed version to one that serves: its instances, on the machine's shared devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from retinue.core.protocols import Model
from retinue.core.record import Record
from retinue.core.settings import Settings, cores
from retinue.models.loading import execution_of, load_model
from retinue.models.registry import Entry
from retinue.monitor.metrics import MetricsObserver
from retinue.pipeline.deployment import Member
from retinue.pipeline.devices import Devices
from retinue.pipeline.pipeline import ModelPipeline
from retinue.pipeline.rows import largest_batch


class Loader:
    """Loads versions.

    Attributes:
        devices: The threads that all versions share.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: MetricsObserver,
        abandoned: Callable[[Record], None] | None,
    ) -> None:
        """Set it up; see `retinue.host.models.ServedModels`."""
        self._settings = settings
        self._metrics = metrics
        self._abandoned = abandoned
        execution = settings.execution
        self._instances = execution.instances or max(1, cores() // execution.threads)
        self.devices = Devices(cores(), self._instances)

    async def load(self, entry: Entry) -> Member:
        """Load a version, warm it up, and return it ready to serve.

        Raises:
            RetinueError: it cannot be loaded or run.
        """
        settings = self._settings
        reload = partial(load_model, entry, settings.execution)
        instances = await asyncio.to_thread(_load_all, reload, self._instances)
        pipeline = ModelPipeline(
            instances,
            batching=settings.batching,
            limits=settings.limits,
            reload=reload,
            devices=self.devices,
            monitor=self._metrics,
            abandoned=self._abandoned,
            warm_up=settings.execution.warm_up,
            fused=self._fills_the_cores(entry, instances[0]),
        )
        try:
            await pipeline.start()
        except BaseException:
            await pipeline.drain(0)
            raise
        return Member(entry, pipeline)

    def _fills_the_cores(self, entry: Entry, model: Model) -> bool:
        """Tell whether this machine's cores run the model, one picture at a time on each."""
        execution = execution_of(entry.card, self._settings.execution)
        here = execution.device.lower() in ("", "cpu")
        return (
            here
            and largest_batch(model, self._settings.batching.max_batch) == 1
            and self._instances * execution.threads >= cores()
        )


def _load_all(load: Callable[[], Model], count: int) -> list[Model]:
    loaded: list[Model] = []
    try:
        while len(loaded) < count:
            loaded.append(load())
    except BaseException:
        for model in loaded:
            model.close()
        raise
    return loaded
