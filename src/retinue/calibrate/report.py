"""Report pages: one HTML file that shows all it has without loading anything.

A report's template extends ``base.html``, imports the macros of ``parts.html`` and is given what
it shows: `Bar`, `Picture` and plain values. Nothing in a page comes from elsewhere: its style is
part of it, pictures are data URIs, and its policy forbids it to load anything.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

import retinue
from retinue.calibrate.speed import Timing
from retinue.measure.paired import Interval
from retinue.media.encode import encode_jpeg

TEMPLATES = Path(__file__).parent / "templates"

Mood = Literal["", "good", "bad", "open"]
"""How a thing is coloured: it is as wished, it is not, or it cannot be told."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure with its interval, as a line of a chart.

    Attributes:
        label: What it is the figure of.
        value: The figure.
        low: Lower end of its interval.
        high: Upper end.
        note: What is said beside it.
        mood: Its colour.
    """

    label: str
    value: float
    low: float
    high: float
    note: str = ""
    mood: Mood = ""

    @classmethod
    def of(
        cls,
        label: str,
        figure: Interval | Timing,
        note: str = "",
        *,
        scale: float = 1.0,
        mood: Mood = "",
    ) -> Bar:
        """Return the line of a measured figure, multiplied with ``scale`` (100: to per cent)."""
        value = figure.median if isinstance(figure, Timing) else figure.value
        return cls(label, value * scale, figure.low * scale, figure.high * scale, note, mood)


@dataclass(frozen=True, slots=True)
class Picture:
    """Versions of one picture, to be seen side by side.

    Attributes:
        title: For example the photo's name.
        note: What is to be seen.
        sides: For each its caption and its data URI, of `jpeg_uri`.
    """

    title: str
    note: str
    sides: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scale:
    """Where figures lie on an axis that takes all of them in.

    Attributes:
        start: The figure at the left end.
        end: The figure at the right end.
    """

    start: float
    end: float

    @classmethod
    def over(cls, bars: Iterable[Bar], marks: Iterable[float] = ()) -> Scale:
        """Return the axis for bars and further figures, with some room at both ends."""
        figures = [v for bar in bars for v in (bar.value, bar.low, bar.high)]
        numbers = np.array([v for v in (*figures, *marks) if np.isfinite(v)])
        if not numbers.size:
            return cls(0.0, 1.0)
        start, end = float(numbers.min()), float(numbers.max())
        room = 0.06 * (end - start) or max(abs(end), 1e-9) * 0.1
        # The room must not take an axis of positive figures below zero.
        return cls(max(start - room, 0.0) if start >= 0 else start - room, end + room)

    def at(self, figure: float) -> float:
        """Return where a figure lies, in per cent of the axis; beyond the ends at the end."""
        share = (figure - self.start) / (self.end - self.start)
        return round(float(np.clip(100 * share, 0, 100)), 2) if np.isfinite(share) else 0.0


def render(template: str, **values: object) -> str:
    """Return a page.

    Args:
        template: A file of this package's ``templates``.
        values: What the template shows; one that is missing is an error of the template.
    """
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = _environment().get_template(template)
    return page.render(**{"made": made, "version": retinue.__version__, **values})


def jpeg_uri(pixels: NDArray[np.uint8], *, side: int = 360, quality: int = 80) -> str:
    """Return a small JPEG of a picture as a data URI.

    Args:
        pixels: (H, W, 3) uint8, RGB.
        side: The longer side of the result is at most so many pixels.
        quality: 1..100.

    Raises:
        ValueError: another shape or dtype.
    """
    scale = side / max(pixels.shape[:2])
    if scale < 1:
        height, width = (max(1, round(scale * n)) for n in pixels.shape[:2])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        pixels = np.asarray(small, np.uint8)
    content = base64.b64encode(encode_jpeg(pixels, quality)).decode("ascii")
    return f"data:image/jpeg;base64,{content}"


def number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """Return a figure for people: a true minus sign, no "-0.00", a dash for NaN."""
    if not np.isfinite(value):
        return "\N{EN DASH}"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def size(value: float) -> str:
    """Return a number of bytes for people."""
    units = ("B", "kB", "MB", "GB")
    power = 0
    while value >= 1000 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.0f} B" if power == 0 else f"{value:.3g} {units[power]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, size=size)
    environment.globals.update(scale=Scale.over)
    return environment
