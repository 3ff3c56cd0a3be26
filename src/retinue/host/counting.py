"""Progress of steps that are counted, such as pictures, on the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from retinue.host.progress import Bar


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "")


class Counter(Bar):
    """A progress bar that counts what is done, with its rate; plain lines off a terminal."""

    def start(self, label: str, total: int | None = None) -> None:
        """Begin a step of ``total`` things, if that is known."""
        self._stop()
        if not self._terminal:
            number = f" ({total:,})" if total else ""
            print(f"{label}{number}", file=sys.stderr, flush=True)
            return
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task(label, total=total)
