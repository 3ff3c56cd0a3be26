"""One frame on its way, and where frames come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Colour:
    """What a video says of its colours, by the numbers of ITU-T H.273; 2 is "unspecified".

    Attributes:
        matrix: Between RGB and what is stored.
        primaries: What red, green and blue are.
        transfer: From light to number, gamma.
    """

    matrix: int = 1
    primaries: int = 1
    transfer: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture and its time.

    Attributes:
        index: From 0.
        seconds: From the first frame; never less than the one before.
        pixels: (H, W, 3) uint8 RGB, upright, writeable: its receiver may draw on it.
        ticks: The file's own time stamp in units of the source's ``tick``.
        damaged: Whether it could not be decoded; the pixels are then those of the frame before, or
            what the decoder made of it.
    """

    index: int
    seconds: float
    pixels: NDArray[np.uint8]
    ticks: int = 0
    damaged: bool = False


class Source(Protocol):
    """Frames, in order; opened as a context manager, read once.

    Attributes:
        width: Of an upright frame in pixels.
        height: Of an upright frame in pixels.
        fps: Frames a second, about.
        frames: How many there are, about; 0 where nobody knows.
        tick: Seconds of one unit of a frame's time stamp.
        is_image: Whether it is one still picture.
        is_live: Whether frames come as time passes.
        audio: The file that its sound is in; None without any.
        colour: What its colours are.
        aspect: Width of a pixel over its height, as it is to be shown.
        dropped: Frames that came and were not taken, because their taker was slow.
        damaged: Frames so far that could not be decoded.
        ended: Whether its last frame was given.
    """

    width: int
    height: int
    fps: float
    frames: int
    tick: Fraction
    is_image: bool
    is_live: bool
    audio: Path | None
    colour: Colour
    aspect: Fraction
    dropped: int
    damaged: int
    ended: bool

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames.

        Raises:
            InputError: the source is not what it seemed to be, or ends too early.
        """
        ...
