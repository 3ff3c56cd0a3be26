"""What is known of one item on its way, and the record that is made of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from retinue.core.protocols import Model
from retinue.core.record import Record
from retinue.core.types import STAGES, Image, Outcome
from retinue.pipeline.flows import Terms
from retinue.pipeline.lane import Lane
from retinue.pipeline.lead import Place
from retinue.pipeline.worker import Job


@dataclass(slots=True, eq=False)
class Request:
    """One item on its way.

    Attributes:
        item: An encoded image file, or a decoded image.
        stream: The client's stream that it is a frame of, "" if none.
        began: When it came in, in seconds of ``time.monotonic()``.
        terms: What is asked for it; times on the same clock.
        waiting: Where it waits or is worked on: the lane and its job there.
        stale: Whether a newer frame of its stream has come.
        inside: Whether it is counted as accepted.
    """

    item: bytes | Image
    app: str
    source: str
    tags: Mapping[str, str] | None
    stream: str
    depth: int
    began: float
    terms: Terms
    place: Place
    waiting: tuple[Lane[Any, Any], Job[Any]] | None = None
    stale: bool = False
    inside: bool = False
    sha256: str = ""
    width: int = 0
    height: int = 0
    batch_size: int = 0
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def queued(self) -> bool:
        """Whether it waits in a queue."""
        return self.waiting is not None and self.waiting[0].has(self.waiting[1])

    def supersede(self) -> bool:
        """Give way to a newer frame, at once or after its decoding; tell if at once."""
        self.stale = True
        return self.waiting is not None and self.waiting[0].supersede(self.waiting[1])

    def record(self, model: Model, outcome: Outcome) -> Record:
        """Finish it."""
        timings = self.timings
        timings["total"] = (time.monotonic() - self.began) * 1000
        ordered = {stage: timings[stage] for stage in STAGES if stage in timings}
        if outcome.error is not None:
            # Its frames would keep this request's bytes and tensors as long as the record lives.
            outcome.error.__traceback__ = None
        return Record(
            app=self.app,
            model=model.name,
            version=model.version,
            outcome=replace(outcome, timings_ms=MappingProxyType(ordered)),
            source=self.source,
            input_sha256=self.sha256,
            width=self.width,
            height=self.height,
            batch_size=self.batch_size,
            queue_depth=self.depth,
            tags=MappingProxyType(dict(self.tags or {})),
        )
