"""What is learnt of time: how long a run of n items takes, and how far estimates are off."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

_FLATTEST: Final = 0.3
_STEEPEST: Final = 3.0
_MOST_DEVIATIONS: Final = 3.0
_LEAST_SHARE: Final = 0.2


class RunCost:
    """Learns how long a run of n items takes, t(n): an exponentially weighted mean for each size.

    A size that was never run is bounded from below by its neighbours: a larger batch takes no less
    time than a smaller one, and no more for each item.

    One thread at a time observes; any may predict and doubt meanwhile.
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
            # In this order: who predicts meanwhile looks up the sizes that it finds.
            self._seconds[size] = seconds
            insort(self._sizes, size)
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
    the cores, of windows, of other models on the device or of other programs on the machine. What
    requests took is fitted to what was estimated by a line, exponentially weighted, with the mean
    deviation from it for safety. A line and not a ratio: what is missing in an estimate of one
    millisecond, wake-ups and stalls, does not grow with the queue.

    What took longer than expected is clipped to a few usual deviations before it is learnt, so that
    a single stall of the machine, or a cold start, is no reason to refuse anybody; a lasting change
    still shows within tens of requests. What took less is believed at once.
    """

    def __init__(self, weight: float = 0.05, deviations: float = 2.0) -> None:
        """Set the learning rate.

        Args:
            weight: Weight in (0, 1] of the newest request.
            deviations: Mean deviations that are added for safety.
        """
        self._weight = weight
        self._deviations = deviations
        self._seen = 0
        self._estimate = self._seconds = 0.0
        self._variance = self._covariance = 0.0
        self._spread = 0.0

    def correct(self, estimate: float) -> float:
        """Return the seconds that a request will hardly exceed, of what was estimated."""
        return self._expect(estimate) + self._deviations * self._spread

    def observe(self, estimate: float, seconds: float) -> None:
        """Learn from a request that took ``seconds``, or at least that."""
        if not self._seen:
            self._estimate = self._seconds = estimate
        self._seen += 1
        expected = self._expect(estimate)
        most = _MOST_DEVIATIONS * self._spread + _LEAST_SHARE * estimate
        error = min(most, seconds - expected)
        weight = max(self._weight, 1 / (1 + self._seen))
        right, up = estimate - self._estimate, expected + error - self._seconds
        self._estimate += weight * right
        self._seconds += weight * up
        self._variance += weight * ((1 - weight) * right * right - self._variance)
        self._covariance += weight * ((1 - weight) * right * up - self._covariance)
        self._spread += weight * (abs(error) - self._spread)

    def doubt(self) -> None:
        """Trust itself a little less: called when a request was refused by it.

        Only what is admitted is learnt from, so a belief that refuses all would stay for ever.
        """
        self._spread *= 0.99
        self._seconds += 0.01 * (self._estimate - self._seconds)

    def _expect(self, estimate: float) -> float:
        if not self._seen:
            return estimate
        # As if it were known a little that an estimate is right but for a constant.
        known = (0.3 * self._estimate) ** 2 + 1e-12
        slope = (self._covariance + known) / (self._variance + known)
        slope = min(_STEEPEST, max(_FLATTEST, slope))
        return max(0.0, self._seconds + slope * (estimate - self._estimate))
