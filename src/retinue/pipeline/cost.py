"""What is learnt of time: how long a run of n items takes, and how far estimates are off."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

_LEAST_RATIO: Final = 0.1
_MOST_RATIO: Final = 10.0


class RunCost:
    """Learns how long a run of n items takes, t(n): an exponentially weighted mean for each size.

    A size that was never run is bounded from below by its neighbours: a larger batch takes no less
    time than a smaller one, and no more for each item.
    """

    def __init__(self, weight: float = 0.2) -> None:
        """Take the weight in (0, 1] of the newest run."""
        self._weight = weight
        self._sizes: list[int] = []
        self._seconds: dict[int, float] = {}
        self.alone = 0.0
        """Seconds that one item alone takes, 0 while nothing is known."""

    def observe(self, size: int, seconds: float) -> None:
        """Learn from a run of ``size`` items."""
        known = self._seconds.get(size)
        if known is None:
            insort(self._sizes, size)
            self._seconds[size] = seconds
        else:
            self._seconds[size] = known + self._weight * (seconds - known)
        self.alone = self.predict(1)

    def predict(self, size: int) -> float:
        """Return the seconds that a run of ``size`` items takes at least; 0 if nothing is known."""
        known = self._seconds.get(size)
        if known is not None:
            return known
        at = bisect_left(self._sizes, size)
        below = self._seconds[self._sizes[at - 1]] if at else 0.0
        if at == len(self._sizes):
            return below
        larger = self._sizes[at]
        return max(below, self._seconds[larger] * size / larger)

    def doubt(self) -> None:
        """Lower all that was learnt by a tenth.

        Called when an item was dropped on a prediction alone. Without it, one run slower than the
        deadline would have every later item dropped, and nothing would ever be run and learnt.
        """
        for size in self._sizes:
            self._seconds[size] *= 0.9
        self.alone = self.predict(1)


class Forecast:
    """Corrects estimates of whole requests by how wrong the last ones were.

    An estimate counts the work that goes before a request; it knows nothing of decoders that share
    the cores, of other models on the device or of other programs on the machine. The ratio of what
    it took to what was estimated does: its exponentially weighted mean and mean deviation, as TCP
    keeps them of round-trip times (V. Jacobson, Congestion Avoidance and Control, 1988).
    """

    def __init__(self, weight: float = 0.05, deviations: float = 2.0) -> None:
        """Set the learning rate.

        Args:
            weight: Weight in (0, 1] of the newest request.
            deviations: Mean deviations that are added for safety.
        """
        self._weight = weight
        self._deviations = deviations
        self._ratio = 1.0
        self._spread = 0.0

    def correct(self, estimate: float) -> float:
        """Return the seconds that a request will hardly exceed, of what was estimated."""
        return estimate * (self._ratio + self._deviations * self._spread)

    def observe(self, estimate: float, seconds: float) -> None:
        """Learn from a request that took ``seconds``, or at least that."""
        if estimate <= 0:
            return
        ratio = min(_MOST_RATIO, max(_LEAST_RATIO, seconds / estimate))
        error = ratio - self._ratio
        self._ratio += self._weight * error
        self._spread += self._weight * (abs(error) - self._spread)

    def doubt(self) -> None:
        """Come a little closer to no correction: called when a request was refused by it.

        Only what is admitted is learnt from, so a correction that refuses all would stay for ever.
        """
        self._spread *= 0.99
        self._ratio += 0.01 * (1.0 - self._ratio)
