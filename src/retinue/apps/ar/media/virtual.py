"""A camera for other programs: frames written to a v4l2loopback device.

The device's interface is Linux' own (linux/videodev2.h); no library is needed for it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.media.frames import Frame
from retinue.core.errors import InputNotFound, NotWritable, StorageError, storage_errors

QUERY: Final = 0x80685600
"""VIDIOC_QUERYCAP: driver, card, bus, version, capabilities; 104 bytes."""
SET_FORMAT: Final = 0xC0D05605
"""VIDIOC_S_FMT; 208 bytes."""
OUTPUT: Final = 2
"""V4L2_BUF_TYPE_VIDEO_OUTPUT, and V4L2_CAP_VIDEO_OUTPUT."""
YUYV: Final = 0x56595559
NO_FIELD: Final = 1
SRGB: Final = 8
"""V4L2_COLORSPACE_SRGB: BT.601's matrix and limited range, which the frames are made with."""
ADVICE: Final = "load it with: sudo modprobe v4l2loopback exclusive_caps=1"
DEVICES: Final = Path("/dev")


def _takes_pictures(path: Path) -> bool:
    answer = bytearray(104)
    try:
        handle = os.open(path, os.O_RDWR)
    except PermissionError as error:
        raise NotWritable(
            f"{path} may not be opened; sudo usermod -aG video $USER, and log in again"
        ) from error
    except OSError:
        return False
    try:
        fcntl.ioctl(handle, QUERY, answer)
    except OSError:
        return False
    finally:
        os.close(handle)
    capabilities, own = struct.unpack_from("<II", answer, 84)
    return bool((own or capabilities) & OUTPUT)


def first_device() -> Path:
    """Return the first device that takes pictures.

    Raises:
        InputNotFound: there is none.
        NotWritable: there is none but such that may not be opened.
    """
    refused: NotWritable | None = None
    for path in sorted(DEVICES.glob("video*")):
        try:
            if _takes_pictures(path):
                return path
        except NotWritable as error:
            refused = error
    if refused is not None:
        raise refused
    raise InputNotFound(f"there is no virtual camera on this machine; {ADVICE}")


class VirtualCamera:
    """Writes frames to a device.

    Args:
        width: Of frames in pixels; the last column of an odd width is left out.
        height: Likewise, in full.
        device: ``/dev/videoN``; "" takes the first that takes pictures.

    Raises:
        InputNotFound: there is no such device.
        NotWritable: it may not be opened.
        StorageError: it does not take such frames.
    """

    def __init__(self, width: int, height: int, device: str = "") -> None:
        path = Path(device) if device else first_device()
        if device and not _takes_pictures(path):
            raise InputNotFound(f"{path} is no device that takes pictures; {ADVICE}")
        self._path, self._width, self._height = path, width - width % 2, height
        if self._width == 0:
            raise StorageError(f"{path} takes no frames of one column")
        with storage_errors(path, "opening the virtual camera"):
            self._handle = os.open(path, os.O_RDWR)
        try:
            with storage_errors(path, f"asking for frames of {width} x {height}"):
                given = fcntl.ioctl(self._handle, SET_FORMAT, self._format())
            wide, high, pixels = struct.unpack_from("<3I", given, 8)
            if (wide, high, pixels) != (self._width, self._height, YUYV):
                raise StorageError(
                    f"{path} takes frames of {wide} x {high} only, not {width} x {height}: a "
                    "program that reads it holds it to them; end that one first"
                )
        except StorageError:
            os.close(self._handle)
            raise

    def _format(self) -> bytes:
        line = 2 * self._width
        fields = (self._width, self._height, YUYV, NO_FIELD, line, line * self._height, SRGB)
        return struct.pack("<II7I", OUTPUT, 0, *fields).ljust(208, b"\0")

    def write(self, pixels: NDArray[np.uint8], frame: Frame) -> bool:
        """Give a frame to whoever reads the camera.

        Raises:
            StorageError: the device is gone.
        """
        even = np.ascontiguousarray(pixels[:, : self._width])
        data = np.asarray(cv2.cvtColor(even, cv2.COLOR_RGB2YUV_YUY2), np.uint8)
        with storage_errors(self._path, "writing to the virtual camera"):
            os.write(self._handle, data.tobytes())
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        os.close(self._handle)
