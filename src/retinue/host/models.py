"""The models that are served: loading, replacing, unloading, and what is installed beside them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial

from retinue.core.errors import AccessError, ModelNotFound, RetinueError, ShuttingDown
from retinue.core.protocols import Model
from retinue.core.record import Record
from retinue.core.settings import Settings, cores
from retinue.host.contract import RepositoryEntry
from retinue.models.card import Card
from retinue.models.loading import load_model
from retinue.models.registry import Entry, Registry
from retinue.monitor.metrics import MetricsObserver
from retinue.pipeline.devices import Devices
from retinue.pipeline.pipeline import ModelPipeline
from retinue.pipeline.rows import largest_batch

_log = logging.getLogger("retinue")


class ServedModels:
    """Pipelines by model name; all models share the machine's devices.

    Attributes:
        pipelines: By model name.
        cards: By model name.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: MetricsObserver,
        abandoned: Callable[[Record], None] | None = None,
    ) -> None:
        """Set it up without loading anything.

        Args:
            settings: All settings.
            metrics: Where batches, shed items and queues are counted.
            abandoned: Takes the records of requests whose callers went away.
        """
        self.pipelines: dict[str, ModelPipeline] = {}
        self.cards: dict[str, Card] = {}
        self._settings = settings
        self._metrics = metrics
        self._abandoned = abandoned
        execution = settings.execution
        self._instances = execution.instances or max(1, cores() // execution.threads)
        self._devices = Devices(cores(), self._instances)
        self._changing: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._draining = False

    async def serve(self, entry: Entry) -> None:
        """Load a model and serve it; what served under its name before finishes its work.

        Raises:
            ShuttingDown: `drain` began in the meantime.
            RetinueError: it cannot be loaded or run; nothing has changed then.
        """
        settings, name = self._settings, entry.card.name
        reload = partial(load_model, entry, settings.execution)
        instances = await asyncio.to_thread(_load_all, reload, self._instances)
        pipeline = ModelPipeline(
            instances,
            batching=settings.batching,
            limits=settings.limits,
            reload=reload,
            devices=self._devices,
            monitor=self._metrics,
            abandoned=self._abandoned,
            warm_up=settings.execution.warm_up,
            fused=self._fills_the_cores(instances[0]),
        )
        try:
            await pipeline.start()
            self._check_running()
        except BaseException:
            await pipeline.drain(0)
            raise
        before = self.pipelines.get(name)
        self.pipelines[name] = pipeline
        self.cards[name] = entry.card
        if before is not None:
            self._metrics.forget_queue(name, before.model.version)
        self._metrics.watch_queue(name, entry.version, lambda: pipeline.queue_depth)
        if before is not None:
            await before.drain(settings.server.drain_s)

    def _fills_the_cores(self, model: Model) -> bool:
        """Tell whether this machine's cores run the model, one picture at a time on each."""
        execution, batching = self._settings.execution, self._settings.batching
        here = execution.device.lower() in ("", "cpu")
        return (
            here
            and largest_batch(model, batching.max_batch) == 1
            and self._instances * execution.threads >= cores()
        )

    def repository(self) -> Sequence[RepositoryEntry]:
        """Return all models that are installed or loaded, by name."""
        # Of several versions the current one comes first.
        installed = reversed(self._registry().installed())
        found = {entry.card.name: entry.version for entry in installed}
        found |= {name: pipeline.model.version for name, pipeline in self.pipelines.items()}
        return [self._describe(name, found[name]) for name in sorted(found)]

    def _describe(self, name: str, version: str) -> RepositoryEntry:
        state = self._changing.get(name)
        pipeline = self.pipelines.get(name)
        if state is None and pipeline is not None and pipeline.ready:
            return RepositoryEntry(name, version, "READY")
        reason = "no instance is alive" if pipeline else self._failed.get(name, "unloaded")
        return RepositoryEntry(name, version, state or "UNAVAILABLE", "" if state else reason)

    async def load(self, model: str) -> None:
        """Load an installed model, or load it anew; see `retinue.host.contract.Host.load`."""
        self._check_control()
        async with self._lock:
            self._check_running()
            self._changing[model] = "LOADING"
            try:
                await self.serve(await asyncio.to_thread(self._registry().get, model))
                self._failed.pop(model, None)
            except ModelNotFound:
                raise
            except RetinueError as error:
                self._failed[model] = error.message
                raise
            finally:
                del self._changing[model]

    async def unload(self, model: str) -> None:
        """Give a model back; see `retinue.host.contract.Host.unload`."""
        self._check_control()
        async with self._lock:
            pipeline = self.pipelines.pop(model, None)
            if pipeline is None:
                raise ModelNotFound(f"no model {model[:64]!r} is loaded")
            del self.cards[model]
            self._failed.pop(model, None)
            self._metrics.forget_queue(model, pipeline.model.version)
            self._changing[model] = "UNLOADING"
            try:
                await pipeline.drain(self._settings.server.drain_s)
            finally:
                del self._changing[model]

    async def drain(self, timeout_s: float) -> None:
        """Finish accepted work in at most so many seconds, close the models, end the threads."""
        self._draining = True
        await asyncio.gather(
            *(pipeline.drain(timeout_s) for pipeline in self.pipelines.values()),
            self._finish_change(timeout_s),
        )
        if not await self._devices.stop(timeout_s and 1.0):
            _log.warning("a thread still runs; it is left behind")

    async def _finish_change(self, timeout_s: float) -> None:
        """Wait for a model that is being replaced or unloaded: it finishes its work too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._lock:
                pass

    def _check_running(self) -> None:
        if self._draining:
            raise ShuttingDown("the server is shutting down and loads no model; try another one")

    def _registry(self) -> Registry:
        return Registry(self._settings.cache)

    def _check_control(self) -> None:
        if not self._settings.server.model_control:
            raise AccessError(
                "clients may not load or unload models here; the setting server.model_control "
                "lets them"
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
