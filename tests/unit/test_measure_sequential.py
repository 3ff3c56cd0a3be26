"""The detector of a mean's drop: what it promises, and how soon it sees a drop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from retinue.measure.sequential import MeanDropDetector

BOUND = 0.9
Draw = Callable[[np.random.Generator, int], np.ndarray]


def rare_failures(mean: float) -> Draw:
    """Mostly the same answer, else anything in between."""
    return lambda rng, n: np.where(rng.random(n) < 2 * mean - 1, 1.0, rng.random(n))


STREAMS: dict[str, Callable[[float], Draw]] = {
    "constant": lambda mean: lambda rng, n: np.full(n, mean),
    "all or nothing": lambda mean: lambda rng, n: (rng.random(n) < mean).astype(float),
    "beta": lambda mean: lambda rng, n: rng.beta(10 * mean, 10 * (1 - mean), n),
    "rare failures": rare_failures,
}


def run_length(detector: MeanDropDetector, stream: Iterator[float], most: int) -> int:
    """Return the number of figures until the alarm, or ``most``."""
    for count in range(1, most + 1):
        if detector.update(next(stream)):
            return count
    return most


def endless(draw: Draw, seed: int) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    while True:
        yield from np.clip(draw(rng, 500), 0, 1).tolist()


@pytest.mark.parametrize("name", STREAMS)
def test_false_alarms_are_as_rare_as_promised(name: str) -> None:
    # The worst healthy stream: its mean is just the bound. Cut short, the mean is understated.
    promised, runs = 60.0, 300
    stream = endless(STREAMS[name](BOUND), 1)
    detector = MeanDropDetector(BOUND, false_alarm_every=promised)
    lengths = []
    for _ in range(runs):
        lengths.append(run_length(detector, stream, 1000))
        detector.reset()
    error = np.std(lengths) / math.sqrt(runs)
    assert np.mean(lengths) >= promised - 3 * error


def test_the_promise_holds_for_figures_that_depend_on_what_went_before() -> None:
    # The spread follows the evidence; the mean, given all before, stays the bound.
    rng = np.random.default_rng(3)
    lengths = []
    for _ in range(300):
        detector = MeanDropDetector(0.5, false_alarm_every=60)
        count = 0
        while count < 1000:
            count += 1
            spread = 0.5 if detector.evidence > 0.5 else 0.1
            x = 0.5 + spread * rng.choice([-1, 1])
            if detector.update(x):
                break
        lengths.append(count)
    assert np.mean(lengths) >= 60 - 3 * np.std(lengths) / math.sqrt(300)


@pytest.mark.parametrize(
    ("mean", "soon"), [(0.0, 10), (0.5, 60), (BOUND - 0.1, 400), (BOUND - 0.05, 2000)]
)
def test_drops_are_found(mean: float, soon: int) -> None:
    draw = rare_failures(mean) if mean > 0.5 else STREAMS["all or nothing"](mean)
    lengths = [
        run_length(MeanDropDetector(BOUND), endless(draw, seed), 10_000) for seed in range(5)
    ]
    assert np.median(lengths) <= soon


def test_a_late_drop_is_found_as_soon_as_an_early_one() -> None:
    broken = rare_failures(0.8)
    early = [run_length(MeanDropDetector(BOUND), endless(broken, s), 5000) for s in range(8)]
    detector = MeanDropDetector(BOUND)
    for x in np.random.default_rng(0).beta(60, 2, 20_000).tolist():
        assert not detector.update(x)
    late = []
    for seed in range(8):
        late.append(run_length(detector, endless(broken, seed), 5000))
        detector.reset()
        for x in np.random.default_rng(seed).beta(60, 2, 2_000).tolist():
            assert not detector.update(x)
    assert np.median(late) <= 1.2 * np.median(early)


def test_a_healthy_stream_raises_no_alarm() -> None:
    detector = MeanDropDetector(BOUND)
    for x in np.random.default_rng(0).beta(20, 1, 20_000).tolist():
        assert not detector.update(x)
    assert detector.count == 20_000
    assert detector.mean == pytest.approx(20 / 21, abs=0.005)
    assert detector.evidence < 0.7


def test_evidence_grows_to_an_alarm_and_is_forgotten() -> None:
    detector = MeanDropDetector(BOUND)
    assert detector.evidence == detector.count == 0
    assert math.isnan(detector.mean)
    seen = []
    while not detector.update(0.0):
        seen.append(detector.evidence)
    assert seen == sorted(seen)
    assert seen[-1] < detector.evidence == 1
    for _ in range(2000):
        assert detector.update(0.0)
    assert math.isfinite(detector.evidence)
    detector.reset()
    assert detector.evidence == detector.count == 0
    assert not detector.update(1.0)


@pytest.mark.parametrize("bound", [1e-6, 0.5, 1 - 1e-6])
def test_bounds_near_the_ends(bound: float) -> None:
    detector = MeanDropDetector(bound, false_alarm_every=1000)
    for x in (0.0, 1.0, bound) * 100:
        detector.update(x)
    assert 0 <= detector.evidence <= 1


@pytest.mark.parametrize("x", [float("nan"), -0.1, 1.1, float("inf")])
def test_figures_out_of_range_are_refused(x: float) -> None:
    detector = MeanDropDetector(BOUND)
    with pytest.raises(ValueError, match="within"):
        detector.update(x)
    assert detector.count == 0


@pytest.mark.parametrize(
    ("bound", "every"), [(0, 1e6), (1, 1e6), (float("nan"), 1e6), (0.5, 1), (0.5, float("inf"))]
)
def test_arguments_out_of_range_are_refused(bound: float, every: float) -> None:
    with pytest.raises(ValueError, match=r"bound must|false_alarm_every must"):
        MeanDropDetector(bound, false_alarm_every=every)
