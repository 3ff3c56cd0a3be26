"""A host without models: what the HTTP front is tested against, and a model for app authors."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from retinue.core.errors import ModelNotFound, QueueFull, RetinueError
from retinue.core.plugins import resolve
from retinue.core.protocols import App, AppRequest, PipelineSpec, Route, Services
from retinue.core.record import Record
from retinue.core.settings import Limits, Settings
from retinue.core.types import Array, Image, Outcome, Scores, Tensors, TensorSpec
from retinue.models.card import Card, Input, Output, Source
from retinue.testing.models import FakeModel, FakeRuntime


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


class TypedRuntime(FakeRuntime):
    """A `FakeRuntime` of any tensors: every input "x" of a dtype comes out again as "x_out"."""

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        super().__init__()
        self._inputs = tuple(specs)  # type: ignore[assignment]
        self._outputs = tuple(  # type: ignore[assignment]
            TensorSpec(f"{spec.name}_out", spec.dtype, spec.shape) for spec in specs
        )


class FakePipeline:
    """A `Pipeline` without a queue; raw tensors come out as they went in."""

    def __init__(self, model: FakeModel, *, delay_s: float = 0.0) -> None:
        self.model = model
        self.error: RetinueError | None = None
        self._delay_s = delay_s

    @property
    def queue_depth(self) -> int:
        """Nothing ever waits."""
        return 0

    async def submit(
        self,
        item: bytes | Image,
        *,
        deadline: float | None = None,
        priority: int = 0,
        app: str = "",
        source: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Record:
        """Answer with no scores."""
        await asyncio.sleep(self._delay_s)
        outcome = Outcome(value=Scores(np.zeros(0, np.float32)))
        return Record(app, self.model.name, self.model.version, outcome, source)

    async def infer(
        self, tensors: Tensors, *, deadline: float | None = None, priority: int = 0
    ) -> dict[str, Array]:
        """Return every input under its output's name, or raise the programmed error."""
        await asyncio.sleep(self._delay_s)
        if self.error is not None:
            raise self.error
        return {f"{name}_out": np.array(array) for name, array in tensors.items()}


class FakeMetrics:
    """Keeps the calls in a list."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []

    def render(self) -> tuple[bytes, str]:
        """Return one sample."""
        return b"fake_requests_total %d\n" % len(self.calls), "text/plain; version=0.0.4"

    def http(self, route: str, method: str, status: int, seconds: float) -> None:
        """Keep one call."""
        assert seconds >= 0
        self.calls.append((route, method, status))


def fake_card(name: str) -> Card:
    """Return a card with nothing behind it."""
    return Card(
        name=name,
        task="detect",
        family="fake",
        summary="Gives back what it gets",
        license="Apache-2.0",
        source=Source(url="file:///nowhere", files={"model.onnx": "0" * 64}),
        input=Input(height=8, width=8),
        output=Output(layout="fake"),
        classes=("thing",),
    )


class FakeHost:
    """The composition root's shape with one app, `ECHO`, and one fake model.

    Attributes:
        events: How often the echo handler was started, finished and cancelled.
        drained: The seconds that `drain` was given, None before.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        apps: Sequence[App] = (ECHO,),
        specs: Sequence[TensorSpec] = (TensorSpec("x", "float32", (-1, 2)),),
    ) -> None:
        self.settings = settings
        self.apps = tuple(apps)
        self.metrics = FakeMetrics()
        model = FakeModel(TypedRuntime(specs), version="abc123")
        self.pipelines = {"fake": FakePipeline(model)}
        self.events: Counter[str] = Counter()
        self.drained: float | None = None

    @property
    def limits(self) -> Limits:
        """What a decoder may be given."""
        return self.settings.limits

    def pipeline(self, model: str) -> FakePipeline:
        """Return the one pipeline.

        Raises:
            ModelNotFound: it has another name.
        """
        try:
            return self.pipelines[model]
        except KeyError:
            raise ModelNotFound(f"no model {model!r} is loaded") from None

    def app_settings(self, app: str) -> Any:
        """Return the app's settings, all defaults."""
        return resolve(next(one for one in self.apps if one.name == app).settings)()

    def card(self, model: str) -> Card:
        """Return the one model's card."""
        self.pipeline(model)
        return fake_card(model)

    async def finish(self, record: Record, body: bytes | None = None) -> bool:
        """Keep nothing."""
        return False

    async def start(self) -> None:
        """Load nothing."""

    async def drain(self, timeout_s: float) -> None:
        """Note the call."""
        self.drained = timeout_s
