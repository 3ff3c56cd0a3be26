"""Video: frames, times, rotation, limits, and clear errors in silence."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from retinue.core.errors import (
    CorruptMedia,
    EmptyInput,
    InputNotFound,
    NotWritable,
    TooManyPixels,
    UnsupportedMedia,
)
from retinue.core.settings import Limits
from retinue.media.encode import encode_jpeg
from retinue.media.video import VideoInfo, VideoWriter, frames, is_video, probe_video

LIMITS = Limits()
FPS = 10.0
COUNT = 8


def frame(index: int) -> np.ndarray:
    """A blue picture with a red bar at the left that grows, and a green strip at the bottom."""
    pixels = np.full((64, 96, 3), (0, 0, 255), np.uint8)
    pixels[:, : 8 + 8 * index] = (255, 0, 0)
    pixels[48:] = (0, 255, 0)
    return pixels


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "movie.mp4"
    with VideoWriter(path, 96, 64, FPS) as writer:
        for index in range(COUNT):
            writer.write(frame(index))
    return path


def test_frames_come_in_order_with_their_times(movie: Path) -> None:
    assert probe_video(movie, LIMITS) == VideoInfo(96, 64, FPS, COUNT)
    seen = list(frames(movie, LIMITS))
    assert [index for index, _, _ in seen] == list(range(COUNT))
    assert [seconds for _, seconds, _ in seen] == pytest.approx([i / FPS for i in range(COUNT)])
    for index, _, image in seen:
        assert (image.width, image.height) == (96, 64)
        assert np.abs(image.pixels.astype(int) - frame(index)).mean() < 12


def rotated(movie: Path, path: Path) -> Path:
    """Turn a video a quarter clockwise, by its track's display matrix alone."""
    data = bytearray(movie.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    one, none, plane = 0x10000, 0, 0x40000000
    data[at : at + 36] = struct.pack(
        ">9i", none, one, none, -one, none, none, 64 * one, none, plane
    )
    path.write_bytes(data)
    return path


def test_rotation_is_honoured(movie: Path, tmp_path: Path) -> None:
    path = rotated(movie, tmp_path / "turned.mp4")
    info = probe_video(path, LIMITS)
    assert (info.width, info.height) == (64, 96)
    for index, _, image in frames(path, LIMITS):
        assert (image.width, image.height) == (64, 96)
        assert np.abs(image.pixels.astype(int) - np.rot90(frame(index), -1)).mean() < 12


def test_type_is_told_by_content(movie: Path, tmp_path: Path) -> None:
    named_wrongly = tmp_path / "movie.jpg"
    named_wrongly.write_bytes(movie.read_bytes())
    assert is_video(named_wrongly)
    assert len(list(frames(named_wrongly, LIMITS))) == COUNT
    photo = tmp_path / "photo.mp4"
    photo.write_bytes(encode_jpeg(frame(0)))
    assert not is_video(photo)
    with pytest.raises(UnsupportedMedia, match="looks like a JPEG image; MP4, MOV"):
        next(frames(photo, LIMITS))


def test_playlists_are_no_videos(tmp_path: Path) -> None:
    """FFmpeg would open what these name, on the disk or the network."""
    for text in ("#EXTM3U\nhttp://localhost/a.ts\n", "ffconcat version 1.0\nfile /etc/passwd\n"):
        path = tmp_path / "list.mp4"
        path.write_text(text)
        with pytest.raises(UnsupportedMedia, match="plain text"):
            next(frames(path, LIMITS))


def test_errors(movie: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.mp4"
    for call in (is_video, lambda path: next(frames(path, LIMITS))):
        with pytest.raises(InputNotFound, match="no such file"):
            call(missing)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert not is_video(empty)
    with pytest.raises(EmptyInput):
        next(frames(empty, LIMITS))
    data = movie.read_bytes()
    cut = tmp_path / "cut.mp4"
    for size in (32, len(data) // 2, len(data) - 300):
        cut.write_bytes(data[:size])
        with pytest.raises(CorruptMedia, match="truncated"):
            next(frames(cut, LIMITS))
    with pytest.raises(TooManyPixels, match="96 x 64 = 6,144 pixels; the limit is 6,000"):
        next(frames(movie, Limits(max_pixels=6_000)))
    assert capfd.readouterr() == ("", "")


def test_damaged_frames_give_frames_or_an_error(
    movie: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = movie.read_bytes()
    rng = np.random.default_rng(3)
    path = tmp_path / "damaged.mp4"
    for _ in range(40):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 6):
            changed[at] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(changed)
        try:
            count = len(list(frames(path, Limits(max_pixels=10**6))))
        except (CorruptMedia, UnsupportedMedia, TooManyPixels):
            continue
        assert count > 0
    assert capfd.readouterr() == ("", "")


def test_threads_read_at_once_and_opencv_logs_again(movie: Path) -> None:
    level = cv2.utils.logging.getLogLevel()
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: len(list(frames(movie, LIMITS))), range(12)))
    assert counts == [COUNT] * 12
    assert cv2.utils.logging.getLogLevel() == level


def test_a_reader_may_stop_early(movie: Path) -> None:
    reader = frames(movie, LIMITS)
    assert next(reader)[0] == 0
    reader.close()  # type: ignore[attr-defined]


def test_a_name_with_a_colon_is_a_file(
    movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("http:movie.mp4").write_bytes(movie.read_bytes())
    assert len(list(frames(Path("http:movie.mp4"), LIMITS))) == COUNT


@pytest.mark.parametrize("size", [(97, 65), (1, 1), (2, 31)])
def test_odd_sizes_can_be_written(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, *size, FPS) as writer:
        writer.write(np.full((size[1], size[0], 3), 200, np.uint8))
    (_, _, image), *_ = frames(path, LIMITS)
    assert (image.width, image.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert np.abs(image.pixels.astype(int) - 200).max() < 8


def test_writer_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot write"):
        VideoWriter(tmp_path / "a.avi", 96, 64, FPS)
    with pytest.raises(ValueError, match="at 0 frames"):
        VideoWriter(tmp_path / "a.mp4", 96, 64, 0)
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable):
        VideoWriter(tmp_path / "file" / "b.mp4", 96, 64, FPS)
    with (
        VideoWriter(tmp_path / "c.mp4", 96, 64, FPS) as writer,
        pytest.raises(ValueError, match=r"must be \(64, 96, 3\)"),
    ):
        writer.write(np.zeros((10, 10, 3), np.uint8))
    writer.close()
