"""Photos, videos and cameras in, photos and videos out."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from retinue.apps.ar.media.camera import CameraSource
from retinue.apps.ar.media.frames import Frame
from retinue.apps.ar.media.sink import open_sink
from retinue.apps.ar.media.sources import open_source, turned
from retinue.apps.ar.media.virtual import VirtualCamera, first_device
from retinue.apps.ar.media.window import Window
from retinue.core.errors import (
    CorruptMedia,
    EmptyInput,
    InputNotFound,
    InvalidRequest,
    StorageError,
    TooManyPixels,
    Unavailable,
)
from retinue.core.settings import Limits

LIMITS = Limits()
TICK = Fraction(1, 90_000)
RATE = 44_100


def stamps(count: int) -> list[int]:
    return [3000 * number + 900 * (number % 3) for number in range(count)]


def picture(number: int, width: int, height: int) -> np.ndarray:
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[: height // 2, : width // 2] = (220, 30, 30)
    pixels[height // 2 :, width // 2 :, 2] = 50 + 8 * (number % 20)
    return pixels


def video(
    path: Path, count: int = 12, size: tuple[int, int] = (64, 48), *, sound: bool = False
) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
        stream.time_base = stream.codec_context.time_base = TICK
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = 0, 4
        tone = file.add_stream("aac", rate=RATE) if sound else None
        for number, ticks in enumerate(stamps(count)):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = ticks, TICK
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        if tone is not None:
            wave = np.sin(np.arange(RATE // 2) / RATE * 2 * np.pi * 440) * 20_000
            for place in range(0, len(wave), 1024):
                part = wave[None, place : place + 1024].astype(np.int16)
                heard = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                heard.sample_rate, heard.pts = RATE, place
                heard.time_base = Fraction(1, RATE)
                file.mux(tone.encode(heard))
            file.mux(tone.encode())
    return path


def copy(source: Path, out: Path) -> list[float]:
    with open_source(source, LIMITS) as opened, open_sink(out, opened) as sink:
        seconds = []
        for frame in opened:
            assert sink.write(frame.pixels, frame)
            seconds.append(frame.seconds)
    return seconds


def times(path: Path) -> list[float]:
    with av.open(str(path)) as file:
        found = [float(frame.pts * frame.time_base) for frame in file.decode(video=0)]
    return [second - found[0] for second in found]


def sound(path: Path) -> list[bytes]:
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(audio=0) if packet.size]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_frames_and_their_times_come_back(tmp_path: Path, suffix: str) -> None:
    source = video(tmp_path / "in.mp4")
    seconds = copy(source, tmp_path / f"out{suffix}")
    assert seconds == pytest.approx([ticks / 90_000 for ticks in stamps(12)])
    coarse = 0.0011 if suffix in (".mkv", ".webm") else 1e-6
    assert times(tmp_path / f"out{suffix}") == pytest.approx(seconds, abs=coarse)
    with av.open(str(tmp_path / f"out{suffix}")) as file:
        first = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(first.astype(int) - picture(0, 64, 48)).mean() < 12


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_is_carried_over_as_it_is(tmp_path: Path, suffix: str) -> None:
    source = video(tmp_path / "in.mp4", sound=True)
    copy(source, tmp_path / f"out{suffix}")
    assert sound(tmp_path / f"out{suffix}") == sound(source)


def test_sound_becomes_what_the_container_takes(tmp_path: Path) -> None:
    copy(video(tmp_path / "in.mp4", sound=True), tmp_path / "out.webm")
    with av.open(str(tmp_path / "out.webm")) as file:
        assert file.streams.audio[0].codec_context.name == "opus"
        heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(heard[:24_000]))
    assert np.argmax(spectrum) * 48_000 / 24_000 == pytest.approx(440, abs=4)


def test_odd_sizes_lose_nothing(tmp_path: Path) -> None:
    copy(video(tmp_path / "in.mkv", 3, (63, 47)), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as file:
        frame = next(file.decode(video=0))
    assert (frame.width, frame.height) == (64, 48)


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((ONE, 0, 0, 0, ONE), "abc/def"),
        ((0, ONE, 0, -ONE, 0), "da/eb/fc"),
        ((-ONE, 0, 0, 0, -ONE), "fed/cba"),
        ((0, -ONE, 0, ONE, 0), "cf/be/ad"),
        ((-ONE, 0, 0, 0, ONE), "cba/fed"),
        ((ONE, 0, 0, 0, -ONE), "def/abc"),
        ((0, ONE, 0, ONE, 0), "ad/be/cf"),
    ],
)
def test_display_matrices(matrix: tuple[int, ...], expected: str) -> None:
    letters = np.array([[97, 98, 99], [100, 101, 102]], np.uint8)
    shown = turned(np.repeat(letters[..., None], 3, 2), (*matrix, 0, 0, 0, 1 << 30))
    assert "/".join("".join(map(chr, row)) for row in shown[..., 0]) == expected
    assert shown.flags.c_contiguous


def with_matrix(path: Path, matrix: tuple[int, ...]) -> None:
    """Write a display matrix into an MP4 file's track header."""
    data = bytearray(path.read_bytes())
    place = data.find(b"tkhd") + 4 + 40
    nine = (matrix[0], matrix[1], 0, matrix[3], matrix[4], 0, 0, 0, 1 << 30)
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in nine)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((0, ONE, 0, -ONE, 0), "top right"),
        ((-ONE, 0, 0, 0, -ONE), "bottom right"),
        ((0, -ONE, 0, ONE, 0), "bottom left"),
        ((-ONE, 0, 0, 0, ONE), "top right"),
    ],
)
def test_a_phone_s_video_comes_upright(
    tmp_path: Path, matrix: tuple[int, ...], corner: str
) -> None:
    path = video(tmp_path / "in.mp4", 2)
    with_matrix(path, matrix)
    with open_source(path, LIMITS) as source:
        frame = next(iter(source))
    high, wide = frame.pixels.shape[:2]
    assert (source.height, source.width) == (high, wide)
    assert (high > wide) == (matrix[0] == 0)
    where = {"top": slice(0, high // 4), "bottom": slice(3 * high // 4, high)}[corner.split()[0]]
    side = {"left": slice(0, wide // 4), "right": slice(3 * wide // 4, wide)}[corner.split()[1]]
    assert frame.pixels[where, side, 0].mean() > 180


def test_damage_in_the_middle_costs_a_few_frames_and_no_more(tmp_path: Path) -> None:
    path = video(tmp_path / "in.mkv", 40)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    for place, size in places[16:20]:
        data[place + 12 : place + size] = bytes(max(0, size - 12))
    path.write_bytes(data)
    with open_source(path, LIMITS) as source:
        frames = list(source)
    assert len(frames) >= 38
    seconds = [frame.seconds for frame in frames]
    assert seconds == sorted(seconds)
    assert np.abs(frames[-1].pixels.astype(int) - picture(39, 64, 48)).mean() < 12


def test_a_video_that_is_cut_gives_what_is_left(tmp_path: Path) -> None:
    path = video(tmp_path / "in.mkv", 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with open_source(path, LIMITS) as source:
        assert 10 < len(list(source)) < 40


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyInput),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", CorruptMedia),
        (b"\x1aE\xdf\xa3" + bytes(100), CorruptMedia),
    ],
)
def test_what_is_no_video(tmp_path: Path, content: bytes, error: type[Exception]) -> None:
    (tmp_path / "in.mp4").write_bytes(content)
    with pytest.raises(error, match=r"in\.mp4"):
        open_source(tmp_path / "in.mp4", LIMITS)
    with pytest.raises(InputNotFound, match="no file"):
        open_source(tmp_path, LIMITS)


def test_large_frames_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = video(tmp_path / "in.mp4", 1, (640, 480))
    with pytest.raises(TooManyPixels, match="max_pixels"):
        open_source(path, Limits(max_pixels=300_000))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_photo(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(picture(0, 60, 40)).save(tmp_path / "in.png")
    copy(tmp_path / "in.png", tmp_path / "new" / f"out{suffix}")
    with Image.open(tmp_path / "new" / f"out{suffix}") as read:
        assert np.abs(np.asarray(read, int) - picture(0, 60, 40)).mean() < 3
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"out{suffix}"]


def test_names_that_cannot_be_written(tmp_path: Path) -> None:
    source = video(tmp_path / "in.mp4", 2)
    for name, said in (("out.gif", ".gif"), ("out", "without suffix"), ("out.png", "photo's name")):
        with open_source(source, LIMITS) as opened, pytest.raises(InvalidRequest, match=said):
            open_sink(tmp_path / name, opened)


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let files grow to so many bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_what_fits_on_a_full_disk_can_be_played(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    source = video(tmp_path / "in.mp4", 60)
    written = 0
    with (
        open_source(source, LIMITS) as opened,
        pytest.raises(StorageError, match=r"out\.mp4"),
        room(200_000),
        open_sink(tmp_path / "out.mp4", opened) as sink,
    ):
        for _ in range(20):
            for number in range(60):
                noise = draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)
                frame = Frame(written, 0.0, noise, 3000 * written)
                sink.write(noise, frame)
                written += 1 + 0 * number
    with open_source(tmp_path / "out.mp4", LIMITS) as read:
        assert len([frame for frame in read if not frame.damaged]) > 20


class Device:
    """A camera that gives so many frames and is then unplugged."""

    def __init__(self, frames: int, *, opened: bool = True) -> None:
        self.left, self.opened, self.released = frames, opened, False

    def isOpened(self) -> bool:
        return self.opened

    def set(self, *_: float) -> bool:
        return True

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, Any]:
        if self.left <= 0:
            return False, None
        self.left -= 1
        return True, np.full((48, 64, 3), (10, 20, 30), np.uint8)

    def release(self) -> None:
        self.released = True


def test_a_camera_until_it_is_unplugged(tmp_path: Path) -> None:
    with CameraSource(0, capture=lambda _: Device(50)) as source:
        assert (source.width, source.height, source.is_live) == (64, 48, True)
        out = tmp_path / "out.mp4"
        seen = 0
        with pytest.raises(Unavailable, match="unplugged"), open_sink(out, source) as sink:
            for frame in source:
                assert frame.pixels[0, 0].tolist() == [30, 20, 10]
                sink.write(frame.pixels, frame)
                seen += 1
    assert seen + source.dropped == 50
    assert len(times(out)) == seen


def test_cameras_that_are_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputNotFound, match="camera 3"):
        CameraSource(3, capture=lambda _: Device(0, opened=False))
    with pytest.raises(Unavailable, match="gives no picture"):
        CameraSource(3, capture=lambda _: Device(0))
    with pytest.raises(InputNotFound, match="no /dev/video63"):
        CameraSource(63)
    said = capfd.readouterr()
    assert said.out == said.err == ""
    with pytest.raises(InputNotFound, match="v4l2loopback"):
        VirtualCamera(64, 48, "/dev/null")


def test_without_a_virtual_camera_or_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinue.apps.ar.media.virtual.DEVICES", Path("/nowhere"))
    with pytest.raises(InputNotFound, match="modprobe v4l2loopback"):
        first_device()
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(Unavailable, match="--show needs"):
        Window("x", 64, 48)
