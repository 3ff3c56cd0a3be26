"""Photos and video files as frames, upright, with their own time stamps."""

from __future__ import annotations

import importlib
import math
import struct
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.media.frames import Frame, Source
from retinue.core.errors import (
    CorruptMedia,
    EmptyInput,
    InputError,
    InputNotFound,
    MissingExtra,
    StorageError,
    TooManyBytes,
    TooManyPixels,
    storage_errors,
)
from retinue.core.settings import Limits
from retinue.media.decode import decode
from retinue.media.video import is_video

USUAL_FPS: Final = 25.0
MOST_FPS: Final = 1000.0
MANY_DAMAGED: Final = 1000
"""Frames in a row that cannot be decoded, after which the rest is given up."""


def pyav() -> Any:
    """Return PyAV.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtra("video needs PyAV; pip install 'retinue[ar]'") from error


def open_source(path: Path, limits: Limits) -> Source:
    """Return a file's frames: told by its content, not its name.

    Raises:
        InputNotFound: no such file.
        InputError: it is empty, neither a photo nor a video, damaged or too large.
        MissingExtra: it is a video, and PyAV is not installed.
    """
    if not path.exists():
        raise InputNotFound(f"no such file: {path}")
    if not path.is_file():
        raise InputNotFound(f"{path} is no file; give a photo or a video")
    return VideoSource(path, limits) if is_video(path) else ImageSource(path, limits)


class ImageSource:
    """A photo: one frame.

    Args:
        path: The file.
        limits: Of bytes and pixels.
    """

    frames, fps, tick = 1, USUAL_FPS, Fraction(1, 25)
    is_image, is_live, dropped = True, False, 0
    audio: Path | None = None

    def __init__(self, path: Path, limits: Limits) -> None:
        with storage_errors(path, "reading"):
            size = path.stat().st_size
            if size > limits.max_bytes:
                raise TooManyBytes(
                    f"{path} has {size:,} bytes; the limit is {limits.max_bytes:,} "
                    "(setting limits.max_bytes)"
                )
            data = path.read_bytes()
        if not data:
            raise EmptyInput(f"{path} has zero bytes")
        try:
            self._image = decode(data, limits=limits)
        except InputError as error:
            raise type(error)(f"{path}: {error.message}") from error
        self.width, self.height = self._image.width, self._image.height

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        """Yield the one frame."""
        yield Frame(0, 0.0, np.array(self._image.pixels, order="C"))


class VideoSource:
    """A video file.

    Args:
        path: The file.
        limits: ``max_pixels`` of a frame; one is held at a time.

    Raises:
        InputError: it cannot be opened, has no picture, or its frames are too large.
    """

    is_image, is_live, dropped = False, False, 0

    def __init__(self, path: Path, limits: Limits) -> None:
        self._av, self._path, self._limits = pyav(), path, limits
        try:
            self._file = self._av.open(str(path.absolute()))
        except (self._av.FFmpegError, ValueError) as error:
            raise CorruptMedia(
                f"{path} cannot be opened as a video ({error}): it is truncated or damaged"
            ) from error
        try:
            if not self._file.streams.video:
                raise CorruptMedia(f"{path} has no picture, only sound")
            self._stream = self._file.streams.video[0]
            self._check(self._stream.width, self._stream.height)
            self._stream.thread_type = "AUTO"
            rate = self._stream.average_rate or self._stream.guessed_rate
            known = float(rate) if rate else 0.0
            self.fps = known if 0 < known < MOST_FPS else USUAL_FPS
            self.frames = max(0, int(self._stream.frames))
            self.tick = Fraction(self._stream.time_base or Fraction(1, 90_000))
            self.audio = path if self._file.streams.audio else None
            self._decoded = self._decode()
            self._ahead = next(self._decoded, None)
            if self._ahead is None:
                raise CorruptMedia(f"no frame of {path} can be decoded: it is truncated or damaged")
            self.height, self.width = self._ahead.pixels.shape[:2]
        except BaseException:
            self._file.close()
            raise

    def _check(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            size = f"{width:,} x {height:,} = {width * height:,} pixels"
            raise TooManyPixels(
                f"frames of {self._path} have {size}; the limit is {self._limits.max_pixels:,} "
                "(setting limits.max_pixels)"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._decoded.close()
        self._file.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield all frames; one that is damaged is shown as the one before it."""
        assert self._ahead is not None
        yield self._ahead
        for frame in self._decoded:
            if frame.pixels.shape[:2] != (self.height, self.width):
                raise CorruptMedia(
                    f"{self._path} changes its size at frame {frame.index}, from "
                    f"{self.width}x{self.height} to {frame.pixels.shape[1]}x{frame.pixels.shape[0]}"
                )
            yield frame

    def _decode(self) -> Generator[Frame, None, None]:
        index, start, last = 0, None, -1
        before: NDArray[np.uint8] | None = None
        for picture, ticks in self._pictures():
            damaged = picture is None or bool(picture.is_corrupt)
            if picture is None:
                if before is None:
                    continue
                pixels = before.copy()
            else:
                self._check(picture.width, picture.height)
                pixels = _upright(picture)
            step = max(1, round(1 / (self.fps * self.tick)))
            # Time stamps may be missing or run backwards; a frame never comes before the last.
            ticks = ticks if ticks is not None and ticks > last else last + step if index else 0
            start = ticks if start is None else start
            last = ticks
            before = pixels.copy() if damaged or picture is None else pixels
            yield Frame(index, float((ticks - start) * self.tick), pixels.copy(), ticks, damaged)
            index += 1

    def _pictures(self) -> Iterator[tuple[Any, int | None]]:
        """Yield decoded pictures with their time stamps; None for one that cannot be decoded."""
        bad = 0
        packets = self._file.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except self._av.FFmpegError:
                # The container is damaged from here on: what came so far is a whole video.
                return
            except OSError as error:
                raise StorageError(f"reading {self._path}: {error.strerror}") from error
            try:
                pictures = packet.decode()
            except self._av.FFmpegError:
                bad += 1
                if bad > MANY_DAMAGED:
                    return
                yield None, packet.pts
                continue
            for picture in pictures:
                bad = 0
                yield picture, picture.pts


def _upright(picture: Any) -> NDArray[np.uint8]:
    pixels = np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
    for data in picture.side_data:
        if data.type.name == "DISPLAYMATRIX" and len(bytes(data)) >= 36:
            return turned(pixels, struct.unpack("<9i", bytes(data)[:36]))
    return np.ascontiguousarray(pixels)


def turned(pixels: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return pixels as a display matrix (9 numbers, row by row) wants them shown.

    Only right angles and mirrors are followed, which is what phones and editors write.
    """
    a, b, _, c, d = matrix[:5]
    if math.hypot(a, d) < math.hypot(b, c):
        pixels = pixels.transpose(1, 0, 2)
        down, right = b, c
    else:
        down, right = d, a
    if down < 0:
        pixels = pixels[::-1]
    if right < 0:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
