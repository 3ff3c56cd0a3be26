"""Files of finished frames: a photo, or a video with the source's sound and time stamps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from retinue.apps.ar.media.frames import Colour, Frame, Source
from retinue.apps.ar.media.output import Output
from retinue.apps.ar.media.pictures import pyav
from retinue.apps.ar.media.sound import Sound
from retinue.core.errors import InvalidRequest, StorageError, storage_errors
from retinue.media.encode import encode_jpeg, encode_png

PICTURES: Final = {".jpg": 65_500, ".jpeg": 65_500, ".png": 65_535, ".webp": 16_383}
"""Longest side of a photo by its suffix, in pixels."""
ENCODERS: Final = {
    ".mp4": ("libx264", "libopenh264", "mpeg4"),
    ".mov": ("libx264", "libopenh264", "mpeg4"),
    ".mkv": ("libx264", "libopenh264", "mpeg4"),
    ".webm": ("libvpx-vp9", "libvpx"),
}
OPTIONS: Final = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libopenh264": {"b": "8000000"},
    "mpeg4": {"qscale": "3"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6", "crf": "30", "b": "0", "row-mt": "1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "6", "crf": "12", "b": "8000000"},
}
LIVE: Final = {
    "libx264": {"preset": "superfast", "crf": "20"},
    "libvpx-vp9": {"cpu-used": "8"},
    "libvpx": {"cpu-used": "12"},
}
"""What is less small but fast enough for a camera."""
FRAGMENTED: Final = {"movflags": "hybrid_fragmented+frag_keyframe+delay_moov+default_base_moof"}
"""An MP4 file whose end is missing can be played; at its end it becomes an ordinary one."""
FINEST_CLOCK: Final = 10_000
MOST_CLOCK: Final = 2**31 - 1
MOST_MPEG4_STEPS: Final = 65_535
KEY_EVERY_S: Final = 1.0
MATRICES: Final = {1: 1, 2: 5, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
"""From H.273's numbers of matrices to the scaler's; "unspecified" is what it takes it for."""
LIMITED: Final = 1
"""H.273's range that players expect: black is 16."""


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
        if max(like.width, like.height) > PICTURES[suffix]:
            raise InvalidRequest(
                f"{path}: {suffix} files have sides of {PICTURES[suffix]:,} pixels at most, not "
                f"{like.width:,} x {like.height:,}; write a .png"
            )
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

    Frames keep the source's time stamps, colours and shape of pixels, and its sound goes along.
    A file that exists is replaced when the first frame comes.

    Args:
        path: The file.
        like: The source, for all that is kept.

    Raises:
        StorageError: it cannot be written there, or there is no encoder.
    """

    def __init__(self, path: Path, like: Source) -> None:
        self._av, self._path, self._like = pyav(), path, like
        self._suffix = path.suffix.lower()
        names = [n for n in ENCODERS[self._suffix] if n in self._av.codecs_available]
        if not names:
            raise StorageError(f"this FFmpeg has no encoder for {self._suffix} files")
        self._encoder = names[0]
        self._even = (like.width + like.width % 2, like.height + like.height % 2)
        # MPEG-4 part 2 counts in at most 65,535 steps a second.
        coarse = self._encoder == "mpeg4" and like.tick.denominator > MOST_MPEG4_STEPS
        self._tick = Fraction(1, 10_000) if coarse else like.tick
        self._matrix = MATRICES.get(like.colour.matrix)
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._output = Output(path)
        self._file: Any = None
        self._until = 0.0

    def _open(self) -> None:
        container = "matroska" if self._suffix == ".mkv" else self._suffix[1:]
        options = {"flush_packets": "1"}
        if self._suffix in (".mp4", ".mov"):
            # What a first frame's time stamp is rounded to, else a millisecond.
            clock = self._tick.denominator * -(-FINEST_CLOCK // self._tick.denominator)
            options |= {**FRAGMENTED, "movie_timescale": str(min(clock, MOST_CLOCK))}
        self._output.open()
        file = self._av.open(self._output, "w", format=container, options=options)
        self._video = self._add_video(file)
        self._sound = Sound(self._av, self._like.audio, file, self._suffix)
        self._file = file

    def _add_video(self, file: Any) -> Any:
        rate = Fraction(self._like.fps).limit_denominator(1001)
        stream = file.add_stream(self._encoder, rate=rate)
        context = stream.codec_context
        stream.width, stream.height = self._even
        stream.pix_fmt = "yuv420p"
        context.gop_size = max(1, round(KEY_EVERY_S * self._like.fps))
        context.max_b_frames = 0
        stream.time_base = context.time_base = self._tick
        options = dict(OPTIONS[self._encoder])
        if self._like.is_live:
            options |= LIVE.get(self._encoder, {})
        stream.options = options
        colour = self._like.colour if self._matrix else Colour()
        context.colorspace, context.color_range = colour.matrix, LIMITED
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        if self._like.aspect != 1:
            context.sample_aspect_ratio = self._like.aspect
        return stream

    def write(self, pixels: NDArray[np.uint8], frame: Frame) -> bool:
        """Append a frame, at its own time.

        Raises:
            InvalidRequest: it is of another size than the source's.
            DiskFull, StorageError: it cannot be written; what was is kept.
        """
        size = (self._like.width, self._like.height)
        if pixels.shape != (size[1], size[0], 3):
            raise InvalidRequest(
                f"a frame of {pixels.shape[1]} x {pixels.shape[0]} in a video of {size[0]} x "
                f"{size[1]}: all frames of a file have one size"
            )
        with self._errors():
            if self._file is None:
                self._open()
            picture = self._picture(pixels)
            picture.pts = round(frame.ticks * self._like.tick / self._tick)
            picture.time_base = self._tick
            now = float(frame.ticks * self._like.tick)
            self._until = now + 1 / self._like.fps
            self._sound.until(now)
            self._file.mux(self._video.encode(picture))
        return True

    def _picture(self, pixels: NDArray[np.uint8]) -> Any:
        wide, high = self._even[0] - pixels.shape[1], self._even[1] - pixels.shape[0]
        if wide or high:
            pixels = np.asarray(
                cv2.copyMakeBorder(pixels, 0, high, 0, wide, cv2.BORDER_REPLICATE), np.uint8
            )
        return self._reformatter.reformat(
            self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
            format="yuv420p",
            dst_colorspace=self._matrix or 1,
            dst_color_range=LIMITED,
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        failure: Exception | None = None
        try:
            yield
        except (self._av.FFmpegError, ValueError, OSError) as error:
            failure = error
        # FFmpeg's own words for a failed write say less than the file's.
        failure = self._output.failure or failure
        if isinstance(failure, OSError) and not isinstance(failure, self._av.FFmpegError):
            with storage_errors(self._path, "writing (what was recorded so far is kept)"):
                raise failure
        if failure is not None:
            raise StorageError(f"writing {self._path}: {failure}") from failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, failure: object, trace: object) -> None:
        if self._file is None:
            self._output.close()
            return
        try:
            with self._errors():
                self._finish()
        except StorageError:
            # The first failure is the one that is told.
            if failure is None:
                raise
        finally:
            self._sound.close()

    def _finish(self) -> None:
        try:
            self._file.mux(self._video.encode())
            self._sound.finish(float("inf") if self._like.ended else self._until)
        finally:
            try:
                self._file.close()
            finally:
                self._output.close()
