"""A camera's frames through Video4Linux, the newest first: a slow taker misses some."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.media.frames import Colour, Frame
from retinue.core.errors import InputNotFound, Unavailable
from retinue.media.video import quiet

SIZE: Final = (1280, 720)
FPS: Final = 30.0
SILENCE_S: Final = 3.0
"""Without a frame for so long, a camera counts as unplugged."""
START_S: Final = 10.0
"""A camera may take so long until its first frame."""
WARM_UP_S: Final = 0.3
"""Frames that come so soon after the first are left out: exposure is not found yet."""
RELEASE_S: Final = 1.0
"""So long is waited for the device to be free again."""

Capture = Callable[[int], Any]


def _open(number: int) -> Any:
    device = Path(f"/dev/video{number}")
    if device.exists() and not os.access(device, os.R_OK | os.W_OK):
        raise InputNotFound(
            f"{device} may not be opened; sudo usermod -aG video $USER, and log in again"
        )
    with quiet:
        return cv2.VideoCapture(number, cv2.CAP_V4L2)


class CameraSource:
    """A camera. Frames are taken on a thread of its own, from the moment it is made.

    Args:
        number: N of ``/dev/videoN``.
        size: Width and height that are asked for, in pixels; it may give others.
        fps: Frames a second that are asked for.
        mirrored: Whether frames are shown as in a mirror.
        silence_s: Seconds without a frame after which it counts as unplugged.
        capture: Opens the device; by default OpenCV does.

    Raises:
        InputNotFound: there is no such camera, or it cannot be opened.
        Unavailable: it gives no frame.
    """

    is_image, is_live, frames, damaged = False, True, 0, 0
    tick, colour, aspect = Fraction(1, 10_000), Colour(), Fraction(1)
    audio: Path | None = None

    def __init__(
        self,
        number: int,
        *,
        size: tuple[int, int] = SIZE,
        fps: float = FPS,
        mirrored: bool = False,
        silence_s: float = SILENCE_S,
        capture: Capture = _open,
    ) -> None:
        self._name, self._mirrored, self._silence_s = f"camera {number}", mirrored, silence_s
        self._device = capture(number)
        if not self._device.isOpened():
            self._device.release()
            device = Path(f"/dev/video{number}")
            wrong = f"{device} is no camera, or another program uses it"
            raise InputNotFound(
                f"there is no {self._name}: {wrong if device.exists() else f'no {device}'}; "
                "ls /dev/video* shows what there is"
            )
        self._ask(size, fps)
        told = float(self._device.get(cv2.CAP_PROP_FPS))
        self.fps = told if 0 < told < 1000 else fps
        self.dropped, self.ended = 0, False
        self._new = threading.Condition()
        self._newest: tuple[float, NDArray[np.uint8]] | None = None
        self._shape: tuple[int, ...] | None = None
        self._lost = self._closed = False
        self._thread = threading.Thread(target=self._take, name=self._name, daemon=True)
        self._thread.start()
        first = self._next(START_S)
        if first is None:
            self.close()
            raise Unavailable(f"{self._name} gives no picture; plug it in again")
        self._first = self._warm(first)
        self.height, self.width = first[1].shape[:2]

    def _ask(self, size: tuple[int, int], fps: float) -> None:
        # Uncompressed, most cameras give 720p at 10 frames a second only: USB 2 carries no more.
        self._device.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        self._device.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        self._device.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        self._device.set(cv2.CAP_PROP_FPS, fps)
        self._device.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def _warm(self, first: tuple[float, NDArray[np.uint8]]) -> tuple[float, NDArray[np.uint8]]:
        with self._new:
            self._new.wait_for(lambda: self._lost, WARM_UP_S)
            newest, self._newest = self._newest, None
        self.dropped += newest is not None
        return newest or first

    def _take(self) -> None:
        while not self._closed:
            try:
                read, pixels = self._device.read()
            except cv2.error:
                read, pixels = False, None
            now = time.monotonic()
            with self._new:
                if not read:
                    self._lost = True
                    self._new.notify_all()
                    break
                self._shape = self._shape or pixels.shape
                # Of another size than the first: the device is being set anew. It counts as silent.
                if pixels.shape == self._shape:
                    self.dropped += self._newest is not None
                    self._newest = (now, pixels)
                    self._new.notify_all()
        self._device.release()

    def _next(self, patience: float) -> tuple[float, NDArray[np.uint8]] | None:
        with self._new:
            self._new.wait_for(
                lambda: self._newest is not None or self._lost or self._closed, patience
            )
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
            if self._mirrored:
                bgr = np.asarray(cv2.flip(bgr, 1), np.uint8)
            pixels = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            seconds = taken - begin
            yield Frame(index, seconds, pixels, round(seconds / self.tick))
            index += 1
            found = self._next(self._silence_s)
        self.ended = True

    def close(self) -> None:
        """Let the camera go. May be called twice."""
        with self._new:
            self._closed = True
            self._new.notify_all()
        # A driver that hangs keeps its own thread, not this one.
        self._thread.join(RELEASE_S)
