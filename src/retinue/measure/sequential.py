"""Watching a stream of figures for a drop of its mean, with a promise about false alarms."""

from __future__ import annotations

import math

import numpy as np

_BETS = 20
_LEAST_BET = 0.01
_CEILING = 1e100  # evidence far beyond any threshold is not counted on, so that it stays finite


class MeanDropDetector:
    """Alarms when the mean of a stream of figures in [0, 1] falls below a bound.

    It bets against "the mean is at least ``bound``". With the stake lambda, a bet turns a capital
    of 1 into ``1 + lambda * (bound - x)``, on average not more than 1 while that holds. As in the
    Shiryaev-Roberts procedure a new capital of 1 is put in before every figure and wagered along
    with what is there, ``M <- (M + 1) * (1 + lambda * (bound - x))``: a change is found as
    quickly late as early, whenever it begins. The mean over a grid of stakes is the evidence, as
    the best stake depends on the size of the drop, which is not known. It alarms when that
    reaches ``false_alarm_every``.

    Promised: as long as each figure's mean, *given all before it*, is at least ``bound``, the
    mean number of figures until the (false) alarm is at least ``false_alarm_every``; for any
    distribution and any dependence. (``M - t`` is then a supermartingale: at the alarm
    ``false_alarm_every <= E[M] <= E[t]``.)

    Not promised: that no alarm comes earlier in a particular run, nor how soon a real drop is
    found. Figures that are worse for a while, because hard pictures come in a row, are a drop.

    Sources: J. Shin, A. Ramdas and A. Rinaldo, "E-detectors: a nonparametric framework for
    sequential change detection", New England Journal of Statistics in Data Science, 2023
    (arXiv:2203.03532), the e-SR procedure; I. Waudby-Smith and A. Ramdas, "Estimating means of
    bounded random variables by betting", JRSS B 86 (2024), the bets.

    Not safe for use by several threads at once. An update takes some microseconds.
    """

    def __init__(self, bound: float, *, false_alarm_every: float = 1e6) -> None:
        """Start without evidence.

        Args:
            bound: Least mean of a healthy stream, in (0, 1).
            false_alarm_every: Figures, on average, that a healthy stream goes without an alarm;
                at least 2.

        Raises:
            ValueError: an argument is out of range.
        """
        if not 0 < bound < 1:
            raise ValueError(f"bound must be within (0, 1), not {bound}")
        if not 2 <= false_alarm_every <= _CEILING / 10:
            raise ValueError(f"false_alarm_every must be 2..1e99, not {false_alarm_every}")
        self.bound = bound
        self.false_alarm_every = false_alarm_every
        # At the largest stake a figure of 1 loses all; beyond it a capital could fall below 0.
        self._stakes = np.geomspace(_LEAST_BET, 1, _BETS) / (1 - bound)
        self.reset()

    def reset(self) -> None:
        """Forget all figures."""
        self._capitals = np.zeros(_BETS)
        self._evidence = 0.0
        self._count = 0
        self._sum = 0.0

    def update(self, x: float) -> bool:
        """Take one figure in; return whether the evidence is enough for an alarm.

        After an alarm it goes on as before; what to do is the caller's decision.

        Args:
            x: In [0, 1].

        Raises:
            ValueError: ``x`` is out of range; it is not counted.
        """
        if not 0 <= x <= 1:
            raise ValueError(f"a figure must be within [0, 1], not {x}")
        self._count += 1
        self._sum += x
        self._capitals += 1
        self._capitals *= np.maximum(1 + self._stakes * (self.bound - x), 0)
        np.minimum(self._capitals, _CEILING, out=self._capitals)
        self._evidence = float(self._capitals.mean())
        return self._evidence >= self.false_alarm_every

    @property
    def count(self) -> int:
        """Figures since the start or the last `reset`."""
        return self._count

    @property
    def mean(self) -> float:
        """Mean of those figures; NaN when there is none."""
        return self._sum / self._count if self._count else math.nan

    @property
    def evidence(self) -> float:
        """How near an alarm is, on a logarithmic scale: 0 none, 1 an alarm."""
        if self._evidence <= 1:
            return 0.0
        return min(math.log(self._evidence) / math.log(self.false_alarm_every), 1.0)
