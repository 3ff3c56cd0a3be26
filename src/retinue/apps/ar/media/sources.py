"""Photos and video files as frames, upright, with their own time stamps."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.media.frames import Colour, Frame, Source
from retinue.apps.ar.media.pictures import (
    Picture,
    display_matrix,
    is_sideways,
    open_file,
    pictures,
    pyav,
    turned,
)
from retinue.core.errors import (
    CorruptMedia,
    EmptyInput,
    InputError,
    InputNotFound,
    TooManyBytes,
    UnsupportedMedia,
    storage_errors,
)
from retinue.core.settings import Limits
from retinue.media.decode import decode
from retinue.media.video import check_pixels, is_video

USUAL_FPS: Final = 25.0
MOST_FPS: Final = 1000.0
MOST_GUESSED: Final = 125.0
"""FFmpeg's guess for a variable rate is the finest of its steps: 300 a second, for example."""
JUMP_S: Final = 10.0
"""A jump in the time of a broadcast is a new beginning; elsewhere it is a still picture."""
SQUARE: Final = Fraction(1)


def open_source(path: Path, limits: Limits) -> Source:
    """Return a file's frames: told by its content, not its name.

    Raises:
        InputNotFound: no such file.
        InputError: it is empty, neither a photo nor a video, damaged or too large.
        MissingExtra: it is a video, and PyAV is not installed.
        StorageError: it cannot be read.
    """
    if not path.exists():
        raise InputNotFound(f"no such file: {path}")
    if not path.is_file():
        raise InputNotFound(f"{path} is no file; give a photo or a video")
    return VideoSource(path, limits) if is_video(path) else ImageSource(path, limits)


class ImageSource:
    """A photo: one frame. What is transparent lies on white.

    Args:
        path: The file.
        limits: Of bytes and pixels.
    """

    frames, fps, tick = 1, USUAL_FPS, Fraction(1, 25)
    is_image, is_live, dropped, damaged = True, False, 0, 0
    audio: Path | None = None
    colour, aspect = Colour(), SQUARE

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
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        """Yield the one frame."""
        self.ended = True
        yield Frame(0, 0.0, np.array(self._image.pixels, order="C"))


class VideoSource:
    """A video file.

    Turned and mirrored as the file says; alpha is left out, 10 bits are shown as 8, and where
    frames change their size they are brought to that of the first. As many frames are given as are
    shown by a player, each with the file's own time stamp; one that is lost to damage is the frame
    before it again.

    Args:
        path: The file.
        limits: ``max_pixels`` of a frame; one is held at a time.

    Raises:
        InputError: it cannot be opened, has no picture, or its frames are too large.
    """

    is_image, is_live, dropped = False, False, 0

    def __init__(self, path: Path, limits: Limits) -> None:
        self._av, self._path, self._limits = pyav(), path, limits
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._size: tuple[int, int] | None = None
        self.damaged, self.ended = 0, False
        self._file = open_file(self._av, path, limits.max_pixels)
        try:
            self._read_header()
            self._decoded = self._decode()
            ahead = next(self._decoded, None)
            if ahead is None:
                raise CorruptMedia(f"no frame of {path} can be decoded: it is truncated or damaged")
            self._ahead = ahead
            self.height, self.width = ahead.pixels.shape[:2]
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        stream = self._file.streams.best("video")
        if stream is None:
            raise CorruptMedia(f"{self._path} has no picture, only sound")
        self._stream, context = stream, stream.codec_context
        if context is None:
            raise UnsupportedMedia(f"{self._path} is of a codec that FFmpeg does not know")
        check_pixels(self._path, context.width, context.height, self._limits)
        context.thread_type = "AUTO"
        # The header may announce less than the pictures have: the decoder refuses those too.
        context.options = {"max_pixels": self._file.options["max_pixels"]}
        self.fps = _fps(stream.average_rate, MOST_FPS) or _fps(stream.guessed_rate, MOST_GUESSED)
        self.fps = self.fps or USUAL_FPS
        self.tick = Fraction(stream.time_base or Fraction(1, 90_000))
        self.frames = max(0, int(stream.frames)) or self._estimated()
        self.audio = self._path if self._file.streams.audio else None

    def _estimated(self) -> int:
        seconds = float((self._file.duration or 0) / self._av.time_base)
        return max(0, round(seconds * self.fps))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._decoded.close()
        self._file.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield all frames."""
        yield self._counted(self._ahead)
        for frame in self._decoded:
            yield self._counted(frame)
        self.ended = True

    def _counted(self, frame: Frame) -> Frame:
        self.damaged += frame.damaged
        return frame

    def _decode(self) -> Generator[Frame, None, None]:
        broken = bool(self._file.format.flags & self._av.format.Flags.ts_discont.value)
        clock = _Clock(max(1, round(1 / (self.fps * self.tick))), self.tick, broken=broken)
        index, before = 0, None
        early: list[Picture] = []
        for picture in pictures(self._av, self._file, self._stream):
            if picture.shown is None and before is None:
                # Lost before there is anything to show: the first that comes is shown for them.
                early.append(picture)
                continue
            if before is None:
                self._learn(picture.shown)
            before = picture.shown or before
            for one in [*early, picture]:
                now = clock.next(one.ticks)
                seconds = float((now - clock.start) * self.tick)
                yield Frame(index, seconds, self._upright(before), now, one.damaged)
                index += 1
            early = []

    def _learn(self, picture: Any) -> None:
        """Take over what only a picture tells."""
        self._size = (picture.width, picture.height)
        self.colour = Colour(picture.colorspace, picture.color_primaries, picture.color_trc)
        aspect = Fraction(self._stream.sample_aspect_ratio or 1)
        self.aspect = aspect if 0 < aspect < 100 else SQUARE
        if is_sideways(display_matrix(picture)):
            self.aspect = 1 / self.aspect

    def _upright(self, picture: Any) -> NDArray[np.uint8]:
        assert self._size is not None
        check_pixels(self._path, picture.width, picture.height, self._limits)
        try:
            shown = self._reformatter.reformat(picture, *self._size, format="rgb24")
        except (self._av.FFmpegError, ValueError) as error:
            raise UnsupportedMedia(
                f"{self._path} has pixels of a kind that is not read, {picture.format.name}"
            ) from error
        pixels = np.asarray(shown.to_ndarray(), np.uint8)
        # The decoder may look back at its own picture: nobody draws on that one.
        own = shown is not picture and pixels.flags.writeable
        pixels = np.ascontiguousarray(pixels) if own else pixels.copy()
        return turned(pixels, display_matrix(picture))


def _fps(rate: Fraction | None, most: float) -> float:
    return float(rate) if rate and 0 < rate < most else 0.0


class _Clock:
    """Time stamps that never run backwards, whatever a file says.

    Args:
        step: Ticks from frame to frame, where nothing else is known.
        tick: Seconds of a tick.
        broken: Whether the container's time may jump, as that of broadcasts does.
    """

    def __init__(self, step: int, tick: Fraction, *, broken: bool) -> None:
        self._step = step
        self._jump = max(step, round(JUMP_S / tick)) if broken else None
        self._offset = 0
        self._last: int | None = None
        self.start = 0

    def next(self, ticks: int | None) -> int:
        if self._last is None:
            self._last = self.start = ticks or 0
            return self._last
        expected = self._last + self._step
        if ticks is None:
            self._last = expected
            return expected
        if self._jump is not None and abs(ticks + self._offset - expected) > self._jump:
            self._offset = expected - ticks
        ticks += self._offset
        # A little late is one tick after the last, so that those behind it keep theirs.
        self._last = max(ticks, self._last + 1) if ticks > self._last - self._step else expected
        return self._last
