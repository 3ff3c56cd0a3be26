"""Frames of a video file, and a video file of frames, through FFmpeg as OpenCV ships it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import (
    CorruptMedia,
    EmptyInput,
    InputNotFound,
    StorageError,
    TooManyPixels,
    UnsupportedMedia,
    storage_errors,
)
from retinue.core.settings import Limits
from retinue.core.types import Image
from retinue.media.sniff import HEAD, sniff

READ = "MP4, MOV, Matroska, WebM, AVI and MPEG videos are read"


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video's header announces.

    Attributes:
        width: Width of an upright frame in pixels.
        height: Height of an upright frame in pixels.
        fps: Frames a second, 25 where the file does not say.
        frames: Number of frames, an estimate in some containers; 0 where the file does not say.
    """

    width: int
    height: int
    fps: float
    frames: int


def _head(path: Path) -> bytes:
    if not path.exists():
        raise InputNotFound(f"no such file: {path}")
    with storage_errors(path, "reading"), path.open("rb") as file:
        return file.read(HEAD)


def is_video(path: Path) -> bool:
    """Tell by a file's content, not its name, whether it is a video container.

    Raises:
        InputNotFound: no such file.
        StorageError: it cannot be read.
    """
    return sniff(_head(path)).kind == "video"


class _Quiet:
    """Keeps OpenCV and FFmpeg from writing to standard error: their failures are raised.

    OpenCV's level is one for the process: the last of the threads inside puts it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._level = 0

    def __enter__(self) -> None:
        # FFmpeg's level is read once, when OpenCV first opens a video.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        with self._lock:
            if self._inside == 0:
                self._level = _logging.getLogLevel()
                _logging.setLogLevel(_logging.LOG_LEVEL_SILENT)
            self._inside += 1

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _logging.setLogLevel(self._level)


_logging = cv2.utils.logging
quiet = _Quiet()
"""For ``with``: OpenCV says nothing on standard error meanwhile."""


@contextmanager
def _open(path: Path, limits: Limits) -> Iterator[tuple[cv2.VideoCapture, VideoInfo]]:
    head = _head(path)
    if not head:
        raise EmptyInput(f"{path} has zero bytes")
    content = sniff(head)
    if content.kind != "video":
        raise UnsupportedMedia(f"{path} looks like {content.name}; {READ}")
    with quiet:
        # An absolute path: FFmpeg takes what is before a colon for a protocol.
        capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            message = f"{path} looks like {content.name} but cannot be opened as one"
            raise CorruptMedia(f"{message}: it is truncated, damaged or of an unknown codec")
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        info = _info(capture)
        check_pixels(path, info.width, info.height, limits)
        yield capture, info
    finally:
        capture.release()


def _info(capture: cv2.VideoCapture) -> VideoInfo:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return VideoInfo(
        width=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        height=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        fps=fps if 0 < fps < 1_000 else 25.0,
        frames=max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))),
    )


def check_pixels(path: Path, width: int, height: int, limits: Limits) -> None:
    """Refuse frames that are larger than the limit.

    Raises:
        TooManyPixels: they have more pixels than ``max_pixels``.
    """
    if width * height > limits.max_pixels:
        size = f"{width:,} x {height:,} = {width * height:,} pixels"
        message = f"frames of {path} have {size}; the limit is {limits.max_pixels:,}"
        raise TooManyPixels(f"{message} (setting limits.max_pixels)")


def probe_video(path: Path, limits: Limits) -> VideoInfo:
    """Read a video's header.

    Raises:
        InputError: as `frames`.
    """
    with _open(path, limits) as (_, info):
        return info


def frames(path: Path, limits: Limits) -> Iterator[tuple[int, float, Image]]:
    """Decode a video frame by frame, upright by its rotation tag.

    One frame is held at a time, so the limits on bytes and on frames, which protect against files
    that unfold in memory, do not apply. A video that was cut short gives the frames that are left.

    Args:
        path: The file.
        limits: ``max_pixels`` is that of one frame.

    Yields:
        Index from 0, seconds from the start, and the frame.

    Raises:
        InputNotFound: no such file.
        EmptyInput: zero bytes.
        UnsupportedMedia: the content is not a video.
        TooManyPixels: frames have more pixels than the limit.
        CorruptMedia: it cannot be opened, or no frame of it can be decoded.
    """
    with _open(path, limits) as (capture, info):
        index = 0
        while True:
            with quiet:
                read, bgr = capture.read()
            if not read:
                break
            height, width = bgr.shape[:2]
            check_pixels(path, width, height, limits)
            pixels = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            position = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            seconds = position if position > 0 or index == 0 else index / info.fps
            yield index, max(0.0, seconds), Image(pixels, width, height)
            index += 1
    if index == 0:
        raise CorruptMedia(f"no frame of {path} can be decoded: it is truncated or damaged")


class VideoWriter:
    """Writes frames to an MP4 file (MPEG-4 part 2, which any FFmpeg-based player shows).

    The codec knows even sizes only: the last row or column of odd ones is repeated. Used as a
    context manager, or closed.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float) -> None:
        """Open the file.

        Args:
            path: The file to write, with the suffix ``.mp4``; one that exists is replaced.
            width: Width of each frame in pixels.
            height: Height of each frame in pixels.
            fps: Frames a second.

        Raises:
            ValueError: the suffix, a size or the rate is wrong.
            NotWritable: the file may not be written.
            StorageError: the encoder cannot be opened.
        """
        if path.suffix.lower() != ".mp4" or width < 1 or height < 1 or not 0 < fps < 1_000:
            raise ValueError(f"cannot write {path}, {width} x {height} at {fps} frames a second")
        with storage_errors(path, "writing the video"), path.open("wb"):
            pass
        self._path, self._size = path, (width, height)
        even = (width + width % 2, height + height % 2)
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        with quiet:
            name = str(path.absolute())
            self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, codec, fps, even)
        if not self._writer.isOpened():
            message = f"cannot encode {path} with frames of {width} x {height}"
            raise StorageError(f"{message}; try a smaller video")

    def write(self, pixels: NDArray[np.uint8]) -> None:
        """Append one frame.

        Args:
            pixels: (height, width, 3) uint8, RGB.

        Raises:
            ValueError: another shape or dtype.
        """
        width, height = self._size
        if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
            message = f"not {pixels.shape} {pixels.dtype}"
            raise ValueError(f"a frame of {self._path} must be ({height}, {width}, 3), {message}")
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        if width % 2 or height % 2:
            border = cv2.BORDER_REPLICATE
            bgr = cv2.copyMakeBorder(bgr, 0, height % 2, 0, width % 2, border)
        self._writer.write(bgr)

    def close(self) -> None:
        """Finish the file. May be called twice."""
        self._writer.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
