"""A clock that moves only when it is told to."""

from __future__ import annotations


class FakeClock:
    """Stands in for ``time.monotonic``: call it for the time in seconds.

    >>> clock = FakeClock()
    >>> clock.advance(0.5)
    >>> clock()
    0.5
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the time forward."""
        self.now += seconds
