"""Counts what a pipeline does, for its statistics and for who watches it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from retinue.core.statistics import BatchTotal, Statistics, Total
from retinue.pipeline.request import Request
from retinue.pipeline.worker import Run, Task


class Monitor(Protocol):
    """Is told of what records do not say. Called from any thread; must be quick."""

    def batch(self, model: str, version: str, reason: str) -> None:
        """Count a batch and why it was dispatched; see `retinue.pipeline.schedule.Reason`."""
        ...

    def shed(self, model: str, version: str, reason: str) -> None:
        """Count an item that was not answered for lack of time or room."""
        ...

    def cached(self, model: str, version: str, hit: bool) -> None:
        """Count a look into the response cache."""
        ...


class Unmonitored:
    """A `Monitor` that takes no note."""

    def batch(self, model: str, version: str, reason: str) -> None:
        """Do nothing."""

    def shed(self, model: str, version: str, reason: str) -> None:
        """Do nothing."""

    def cached(self, model: str, version: str, hit: bool) -> None:
        """Do nothing."""


_STAGES: Final = (
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
)


class _Sum:
    """A `Total` that grows."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.seconds += seconds

    def total(self) -> Total:
        return Total(self.count, round(self.seconds * 1e9))


class Counters:
    """The totals of one pipeline: `Watcher` of its lanes, and source of its `Statistics`.

    `ran` and `shed` are called on any thread, under a lock of the lane's; the rest on the event
    loop.
    """

    def __init__(self, model: str, version: str, monitor: Monitor) -> None:
        self._labels = (model, version)
        self._monitor = monitor
        self._runs: dict[int, tuple[_Sum, _Sum]] = {}
        self._inferences = 0
        self._last = 0.0
        self._stages = {name: _Sum() for name in _STAGES}

    def ran(self, task: Task[Any, Any], run: Run) -> None:
        """Take note of a batch of the model."""
        size, infer_s = len(task.batch), run.infer_s
        first = task.batch[0].payload
        if isinstance(first, Request):
            # A fused run is more than the model's, and may have ended before it.
            if "run" not in first.timings:
                return
            infer_s = first.timings["run"] / 1000
        sums = self._runs.get(size)
        if sums is None:
            sums = self._runs[size] = (_Sum(), _Sum())
        sums[0].add(infer_s)
        sums[1].add(max(0.0, (run.seconds or run.infer_s) - run.infer_s))
        self._inferences += sum(result.error is None for result in run.results)
        self._monitor.batch(*self._labels, task.reason)

    def shed(self, reason: str) -> None:
        """Take note of an item that was not answered for lack of time or room."""
        self._monitor.shed(*self._labels, reason)

    def cached(self, hit: bool, seconds: float) -> None:
        """Take note of a look into the response cache."""
        self._stages["cache_hit" if hit else "cache_miss"].add(seconds)
        self._monitor.cached(*self._labels, hit)

    def ended(self, ok: bool, timings_ms: Mapping[str, float]) -> None:
        """Take note of a request's end, by its timings in milliseconds."""
        self._last = time.time()
        stages, get = self._stages, timings_ms.get
        stages["success" if ok else "fail"].add(get("total", 0.0) / 1000)
        if "queue" in timings_ms:
            stages["queue"].add(get("queue", 0.0) / 1000)
        if "run" in timings_ms:
            prepared = get("decode", 0.0) + get("preprocess", 0.0)
            stages["compute_input"].add(prepared / 1000)
            stages["compute_infer"].add(get("run", 0.0) / 1000)
            stages["compute_output"].add(get("postprocess", 0.0) / 1000)

    def statistics(self) -> Statistics:
        """Return the totals of now."""
        batches = {
            size: BatchTotal(Total(infer.count, 0), infer.total(), output.total())
            for size, (infer, output) in sorted(self._runs.copy().items())
        }
        return Statistics(
            inference_count=self._inferences,
            execution_count=sum(one.compute_infer.count for one in batches.values()),
            last_inference_ms=round(self._last * 1000),
            batches=batches,
            **{name: total.total() for name, total in self._stages.items()},
        )
