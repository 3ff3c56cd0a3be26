"""A host without models: what the HTTP front is tested against, and a model for app authors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from retinue.core.apps import App, AppRequest, PipelineSpec, Route, Services
from retinue.core.errors import (
    AccessError,
    ModelNotFound,
    QueueFull,
)
from retinue.core.plugins import resolve
from retinue.core.protocols import TextEncoder
from retinue.core.record import Record
from retinue.core.settings import Limits, Settings
from retinue.host.contract import RepositoryEntry, VersionStatus
from retinue.testing.models import FakeModel, fake_card
from retinue.testing.pipelines import (
    FakePipeline,
    FakeServed,
    TypedRuntime,
)


class EchoSettings(BaseModel):
    """Settings of the echo app."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "fake"


async def echo(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Answer with what arrived; ``wait_ms`` waits first, ``fail`` raises.

    Raises:
        QueueFull: ``fail=queue_full``.
        ZeroDivisionError: ``fail=bug``, an error that nobody foresaw.
    """
    assert isinstance(services, FakeHost)
    services.events["started"] += 1
    try:
        await asyncio.sleep(float(request.query.get("wait_ms", 0)) / 1000)
    except asyncio.CancelledError:
        services.events["cancelled"] += 1
        raise
    if request.query.get("fail") == "queue_full":
        raise QueueFull("the queue is full")
    if request.query.get("fail") == "bug":
        raise ZeroDivisionError("a secret of the inside")
    services.events["finished"] += 1
    return {
        "bytes": len(request.body),
        "filename": request.filename,
        "query": dict(request.query),
        "request_id": request.request_id,
        "events": dict(services.events),
        "_headers": {"retinue-recorded": "false"},
    }


ECHO = App(
    name="echo",
    title="Echo",
    summary="Answers with what arrived",
    settings="retinue.testing.host:EchoSettings",
    pipelines=(PipelineSpec(task="detect"),),
    routes=(
        Route(
            path="/v1/echo",
            handler="retinue.testing.host:echo",
            summary="Answer with what arrived",
            parameters={
                "wait_ms": ({"type": "number", "minimum": 0}, "Wait so long first"),
                "fail": ({"type": "string"}, "Fail in this way"),
            },
            response={"type": "object"},
        ),
    ),
)


class FakeMetrics:
    """Keeps the calls in a list."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self.grpc_calls: list[tuple[str, str]] = []

    def render(self) -> tuple[bytes, str]:
        """Return one sample."""
        return b"fake_requests_total %d\n" % len(self.calls), "text/plain; version=0.0.4"

    def http(self, route: str, method: str, status: int, seconds: float) -> None:
        """Keep one call."""
        assert seconds >= 0
        self.calls.append((route, method, status))

    def grpc(self, method: str, code: str, seconds: float) -> None:
        """Keep one call."""
        assert seconds >= 0
        self.grpc_calls.append((method, code))


class FakeHost:
    """The composition root's shape with one app, `ECHO`, and fake models.

    Beside those that are loaded, a model "spare" is installed.

    Attributes:
        events: How often the echo handler was started, finished and cancelled.
        finished: The records that were given to `finish`, with their bodies.
        drained: The seconds that `drain` was given, None before.
        states: What `state` returns, by app.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        apps: Sequence[App] = (ECHO,),
        models: Sequence[FakeServed] = (FakeServed("fake"),),
        delay_s: float = 0.0,
    ) -> None:
        self.settings = settings
        self.apps = tuple(apps)
        self.metrics = FakeMetrics()
        self._delay_s = delay_s
        self._installed = {one.name: one for one in (*models, FakeServed("spare"))}
        self.pipelines = {one.name: self._pipeline(one) for one in models}
        self.events: Counter[str] = Counter()
        self.finished: list[tuple[Record, bytes | None]] = []
        self.drained: float | None = None
        self.states: dict[str, Any] = {}

    def _pipeline(self, served: FakeServed) -> FakePipeline:
        card = fake_card(served.name, served.task)
        runtime = TypedRuntime(served.specs)
        model = FakeModel(runtime, name=served.name, version="abc123", card=card)
        return FakePipeline(model, task=served.task, delay_s=self._delay_s)

    @property
    def limits(self) -> Limits:
        """What a decoder may be given."""
        return self.settings.limits

    @property
    def home(self) -> Path:
        """The folder of state."""
        return self.settings.home

    @property
    def records_url(self) -> str:
        """The database of records."""
        return self.settings.records_url

    @property
    def blobs_url(self) -> str:
        """Where blobs are kept."""
        return self.settings.blobs_url

    async def text_encoder(self, model: str) -> TextEncoder:
        """Raise `ModelNotFound`: there are no text models."""
        raise ModelNotFound(f"no model {model!r} is installed")

    def state(self, app: str) -> Any:
        """Return what the test put into ``states``."""
        return self.states[app]

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the loaded models."""
        return tuple(self.pipelines)

    def versions(self, model: str) -> Sequence[VersionStatus]:
        """Return a loaded model's one version."""
        return [VersionStatus(self.pipelines[model].model.version, "prod", 1.0)]

    def pipeline(self, model: str, *, key: bytes | str = b"") -> FakePipeline:
        """Return a loaded model's pipeline.

        Raises:
            ModelNotFound: it is not loaded, or not in this version.
        """
        name, _, version = model.partition("@")
        found = self.pipelines.get(name)
        if found is None:
            raise ModelNotFound(f"no model {name!r} is loaded")
        if version not in ("", "prod", found.model.version):
            loaded = found.model.version
            raise ModelNotFound(f"model {name!r} has no version {version!r}; loaded: {loaded}")
        return found

    def app_settings(self, app: str) -> Any:
        """Return the app's settings, all defaults."""
        return resolve(next(one for one in self.apps if one.name == app).settings)()

    async def finish(self, record: Record, body: bytes | None = None) -> bool:
        """Note the record; keep nothing."""
        self.finished.append((record, body))
        return False

    def repository(self) -> Sequence[RepositoryEntry]:
        """Return the loaded models, and "spare"."""
        return [
            RepositoryEntry(name, "abc123", "READY")
            if name in self.pipelines
            else RepositoryEntry(name, "abc123", "UNAVAILABLE", "not loaded")
            for name in sorted(self._installed)
        ]

    async def load(self, model: str) -> None:
        """Load an installed model.

        Raises:
            AccessError: model control is off.
            ModelNotFound: it is not installed.
        """
        self._check_control()
        if model not in self._installed:
            raise ModelNotFound(f"no model {model[:80]!r} is installed")
        self.pipelines[model] = self._pipeline(self._installed[model])

    async def unload(self, model: str) -> None:
        """Unload a model.

        Raises:
            AccessError: model control is off.
            ModelNotFound: it is not loaded.
        """
        self._check_control()
        self.pipeline(model)
        del self.pipelines[model]

    def _check_control(self) -> None:
        if not self.settings.server.model_control:
            raise AccessError("the setting server.model_control is off")

    async def start(self) -> None:
        """Load nothing."""

    async def drain(self, timeout_s: float) -> None:
        """Note the call."""
        self.drained = timeout_s
