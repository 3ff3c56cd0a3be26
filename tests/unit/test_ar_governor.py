"""The governor lowers quality under load, recovers with room, and does not flutter."""

from __future__ import annotations

import itertools

import pytest

from retinue.apps.ar.governor import LADDER, PATIENCE, WINDOW, Governor
from retinue.apps.ar.timing import Timings


def frames(governor: Governor, taken_ms: float, count: int) -> None:
    for _ in range(count):
        governor.note(taken_ms)


def test_all_is_done_while_frames_keep_to_the_budget() -> None:
    governor = Governor(16.6)
    frames(governor, 10, 1000)
    assert governor.quality == LADDER[0]


def test_single_late_frames_change_nothing() -> None:
    governor = Governor(16.6)
    for number in range(1000):
        governor.note(60 if number % 10 == 0 else 8)
    assert governor.level == 0


def test_less_is_done_step_by_step_and_no_further_than_least() -> None:
    governor = Governor(16.6)
    levels = []
    for _ in range(20 * WINDOW):
        governor.note(30)
        levels.append(governor.level)
    assert sorted(levels) == levels and levels[-1] == len(LADDER) - 1
    assert {0, 1, 2, 3, 4} <= set(levels)
    first = levels.index(1)
    assert first < 2 * WINDOW


def test_it_recovers_once_there_is_room() -> None:
    governor = Governor(16.6)
    frames(governor, 30, 10 * WINDOW)
    frames(governor, 5, len(LADDER) * (PATIENCE + WINDOW))
    assert governor.level == 0


def test_no_room_is_no_reason_to_do_more() -> None:
    governor = Governor(16.6)
    frames(governor, 30, WINDOW)
    frames(governor, 14, 2000)
    assert governor.level == 1


def test_a_step_up_that_does_not_hold_is_tried_more_and_more_rarely() -> None:
    governor = Governor(16.6)
    steps = []
    for number in range(6000):
        before = governor.level
        governor.note(25 if before == 0 else 6)
        if governor.level < before:
            steps.append(number)
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert gaps and gaps[-1] > 4 * gaps[0]


def test_timings_have_quantiles_by_stage_and_the_share_in_budget() -> None:
    timings = Timings(10)
    for taken in range(1, 21):
        timings.note({"mesh": taken / 2, "total": float(taken)})
    timings.dropped += 2
    summary = timings.summary()
    assert (summary["frames"], summary["dropped"], summary["in_budget"]) == (20, 2, 0.5)
    assert summary["stages"]["mesh"]["p50"] == pytest.approx(5.25)
    assert summary["stages"]["total"]["max"] == 20
    assert Timings(10).summary()["in_budget"] == 1.0
