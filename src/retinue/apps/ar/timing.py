"""Where the time of frames went."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

KEPT: Final = 36_000
"""Frames whose times are kept: ten minutes at 60 a second."""


class Timings:
    """Times of the last frames by stage, and how many kept to the budget.

    Args:
        budget_ms: What a frame may take.
    """

    def __init__(self, budget_ms: float) -> None:
        self._budget_ms = budget_ms
        self._stages: dict[str, deque[float]] = {}
        self.frames = self.in_budget = self.dropped = 0

    def note(self, stages_ms: Mapping[str, float]) -> None:
        """Take note of a frame: milliseconds by stage, with their sum as "total"."""
        self.frames += 1
        self.in_budget += stages_ms["total"] <= self._budget_ms
        for stage, taken in stages_ms.items():
            self._stages.setdefault(stage, deque(maxlen=KEPT)).append(taken)

    def summary(self) -> dict[str, Any]:
        """Return what an operator wants to know.

        Returns:
            "frames", "dropped", "in_budget" (share, 1 without frames), "budget_ms", and "stages":
            by name p50, p95 and max in milliseconds.
        """
        stages = {
            name: dict(
                zip(
                    ("p50", "p95", "max"), np.percentile(taken, [50, 95, 100]).tolist(), strict=True
                )
            )
            for name, taken in self._stages.items()
        }
        share = self.in_budget / self.frames if self.frames else 1.0
        return {
            "frames": self.frames,
            "dropped": self.dropped,
            "in_budget": share,
            "budget_ms": self._budget_ms,
            "stages": stages,
        }
