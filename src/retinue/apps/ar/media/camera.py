"""A camera's frames through Video4Linux, the newest first: a slow taker misses some."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.media.frames import Frame
from retinue.core.errors import InputNotFound, Unavailable

SIZE: Final = (1280, 720)
FPS: Final = 30.0
SILENCE_S: Final = 3.0
"""Without a frame for so long, a camera counts as unplugged."""
START_S: Final = 10.0
"""A camera may take so long until its first frame."""

Capture = Callable[[int], Any]


def _open(number: int) -> Any:
    return cv2.VideoCapture(number, cv2.CAP_V4L2)


class CameraSource:
    """A camera. Frames are taken on a thread of its own, from the moment it is made.

    Args:
        number: N of ``/dev/videoN``.
        mirrored: Whether frames are shown as in a mirror.
        capture: Opens the device; by default OpenCV does.

    Raises:
        InputNotFound: there is no such camera, or it cannot be opened.
        Unavailable: it gives no frame.
    """

    is_image, is_live, frames = False, True, 0
    tick = Fraction(1, 10_000)
    audio: Path | None = None

    def __init__(self, number: int, *, mirrored: bool = False, capture: Capture = _open) -> None:
        self._name, self._mirrored = f"camera {number}", mirrored
        self._device = capture(number)
        if not self._device.isOpened():
            self._device.release()
            raise InputNotFound(
                f"there is no {self._name}, or another program uses it; "
                "ls /dev/video* shows what there is"
            )
        self._device.set(cv2.CAP_PROP_FRAME_WIDTH, SIZE[0])
        self._device.set(cv2.CAP_PROP_FRAME_HEIGHT, SIZE[1])
        self._device.set(cv2.CAP_PROP_FPS, FPS)
        told = float(self._device.get(cv2.CAP_PROP_FPS))
        self.fps = told if 0 < told < 1000 else FPS
        self.dropped = 0
        self._new = threading.Condition()
        self._newest: tuple[float, NDArray[np.uint8]] | None = None
        self._lost = self._closed = False
        threading.Thread(target=self._take, name=self._name, daemon=True).start()
        first = self._next(START_S)
        if first is None:
            self.close()
            raise Unavailable(f"{self._name} gives no picture; plug it in again")
        self._first = first
        self.height, self.width = first[1].shape[:2]

    def _take(self) -> None:
        while not self._closed:
            read, pixels = self._device.read()
            now = time.monotonic()
            with self._new:
                if not read:
                    self._lost = True
                    self._new.notify_all()
                    break
                self.dropped += self._newest is not None
                self._newest = (now, pixels)
                self._new.notify_all()
        self._device.release()

    def _next(self, patience: float) -> tuple[float, NDArray[np.uint8]] | None:
        with self._new:
            self._new.wait_for(lambda: self._newest is not None or self._lost, patience)
            found, self._newest = self._newest, None
            return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the camera is closed.

        Raises:
            Unavailable: it was unplugged, or has given nothing for three seconds.
        """
        begin, index = self._first[0], 0
        found: tuple[float, NDArray[np.uint8]] | None = self._first
        while not self._closed:
            if found is None:
                raise Unavailable(
                    f"{self._name} gives no more pictures after {index} frames; is it unplugged? "
                    "What was recorded so far is kept"
                )
            taken, bgr = found
            if bgr.shape[:2] == (self.height, self.width):
                pixels = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
                if self._mirrored:
                    pixels = np.ascontiguousarray(pixels[:, ::-1])
                seconds = taken - begin
                yield Frame(index, seconds, pixels, round(seconds / self.tick))
                index += 1
            found = self._next(SILENCE_S)

    def close(self) -> None:
        """Let the camera go. May be called twice."""
        self._closed = True
