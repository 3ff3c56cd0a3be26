"""Files of finished frames: a photo, or a video with the source's sound and time stamps."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from retinue.apps.ar.media.frames import Frame, Source
from retinue.apps.ar.media.sources import pyav
from retinue.core.errors import DiskFull, InvalidRequest, StorageError, storage_errors
from retinue.media.encode import encode_jpeg, encode_png

PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp")
ENCODERS: Final = {
    ".mp4": ("libx264", "libopenh264", "mpeg4"),
    ".mov": ("libx264", "libopenh264", "mpeg4"),
    ".mkv": ("libx264", "libopenh264", "mpeg4"),
    ".webm": ("libvpx-vp9", "libvpx"),
}
OPTIONS: Final = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "mpeg4": {"qscale": "3"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6", "crf": "30", "row-mt": "1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "6", "crf": "12"},
}
FRAGMENTED: Final = {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
"""An MP4 file whose end is missing can be played so."""
SOUND: Final = {".webm": ("opus", "vorbis"), ".mp4": ("aac", "mp3", "ac3", "opus", "alac")}
"""Codecs that a container takes as they are; others become ``NEW_SOUND``."""
NEW_SOUND: Final = {".webm": "libopus"}
MOST_MPEG4_STEPS: Final = 65_535
KEY_EVERY_S: Final = 1.0


def open_sink(path: Path, like: Source) -> ImageSink | VideoSink:
    """Return what writes a file, by its suffix.

    Raises:
        InvalidRequest: the suffix is of no kind that is written, or a video is to become a photo.
        MissingExtra: a video is to be written, and PyAV is not installed.
        StorageError: it cannot be written there.
    """
    suffix = path.suffix.lower()
    if suffix in PICTURES:
        if not like.is_image:
            raise InvalidRequest(f"{path} is a photo's name; a video goes to .mp4, .mkv or .webm")
        return ImageSink(path)
    if suffix not in ENCODERS:
        known = ", ".join((*PICTURES, *ENCODERS))
        raise InvalidRequest(f"{path}: cannot write {suffix or 'a name without suffix'}; {known}")
    return VideoSink(path, like)


class ImageSink:
    """Writes one photo, whole or not at all.

    Args:
        path: The file; one that exists is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path, "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, pixels: NDArray[np.uint8], frame: Frame) -> bool:
        """Write the photo."""
        part = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        suffix = self._path.suffix.lower()
        with storage_errors(self._path, "writing"):
            try:
                if suffix == ".webp":
                    Pillow.fromarray(pixels).save(part, "WEBP", quality=92)
                else:
                    png = suffix == ".png"
                    part.write_bytes(encode_png(pixels) if png else encode_jpeg(pixels, 94))
                part.replace(self._path)
            finally:
                part.unlink(missing_ok=True)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        pass


class VideoSink:
    """Writes a video as its frames come; what is written so far can be played at any moment.

    Args:
        path: The file; one that exists is replaced.
        like: Gives size, rate, time stamps and sound.

    Raises:
        StorageError: it cannot be written there, or there is no encoder.
    """

    def __init__(self, path: Path, like: Source) -> None:
        self._av, self._path = pyav(), path
        self._suffix = path.suffix.lower()
        self._size = (like.width, like.height)
        self._even = (like.width + like.width % 2, like.height + like.height % 2)
        self._first: int | None = None
        with storage_errors(path, "writing"):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Before FFmpeg tries: its own messages do not tell a missing right from a bad name.
            path.open("wb").close()
        options = FRAGMENTED if self._suffix in (".mp4", ".mov") else {}
        with self._errors():
            self._file = self._av.open(str(path.absolute()), "w", options=dict(options))
        try:
            self._video = self._add_video(like)
            self._sound = _Sound(self._av, like.audio, self._file, self._suffix)
        except BaseException:
            self._file.close()
            raise

    def _add_video(self, like: Source) -> Any:
        names = [n for n in ENCODERS[self._suffix] if n in self._av.codecs_available]
        if not names:
            raise StorageError(f"this FFmpeg has no encoder for {self._suffix} files")
        # MPEG-4 part 2 counts in at most 65,535 steps a second.
        coarse = names[0] == "mpeg4" and like.tick.denominator > MOST_MPEG4_STEPS
        self._tick = Fraction(1, 10_000) if coarse else like.tick
        self._like_tick = like.tick
        with self._errors():
            rate = Fraction(like.fps).limit_denominator(1001)
            stream = self._file.add_stream(names[0], rate=rate)
            stream.width, stream.height = self._even
            stream.pix_fmt = "yuv420p"
            stream.codec_context.gop_size = max(1, round(KEY_EVERY_S * like.fps))
            stream.codec_context.max_b_frames = 0
            stream.time_base = stream.codec_context.time_base = self._tick
            stream.options = dict(OPTIONS.get(names[0], {}))
        return stream

    def write(self, pixels: NDArray[np.uint8], frame: Frame) -> bool:
        """Append a frame, at its own time.

        Raises:
            InvalidRequest: it is of another size than the source's.
            DiskFull, StorageError: it cannot be written; what was is kept.
        """
        if pixels.shape != (self._size[1], self._size[0], 3):
            raise InvalidRequest(f"a frame of {pixels.shape} in a video of {self._size}")
        if self._even != self._size:
            wide, high = (e - s for e, s in zip(self._even, self._size, strict=True))
            pixels = np.asarray(
                cv2.copyMakeBorder(pixels, 0, high, 0, wide, cv2.BORDER_REPLICATE), np.uint8
            )
        picture = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        picture.pts = round(frame.ticks * self._like_tick / self._tick)
        picture.time_base = self._tick
        with self._errors():
            self._sound.until(self._file, float(frame.ticks * self._like_tick))
            for packet in self._video.encode(picture):
                self._file.mux(packet)
        return True

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._av.FFmpegError as error:
            code = getattr(error, "errno", None)
            if code == errno.ENOSPC:
                raise DiskFull(
                    f"no room left for {self._path}; what was recorded so far can be played"
                ) from error
            raise StorageError(f"writing {self._path}: {error}") from error
        except OSError as error:
            kind = DiskFull if error.errno == errno.ENOSPC else StorageError
            raise kind(f"writing {self._path}: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, failure: object, trace: object) -> None:
        if failure is not None:
            with contextlib.suppress(self._av.FFmpegError, OSError):
                self._finish()
            with contextlib.suppress(self._av.FFmpegError, OSError):
                self._file.close()
            self._sound.close()
            return
        try:
            with self._errors():
                self._finish()
                self._file.close()
        finally:
            self._sound.close()

    def _finish(self) -> None:
        for packet in self._video.encode():
            self._file.mux(packet)
        self._sound.until(self._file, float("inf"))


class _Sound:
    """Carries a file's sound over: packets as they are where the container takes them."""

    def __init__(self, av: Any, source: Path | None, file: Any, suffix: str) -> None:
        self._av = av
        self._into: Any = None
        self._packets: Any = None
        self._input: Any = None
        self._ahead: Any = None
        self._copied = True
        if source is None:
            return
        self._input = av.open(str(source.absolute()))
        stream = self._input.streams.audio[0]
        taken = SOUND.get(suffix, SOUND[".mp4"])
        self._copied = suffix == ".mkv" or stream.codec_context.name in taken
        if self._copied:
            self._into = file.add_stream_from_template(stream)
        else:
            codec = NEW_SOUND.get(suffix, "aac")
            self._into = file.add_stream(codec, rate=48_000 if codec == "libopus" else stream.rate)
        self._packets = self._input.demux(stream)

    def until(self, file: Any, seconds: float) -> None:
        """Write the sound up to a time of the source's clock."""
        while self._packets is not None:
            packet = self._ahead or next(self._packets, None)
            self._ahead = None
            if packet is None or packet.dts is None:
                if packet is not None and packet.size:
                    continue
                self._packets = None
                self._flush(file)
                return
            if float(packet.dts * packet.time_base) > seconds:
                self._ahead = packet
                return
            self._carry(file, packet)

    def _carry(self, file: Any, packet: Any) -> None:
        if self._copied:
            packet.stream = self._into
            file.mux(packet)
            return
        try:
            frames = packet.decode()
        except self._av.FFmpegError:
            return
        for frame in frames:
            for made in self._into.encode(frame):
                file.mux(made)

    def _flush(self, file: Any) -> None:
        if not self._copied:
            for made in self._into.encode(None):
                file.mux(made)

    def close(self) -> None:
        """Close the source. May be called twice."""
        if self._input is not None:
            self._input.close()
            self._input = None
