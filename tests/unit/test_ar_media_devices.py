"""Cameras, virtual cameras and windows, and how they are lost."""

from __future__ import annotations

import errno
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinue.apps.ar.media import virtual
from retinue.apps.ar.media.camera import CameraSource
from retinue.apps.ar.media.frames import Frame
from retinue.apps.ar.media.virtual import VirtualCamera
from retinue.apps.ar.media.window import Window
from retinue.core.errors import NotWritable, StorageError, Unavailable


class Device:
    """A camera whose frames are numbered, one each so many seconds."""

    def __init__(self, frames: int, every: float, then: str = "unplugged") -> None:
        self.left, self.every, self.then = frames, every, then
        self.number, self.asked, self.released = 0, dict[int, float](), False

    def isOpened(self) -> bool:
        return True

    def set(self, key: int, value: float) -> bool:
        self.asked[key] = value
        return True

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, Any]:
        time.sleep(self.every)
        if self.number == self.left and self.then == "unplugged":
            return False, None
        if self.number >= self.left and self.then == "silent":
            time.sleep(1)
        if self.number >= self.left and self.then == "smaller":
            return True, np.zeros((24, 32, 3), np.uint8)
        self.number += 1
        return True, np.full((48, 64, 3), self.number, np.uint8)

    def release(self) -> None:
        self.released = True


def test_a_slow_taker_gets_the_newest_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinue.apps.ar.media.camera.WARM_UP_S", 0.02)
    device = Device(40, 0.005)
    seen = []
    with CameraSource(0, capture=lambda _: device) as source, pytest.raises(Unavailable):
        for frame in source:
            seen.append(int(frame.pixels[0, 0, 0]))
            time.sleep(0.03)
    assert seen == sorted(set(seen)) and 3 < len(seen) < 20
    assert seen[0] > 1 and seen[-1] == 40
    assert len(seen) + source.dropped == 40
    assert device.released


@pytest.mark.parametrize("then", ["silent", "smaller"])
def test_a_camera_that_falls_silent_is_noticed(monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    monkeypatch.setattr("retinue.apps.ar.media.camera.WARM_UP_S", 0.0)
    begin = time.monotonic()
    device = Device(5, 0.01, then)
    with (
        CameraSource(0, capture=lambda _: device, silence_s=0.2) as source,
        pytest.raises(Unavailable, match="unplugged"),
    ):
        for frame in source:
            assert frame.pixels.shape == (48, 64, 3)
    assert time.monotonic() - begin < 3


def test_a_camera_is_closed_from_inside_and_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinue.apps.ar.media.camera.WARM_UP_S", 0.0)
    device = Device(10_000, 0.001)
    with CameraSource(0, size=(320, 240), mirrored=True, capture=lambda _: device) as source:
        for frame in source:
            if frame.index == 3:
                source.close()
    assert device.released and source.ended
    assert {320.0, 240.0, 30.0} <= set(device.asked.values())


def test_a_virtual_camera_s_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's part is played by a file: no machine of a test has the module."""
    device = tmp_path / "video7"
    device.touch()
    asked: list[bytes] = []

    def ioctl(handle: int, request: int, data: Any) -> Any:
        if request == virtual.QUERY:
            data[:] = struct.pack("<16s32s32s3I", b"v4l2 loopback", b"", b"", 0, 2, 0).ljust(104)
            return 0
        asked.append(bytes(data))
        return bytes(data)

    with pytest.raises(virtual.InputNotFound, match="modprobe"):
        VirtualCamera(64, 48, str(device))
    monkeypatch.setattr(virtual.fcntl, "ioctl", ioctl)
    monkeypatch.setattr(virtual, "DEVICES", tmp_path)
    pixels = np.zeros((48, 65, 3), np.uint8)
    pixels[:, :32] = 255
    with VirtualCamera(65, 48) as camera:
        assert camera.write(pixels, Frame(0, 0.0, pixels))
    kind, wide, high, code, _, line, size = struct.unpack_from("<I4x6I", asked[0])
    assert (kind, wide, high, line, size) == (2, 64, 48, 128, 128 * 48)
    assert code.to_bytes(4, "little") == b"YUYV" and len(asked[0]) == 208
    shown = np.frombuffer(device.read_bytes(), np.uint8).reshape(48, 64, 2)
    assert shown[0, 0].tolist() == [235, 128] and shown[0, 63].tolist() == [16, 128]

    monkeypatch.setattr(virtual.fcntl, "ioctl", lambda *_: b"\2".ljust(208, b"\0"))
    monkeypatch.setattr(virtual, "_takes_pictures", lambda _: True)
    with pytest.raises(StorageError, match="takes frames of 0 x 0 only"):
        VirtualCamera(64, 48)


def request(direction: int, number: int, size: int) -> int:
    """The kernel's _IOC macro for video devices."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


def test_the_kernel_s_numbers() -> None:
    assert request(2, 0, 104) == virtual.QUERY
    assert request(3, 5, 208) == virtual.SET_FORMAT


def test_a_virtual_camera_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "_takes_pictures", lambda _: True)
    monkeypatch.setattr(virtual.fcntl, "ioctl", lambda *args: args[2])
    pixels = np.zeros((48, 64, 3), np.uint8)
    (tmp_path / "video0").symlink_to("/dev/full")
    with (
        pytest.raises(StorageError, match="writing to the virtual camera"),
        VirtualCamera(64, 48, str(tmp_path / "video0")) as camera,
    ):
        camera.write(pixels, Frame(0, 0.0, pixels))

    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.undo()
    monkeypatch.setattr(virtual.os, "open", refused)
    with pytest.raises(NotWritable, match="usermod"):
        VirtualCamera(64, 48, "/dev/null")


def test_a_window_on_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get("DISPLAY"):
        pytest.skip("no display")
    with Window("test", 64, 48) as window:
        pixels = np.full((48, 64, 3), 90, np.uint8)
        assert window.write(pixels, Frame(0, 0.0, pixels))
        window._end()
        assert not window.write(pixels, Frame(1, 0.1, pixels))
        window.wait()


def test_python_without_tkinter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(Unavailable, match="python3-tk"):
        Window("test", 64, 48)
