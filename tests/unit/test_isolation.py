"""One bad item never fails its neighbours: bisection, and what errors keep."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.errors import (
    InvalidTensor,
    ModelRunFailed,
)
from retinue.pipeline.worker import isolate


class Failing:
    """Runs identity on rows; a batch with a bad row fails whole."""

    def __init__(self, bad) -> None:
        self.bad = set(bad)
        self.batches: list[list[int]] = []

    def run(self, rows):
        self.batches.append(list(rows))
        for row in rows:
            if row in self.bad:
                raise ZeroDivisionError(row)
        return list(rows)


def every_row_alone(run, rows):
    """The slow obvious twin of `isolate`."""
    found = []
    for row in rows:
        try:
            found.append(run([row])[0])
        except ZeroDivisionError as error:
            found.append(str(error))
    return found


@given(st.integers(1, 40), st.sets(st.integers(0, 39)))
def test_bisection_finds_exactly_the_bad_rows(size, bad):
    rows = list(range(size))
    logging.disable(logging.CRITICAL)
    try:
        found = isolate(Failing(bad).run, rows, "running x")
    finally:
        logging.disable(logging.NOTSET)
    for got, wanted in zip(found, every_row_alone(Failing(bad).run, rows), strict=True):
        if isinstance(got, ModelRunFailed):
            assert got.message == f"running x failed: ZeroDivisionError: {wanted}"
        else:
            assert got == wanted


@pytest.mark.parametrize("bad", [0, 13, 31])
def test_one_bad_row_costs_a_logarithm_of_runs(bad):
    echo = Failing([bad])
    isolate(echo.run, list(range(32)), "running x")
    assert len(echo.batches) == 1 + 2 * 5


def test_an_output_too_few_is_a_failure_of_the_model():
    (only,) = isolate(lambda rows: [], ["a"], "running x")
    assert isinstance(only, ModelRunFailed)
    assert "0 outputs for 1 rows" in only.message


def test_errors_of_the_tree_stay_themselves_and_carry_no_frames():
    def run(rows):
        raise InvalidTensor("wrong shape") from ValueError("inner")

    (error,) = isolate(run, [1], "running x")
    assert type(error) is InvalidTensor
    assert error.__traceback__ is error.__cause__ is error.__context__ is None


def test_even_an_exit_is_contained_and_what_is_unforeseen_is_logged(caplog):
    def run(rows):
        raise SystemExit(3)

    with caplog.at_level(logging.ERROR):
        (error,) = isolate(run, [1], "running x")
    assert isinstance(error, ModelRunFailed)
    assert caplog.records[0].exc_info[0] is SystemExit
