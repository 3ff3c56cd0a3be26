"""Keeps frames inside their budget: less is drawn while they take too long, more when it fits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np


@dataclass(frozen=True, slots=True)
class Quality:
    """How much is done for a frame.

    Attributes:
        iris: Whether the model of 478 landmarks may run, where a filter asks for it.
        assets: "simple" where a filter has simpler assets.
        scale: Pixels that are drawn for one of the frame's, along each side.
        effects: Whether costly 2D effects (blur, warps) are drawn as they should be.
    """

    iris: bool = True
    assets: Literal["full", "simple"] = "full"
    scale: float = 1.0
    effects: bool = True


LADDER: Final = (
    Quality(),
    Quality(iris=False),
    Quality(iris=False, assets="simple"),
    Quality(iris=False, assets="simple", scale=0.7),
    Quality(iris=False, assets="simple", scale=0.5, effects=False),
)
"""From all to least."""
WINDOW: Final = 20
"""Frames that are looked at before a step."""
LATE: Final = 0.25
"""Share of them over the budget from which less is done."""
ROOM: Final = 0.7
"""Share of the budget that nearly all of them must keep to before more is done."""
PATIENCE: Final = 60
"""Frames with room before a step up; doubled each time that a step up had to be taken back."""
MOST_PATIENCE: Final = 1920


class Governor:
    """Chooses the quality of the next frame by what the last ones took.

    Pure: it reads no clock. One late frame changes nothing; a quarter of late ones do.
    """

    def __init__(self, budget_ms: float = 16.6) -> None:
        self.budget_ms = budget_ms
        self._level = 0
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._calm = 0
        self._patience = PATIENCE
        self._since_up: int | None = None

    @property
    def quality(self) -> Quality:
        """What the next frame gets."""
        return LADDER[self._level]

    @property
    def level(self) -> int:
        """The step of `LADDER`, 0 for all."""
        return self._level

    def note(self, taken_ms: float) -> None:
        """Take note of a frame's time."""
        self._recent.append(taken_ms)
        if self._since_up is not None:
            self._since_up += 1
            if self._since_up > 2 * self._patience:
                # It held: the machine has room again, not only for a moment.
                self._since_up, self._patience = None, PATIENCE
        if len(self._recent) < WINDOW:
            return
        late = sum(taken > self.budget_ms for taken in self._recent)
        if late >= LATE * WINDOW and self._level < len(LADDER) - 1:
            if self._since_up is not None:
                self._patience, self._since_up = min(2 * self._patience, MOST_PATIENCE), None
            self._step(self._level + 1)
        elif float(np.percentile(self._recent, 90)) < ROOM * self.budget_ms and self._level:
            self._calm += 1
            if self._calm >= self._patience:
                self._step(self._level - 1)
                self._since_up = 0
        else:
            self._calm = 0

    def _step(self, level: int) -> None:
        self._level, self._calm = level, 0
        self._recent.clear()
