"""What is made of a picture before a model sees it: pixels, a thumbnail, digests."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import pdqhash  # type: ignore[import-untyped]
from numpy.typing import NDArray

from retinue.core.errors import InvalidRequest
from retinue.core.settings import Limits
from retinue.core.types import Image
from retinue.media.decode import decode, probe
from retinue.media.encode import encode_jpeg

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

THUMBNAIL: Final = 256
QUALITY: Final = 80
PDQ_SIDE: Final = 128
PDQ_LEAST: Final = 50
"""Quality in [0, 100] from which a PDQ hash tells pictures apart; below, they are too plain.

Source: https://github.com/facebook/ThreatExchange/tree/main/pdq
"""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture that is ready to be embedded and kept.

    Attributes:
        image: Decoded, large enough for the model.
        sha256: Of the file, hex.
        size: Bytes of the file.
        thumbnail: JPEG of at most 256 pixels a side.
        pdq: 32 bytes; None if the picture is too plain to have one.
    """

    image: Image
    sha256: str
    size: int
    thumbnail: bytes
    pdq: bytes | None


def prepare(data: bytes, limits: Limits, decode_size: tuple[int, int]) -> Picture:
    """Decode a file once for all that is made of it.

    Args:
        data: The encoded file.
        limits: What a decoder may be given.
        decode_size: (height, width) that the model asks for, in pixels.

    Raises:
        InputError: the file is too large, of another type or damaged.
    """
    target = (max(decode_size[0], THUMBNAIL), max(decode_size[1], THUMBNAIL))
    image = decode(data, limits=limits, target=target)
    small = reduced(image.pixels, THUMBNAIL)
    return Picture(
        image,
        hashlib.sha256(data).hexdigest(),
        len(data),
        encode_jpeg(small, QUALITY),
        perceptual_hash(small),
    )


def reduced(pixels: Pixels, side: int) -> Pixels:
    """Return pixels (H, W, 3) with the longer side reduced to at most ``side``."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def perceptual_hash(pixels: Pixels) -> bytes | None:
    """Return the 256-bit PDQ hash of (H, W, 3) uint8 RGB pixels; None if they are too plain.

    PDQ looks at 64 x 64 pixels in the end; it is given 128, which takes a fifth of the time.
    """
    bits, quality = pdqhash.compute(np.ascontiguousarray(reduced(pixels, PDQ_SIDE)))
    if quality < PDQ_LEAST:
        return None
    return np.packbits(np.asarray(bits, np.uint8)).tobytes()


def region(data: bytes, box: Box, limits: Limits, decode_size: tuple[int, int]) -> Image:
    """Decode a file and cut a region out, with enough pixels for the model where it has them.

    Args:
        data: The encoded file.
        box: x1, y1, x2, y2 in pixels of the upright original; what lies outside is cut off.
        limits: What a decoder may be given.
        decode_size: (height, width) that the model asks for, in pixels.

    Raises:
        InvalidRequest: nothing of the box lies inside.
        InputError: the file cannot be decoded.
    """
    header = probe(data, limits)
    width, height = header.width, header.height
    x1, y1, x2, y2 = clipped(box, width, height)
    zoom = max(width / (x2 - x1), height / (y2 - y1))
    target = (math.ceil(decode_size[0] * zoom), math.ceil(decode_size[1] * zoom))
    image = decode(data, limits=limits, target=target)
    return cut(image, (x1, y1, x2, y2))


def clipped(box: Box, width: int, height: int) -> Box:
    """Return the part of a box that lies in a picture.

    Raises:
        InvalidRequest: it is no box, or less than a pixel of it lies inside.
    """
    x1, y1, x2, y2 = box
    if not np.isfinite(box).all() or x2 <= x1 or y2 <= y1:
        raise InvalidRequest("a box is x1, y1, x2, y2 in pixels, with x1 < x2 and y1 < y2")
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
        raise InvalidRequest(f"the box {list(box)} lies outside the picture of {width} x {height}")
    return inside


def cut(image: Image, box: Box) -> Image:
    """Return a region of a decoded picture; the box is in pixels of its original."""
    height, width = image.pixels.shape[:2]
    across, down = width / image.width, height / image.height
    left, top = int(box[0] * across), int(box[1] * down)
    right = max(left + 1, min(width, round(box[2] * across)))
    bottom = max(top + 1, min(height, round(box[3] * down)))
    pixels = np.ascontiguousarray(image.pixels[top:bottom, left:right])
    size = (max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1])))
    return Image(pixels, *size)
