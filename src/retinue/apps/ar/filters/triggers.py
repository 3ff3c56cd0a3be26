"""When parts are seen: what a face does, with hysteresis, least times and fades; gestures."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.spec import EVENTS, Part, Show

STILL_S: Final = 1.0
"""Where a face is first seen, as in a photo, what is on has been on for so long."""
FORGET_S: Final = 2.0
"""A face that was away for longer starts anew."""
NOD_S: Final = 1.2
SHAKE_S: Final = 1.6
_NEAR: Final = 0.25
_SIGNS: Final[dict[str, tuple[str, float]]] = {
    "turn_right": ("yaw", 1.0),
    "turn_left": ("yaw", -1.0),
    "look_up": ("pitch", 1.0),
    "look_down": ("pitch", -1.0),
    "tilt_right": ("roll", 1.0),
    "tilt_left": ("roll", -1.0),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """How a part is seen in a frame.

    Attributes:
        strength: In [0, 1], with its fade.
        elapsed: Seconds since it went on; of the frame, for a part without a trigger.
    """

    strength: float
    elapsed: float


def measure(face: Face, when: str) -> float:
    """Return a face's value of a trigger, or of a coefficient; 0 for one that was not measured.

    "blink" is that of the eye that is more open, so that both must close. Turns, looks and tilts
    are degrees towards that side of the picture.
    """
    known = face.coefficients
    if when == "blink":
        return min(known.get("blink_left", 0.0), known.get("blink_right", 0.0))
    if when in _SIGNS:
        name, sign = _SIGNS[when]
        return sign * known.get(name, 0.0)
    return known.get(when, 0.0)


class Swings:
    """Finds swings to and fro in an angle.

    A swing is a way of at least ``degrees`` between two turning points.

    Args:
        degrees: Least way.
        pattern: Directions that the swings must have, -1 or 1 each, oldest first.
        within: Seconds from the first one's start to where the last one is long enough.
    """

    def __init__(self, degrees: float, pattern: tuple[int, ...], within: float) -> None:
        self._degrees, self._pattern, self._within = degrees, pattern, within
        self._direction = 0
        self._high = self._low = (0.0, 0.0)
        self._begun = False
        self._swings: deque[tuple[int, float]] = deque(maxlen=len(pattern))

    def update(self, value: float, seconds: float) -> bool:
        """Take a value; return whether the pattern is complete with it."""
        if not self._begun:
            self._begun, self._high, self._low = True, (value, seconds), (value, seconds)
            return False
        slack = _NEAR * self._degrees
        # The last time near the extreme counts: a head that is still has not begun to swing.
        if value > self._high[0] - slack:
            self._high = (max(value, self._high[0]), seconds)
        if value < self._low[0] + slack:
            self._low = (min(value, self._low[0]), seconds)
        if self._direction >= 0 and self._high[0] - value >= self._degrees:
            return self._turn(-1, self._high[1], value, seconds)
        if self._direction <= 0 and value - self._low[0] >= self._degrees:
            return self._turn(1, self._low[1], value, seconds)
        return False

    def _turn(self, direction: int, start: float, value: float, seconds: float) -> bool:
        self._direction = direction
        self._high = self._low = (value, seconds)
        self._swings.append((direction, start))
        right = tuple(turn for turn, _ in self._swings) == self._pattern
        if right and seconds - self._swings[0][1] <= self._within:
            self._swings.clear()
            return True
        return False


class Gesture:
    """Tells when a head nods (down and up) or shakes (to and fro and to).

    Args:
        show: Its trigger is one of `EVENTS`; ``above`` is the least way in degrees.
    """

    def __init__(self, show: Show) -> None:
        if show.when == "nod":
            self._axis, self._other, self._within = "pitch", "yaw", NOD_S
            patterns: tuple[tuple[int, ...], ...] = ((-1, 1),)
        else:
            self._axis, self._other, self._within = "yaw", "pitch", SHAKE_S
            patterns = ((-1, 1, -1), (1, -1, 1))
        self._swings = [Swings(show.on_above, each, self._within) for each in patterns]
        self._recent: deque[tuple[float, float, float]] = deque()

    def update(self, face: Face, seconds: float) -> bool:
        """Take a frame's face; return whether the gesture is complete with it."""
        value = face.coefficients.get(self._axis, 0.0)
        self._recent.append((seconds, value, face.coefficients.get(self._other, 0.0)))
        while seconds - self._recent[0][0] > self._within:
            self._recent.popleft()
        done = [swings.update(value, seconds) for swings in self._swings]
        if not any(done):
            return False
        # A head that goes round, or looks elsewhere, moves about its other axis as much.
        ways = [
            max(item[axis] for item in self._recent) - min(item[axis] for item in self._recent)
            for axis in (1, 2)
        ]
        return ways[0] > ways[1]


class Switch:
    """One part's trigger on one face."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._gesture = Gesture(show) if show.when in EVENTS else None
        self._on = False
        self._since = self._asked = self._seconds = 0.0
        self._waiting = False
        self._strength: float | None = None

    @property
    def on(self) -> bool:
        """Whether it is on, whatever the fade."""
        return self._on

    def update(self, face: Face, seconds: float) -> Seen:
        """Take a frame's face, at a time that never runs backwards."""
        first = self._strength is None
        if self._gesture is not None:
            self._event(self._gesture.update(face, seconds), seconds)
        else:
            self._level(measure(face, self._show.when), seconds, first)
        wanted = float(self._on != self._show.hide)
        if self._strength is None:
            self._strength = wanted
        elif self._strength != wanted:
            fade = self._show.fade
            step = (seconds - self._seconds) / fade if fade > 0 else 1.0
            away = wanted - self._strength
            self._strength += max(-step, min(step, away))
        self._seconds = seconds
        return Seen(self._strength, max(0.0, seconds - self._since))

    def _event(self, happened: bool, seconds: float) -> None:
        if happened:
            self._on, self._since = True, seconds
        elif self._on and seconds - self._since >= self._show.least:
            self._on = False

    def _level(self, value: float, seconds: float, first: bool) -> None:
        show = self._show
        if self._on:
            if value < show.off_below and seconds - self._since >= show.least:
                self._on = False
            return
        if value < show.on_above:
            self._waiting = False
            return
        if not self._waiting:
            self._waiting, self._asked = True, seconds
        if first or seconds - self._asked >= show.after:
            self._on, self._waiting = True, False
            self._since = seconds - (STILL_S if first else 0.0)


class Triggers:
    """All triggers of a filter, for each face of its own.

    Args:
        parts: The filter's.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._shows = [part.show for part in parts]
        self._faces: dict[int, list[Switch | None]] = {}
        self._last: dict[int, float] = {}

    def update(self, faces: Sequence[Face], seconds: float) -> dict[int, list[Seen]]:
        """Take a frame; return, by a face's id, how each part is seen."""
        for known, last in list(self._last.items()):
            if seconds - last > FORGET_S or seconds < last:
                del self._faces[known], self._last[known]
        seen = {}
        for face in faces:
            switches = self._faces.get(face.id)
            if switches is None:
                switches = [Switch(show) if show else None for show in self._shows]
                self._faces[face.id] = switches
            self._last[face.id] = seconds
            seen[face.id] = [
                switch.update(face, seconds) if switch else Seen(1.0, seconds)
                for switch in switches
            ]
        return seen
