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
from retinue.core.errors import InputNotFound, StorageError

QUERY: Final = 0x80685600
"""VIDIOC_QUERYCAP: driver, card, bus, version, capabilities; 104 bytes."""
SET_FORMAT: Final = 0xC0D05605
"""VIDIOC_S_FMT; 208 bytes."""
OUTPUT: Final = 2
"""V4L2_BUF_TYPE_VIDEO_OUTPUT, and V4L2_CAP_VIDEO_OUTPUT."""
YUYV: Final = 0x56595559
NO_FIELD: Final = 1
SRGB: Final = 8
ADVICE: Final = "load it with: sudo modprobe v4l2loopback exclusive_caps=1"
DEVICES: Final = Path("/dev")


def _takes_pictures(path: Path) -> bool:
    answer = bytearray(104)
    try:
        handle = os.open(path, os.O_RDWR)
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
    """
    for path in sorted(DEVICES.glob("video*")):
        if _takes_pictures(path):
            return path
    raise InputNotFound(f"there is no virtual camera on this machine; {ADVICE}")


class VirtualCamera:
    """Writes frames to a device.

    Args:
        width: Of frames in pixels; the last column of an odd width is left out.
        height: Likewise.
        device: ``/dev/videoN``; "" takes the first that takes pictures.

    Raises:
        InputNotFound: there is no such device.
        StorageError: it does not take such frames.
    """

    def __init__(self, width: int, height: int, device: str = "") -> None:
        path = Path(device) if device else first_device()
        if device and not _takes_pictures(path):
            raise InputNotFound(f"{path} is no device that takes pictures; {ADVICE}")
        self._path, self._width, self._height = path, width - width % 2, height
        try:
            self._handle = os.open(path, os.O_RDWR)
            fcntl.ioctl(self._handle, SET_FORMAT, self._format())
        except OSError as error:
            raise StorageError(
                f"{path} takes no frames of {width}x{height} ({error.strerror})"
            ) from error

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
        data = np.asarray(cv2.cvtColor(even, cv2.COLOR_RGB2YUV_YUY2), np.uint8).tobytes()
        try:
            os.write(self._handle, data)
        except OSError as error:
            raise StorageError(f"writing to {self._path}: {error.strerror}") from error
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        os.close(self._handle)
