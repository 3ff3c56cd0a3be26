"""Damaged videos in; full disks, killed programs and lost devices on the way out."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from retinue.apps.ar.media import virtual
from retinue.apps.ar.media.camera import CameraSource
from retinue.apps.ar.media.frames import Colour, Frame
from retinue.apps.ar.media.sink import open_sink
from retinue.apps.ar.media.sources import open_source
from retinue.apps.ar.media.virtual import VirtualCamera
from retinue.apps.ar.media.window import Window
from retinue.core.errors import (
    CorruptMedia,
    DiskFull,
    NotWritable,
    StorageError,
    Unavailable,
    UnsupportedMedia,
)
from retinue.core.settings import Limits

LIMITS = Limits()
TICK = Fraction(1, 90_000)
STAMPS = [3000 * n + 900 * (n % 3) for n in range(60)]


def make(path: Path, codec: str = "libx264", *, sound: bool = False) -> Path:
    with av.open(str(path), "w") as file:
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream = file.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TICK
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = 2, 12
        tone = file.add_stream("aac", rate=48_000, layout="mono") if sound else None
        for number, ticks in enumerate(STAMPS):
            pixels = np.full((48, 64, 3), 40, np.uint8)
            pixels[:, number : number + 4] = 250
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = ticks, TICK
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        for place in range(0, 96_000 if tone else 0, 1024):
            part = av.AudioFrame.from_ndarray(
                np.full((1, 1024), 5000, np.int16), format="s16", layout="mono"
            )
            part.sample_rate, part.pts, part.time_base = 48_000, place, Fraction(1, 48_000)
            file.mux(tone.encode(part))
        if tone:
            file.mux(tone.encode())
    return path


def places(path: Path, **kind: int) -> list[tuple[int, int]]:
    with av.open(str(path)) as file:
        return [(packet.pos, packet.size) for packet in file.demux(**kind) if packet.size]


def times(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        return [float(frame.pts * frame.time_base) for frame in file.decode(video=0)]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("lost", [(30,), (24,), (0,), (59,), (30, 31, 32)])
def test_frames_are_as_many_and_at_their_times_in_spite_of_damage(
    tmp_path: Path, codec: str, lost: tuple[int, ...]
) -> None:
    path = make(tmp_path / "in.mp4", codec)
    whole = times(path)
    data = bytearray(path.read_bytes())
    for number in lost:
        place, size = places(path, video=0)[number]
        data[place : place + size] = b"\xff" * size
    path.write_bytes(data)
    with open_source(path, LIMITS) as source, open_sink(tmp_path / "out.mp4", source) as sink:
        frames = []
        for frame in source:
            sink.write(frame.pixels, frame)
            frames.append(frame)
    assert [float(frame.ticks * TICK) for frame in frames] == pytest.approx(whole)
    assert [frame.index for frame in frames] == list(range(60))
    assert 0 < source.damaged == sum(frame.damaged for frame in frames) < 20
    assert times(tmp_path / "out.mp4") == pytest.approx(whole)


def test_a_lost_frame_is_the_one_before_it_again(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4")
    place, size = places(path, video=0)[31]
    data = bytearray(path.read_bytes())
    data[place : place + size] = b"\xff" * size
    path.write_bytes(data)
    with open_source(path, LIMITS) as source:
        frames = [(frame.damaged, frame.pixels.copy()) for frame in source]
    lost = [number for number, (damaged, _) in enumerate(frames) if damaged]
    assert lost
    for number in lost:
        assert np.array_equal(frames[number][1], frames[number - 1][1])


@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_a_video_and_its_sound_that_are_cut(tmp_path: Path, share: float) -> None:
    path = make(tmp_path / "in.mkv", sound=True)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with open_source(path, LIMITS) as source, open_sink(tmp_path / "out.mp4", source) as sink:
        count = sum(sink.write(frame.pixels, frame) for frame in source)
    assert 5 < count <= 60
    assert len(times(tmp_path / "out.mp4")) == count


def test_an_mp4_that_is_cut_lost_its_index(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptMedia, match="truncated or damaged"):
        open_source(path, LIMITS)


def test_sound_that_is_damaged_fails_nothing(tmp_path: Path) -> None:
    path = make(tmp_path / "in.mp4", sound=True)
    data = bytearray(path.read_bytes())
    for place, size in places(path, audio=0)[10:80]:
        data[place : place + size] = bytes(size)
    path.write_bytes(data)
    for suffix in (".mp4", ".webm"):
        out = tmp_path / f"out{suffix}"
        with open_source(path, LIMITS) as source, open_sink(out, source) as sink:
            for frame in source:
                sink.write(frame.pixels, frame)
        assert len(times(out)) == 60


def test_random_damage_never_ends_in_anything_but_an_error_of_ours(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    whole = make(tmp_path / "in.mp4", sound=True).read_bytes()
    path, out = tmp_path / "bad.mp4", tmp_path / "out.mkv"
    for _ in range(15):
        data = bytearray(whole)
        for place in draw.integers(4, len(data), 30):
            data[place] = draw.integers(256)
        path.write_bytes(data)
        try:
            with (
                open_source(path, Limits(max_pixels=10_000)) as source,
                open_sink(out, source) as sink,
            ):
                for frame in source:
                    sink.write(frame.pixels, frame)
        except (CorruptMedia, UnsupportedMedia) as error:
            assert "bad.mp4" in error.message


class Endless:
    """A source for sinks: noise, which needs room."""

    width, height, fps, frames, tick = 160, 120, 30.0, 0, Fraction(1, 30)
    is_image, is_live, audio, colour, aspect = False, True, None, Colour(), Fraction(1)
    dropped, damaged, ended = 0, 0, False

    def __enter__(self) -> Endless:
        return self

    def __exit__(self, *failure: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        draw = np.random.default_rng(0)
        for number in range(100_000):
            noise = draw.integers(0, 256, (120, 160, 3), dtype=np.uint8)
            yield Frame(number, number / 30, noise, number)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "retinue-test", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True).returncode == 0:
            try:
                yield folder
            finally:
                subprocess.run(["umount", str(folder)], check=True)
            return
    pytest.skip("no right to mount a small disk")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_what_was_recorded_on_a_full_disk_can_be_played(small_disk: Path, suffix: str) -> None:
    out, count = small_disk / f"out{suffix}", 0
    with (
        pytest.raises(DiskFull, match=r"recorded so far is kept.*free some"),
        open_sink(out, Endless()) as sink,
    ):
        for frame in Endless():
            sink.write(frame.pixels, frame)
            count += 1
    assert os.statvfs(small_disk).f_bavail == 0
    with open_source(out, LIMITS) as source:
        assert len([frame for frame in source if not frame.damaged]) > count * 0.4 > 8


def test_a_disk_that_is_full_when_the_file_is_closed(small_disk: Path) -> None:
    out = small_disk / "out.mp4"
    with pytest.raises(DiskFull, match=r"out\.mp4"), open_sink(out, Endless()) as sink:
        for frame in Endless():
            sink.write(frame.pixels // 8, frame)
            if frame.index == 100:
                break
        with contextlib.suppress(OSError), (small_disk / "filler").open("wb", 0) as file:
            while file.write(bytes(512)):
                pass
    with open_source(out, LIMITS) as source:
        assert len([frame for frame in source if not frame.damaged]) >= 60


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_disk_that_is_full_from_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(DiskFull, match=name), open_sink(tmp_path / name, Endless()) as sink:
        for frame in Endless():
            sink.write(frame.pixels, frame)


RECORDER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_ar_media_damage import Endless
from retinue.apps.ar.media.sink import open_sink
with open_sink(Path(sys.argv[2]), Endless()) as sink:
    for frame in Endless():
        sink.write(frame.pixels, frame)
        print(frame.index, flush=True)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_was_recorded_before_it_was_killed_can_be_played(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    command = [sys.executable, "-c", RECORDER, str(Path(__file__).parent), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        for line in child.stdout:
            if int(line) == 80:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    # At most the last second is lost, and what the encoder held.
    with open_source(out, LIMITS) as source:
        assert len([frame for frame in source if not frame.damaged]) >= 25


def test_a_file_is_kept_until_the_first_frame_comes(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    with open_sink(out, Endless()):
        pass
    assert out.read_bytes() == b"precious"
    with open_sink(tmp_path / "new" / "other.mp4", Endless()):
        pass
    assert not list((tmp_path / "new").iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match=r"out\.mp4"):
        open_sink(tmp_path / "file" / "out.mp4", Endless())
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(StorageError, match=r"folder\.mp4"):
        open_sink(tmp_path / "folder.mp4", Endless())


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
