"""The one EXIF tag that decoding needs: orientation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ORIENTATION = 0x0112
_SHORT = 3
_MAX_ENTRIES = 1024


def orientation(exif: bytes) -> int:
    """Return the orientation tag of an EXIF block, 1..8.

    A block that is damaged or has no such tag says nothing: 1 (upright).

    Args:
        exif: A TIFF header and its first directory, with or without ``Exif\\0\\0`` in front.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if order == "little" else "big")

    directory = number(4, 4)
    entries = min(number(directory, 2), _MAX_ENTRIES)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if entry + 12 > len(tiff):
            break
        if number(entry, 2) == _ORIENTATION and number(entry + 2, 2) == _SHORT:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def upright(pixels: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    """Return stored pixels as they are meant to be seen: a view, mirrored and turned.

    Args:
        pixels: (H, W, C) as stored.
        value: EXIF orientation, 1..8. From 5 on, height and width change places.
    """
    if value >= 5:
        pixels = pixels.transpose(1, 0, 2)
    # Where row 0 and column 0 of the stored picture are, by EXIF 2.32, table 6.
    if value in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if value in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
