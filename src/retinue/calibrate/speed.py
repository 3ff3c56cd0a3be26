"""How fast models are, side by side, on a machine that is not quiet.

Each round times every model once, in an order that is shuffled anew: what else happens on the
machine, and its clock's ups and downs, strike all of them alike. Models are compared by the ratio
within a round, so that a slow round is slow for both and cancels out.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

import numpy as np

from retinue.core.protocols import Model
from retinue.core.types import Tensors
from retinue.models.sources.base import Progress, Quiet

_BATCH_S: Final = 0.03  # shorter than this, a timing is of the clock and the scheduler
_WARM_S: Final = 0.1
_RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True)
class Timing:
    """The median of several measurements and its 95 % interval (bootstrap, percentiles).

    Attributes:
        median: Of all measurements.
        low: Lower end.
        high: Upper end.
        samples: Number of measurements.
    """

    median: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True, slots=True)
class Speed:
    """What a race came to.

    Attributes:
        rounds: For each model its milliseconds for one run, round by round.
        order: How it was measured, for a report.
    """

    rounds: Mapping[str, tuple[float, ...]]
    order: str

    @property
    def ms(self) -> Mapping[str, Timing]:
        """Milliseconds for one run of each model."""
        return {name: _timing(values) for name, values in self.rounds.items()}

    def ratio(self, a: str, b: str) -> Timing:
        """Return how many times as fast as ``a`` the model ``b`` is: ms(a) / ms(b) by rounds."""
        return _timing(np.divide(self.rounds[a], self.rounds[b]).tolist())


def race(
    models: Mapping[str, Model],
    rows: Mapping[str, Sequence[Tensors]] | Sequence[Tensors],
    *,
    rounds: int = 15,
    seconds: float = 30.0,
    progress: Progress | None = None,
    seed: int = 0,
) -> Speed:
    """Time one run on a batch of one, for each model, in rounds of all models.

    Each model is warmed up first; in a round it makes as many runs as fill some 30 ms. Garbage
    collection is off meanwhile.

    Args:
        models: What to time, by the name that the result has it under.
        rows: Preprocessed inputs without the batch dimension, at least one, taken in turns; a
            mapping gives each model its own, for models that preprocess differently.
        rounds: At least 3.
        seconds: The time it may take, roughly; there are fewer rounds, but 3, where it is short.
        progress: Hears of each round.
        seed: Of the shuffling.

    Raises:
        ValueError: no model, no row, or fewer rounds than 3.
        ModelRunFailed: a runtime failed.
    """
    given = rows if isinstance(rows, Mapping) else dict.fromkeys(models, rows)
    if not models or rounds < 3 or not all(given.get(name) for name in models):
        raise ValueError(f"need models, rows for each, rounds >= 3: {list(models)}, {rounds}")
    progress = progress or Quiet()
    times: dict[str, list[float]] = {name: [] for name in models}
    shuffled = random.Random(seed)  # noqa: S311 - no secret
    end = time.perf_counter() + seconds
    with _no_collection():
        runners = {name: _Runner(model, given[name]) for name, model in models.items()}
        progress.start("timing", rounds)
        for done in range(rounds):
            if done >= 3 and time.perf_counter() > end:
                break
            for name in shuffled.sample(list(models), len(models)):
                times[name].append(runners[name].measure())
            progress.advance(1)
        progress.finish()
    done = len(next(iter(times.values())))
    order = f"{done} rounds, each of {' and '.join(models)}, shuffled anew in each"
    return Speed({name: tuple(values) for name, values in times.items()}, order)


class _Runner:
    """Runs one model, a batch of one at a time, often enough to be timed."""

    def __init__(self, model: Model, rows: Sequence[Tensors]) -> None:
        self._model = model
        self._rows = cycle(rows)
        runs, elapsed = 0, 0.0
        while elapsed < _WARM_S or runs < 2:
            elapsed += self._seconds(1)
            runs += 1
        self._runs = max(1, round(_BATCH_S / min(self._seconds(1) for _ in range(2))))

    def measure(self) -> float:
        """Return the milliseconds of one run."""
        return 1000 * self._seconds(self._runs) / self._runs

    def _seconds(self, runs: int) -> float:
        batches = [[row] for row in islice(self._rows, runs)]
        start = time.perf_counter()
        for batch in batches:
            self._model.run(batch)
        return max(time.perf_counter() - start, 1e-9)


@contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _timing(values: Sequence[float]) -> Timing:
    numbers = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(numbers, (_RESAMPLES, len(numbers))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return Timing(float(np.median(numbers)), float(low), float(high), len(numbers))
