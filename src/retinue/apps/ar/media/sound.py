"""The sound of a file, carried over into another: as it is, or encoded anew."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from retinue.apps.ar.media.pictures import open_file
from retinue.core.errors import CorruptMedia

TAKEN: Final = {
    ".webm": ("opus", "vorbis"),
    ".mp4": ("aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"),
    ".mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le"),
}
"""Codecs that a container takes as they are, in players too; Matroska takes all."""
NEW: Final = {".webm": "libopus"}
"""What others become; AAC where nothing is said."""
OPUS_RATE: Final = 48_000
AAC_RATES: Final = (8_000, 96_000)
LAYOUTS: Final = {1: "mono", 2: "stereo", 6: "5.1"}
"""By the number of channels; others become stereo."""
SILENT_S: Final = 0.02
"""Gaps below are taken for rounding."""
MOST_SILENT_S: Final = 600.0
"""A longer gap is damage: that track ends there."""


class Sound:
    """All sound tracks of a file, written beside the frames as their time comes.

    A source that turns out to be damaged ends its sound early; that is no failure of the video.

    Args:
        av: PyAV.
        source: The file with the sound; None without any.
        into: The open output, before its first packet.
        suffix: Of the output, which tells the container.
    """

    def __init__(self, av: Any, source: Path | None, into: Any, suffix: str) -> None:
        self._av, self._into = av, into
        self._input: Any = None
        self._tracks: dict[int, _Copied | _Encoded] = {}
        self._packets: Iterator[Any] = iter(())
        self._ahead: Any = None
        if source is None:
            return
        try:
            self._input = open_file(av, source)
        except CorruptMedia:
            return
        wanted = []
        for stream in self._input.streams.audio:
            track = self._track(stream, suffix)
            if track is not None:
                self._tracks[stream.index] = track
                wanted.append(stream)
        if wanted:
            self._packets = iter(self._input.demux(wanted))

    def _track(self, stream: Any, suffix: str) -> _Copied | _Encoded | None:
        if stream.codec_context is None:
            return None
        taken = TAKEN.get(suffix)
        if taken is None or stream.codec_context.codec.canonical_name in taken:
            try:
                return _Copied(self._av, stream, self._into, suffix)
            except (self._av.FFmpegError, ValueError):
                # The container does not take it after all.
                pass
        try:
            return _Encoded(self._av, stream, self._into, NEW.get(suffix, "aac"))
        except (self._av.FFmpegError, ValueError):
            return None

    def until(self, seconds: float) -> None:
        """Write the sound up to a time of the source's clock."""
        while (packet := self._next()) is not None:
            if packet.dts is None:
                continue
            if float(packet.dts * packet.time_base) > seconds:
                self._ahead = packet
                return
            self._mux(packet.stream.index, packet)

    def _next(self) -> Any:
        packet, self._ahead = self._ahead, None
        if packet is not None:
            return packet
        try:
            return next(self._packets, None)
        except self._av.FFmpegError:
            self._packets = iter(())
            return None

    def _mux(self, index: int, packet: Any) -> None:
        track = self._tracks.get(index)
        try:
            for made in track.carry(packet) if track else ():
                self._into.mux(made)
        except (self._av.FFmpegError, ValueError):
            # Of a kind that nothing can be made of: the track ends here.
            del self._tracks[index]

    def finish(self, seconds: float) -> None:
        """Write the rest, up to a time."""
        self.until(seconds)
        for index in list(self._tracks):
            self._mux(index, None)

    def close(self) -> None:
        """Close the source. May be called twice."""
        if self._input is not None:
            self._input.close()
            self._input = None


class _Copied:
    """Packets as they are."""

    def __init__(self, av: Any, stream: Any, into: Any, suffix: str) -> None:
        self._stream = into.add_stream_from_template(stream)
        self._last: int | None = None
        self._filter: Any = None
        # MPEG streams repeat a header before each AAC packet; MP4 has it once, in its own place.
        codec = stream.codec_context
        bare = codec.codec.canonical_name == "aac" and not codec.extradata
        if bare and suffix in (".mp4", ".mov"):
            self._filter = av.bitstream.BitStreamFilterContext("aac_adtstoasc", stream)

    def carry(self, packet: Any) -> Iterator[Any]:
        # Containers refuse time that stands still; a damaged source may have it.
        if packet is None or (self._last is not None and packet.dts <= self._last):
            return
        if self._last is not None:
            _no_pause(float((packet.dts - self._last) * packet.time_base))
        self._last = packet.dts
        for made in [packet] if self._filter is None else self._filter.filter(packet):
            made.stream = self._stream
            yield made


class _Encoded:
    """Decoded and encoded anew, with silence where the source has a gap."""

    def __init__(self, av: Any, stream: Any, into: Any, codec: str) -> None:
        self._av, self._codec = av, stream.codec_context
        self._rate = int(stream.rate)
        low, high = AAC_RATES
        rate = OPUS_RATE if codec == "libopus" else min(max(self._rate, low), high)
        self._stream = into.add_stream(codec, rate=rate)
        self._stream.codec_context.layout = LAYOUTS.get(stream.channels, "stereo")
        self._heard: int | None = None

    def carry(self, packet: Any) -> Iterator[Any]:
        try:
            frames = self._codec.decode(packet)
        except EOFError:
            frames = []
        except self._av.FFmpegError:
            # One that is damaged leaves a gap, which becomes silence.
            frames = []
        for frame in frames:
            yield from self._heard_at(frame)
        if packet is None and self._heard is not None:
            yield from self._stream.encode(None)

    def _heard_at(self, frame: Any) -> Iterator[Any]:
        start = round(frame.pts * frame.time_base * self._rate) if frame.pts is not None else None
        if self._heard is None:
            self._heard = start or 0
        gap = 0 if start is None else start - self._heard
        if gap < -SILENT_S * self._rate:
            return
        _no_pause(gap / self._rate)
        while gap > SILENT_S * self._rate:
            silent = _silence(self._av, frame, min(gap, self._rate))
            gap -= silent.samples
            yield from self._give(silent)
        yield from self._give(frame)

    def _give(self, frame: Any) -> list[Any]:
        assert self._heard is not None
        frame.pts, frame.time_base = self._heard, Fraction(1, self._rate)
        self._heard += frame.samples
        return list(self._stream.encode(frame))


def _no_pause(seconds: float) -> None:
    if seconds > MOST_SILENT_S:
        raise ValueError(f"a gap of {seconds:.0f} seconds")


def _silence(av: Any, like: Any, samples: int) -> Any:
    frame = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=samples)
    frame.sample_rate = like.sample_rate
    still = b"\x80" if like.format.name.startswith("u8") else b"\0"
    for plane in frame.planes:
        plane.update(still * plane.buffer_size)
    return frame
