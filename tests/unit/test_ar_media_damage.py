"""Damaged videos in; full disks and killed programs on the way out."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from retinue.apps.ar.media.frames import Colour, Frame
from retinue.apps.ar.media.sink import open_sink
from retinue.apps.ar.media.sources import open_source
from retinue.core.errors import (
    CorruptMedia,
    DiskFull,
    NotWritable,
    StorageError,
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
