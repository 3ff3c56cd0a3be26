"""What is learnt of time: runs and whole requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.pipeline.cost import Forecast, RunCost


def test_run_cost_is_a_moving_mean_bounded_by_its_neighbours():
    cost = RunCost(weight=0.5)
    assert cost.predict(4) == cost.alone == 0.0
    cost.observe(8, 16.0)
    assert cost.predict(4) == 8.0
    assert cost.predict(9) == 16.0
    assert cost.alone == 2.0
    cost.observe(2, 10.0)
    cost.observe(2, 12.0)
    assert cost.predict(2) == 11.0
    assert cost.predict(4) == 11.0
    assert cost.predict(7) == 14.0


@given(st.lists(st.tuples(st.integers(1, 32), st.floats(0, 10)), max_size=30))
def test_run_cost_is_at_least_zero_and_doubt_lowers_it(runs):
    cost = RunCost()
    for size, seconds in runs:
        cost.observe(size, seconds)
    before = [cost.predict(n) for n in range(1, 40)]
    cost.doubt()
    after = [cost.predict(n) for n in range(1, 40)]
    assert all(0 <= a <= b for a, b in zip(after, before, strict=True))


def test_a_forecast_fits_what_was_estimated_to_what_it_took():
    forecast = Forecast()
    assert forecast.correct(2.0) == 2.0
    for number in range(2000):
        estimate = 0.01 * (1 + number % 20)
        forecast.observe(estimate, 0.02 + 1.5 * estimate)
    assert forecast.correct(0.1) == pytest.approx(0.17, rel=0.15)
    assert forecast.correct(0.5) == pytest.approx(0.77, rel=0.1)


def test_a_forecast_adds_how_much_requests_vary():
    forecast = Forecast()
    for number in range(2000):
        forecast.observe(0.1, 0.1 if number % 2 else 0.2)
    assert 0.22 < forecast.correct(0.1) < 0.28


def test_what_tiny_estimates_miss_does_not_grow_with_the_queue():
    forecast = Forecast()
    for _ in range(500):
        forecast.observe(0.002, 0.012)
    assert forecast.correct(0.05) < 0.065


def test_a_stall_is_no_reason_to_refuse_and_a_lasting_change_shows_soon():
    forecast = Forecast()
    for number in range(500):
        forecast.observe(0.01, 0.010 if number % 2 else 0.012)
    forecast.observe(0.01, 5.0)
    assert forecast.correct(0.01) < 0.02
    for _ in range(100):
        forecast.observe(0.01, 0.1)
    assert forecast.correct(0.01) > 0.09
    for _ in range(100):
        forecast.observe(0.01, 0.01)
    assert forecast.correct(0.01) < 0.03


def test_a_cold_start_is_no_reason_to_refuse():
    forecast = Forecast()
    forecast.observe(0.002, 1.0)
    assert forecast.correct(0.02) < 0.03


def test_a_forecast_that_refuses_all_comes_to_doubt_itself():
    forecast = Forecast()
    for number in range(500):
        forecast.observe(0.01, 0.5 + number % 2)
    for _ in range(1000):
        forecast.doubt()
    assert forecast.correct(0.01) == pytest.approx(0.01, rel=0.1)
