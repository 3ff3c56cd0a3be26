"""The composition root: makes one running system out of settings and App manifests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import cv2

from retinue.core.apps import App
from retinue.core.errors import ConfigError, RetinueError
from retinue.core.plugins import APPS, OBSERVERS, load, names, resolve
from retinue.core.protocols import Observer, TextEncoder
from retinue.core.record import Record
from retinue.core.settings import Limits, Settings, load_settings
from retinue.core.types import Signal
from retinue.host.acks import Acks
from retinue.host.contract import RepositoryEntry, VersionStatus
from retinue.host.models import ServedModels
from retinue.host.obtaining import Texts, check_pictures, obtain, obtain_text
from retinue.models.ledger import PROD
from retinue.models.registry import Registry, split_ref
from retinue.monitor.metrics import MetricsObserver
from retinue.pipeline.deployment import Handle
from retinue.pipeline.observers import ObserverHub
from retinue.store.interface import RecordStore
from retinue.store.writer import RecordWriter

log = logging.getLogger("retinue")

# A request does not wait longer than this for its record to be durable.
RECORD_WAIT_S = 1.0
# Nor does the end wait longer than this for observers, or for a disk or database that hangs.
CLOSE_S = 10.0


def installed_apps() -> tuple[App, ...]:
    """Return the manifests of all apps, built in and from outside."""
    return tuple(load(APPS, name) for name in names(APPS))


class HostServices:
    """The running system: pipelines, observers and stores, by the settings.

    Args:
        settings: All settings.
        apps: The apps that are served.
        models: Models to load beside the apps' own; None loads each app's default.
        record: Whether records are kept.
        rollout: Whether all that the aliases ask for is done, now and when they are moved; else
            what a bare name means answers alone.
    """

    def __init__(
        self,
        settings: Settings,
        apps: Sequence[App],
        *,
        models: Sequence[str] | None = None,
        record: bool = True,
        rollout: bool = True,
    ) -> None:
        self.settings = settings
        self.apps = tuple(apps)
        self.metrics = MetricsObserver()
        self._served = ServedModels(settings, self.metrics, self._abandoned)
        unknown = sorted(set(settings.apps) - {*names(APPS), *(app.name for app in apps)})
        if unknown:
            raise ConfigError(f"settings [apps.{unknown[0]}]: no app is called so")
        self._app_settings = {app.name: _read_app_settings(app, settings) for app in apps}
        self._models = _once(models if models is not None else self._default_models())
        self._record = record
        self._rollout = rollout
        self._following: asyncio.Task[None] | None = None
        self._hub: ObserverHub | None = None
        self._writer: RecordWriter | None = None
        self._records: RecordStore | None = None
        self._acks = Acks()
        self._texts = Texts(settings)
        self._states: dict[str, Any] = {}
        self._open_states: dict[str, AbstractAsyncContextManager[Any]] = {}

    @property
    def limits(self) -> Limits:
        """What a decoder may be given."""
        return self.settings.limits

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that are loaded."""
        return self._served.names()

    def versions(self, model: str) -> Sequence[VersionStatus]:
        """Return the loaded versions of a loaded model, the one that answers first."""
        return self._served.versions(model)

    @property
    def home(self) -> Path:
        """The folder of state."""
        return self.settings.home

    @property
    def records_url(self) -> str:
        """The database that records are in."""
        return self.settings.records_url

    @property
    def blobs_url(self) -> str:
        """Where blobs are kept."""
        return self.settings.blobs_url

    async def text_encoder(self, model: str) -> TextEncoder:
        """Return a text model, loaded when it is first asked for."""
        return await self._texts.get(model)

    def state(self, app: str) -> Any:
        """Return what the app's ``state`` gave when the host started."""
        return self._states[app]

    def app_settings(self, app: str) -> Any:
        """Return the app's settings."""
        return self._app_settings[app]

    def pipeline(self, model: str, *, key: bytes | str = b"") -> Handle:
        """Return a hold on one version of a model; see `retinue.core.apps.Services`."""
        return self._served.handle(model, key)

    def repository(self) -> Sequence[RepositoryEntry]:
        """Return all models that are installed or loaded, by name."""
        return self._served.repository()

    async def load(self, model: str) -> None:
        """Load an installed model, or load it anew; see `retinue.host.contract.Host.load`."""
        await self._served.load(model)

    async def unload(self, model: str) -> None:
        """Give a model back; see `retinue.host.contract.Host.unload`."""
        await self._served.unload(model)

    async def finish(self, record: Record, body: bytes | None = None) -> bool:
        """Show a record to the observers and keep it; see `retinue.core.apps.Services`."""
        if self._hub is not None:
            self._hub.publish(record)
        if self._writer is None:
            return False
        return await self._acks.wait(self._writer.submit(record, body), RECORD_WAIT_S)

    async def start(self) -> None:
        """Load the models, open the stores and start the workers; on failure nothing stays open.

        Raises:
            RetinueError: a model, store or plug-in cannot be had.
        """
        try:
            await self._start()
        except BaseException:
            await self.drain(0)
            raise

    async def _start(self) -> None:
        # The pipelines' own threads fill the cores; OpenCV's would only compete with them.
        cv2.setNumThreads(1)
        registry = Registry(self.settings.cache)
        # Everything that can be wrong is tried before the first model takes memory.
        for model in self._models:
            card = obtain(registry, model).card
            check_pictures(card)
            if card.text:
                obtain_text(registry, card.text)
        observers: dict[str, Observer] = {"metrics": self.metrics}
        wanted = {*self.settings.observers, *(n for app in self.apps for n in app.observers)}
        for name in sorted(wanted - {"metrics"}):
            observers[name] = load(OBSERVERS, name)()
        self._hub = ObserverHub(observers, on_signal=_log_signal)
        if self._record:
            self._writer = self._open_writer()
        for model in self._models:
            await self._served.serve(model if self._rollout or "@" in model else f"{model}@{PROD}")
        for app in self.apps:
            if app.state:
                opened: AbstractAsyncContextManager[Any] = resolve(app.state)(self)
                self._states[app.name] = await opened.__aenter__()
                self._open_states[app.name] = opened
        if self._rollout and self.settings.rollout.follow_s > 0:
            self._following = asyncio.create_task(self._served.follow())

    def _open_writer(self) -> RecordWriter:
        # Here, since a command that keeps no records does without the database's library.
        from retinue.store.blobs import open_blobs
        from retinue.store.records import open_records

        settings = self.settings
        records = open_records(settings.records_url)
        try:
            blobs = open_blobs(settings.blobs_url)
        except RetinueError:
            records.close()
            raise
        self._records = records
        return RecordWriter(
            records, blobs, settings.records, settings.blobs, on_drop=self.metrics.dropped
        )

    def _abandoned(self, record: Record) -> None:
        if self._hub is not None:
            self._hub.publish(record)

    async def drain(self, timeout_s: float) -> None:
        """Finish accepted work in at most so many seconds, then give everything back."""
        end = time.monotonic() + timeout_s
        # An app that finishes work of its own may need the models for it.
        await self._close_states()
        # A version that is being loaded is closed once it is there: following ends after that.
        await self._served.drain(max(0.0, end - time.monotonic()))
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self._texts.close(CLOSE_S)
        if self._hub is not None:
            await asyncio.to_thread(self._hub.close, CLOSE_S)
        written = True
        if self._writer is not None:
            written = await asyncio.to_thread(self._writer.close, CLOSE_S)
        if not written:
            log.error("records that still waited were not stored within %g s", CLOSE_S)
        elif self._records is not None:
            self._records.close()

    async def _close_states(self) -> None:
        """Close each app's state by itself: what one fails with is no error of another."""
        while self._open_states:
            app, opened = self._open_states.popitem()
            try:
                async with asyncio.timeout(CLOSE_S):
                    await opened.__aexit__(None, None, None)
            except TimeoutError:
                log.error("the state of app %s was not closed within %g s", app, CLOSE_S)
            except Exception:
                # line of isolation: what others accepted is still to be finished and stored.
                log.exception("the state of app %s could not be closed", app)

    def _default_models(self) -> tuple[str, ...]:
        wanted = [
            getattr(self._app_settings[app.name], spec.setting)
            for app in self.apps
            for spec in app.pipelines
        ]
        return (*wanted, *self.settings.models)


def _once(models: Sequence[str]) -> tuple[str, ...]:
    """Return each model once; "NAME@REF" says which version "NAME" is to be.

    Raises:
        ConfigError: there are two references to one model.
    """
    refs: dict[str, str] = {}
    for name, ref in map(split_ref, models):
        known = refs.get(name, "")
        if known and ref and ref != known:
            raise ConfigError(
                f"model {name} is asked for as {known} and as {ref}: name one version, or serve it "
                "by its aliases"
            )
        refs[name] = ref or known
    return tuple(f"{name}@{ref}" if ref else name for name, ref in refs.items())


def _read_app_settings(app: App, settings: Settings) -> Any:
    return settings.app(app.name, resolve(app.settings))


def _log_signal(observer: str, signal: Signal) -> None:
    log.warning("signal of observer %s: %s", observer, signal)


@asynccontextmanager
async def open_services(
    app: str,
    *,
    config: Path | None,
    models: tuple[str, ...],
    record: bool,
) -> AsyncIterator[HostServices]:
    """Open services for one app's command; see `retinue.core.apps.OpenServices`."""
    manifest: App = load(APPS, app)
    services = HostServices(
        load_settings(config),
        (manifest,),
        models=models or None,
        record=record,
        rollout=False,
    )
    await services.start()
    try:
        yield services
    finally:
        await services.drain(services.settings.server.drain_s)
