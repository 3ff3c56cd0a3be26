"""A filter on single pictures: models and renderer are loaded once for each thread, and kept."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.settings import MOST_FACES, ArSettings

if TYPE_CHECKING:
    from retinue.apps.ar.filters.load import Filter


class _Kept:
    """A session that is closed by the thread that made it, when that thread ends."""

    def __init__(self) -> None:
        # The session's own imports lead back to the filters.
        from retinue.apps.ar.session import Session

        self.session = Session(None, ar=ArSettings(max_faces=MOST_FACES), live=False)
        if threading.current_thread() is threading.main_thread():
            # Later on, modules that closing needs are gone.
            atexit.register(self.session.close)

    def __del__(self) -> None:
        if hasattr(self, "session"):
            self.session.close()


class _Local(threading.local):
    def __init__(self) -> None:
        # By process: what a fork inherits can neither be used nor closed.
        self.kept: dict[int, _Kept] = {}


_local = _Local()


def put(worn: Filter, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a filter on one picture; see `Filter.apply`."""
    process = os.getpid()
    if process not in _local.kept:
        _local.kept[process] = _Kept()
    session = _local.kept[process].session
    if session.worn is not worn:
        session.wear(worn)
    session.reset()
    return session.apply(frame, 0.0).pixels
