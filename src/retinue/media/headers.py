"""Size, frames and orientation of an image file, read from its header without decoding it.

Every walk over a file is bounded: it stops at the first frame, chunk or scan past its limit, so a
hostile file costs milliseconds at most and no memory.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from retinue.core.errors import CorruptMedia, UnsupportedMedia
from retinue.media.exif import orientation

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MAX_SEGMENTS = 10_000
_MAX_SCANS = 100
_MAX_SCANNED = 2_000_000_000
"""Pixels of a JPEG times its scans: each scan, however short, is a pass over all pixels."""
_BMP_RUN_LENGTHS = (1, 2)
_JPEG_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_READ = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_JPEG_PROGRESSIVE = (0xC2, 0xCA)
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file's header announces.

    Attributes:
        format: "jpeg", "png", "webp", "bmp" or "gif".
        width: Width of the upright original in pixels.
        height: Height of the upright original in pixels.
        frames: Frames that it announces; counting stops at one more than the limit.
        orientation: EXIF orientation, 1..8.
        animated: Whether it is made as an animation, be it of one frame.
        channels: Colour channels of a JPEG; 0 for other formats.
        adobe: Whether a JPEG has Adobe's marker: its CMYK values are then inverted.
    """

    format: str
    width: int
    height: int
    frames: int = 1
    orientation: int = 1
    animated: bool = False
    channels: int = 0
    adobe: bool = False

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) as stored, before the orientation is applied."""
        turned = self.orientation >= 5
        return (self.width, self.height) if turned else (self.height, self.width)


def _truncated(name: str) -> CorruptMedia:
    return CorruptMedia(f"the {name} file ends too early; send it again, whole")


def _make(name: str, width: int, height: int, *, turn: int = 1, **rest: int | bool) -> Header:
    if width <= 0 or height <= 0:
        raise CorruptMedia(f"the {name.upper()} file announces {width} x {height} pixels")
    if turn >= 5:
        width, height = height, width
    return Header(name, width, height, orientation=turn, **rest)  # type: ignore[arg-type]


def read_header(data: bytes, key: str, max_frames: int) -> Header:
    """Read the header of a file whose type is known.

    Args:
        data: The whole file.
        key: Its type, as `retinue.media.sniff.sniff` gives it.
        max_frames: Counting frames stops at one more.

    Raises:
        CorruptMedia: the file is truncated or damaged.
        UnsupportedMedia: a variant of the format that is not read.
    """
    try:
        return _READERS[key](data, max_frames)
    except (struct.error, IndexError):
        raise _truncated(key.upper()) from None


def _jpeg(data: bytes, _: int) -> Header:
    sof = 0
    size = (0, 0, 0)
    turn = 0
    adobe = False
    for marker, start, end in _jpeg_segments(data):
        if marker in _JPEG_SOF:
            if sof:
                raise CorruptMedia("the JPEG file has two frame headers")
            sof, size = marker, _jpeg_frame(data, marker, start)
        elif marker == 0xE1 and not turn and data.startswith(b"Exif\0\0", start):
            turn = orientation(data[start:end])
        elif marker == 0xEE and data.startswith(b"Adobe", start):
            adobe = True
        elif marker == 0xDA:
            if not sof:
                raise CorruptMedia("the JPEG file has no frame header")
            if sof in _JPEG_PROGRESSIVE or data[start] < size[2]:
                _check_scans(data, end, size[0] * size[1])
            break
    height, width, channels = size
    return _make("jpeg", width, height, turn=turn or 1, channels=channels, adobe=adobe)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment's payload, up to the first scan."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if data[at] != 0xFF:
            raise CorruptMedia(f"the JPEG file is damaged: no marker at byte {at:,}")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _JPEG_BARE:
            at += 2
            continue
        if marker == 0xD9:
            raise _truncated("JPEG")
        if marker == 0:
            raise CorruptMedia(f"the JPEG file is damaged: no marker at byte {at:,}")
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if length < 2:
            raise CorruptMedia(f"the JPEG file is damaged: segment of {length} bytes")
        if end > len(data):
            raise _truncated("JPEG")
        yield marker, at + 4, end
        at = end
    raise CorruptMedia(f"the JPEG file has more than {_MAX_SEGMENTS:,} segments")


def _jpeg_frame(data: bytes, marker: int, start: int) -> tuple[int, int, int]:
    precision, height, width, channels = struct.unpack_from(">BHHB", data, start)
    if marker not in _JPEG_READ:
        raise UnsupportedMedia("lossless and hierarchical JPEG is not read; save it as baseline")
    if precision != 8:
        raise UnsupportedMedia(f"JPEG of {precision} bits is not read; save it with 8 bits")
    if channels not in (1, 3, 4):
        raise UnsupportedMedia(f"JPEG with {channels} channels is not read; save it as RGB")
    if height == 0:
        raise UnsupportedMedia("JPEG whose height follows its pixels (DNL) is not read")
    return height, width, channels


def _check_scans(data: bytes, at: int, pixels: int) -> None:
    """Refuse a JPEG of very many scans: each one costs a pass over all pixels."""
    scans = 1
    most = min(_MAX_SCANS, _MAX_SCANNED // max(1, pixels))
    for _ in range(_MAX_SEGMENTS):
        found = _JPEG_MARKER.search(data, at)
        if found is None or found[0][1] == 0xD9:
            return
        scans += found[0][1] == 0xDA
        if scans > most:
            break
        (length,) = struct.unpack_from(">H", data, found.start() + 2)
        at = found.start() + 2 + length
    raise CorruptMedia("the JPEG file is made of too many scans; save it again")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of each chunk's payload, up to and with IEND.

    Raises:
        CorruptMedia: the file is truncated, or made of very many chunks.
    """
    if not data.startswith(PNG_SIGNATURE):
        raise CorruptMedia("the PNG file's signature is damaged; was it sent as text?")
    at = 8
    for _ in range(10_000 + len(data) // 512):
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        start, end = at + 8, at + 8 + length
        if end + 4 > len(data):
            raise _truncated("PNG")
        yield kind, start, end
        if kind == b"IEND":
            return
        at = end + 4
    raise CorruptMedia("the PNG file is made of too many chunks; save it again")


def _png(data: bytes, _: int) -> Header:
    width = height = turn = 0
    frames = 1
    for kind, start, end in png_chunks(data):
        if not width:
            if kind != b"IHDR" or end - start != 13:
                raise CorruptMedia("the PNG file does not start with its header")
            width, height = struct.unpack_from(">II", data, start)
            if not width:
                break
        elif kind == b"acTL" and end - start >= 8:
            (frames,) = struct.unpack_from(">I", data, start)
        elif kind == b"eXIf" and not turn:
            turn = orientation(data[start:end])
    return _make("png", width, height, turn=turn or 1, frames=max(1, frames))


def _webp(data: bytes, max_frames: int) -> Header:
    (riff,) = struct.unpack_from("<I", data, 4)
    if riff + 8 > len(data):
        raise _truncated("WebP")
    canvas: tuple[int, int] | None = None
    still: tuple[int, int] | None = None
    frames = turn = 0
    for kind, start, end in _webp_chunks(data, riff + 8, max_frames):
        if kind == b"VP8X" and canvas is None:
            low = int.from_bytes(data[start + 4 : start + 10], "little")
            canvas = ((low & 0xFFFFFF) + 1, (low >> 24) + 1)
        elif kind in (b"VP8 ", b"VP8L") and still is None:
            still = _webp_frame(data, kind, start)
        elif kind == b"ANMF":
            frames += 1
            if frames > max_frames:
                break
        elif kind == b"EXIF" and not turn:
            turn = orientation(data[start:end])
    if canvas and still and not frames and canvas != still:
        raise CorruptMedia("the WebP file announces two different sizes")
    if not still and not frames:
        raise CorruptMedia("the WebP file holds no picture")
    width, height = canvas or still or (0, 0)
    return _make("webp", width, height, turn=turn or 1, frames=max(1, frames), animated=frames > 0)


def _webp_chunks(data: bytes, size: int, max_frames: int) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    for _ in range(max_frames + 1_000):
        if at + 8 > size:
            return
        kind = data[at : at + 4]
        (length,) = struct.unpack_from("<I", data, at + 4)
        if at + 8 + length > size:
            raise _truncated("WebP")
        yield kind, at + 8, at + 8 + length
        at += 8 + length + (length & 1)
    raise CorruptMedia("the WebP file is made of too many chunks; save it again")


def _webp_frame(data: bytes, kind: bytes, start: int) -> tuple[int, int]:
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", data, start)
        if signature != 0x2F:
            raise CorruptMedia("the WebP file's lossless header is damaged")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[start] & 1 or data[start + 3 : start + 6] != b"\x9d\x01\x2a":
        raise CorruptMedia("the WebP file's frame header is damaged")
    width, height = struct.unpack_from("<HH", data, start + 6)
    return width & 0x3FFF, height & 0x3FFF


def _bmp(data: bytes, _: int) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
        if compression in _BMP_RUN_LENGTHS:
            raise UnsupportedMedia("BMP with run-length compression is not read; save it as PNG")
    return _make("bmp", width, abs(height))


def _gif(data: bytes, max_frames: int) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    frames = 0
    steps = 10_000 + len(data) // 64
    while at < len(data) and data[at] != 0x3B:
        if data[at] == 0x21:
            at += 2
        elif data[at] == 0x2C:
            left, top, w, h, flags = struct.unpack_from("<HHHHB", data, at + 1)
            frames += 1
            if frames == 1:
                width, height = max(width, left + w), max(height, top + h)
            if frames > max_frames:
                break
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        else:
            raise CorruptMedia(f"the GIF file is damaged: no block at byte {at:,}")
        at, steps = _gif_skip(data, at, steps - 1)
    if not frames:
        raise CorruptMedia("the GIF file holds no picture")
    return _make("gif", width, height, frames=frames)


def _gif_skip(data: bytes, at: int, steps: int) -> tuple[int, int]:
    """Return where a chain of sub-blocks ends, and what is left of the steps."""
    while data[at] and steps > 0:
        at += 1 + data[at]
        steps -= 1
    if steps <= 0:
        raise CorruptMedia("the GIF file is made of too many blocks; save it again")
    return at + 1, steps


_READERS: dict[str, Callable[[bytes, int], Header]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "bmp": _bmp,
    "gif": _gif,
}
