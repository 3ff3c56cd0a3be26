"""Timing models side by side."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

import numpy as np
import pytest

from retinue.calibrate import speed
from retinue.calibrate.speed import Speed, race
from retinue.core.types import Array, Tensors
from retinue.testing.models import FakeModel, FakeRuntime

ROWS = [{"input": np.zeros(1, np.float32)}, {"input": np.ones(1, np.float32)}]


class Steps:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def start(self, label: str, total: int | None = None) -> None:
        self.seen.append(total)

    def advance(self, n: int) -> None:
        self.seen.append(n)

    def finish(self) -> None:
        self.seen.append("end")


class Watching(FakeModel):
    """Notes how it is run."""

    def __init__(self, log: list[tuple[str, int, float]], name: str, item_s: float) -> None:
        super().__init__(FakeRuntime(item_s=item_s))
        self._log, self._label = log, name

    def run(self, batch: Sequence[Tensors]) -> list[dict[str, Array]]:
        assert not gc.isenabled()
        self._log.append((self._label, len(batch), float(batch[0]["input"][0])))
        return super().run(batch)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_BATCH_S", 0.006)
    monkeypatch.setattr(speed, "_WARM_S", 0.002)


def test_who_is_faster_and_by_how_much() -> None:
    log: list[tuple[str, int, float]] = []
    models = {"slow": Watching(log, "slow", 0.004), "fast": Watching(log, "fast", 0.001)}
    steps = Steps()
    result = race(models, ROWS, rounds=9, progress=steps)
    assert gc.isenabled()
    assert steps.seen == [9, *[1] * 9, "end"]
    slow, fast = result.ms["slow"], result.ms["fast"]
    assert slow.samples == fast.samples == 9
    assert 0 < fast.low <= fast.median <= fast.high < slow.low
    assert slow.median >= 4
    ratio = result.ratio("slow", "fast")
    assert 1 < ratio.low <= ratio.median <= ratio.high
    assert {size for _, size, _ in log} == {1}
    assert {value for _, _, value in log} == {0, 1}
    assert "9 rounds" in result.order


def test_rounds_are_interleaved_in_changing_orders() -> None:
    log: list[tuple[str, int, float]] = []
    models = {name: Watching(log, name, 0.008) for name in "ab"}
    race(models, ROWS, rounds=12)
    # So slow, each has one run a round, after warming up and calibration.
    last = [name for name, _, _ in log[-24:]]
    rounds = ["".join(last[i : i + 2]) for i in range(0, 24, 2)]
    assert set(rounds) == {"ab", "ba"}


def test_a_slow_phase_of_the_machine_cancels_out() -> None:
    result = Speed({"a": (2.0, 2.0, 20.0, 20.0, 2.0), "b": (1.0, 1.0, 10.0, 10.0, 1.0)}, "")
    ratio = result.ratio("a", "b")
    assert (ratio.low, ratio.median, ratio.high) == (2, 2, 2)
    assert result.ms["a"].high == 20


def test_time_is_bounded() -> None:
    start = time.perf_counter()
    result = race({"a": FakeModel(FakeRuntime(item_s=0.005))}, ROWS, rounds=1000, seconds=0.05)
    assert 3 <= result.ms["a"].samples < 100
    assert time.perf_counter() - start < 5


def test_rows_of_its_own_for_each_model() -> None:
    models = {"a": FakeModel(FakeRuntime()), "b": FakeModel(FakeRuntime(width=2))}
    wide = [{"input": np.zeros(2, np.float32)}]
    assert set(race(models, {"a": ROWS, "b": wide}, rounds=3).rounds) == {"a", "b"}


def test_collection_is_on_again_after_a_failure() -> None:
    with pytest.raises(RuntimeError, match="dead"):
        race({"a": FakeModel(FakeRuntime(poison={0.0: RuntimeError("dead")}))}, ROWS)
    assert gc.isenabled()


def test_nothing_to_time_is_refused() -> None:
    model = FakeModel(FakeRuntime())
    for arguments in (({}, ROWS, 3), ({"a": model}, [], 3), ({"a": model}, {"b": ROWS}, 3)):
        models, rows, rounds = arguments
        with pytest.raises(ValueError, match="need models"):
            race(models, rows, rounds=rounds)
    with pytest.raises(ValueError, match="rounds >= 3"):
        race({"a": model}, ROWS, rounds=2)
