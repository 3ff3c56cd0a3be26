"""Hot reload: a filter is read again when a file of it changes, and the last good one is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from retinue.apps.ar.filters.load import Filter, folder, load_folder
from retinue.apps.ar.filters.problems import FILE
from retinue.core.errors import ConfigError, FilterInvalid, InputNotFound

EVERY_S: Final = 0.25
MAX_FILES: Final = 500

Stamp = dict[str, tuple[int, int]]


class Watched:
    """A filter that follows its folder.

    Editors write files in steps: what cannot be read is kept from view until it can.

    Args:
        name_or_path: As `load` takes it.
        every: Seconds between two looks at the folder.
        clock: Seconds that go forward.

    Raises:
        InputNotFound, FilterInvalid, MissingExtra: as `load`; there is no last good one yet.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        every: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder(name_or_path)
        self._every, self._clock = every, clock
        self._stamp = _stamp(self.folder)
        self._filter = load_folder(self.folder)
        self._problem: str | None = None
        self._next = clock() + every

    @property
    def filter(self) -> Filter:
        """The last good one."""
        return self._filter

    @property
    def problem(self) -> str | None:
        """What is wrong with the files as they are now; None where nothing is."""
        return self._problem

    def poll(self) -> bool:
        """Look at the folder, if it is time; return whether `filter` or `problem` is another."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._every
        stamp = _stamp(self.folder)
        if stamp == self._stamp:
            return False
        # Taken before reading: what is written meanwhile is read at the next look.
        self._stamp = stamp
        before = self._problem
        try:
            self._filter = load_folder(self.folder)
        except (FilterInvalid, InputNotFound, ConfigError) as error:
            self._problem = error.message
            return self._problem != before
        self._problem = None
        return True


def _stamp(where: Path) -> Stamp:
    """Return time and size of each file, links as what they lead to."""
    stamp: Stamp = {FILE: (0, 0)}
    for number, path in enumerate(sorted(where.rglob("*"))):
        if number >= MAX_FILES:
            break
        try:
            state = path.stat()
        except OSError:
            # It went, or is a link to nothing: that is a state too.
            continue
        stamp[str(path)] = (state.st_mtime_ns, state.st_size)
    return stamp
