"""From the bytes of an image file to upright RGB pixels.

`probe` reads the header alone and refuses what is too large, too long or of another type before
anything is decoded; `decode` follows it with the decoder that measured fastest among those that
report damage and print nothing: simplejpeg for JPEG, OpenCV for WebP, Pillow for the others
(``benchmarks/decode.py``; OpenCV's PNG and BMP readers write to standard error).

What a picture becomes:

- Orientation (EXIF, in JPEG, PNG and WebP) is applied.
- Transparent parts lie on white, as a browser shows them on an empty page.
- 16-bit channels keep their high byte, so that 0..65535 becomes 0..255. (Colour-key transparency,
  ``tRNS``, is honoured with 8 bits and fewer only.)
- CMYK is converted by ``R = 255 (1 - C) (1 - K)``; Adobe's files, which store it inverted, are told
  by their marker.
- An animated file gives its first frame.
- ICC profiles are ignored: detectors and classifiers are trained on pixels read this way.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import BmpImagePlugin, GifImagePlugin, ImageFile, PngImagePlugin, WebPImagePlugin
from PIL import Image as PillowImage

from retinue.core.errors import (
    CorruptMedia,
    EmptyInput,
    TooManyBytes,
    TooManyFrames,
    TooManyPixels,
    UnsupportedMedia,
)
from retinue.core.settings import Limits
from retinue.core.types import Image
from retinue.media.exif import upright
from retinue.media.headers import PNG_SIGNATURE, Header, png_chunks, read_header
from retinue.media.letterbox import Letterbox, stretch
from retinue.media.sniff import READ, sniff

__all__ = ["Header", "decode", "probe"]

Pixels = NDArray[np.uint8]
Size = tuple[int, int]

MAX_SIDE = 65_535
"""Longest side that is read: JPEG's and GIF's own limit. Decoders work row by row, and a PNG of
millions of rows costs many times what its pixels do."""

_STRIP = 1 << 20
"""Pixels that are converted at a time, so that a large picture is not held several times over."""

_PNG_KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND")

# What decoders raise on damaged files: Pillow documents OSError only, and its plug-ins let the
# others through.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
    cv2.error,
)


def probe(data: bytes, limits: Limits) -> Header:
    """Read an image file's header, and refuse the file where it breaks a limit.

    Takes microseconds for an ordinary file and allocates no pixels for any.

    Args:
        data: The whole file. Its type is told by its content.
        limits: Bytes, pixels and frames that are accepted.

    Raises:
        EmptyInput: zero bytes.
        TooManyBytes: more bytes than the limit.
        TooManyPixels: the header announces more pixels than the limit, or a side beyond
            `MAX_SIDE`.
        TooManyFrames: the file announces more frames than the limit.
        UnsupportedMedia: another type of content, or a variant of a format that is not read.
        CorruptMedia: the header is damaged, or the file ends too early.
    """
    if not data:
        raise EmptyInput("zero bytes were sent; send the image file itself")
    if len(data) > limits.max_bytes:
        message = f"{len(data):,} bytes were sent; the limit is {limits.max_bytes:,}"
        raise TooManyBytes(f"{message} (setting limits.max_bytes)")
    content = sniff(data)
    if content.kind != "image":
        raise UnsupportedMedia(f"this looks like {content.name}; {READ}")
    header = read_header(data, content.key, limits.max_frames)
    pixels = header.width * header.height
    if pixels > limits.max_pixels:
        size = f"{header.width:,} x {header.height:,} = {pixels:,} pixels"
        message = f"the picture announces {size}; the limit is {limits.max_pixels:,}"
        raise TooManyPixels(f"{message} (setting limits.max_pixels)")
    if max(header.width, header.height) > MAX_SIDE:
        size = f"{header.width:,} x {header.height:,} pixels"
        raise TooManyPixels(f"the picture announces {size}; a side may have {MAX_SIDE:,}")
    if header.frames > limits.max_frames:
        message = f"the picture announces more than {limits.max_frames:,} frames"
        raise TooManyFrames(f"{message}, which is the limit (setting limits.max_frames)")
    return header


def decode(data: bytes, *, limits: Limits, target: Size | None = None) -> Image:
    """Decode an image file.

    Args:
        data: The whole file: JPEG, PNG, WebP, BMP or GIF.
        limits: Bytes, pixels and frames that are accepted.
        target: (height, width) beyond which the reader needs no pixels. The picture may then come
            back at 1/2, 1/4 or 1/8 of its size: each of its sides is still at least what a
            letterbox into the target needs. A JPEG is decoded straight to that size (the sizes
            between, 3/8 or 5/8, measure slower than the whole); others are averaged down to it,
            so that all formats give a model the same smoothness.

    Returns:
        Upright RGB pixels with the original's size.

    Raises:
        InputError: as `probe`; and `CorruptMedia` when the pixels are truncated or damaged.
    """
    header = probe(data, limits)
    name = header.format.upper()
    height, width = header.stored_size
    if target is not None:
        target = target if header.orientation < 5 else target[::-1]
        height, width = _scaled(height, width, target)
    try:
        pixels = _DECODERS[header.format](data, header, (height, width))
    except _DAMAGE as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        message = f"the {name} file is truncated or damaged ({reason}); send it again, whole"
        raise CorruptMedia(message) from error
    pixels = stretch(pixels, height, width, "area")
    pixels = np.ascontiguousarray(upright(pixels, header.orientation))
    return Image(pixels, header.width, header.height)


def _same_size(got: tuple[int, ...], header: Header) -> None:
    """Stop before decoding where the decoder reads another size than the limits were checked on."""
    if tuple(got) != header.stored_size:
        raise CorruptMedia(f"the {header.format.upper()} file announces two different sizes")


def _scaled(height: int, width: int, target: Size) -> Size:
    box = Letterbox.fit(width, height, target[1], target[0])
    for divisor in (8, 4, 2):
        h, w = math.ceil(height / divisor), math.ceil(width / divisor)
        if h >= box.content_height and w >= box.content_width:
            return h, w
    return height, width


def _jpeg(data: bytes, header: Header, least: Size) -> Pixels:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    _same_size((height, width), header)
    space = "CMYK" if header.channels == 4 else "RGB"
    # strict: libjpeg's warnings (premature end, corrupt data) are errors.
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, space, min_height=least[0], min_width=least[1], strict=True
    )
    return pixels if header.channels != 4 else _cmyk(pixels, inverted=header.adobe)


def _cmyk(inks: Pixels, *, inverted: bool) -> Pixels:
    light = inks if inverted else 255 - inks
    black = np.repeat(light[..., 3:], 3, axis=2)
    return np.asarray(cv2.multiply(light[..., :3], black, scale=1 / 255), np.uint8)


def _webp(data: bytes, header: Header, _: Size) -> Pixels:
    if header.animated:
        return _pillow(WebPImagePlugin.WebPImageFile(io.BytesIO(data)), header)
    raw = np.frombuffer(data, np.uint8)
    stored = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise CorruptMedia("the WebP file is truncated or damaged; send it again, whole")
    _same_size(stored.shape[:2], header)
    if stored.shape[2] == 4:
        swapped = cv2.cvtColor(stored, cv2.COLOR_BGRA2RGBA, dst=stored)
        return _in_strips(PillowImage.fromarray(swapped))
    return np.asarray(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB, dst=stored), np.uint8)


def _png(data: bytes, header: Header, _: Size) -> Pixels:
    return _pillow(PngImagePlugin.PngImageFile(io.BytesIO(_png_essentials(data))), header)


def _png_essentials(data: bytes) -> bytes:
    """Return the PNG with the chunks alone that make its pixels, their checksums verified.

    Compressed texts and profiles (small files that unfold to gigabytes) and the frames of an
    animation never reach the decoder.
    """
    parts = [PNG_SIGNATURE]
    deep = False
    for kind, start, end in png_chunks(data):
        if kind == b"IHDR":
            deep = data[start + 8] == 16
        if kind in _PNG_KEPT or (kind == b"tRNS" and not deep):
            (checksum,) = struct.unpack_from(">I", data, end)
            if zlib.crc32(memoryview(data)[start - 4 : end]) != checksum:
                raise CorruptMedia("the PNG file is damaged: a checksum is wrong; send it again")
            parts.append(data[start - 8 : end + 4])
    return b"".join(parts)


def _bmp(data: bytes, header: Header, _: Size) -> Pixels:
    return _pillow(BmpImagePlugin.BmpImageFile(io.BytesIO(data)), header)


def _gif(data: bytes, header: Header, _: Size) -> Pixels:
    return _pillow(GifImagePlugin.GifImageFile(io.BytesIO(data)), header)


def _pillow(image: ImageFile.ImageFile, header: Header) -> Pixels:
    with image:
        _same_size((image.height, image.width), header)
        image.load()
        if image.mode == "P" and image.palette is None:
            raise CorruptMedia(f"the {header.format.upper()} file lacks its palette")
        return _in_strips(image)


def _in_strips(image: PillowImage.Image) -> Pixels:
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        pixels[top:bottom] = _flat(image.crop((0, top, width, bottom)))
    return pixels


def _flat(image: PillowImage.Image) -> Pixels:
    """Return RGB pixels; transparent ones on white, of 16 bits the high byte."""
    if image.mode.startswith("I"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    image = image.convert("RGBA")
    flat = PillowImage.new("RGB", image.size, "white")
    flat.paste(image, mask=image.getchannel("A"))
    return np.asarray(flat)


_DECODERS: dict[str, Callable[[bytes, Header, Size], Pixels]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "bmp": _bmp,
    "gif": _gif,
}
