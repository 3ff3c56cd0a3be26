"""Triggers: hysteresis, least times, fades, and heads that nod, shake, or only look around."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.spec import FilterSpec, Show
from retinue.apps.ar.filters.triggers import STILL_S, Seen, Swings, Switch, Triggers, measure
from retinue.testing.ar import Head, pose

CAMERA = Camera.from_fov(640, 480)
LANDMARKS = Head(pose()).seen(CAMERA)
RATE = 30


def face(number: int = 1, **coefficients: float) -> Face:
    return Face(number, 1.0, LANDMARKS, pose(), coefficients)


def play(show: Show, motion: Callable[[float], dict[str, float]], seconds: float) -> list[Seen]:
    switch = Switch(show)
    times = [frame / RATE for frame in range(int(seconds * RATE))]
    return [switch.update(face(**motion(time)), time) for time in times]


def ons(seen: list[Seen]) -> list[tuple[float, float]]:
    """Spans in seconds in which it was seen at all."""
    spans = []
    start: int | None = None
    for frame, each in enumerate([*seen, Seen(0.0, 0.0)]):
        if each.strength > 0 and start is None:
            start = frame
        elif each.strength == 0 and start is not None:
            spans.append((start / RATE, frame / RATE))
            start = None
    return spans


def show(**keys: object) -> Show:
    return Show.model_validate({"fade": 0.0, **keys})


def test_between_until_and_above_nothing_changes() -> None:
    trigger = show(when="mouth_open", above=0.5, until=0.3, hold=0.0)
    values = [0.0, 0.45, 0.5, 0.4, 0.31, 0.49, 0.29, 0.45, 0.6]
    switch = Switch(trigger)
    seen = [switch.update(face(mouth_open=v), i).strength for i, v in enumerate(values)]
    assert seen == [0, 0, 1, 1, 1, 1, 0, 0, 1]


def test_noise_at_the_threshold_does_not_flicker() -> None:
    noise = [0.06 * math.sin(7.3 * frame) for frame in range(200)]
    seen = play(
        show(when="smile"), lambda t: {"smile": 0.43 + noise[int(t * RATE) % 200] + 0.02 * t}, 5.0
    )
    assert len(ons(seen)) == 1


def test_it_stays_on_for_its_least_time() -> None:
    seen = play(
        show(when="blink_left", hold=0.5), lambda t: {"blink_left": float(1 <= t < 1.1)}, 3.0
    )
    ((start, end),) = ons(seen)
    assert start == pytest.approx(1.0, abs=0.04)
    assert end - start == pytest.approx(0.5, abs=0.07)


def test_it_waits_until_it_has_lasted() -> None:
    trigger = show(when="blink", after=0.5)

    def motion(t: float) -> dict[str, float]:
        closed = float(0.5 <= t < 0.7 or 1.0 <= t < 2.0)
        return {"blink_left": closed, "blink_right": closed}

    ((start, _),) = ons(play(trigger, motion, 3.0))
    assert start == pytest.approx(1.5, abs=0.05)


def test_it_fades_in_and_out_and_can_hide() -> None:
    def motion(t: float) -> dict[str, float]:
        return {"smile": float(1 <= t < 2)}

    seen = play(show(when="smile", fade=0.2, hold=0.0), motion, 3.0)
    assert seen[int(1.1 * RATE)].strength == pytest.approx(0.65, abs=0.2)
    assert seen[int(1.5 * RATE)].strength == 1
    assert seen[int(2.1 * RATE)].strength == pytest.approx(0.35, abs=0.2)
    hidden = play(show(when="smile", fade=0.2, hold=0.0, hide=True), motion, 3.0)
    assert [round(a.strength + b.strength, 6) for a, b in zip(seen, hidden, strict=True)] == [
        1.0
    ] * len(seen)


def test_a_photo_shows_at_once_what_is_on() -> None:
    switch = Switch(show(when="mouth_open", after=2.0, fade=1.0))
    assert switch.update(face(mouth_open=0.9), 0.0) == Seen(1.0, STILL_S)


def test_an_animation_starts_when_it_goes_on() -> None:
    seen = play(show(when="mouth_open"), lambda t: {"mouth_open": float(t >= 1)}, 2.0)
    assert seen[RATE].elapsed == 0
    assert seen[RATE + 15].elapsed == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("when", "coefficients", "value"),
    [
        ("blink", {"blink_left": 0.9, "blink_right": 0.2}, 0.2),
        ("turn_right", {"yaw": 25.0}, 25.0),
        ("turn_left", {"yaw": 25.0}, -25.0),
        ("look_up", {"pitch": 8.0}, 8.0),
        ("look_down", {"pitch": -8.0}, 8.0),
        ("tilt_right", {"roll": 12.0}, 12.0),
        ("tilt_left", {"roll": -12.0}, 12.0),
        ("smile", {}, 0.0),
    ],
)
def test_what_is_measured(when: str, coefficients: dict[str, float], value: float) -> None:
    assert measure(face(**coefficients), when) == value


def nodding(t: float, depth: float = 12.0) -> dict[str, float]:
    """One nod from 2 s on, that takes 0.6 s, on a head that is not quite still."""
    share = (t - 2) / 0.6
    down = depth * math.sin(math.pi * share) ** 2 if 0 <= share <= 1 else 0.0
    return {"pitch": -down + 0.4 * math.sin(11 * t), "yaw": 0.5 * math.cos(9 * t)}


def shaking(t: float) -> dict[str, float]:
    swing = 14 * math.sin(2 * math.pi * (t - 2) / 0.7) if 2 <= t <= 3.05 else 0.0
    return {"yaw": swing, "pitch": 0.5 * math.sin(10 * t)}


def test_a_nod_is_seen_once_and_for_its_time() -> None:
    ((start, end),) = ons(play(show(when="nod"), nodding, 5.0))
    assert 2.2 < start < 2.7
    assert end - start == pytest.approx(1.0, abs=0.05)
    assert ons(play(show(when="shake"), nodding, 5.0)) == []


def test_a_shake_is_seen() -> None:
    ((start, _),) = ons(play(show(when="shake"), shaking, 5.0))
    assert 2.3 < start < 3.1
    assert ons(play(show(when="nod"), shaking, 5.0)) == []


@pytest.mark.parametrize(
    "motion",
    [
        lambda t: {"pitch": -14 * min(1.0, max(0.0, t - 1)) + 14 * min(1.0, max(0.0, t - 3.5))},
        lambda t: {"pitch": 3 * math.sin(8 * t), "yaw": 3 * math.cos(8 * t)},
        lambda t: {"pitch": 10 * math.sin(5 * t), "yaw": 25 * math.cos(5 * t)},
        lambda t: {"pitch": -20.0 if t >= 2 else 0.0},
        lambda t: {},
    ],
    ids=["looks down and up again later", "moves a little", "goes round", "looks down", "nothing"],
)
def test_other_movements_are_no_nods(motion: Callable[[float], dict[str, float]]) -> None:
    assert ons(play(show(when="nod"), motion, 6.0)) == []


def test_one_turn_of_the_head_is_no_shake() -> None:
    def motion(t: float) -> dict[str, float]:
        return {"yaw": 30 * math.sin(math.pi * min(1.0, max(0.0, (t - 1) / 1.2)))}

    assert ons(play(show(when="shake"), motion, 4.0)) == []


def test_swings_need_their_way_and_their_time() -> None:
    slow, quick = Swings(5, (-1, 1), 1.0), Swings(5, (-1, 1), 1.0)
    path = [0.0, -2.0, -6.0, -8.0, -4.0, -2.0]
    assert [quick.update(v, i * 0.1) for i, v in enumerate(path)].count(True) == 1
    assert not any(slow.update(v, i * 0.5) for i, v in enumerate(path))


def test_faces_have_triggers_of_their_own_and_are_forgotten() -> None:
    spec = FilterSpec.model_validate(
        {
            "format": 1, "name": "x", "title": "X",
            "parts": [
                {"kind": "eyes", "show": {"when": "mouth_open", "fade": 0.0, "hold": 60.0}},
                {"kind": "eyes"},
            ],
        }
    )  # fmt: skip
    triggers = Triggers(spec.parts)
    seen = triggers.update([face(1, mouth_open=1.0), face(2)], 0.0)
    assert [seen[1][0].strength, seen[2][0].strength] == [1, 0]
    assert seen[2][1] == Seen(1.0, 0.0)
    assert triggers.update([face(1)], 1.0)[1][0].strength == 1
    assert triggers.update([face(1)], 9.0)[1][0].strength == 0
