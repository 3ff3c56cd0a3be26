"""Decoded pictures of a video stream in order, with the time stamps of those that were lost."""

from __future__ import annotations

import heapq
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.core.errors import CorruptMedia, MissingExtra

MANY_DAMAGED: Final = 1000
"""Failures in a row, of the decoder or of the container, after which the rest is given up."""
CODED_SLACK: Final = 1 << 20
"""Pixels that a coded picture may have beyond the shown ones: codecs fill up whole blocks."""


def pyav() -> Any:
    """Return PyAV.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingExtra("video needs PyAV; pip install 'retinue[ar]'") from error


def open_file(av: Any, path: Path, max_pixels: int | None = None) -> Any:
    """Open a media file for reading.

    Raises:
        CorruptMedia: it cannot be opened.
    """
    # Containers may name other files and addresses as parts of theirs: none is followed.
    options = {"protocol_whitelist": "file"}
    if max_pixels is not None:
        options["max_pixels"] = str(max_pixels + CODED_SLACK)
    try:
        # An absolute path: FFmpeg takes what is before a colon for a protocol.
        return av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorruptMedia(
            f"{path} cannot be opened as a video ({reason}): it is truncated or damaged"
        ) from error


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a stream.

    Attributes:
        shown: PyAV's frame; None for one that was lost.
        ticks: Its time stamp, None where there is none.
        damaged: Whether it was lost, or made of what is known to be incomplete.
    """

    shown: Any
    ticks: int | None
    damaged: bool


class _Ledger:
    """Tells which pictures a damaged stream owes: those of packets that gave none.

    A packet without a picture is no loss as such: VP8 has hidden ones, interlaced H.264 two for
    one picture, and a stream that was cut begins with such. It is one from where the decoder failed
    to the key frame behind the gap. HEVC's decoder fails silently, so there every gap counts.
    """

    def __init__(self, codec: str) -> None:
        self._silent = codec == "hevc"
        self._owed: list[int] = []
        self._partial: set[int] = set()
        self._replaced: set[int] = set()
        self._failed = self._told = self._begun = self._gaps = False

    def sent(self, packet: Any) -> None:
        if packet.pts is None or not packet.size or packet.is_discard:
            return
        heapq.heappush(self._owed, packet.pts)
        if packet.is_corrupt:
            self._partial.add(packet.pts)

    def failed(self) -> None:
        self._failed = True

    def account(self, shown: Any) -> Iterator[Picture]:
        """Yield what was to come before a picture and did not, and the picture."""
        ticks = shown.pts
        if ticks in self._replaced:
            # It came late, when it was already given up.
            self._replaced.discard(ticks)
            return
        if ticks is not None:
            yield from self._lost(ticks)
        self._begun = True
        if shown.key_frame and self._told:
            self._failed = self._told = False
        yield Picture(shown, ticks, shown.is_corrupt or ticks in self._partial)
        self._partial.discard(ticks)

    def _lost(self, ticks: int) -> Iterator[Picture]:
        while self._owed and self._owed[0] <= ticks:
            owed = heapq.heappop(self._owed)
            if owed < ticks and (self._failed or (self._silent and self._begun)):
                self._replaced.add(owed)
                self._told = True
                yield Picture(None, owed, True)
            self._gaps = self._gaps or (owed < ticks and self._begun)

    def rest(self) -> Iterator[Picture]:
        """Yield what was lost at the end, where failures are not told."""
        if self._failed or not self._gaps:
            yield from (Picture(None, ticks, True) for ticks in sorted(self._owed))


def pictures(av: Any, file: Any, stream: Any) -> Iterator[Picture]:
    """Decode a stream."""
    ledger, bad = _Ledger(stream.codec_context.codec.canonical_name), 0
    for packet in _packets(av, file, stream):
        ledger.sent(packet)
        try:
            found = packet.decode()
        except EOFError:
            break
        except av.FFmpegError:
            ledger.failed()
            bad += 1
            if bad > MANY_DAMAGED:
                return
            found = [] if packet.size else _rest(av, stream)
        for shown in found:
            bad = 0
            yield from ledger.account(shown)
    yield from ledger.rest()


def _packets(av: Any, file: Any, stream: Any) -> Iterator[Any]:
    for _ in range(MANY_DAMAGED):
        try:
            yield from file.demux(stream)
        except av.FFmpegError:
            # A part of the container is damaged: the demuxer goes on behind it, or is at its end.
            continue
        return


def _rest(av: Any, stream: Any) -> list[Any]:
    """Return what the decoder still holds after it failed while it was emptied."""
    found: list[Any] = []
    for _ in range(MANY_DAMAGED):
        try:
            found += stream.codec_context.decode(None)
        except EOFError:
            break
        except av.FFmpegError:
            continue
    return found


def display_matrix(picture: Any) -> tuple[int, ...]:
    """Return the nine numbers that say how a picture is to be shown."""
    for data in picture.side_data:
        if data.type.name == "DISPLAYMATRIX" and data.buffer_size >= 36:
            return tuple(np.frombuffer(bytes(data)[:36], "<i4").tolist())
    return (1, 0, 0, 0, 1, 0, 0, 0, 1)


def is_sideways(matrix: tuple[int, ...]) -> bool:
    """Tell whether a display matrix turns columns into rows."""
    a, b, _, c, d = matrix[:5]
    return a * a + d * d < b * b + c * c


def turned(pixels: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return pixels as a display matrix (9 numbers, row by row) wants them shown.

    The matrix takes a stored (x, y) to (a x + c y, b x + d y), both downwards and to the right
    (ISO/IEC 14496-12, 6.2.2). Only right angles and mirrors are followed, which is what phones
    and editors write.
    """
    a, b, _, c, d = matrix[:5]
    right, down = a, d
    if is_sideways(matrix):
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
        right, down = c, b
    if right < 0 or down < 0:
        code = -1 if right < 0 and down < 0 else int(right < 0)
        pixels = np.asarray(cv2.flip(pixels, code), np.uint8)
    return pixels
