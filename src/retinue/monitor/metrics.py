"""What is served, how fast and how surely, for Prometheus.

Every label is bounded, whatever clients send: names beyond a cap, and error codes, stages, methods
and statuses that Retinue does not know, are counted under "other".
"""

from __future__ import annotations

import math
import platform
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

import retinue
from retinue.core import errors
from retinue.core.record import Record
from retinue.core.types import STAGES, Detections, Scores, Signal
from retinue.monitor._rollout import RolloutMetrics

OTHER = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CODES = frozenset(
    value.code
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.RetinueError)
)
SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
QUEUE_DEPTHS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
DETECTIONS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)
CONFIDENCES = tuple(round(0.05 * n, 2) for n in range(1, 21))
LABELS = ("app", "model", "version")


def _label(name: str) -> str:
    """A name that the text format can hold: not long, and without lone surrogates."""
    return name[:200].encode("utf-8", "replace").decode("utf-8")


class Bounded:
    """Lets at most ``limit`` different names pass; later ones become "other"."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._names: set[object] = set()
        self._lock = threading.Lock()

    def admit(self, name: object, *, always: bool = False) -> bool:
        """Whether a name has a place; ``always`` makes one for a name that is known to be good."""
        if name in self._names:
            return True
        with self._lock:
            if always or len(self._names) < self._limit:
                self._names.add(name)
                return True
        return False


class ConfidenceHistogram(Collector):
    """A histogram that takes an array of values at once; 100 detections cost as much as one."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = np.asarray(CONFIDENCES)
        self._counts: dict[tuple[str, ...], NDArray[np.int64]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, labels: tuple[str, ...], values: NDArray[Any]) -> None:
        """Count values (N,) in [0, 1]; those that are not finite are left out."""
        finite = values[np.isfinite(values)].astype(np.float64)
        if not len(finite):
            return
        places = np.searchsorted(self._bounds, finite, side="left")
        counts = np.bincount(places, minlength=len(CONFIDENCES) + 1)
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + counts
            self._sums[labels] = self._sums.get(labels, 0.0) + float(finite.sum())

    def collect(self) -> Iterable[Metric]:
        """Return the histogram as Prometheus' cumulative buckets."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=LABELS)
        bounds = [*map(str, CONFIDENCES), "+Inf"]
        with self._lock:
            state = [
                (labels, np.cumsum(n), self._sums[labels]) for labels, n in self._counts.items()
            ]
        for labels, cumulative, total in state:
            buckets = list(zip(bounds, map(float, cumulative), strict=True))
            family.add_metric(labels, buckets, sum_value=total)
        return [family]


class QueueDepths(Collector):
    """A gauge that asks each pipeline for its queue's depth when it is read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._depths: dict[tuple[str, str], Callable[[], int]] = {}
        registry.register(self)

    def watch(self, model: str, version: str, depth: Callable[[], int]) -> None:
        """Ask this for the depth; the last one given for a model and version counts."""
        self._depths[model, version] = depth

    def forget(self, model: str, version: str) -> None:
        """Ask it no more."""
        self._depths.pop((model, version), None)

    def collect(self) -> Iterable[Metric]:
        """Ask all pipelines."""
        help_ = "Items waiting for the model now."
        family = GaugeMetricFamily("retinue_queue_depth", help_, labels=("model", "version"))
        for labels, depth in list(self._depths.items()):
            family.add_metric(labels, depth())
        return [family]


@dataclass(frozen=True, slots=True)
class _Series:
    """The time series of one app, model and version, looked up once."""

    labels: tuple[str, str, str]
    requests: Counter
    stages: dict[str, Histogram]
    batch_size: Histogram
    queue_depth: Histogram


class MetricsObserver:
    """An `Observer` that counts records, and the host's own counters beside it.

    Attributes:
        rollout: Counts of versions that take each other's place.

    Any method may be called from any thread.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        max_models: int = 100,
        max_apps: int = 20,
        max_routes: int = 100,
    ) -> None:
        """Register the metrics.

        Args:
            registry: None makes one of its own.
            max_models: Pairs of model and version that get series of their own.
            max_apps: Apps that do.
            max_routes: HTTP routes that do.
        """
        self._registry = CollectorRegistry() if registry is None else registry
        self._models, self._apps = Bounded(max_models), Bounded(max_apps)
        self._routes, self._kinds = Bounded(max_routes), Bounded(50)
        self._known: dict[tuple[str, str, str], _Series] = {}
        self._register_records()
        self._register_host()
        self.rollout = RolloutMetrics(self._registry)

    def _register_records(self) -> None:
        registry = self._registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, (*LABELS, *labels), registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, (*LABELS, *labels), registry=registry, buckets=buckets)

        self._requests = counter("retinue_requests", "Finished requests.")
        self._failures = counter("retinue_failures", "Requests that failed.", "code")
        self._stages = histogram(
            "retinue_stage_duration_seconds", "Time spent in a stage.", SECONDS, "stage"
        )
        self._batch_size = histogram("retinue_batch_size", "Items run together.", BATCH_SIZES)
        self._queue_depth = histogram(
            "retinue_queue_depth_at_admission", "Items waiting as one came in.", QUEUE_DEPTHS
        )
        self._detections = histogram(
            "retinue_detections_per_image", "Detections in an image.", DETECTIONS
        )
        self._confidence = ConfidenceHistogram(
            "retinue_confidence",
            "Scores of detections, and of a classifier's best class.",
            registry,
        )
        self._depths = QueueDepths(registry)
        self._register_scheduling()

    def _register_scheduling(self) -> None:
        def counter(name: str, text: str, label: str) -> Counter:
            return Counter(name, text, ("model", "version", label), registry=self._registry)

        self._batches = counter("retinue_batches", "Batches run, by why they went.", "reason")
        self._shed = counter(
            "retinue_shed", "Items not answered for lack of time or room.", "reason"
        )
        self._cached = counter("retinue_response_cache", "Looks into the response cache.", "result")
        self._counted: dict[tuple[Counter, str, str, str], Counter] = {}

    def _count(self, counter: Counter, model: str, version: str, value: str) -> None:
        key = (counter, model, version, value)
        child = self._counted.get(key)
        if child is None:
            # Only pipelines call this, so all three come from a bounded set.
            child = counter.labels(_label(model), _label(version), value)
            self._counted[key] = child
        child.inc()

    def _register_host(self) -> None:
        registry = self._registry
        self._http = Counter(
            "retinue_http_requests",
            "HTTP requests answered.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._http_seconds = Histogram(
            "retinue_http_request_duration_seconds",
            "Time from an HTTP request's head to its answer's end.",
            ("route", "method"),
            registry=registry,
            buckets=SECONDS,
        )
        self._grpc = Counter(
            "retinue_grpc_calls", "gRPC calls finished.", ("method", "code"), registry=registry
        )
        self._grpc_seconds = Histogram(
            "retinue_grpc_call_duration_seconds",
            "Time from a gRPC call's start to its end.",
            ("method",),
            registry=registry,
            buckets=SECONDS,
        )
        self._dropped = Counter(
            "retinue_dropped", "Records and blobs dropped.", ("kind",), registry=registry
        )
        build = Info("retinue_build", "The program that is running.", registry=registry)
        build.info({"version": retinue.__version__, "python": platform.python_version()})
        ProcessCollector(registry=registry)

    def observe(self, record: Record) -> Iterator[Signal]:
        """Count one record; gives no signals."""
        outcome, series = record.outcome, self._series(record)
        series.requests.inc()
        if outcome.error is not None:
            code = outcome.error.code if outcome.error.code in CODES else OTHER
            self._failures.labels(*series.labels, code).inc()
        for stage, milliseconds in outcome.timings_ms.items():
            if stage in series.stages and math.isfinite(milliseconds) and milliseconds >= 0:
                series.stages[stage].observe(milliseconds / 1000)
        if record.batch_size > 0:
            series.batch_size.observe(record.batch_size)
        series.queue_depth.observe(record.queue_depth)
        match outcome.value:
            case Detections(scores=scores) as detections:
                self._detections.labels(*series.labels).observe(len(detections))
                self._confidence.observe(series.labels, scores)
            case Scores(values=values) if len(values):
                self._confidence.observe(series.labels, values.max(keepdims=True))
            case _:
                pass
        return iter(())

    def watch_queue(self, model: str, version: str, depth: Callable[[], int]) -> None:
        """Export the depth of a pipeline's queue.

        Args:
            model: Name of the model; its series have a place from now on.
            version: Its version.
            depth: Asked at each scrape, from any thread; must not raise.
        """
        self._models.admit((model, version), always=True)
        self._depths.watch(_label(model), _label(version), depth)

    def forget_queue(self, model: str, version: str) -> None:
        """Export the depth of a pipeline's queue no more."""
        self._depths.forget(_label(model), _label(version))

    def batch(self, model: str, version: str, reason: str) -> None:
        """Count a batch and why it was dispatched: "full", "idle", "window" or "deadline"."""
        self._count(self._batches, model, version, reason)

    def shed(self, model: str, version: str, reason: str) -> None:
        """Count an item that was not answered for lack of time or room, for example "queue"."""
        self._count(self._shed, model, version, reason)

    def cached(self, model: str, version: str, hit: bool) -> None:
        """Count a look into the response cache."""
        self._count(self._cached, model, version, "hit" if hit else "miss")

    def grpc(self, method: str, code: str, seconds: float) -> None:
        """Count a finished gRPC call.

        Args:
            method: For example "ModelInfer".
            code: The status' name, for example "NOT_FOUND".
            seconds: How long it took.
        """
        method = _label(method) if self._routes.admit(f"grpc {method}") else OTHER
        self._grpc.labels(method, _label(code) if self._kinds.admit(code) else OTHER).inc()
        self._grpc_seconds.labels(method).observe(seconds)

    def http(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an HTTP request.

        Args:
            route: The route's template, for example "/v2/models/{model}"; never a client's path.
            method: For example "POST".
            status: For example 200.
            seconds: How long it took.
        """
        route = _label(route) if self._routes.admit(route) else OTHER
        method = method if method in METHODS else OTHER
        self._http.labels(route, method, str(status) if 100 <= status <= 599 else OTHER).inc()
        self._http_seconds.labels(route, method).observe(seconds)

    def dropped(self, kind: str, number: int = 1) -> None:
        """Count what was dropped on purpose, for example "record_queue_full"."""
        self._dropped.labels(_label(kind) if self._kinds.admit(kind) else OTHER).inc(number)

    def render(self) -> tuple[bytes, str]:
        """Return all metrics in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _series(self, record: Record) -> _Series:
        model = (record.model, record.version)
        # A name that no model has is a client's invention.
        unknown = isinstance(record.outcome.error, errors.ModelNotFound)
        if unknown or not self._models.admit(model):
            model = (OTHER, OTHER)
        app = record.app if self._apps.admit(record.app) else OTHER
        labels = (_label(app), _label(model[0]), _label(model[1]))
        series = self._known.get(labels)
        if series is None:
            series = self._known[labels] = _Series(
                labels=labels,
                requests=self._requests.labels(*labels),
                stages={stage: self._stages.labels(*labels, stage) for stage in STAGES},
                batch_size=self._batch_size.labels(*labels),
                queue_depth=self._queue_depth.labels(*labels),
            )
        return series


OBSERVER = MetricsObserver
