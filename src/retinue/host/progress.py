"""Progress of pulls on the terminal."""

from __future__ import annotations

import sys
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class Bar:
    """A progress bar on standard error; plain lines where that is not a terminal.

    As a context manager it takes the bar away when a step fails.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop()

    def start(self, label: str, total: int | None = None) -> None:
        """Begin a step of ``total`` bytes, if that is known."""
        self._stop()
        if not self._terminal:
            size = f" ({total / 2**20:.1f} MiB)" if total else ""
            print(f"{label}{size}", file=sys.stderr, flush=True)
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task(label, total=total)

    def advance(self, n: int) -> None:
        """Say that ``n`` further bytes are done."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, n)

    def finish(self) -> None:
        """End the step."""
        if self._bar is not None and self._task is not None:
            done = self._bar.tasks[0]
            self._bar.update(self._task, total=done.completed or 1, completed=done.completed or 1)
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None
