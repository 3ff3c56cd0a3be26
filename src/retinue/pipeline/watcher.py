"""What a lane tells of its batches and of what it sheds."""

from __future__ import annotations

from typing import Any, Protocol

from retinue.pipeline.worker import Run, Task


class Watcher(Protocol):
    """Is told, under the device's lock, what a lane does; must be quick."""

    def ran(self, task: Task[Any, Any], run: Run) -> None:
        """Take note of a batch."""
        ...

    def shed(self, reason: str) -> None:
        """Take note of an item that was not answered for lack of time or room."""
        ...


class Unwatched:
    """A `Watcher` that takes no note."""

    def ran(self, task: Task[Any, Any], run: Run) -> None:
        """Do nothing."""

    def shed(self, reason: str) -> None:
        """Do nothing."""
