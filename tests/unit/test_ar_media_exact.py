"""What goes through a video unchanged: frames, time stamps, colours, shape of pixels, sound."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from retinue.apps.ar.media.frames import Colour
from retinue.apps.ar.media.sink import open_sink
from retinue.apps.ar.media.sources import open_source
from retinue.core.errors import InvalidRequest, TooManyPixels
from retinue.core.settings import Limits

LIMITS = Limits()
RTP = Fraction(1, 90_000)
MILLI = Fraction(1, 1000)
RATE = 48_000
UNEVEN = [3000 * n + 900 * (n % 3) for n in range(24)]
"""Time stamps of a variable rate, in 1/90,000 s."""
TONE = (np.sin(np.arange(RATE) / RATE * 2 * np.pi * 440) * 20_000).astype(np.int16)


def add_sound(file: Any, stream: Any, layout: str, holes: tuple[int, ...]) -> None:
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    for number, place in enumerate(range(0, RATE, 1024)):
        if number in holes:
            continue
        part = np.repeat(TONE[place : place + 1024], channels)[None]
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, place, Fraction(1, RATE)
        file.mux(stream.encode(frame))
    file.mux(stream.encode())


def make(
    path: Path,
    stamps: list[int],
    *,
    codec: str = "libx264",
    tick: Fraction = RTP,
    between: int = 2,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    sound: tuple[str, ...] = (),
    layout: str = "mono",
    holes: tuple[int, ...] = (),
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    container = "mpegts" if path.suffix == ".ts" else None
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=30, options=options or {})
        (stream.width, stream.height), stream.pix_fmt = size, pix_fmt
        stream.time_base = stream.codec_context.time_base = tick
        stream.codec_context.max_b_frames, stream.codec_context.gop_size = between, 12
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        tracks = [file.add_stream(name, rate=RATE, layout=layout) for name in sound]
        for number, ticks in enumerate(stamps):
            pixels = np.full((size[1], size[0], 3), 8 * number % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = ticks, tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
        for track in tracks:
            add_sound(file, track, layout, holes)
    return path


def carry(source: Path, out: Path, most: int | None = None) -> list[Fraction]:
    """Copy a video through the app's source and sink; return the times of its frames."""
    with open_source(source, LIMITS) as opened, open_sink(out, opened) as sink:
        found = []
        for frame in opened:
            sink.write(frame.pixels, frame)
            found.append(frame.ticks * opened.tick)
            if len(found) == most:
                break
    return found


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


def heard(path: Path, track: int = 0) -> tuple[np.ndarray, Fraction]:
    """Return (channels, samples) and the time of the first."""
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=track))
    samples = [
        frame.to_ndarray()
        if frame.format.is_planar
        else frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T
        for frame in frames
    ]
    return np.concatenate(samples, axis=1), frames[0].pts * frames[0].time_base


def boxes(path: Path) -> list[bytes]:
    data, place, found = path.read_bytes(), 0, []
    while place < len(data):
        found.append(data[place + 4 : place + 8])
        place += int.from_bytes(data[place : place + 4], "big") or len(data)
    return found


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("start", [0, 450_000])
def test_time_stamps_and_sound_are_the_same_to_the_tick(
    tmp_path: Path, suffix: str, start: int
) -> None:
    stamps = [start + ticks for ticks in UNEVEN]
    source = make(tmp_path / "in.mp4", stamps, sound=("aac",), layout="stereo")
    out = tmp_path / f"out{suffix}"
    assert carry(source, out) == times(source) == times(out)
    assert times(out) == [ticks * RTP for ticks in stamps]
    before, begin = heard(source)
    after, begin_after = heard(out)
    assert np.array_equal(before, after) and begin == begin_after
    # While it is written it is in fragments; at its end it is an ordinary file.
    assert boxes(out)[-2:] == [b"mdat", b"moov"] and b"moof" not in boxes(out)


@pytest.mark.parametrize(
    ("name", "codec", "tick", "sound"),
    [
        ("in.mkv", "libx264", MILLI, "libopus"),
        ("in.mkv", "mpeg4", MILLI, "pcm_s16le"),
        ("in.webm", "libvpx", MILLI, "libopus"),
        ("in.webm", "libvpx-vp9", MILLI, "libopus"),
        ("in.avi", "mpeg4", Fraction(1, 30), "libmp3lame"),
        ("in.ts", "libx264", RTP, "aac"),
    ],
)
def test_other_containers(
    tmp_path: Path, name: str, codec: str, tick: Fraction, sound: str
) -> None:
    step = {MILLI: 33, RTP: 3000}.get(tick, 1)
    hidden = {"auto-alt-ref": "1", "lag-in-frames": "8"} if codec.startswith("libvpx") else {}
    stamps = [step * n for n in range(16)]
    source = make(tmp_path / name, stamps, codec=codec, tick=tick, sound=(sound,), options=hidden)
    shown = times(source)
    assert len(shown) == 16
    assert carry(source, tmp_path / "out.mp4") == shown == times(tmp_path / "out.mp4")
    carry(source, tmp_path / "out.mkv")
    assert times(tmp_path / "out.mkv") == pytest.approx([float(t) for t in shown], abs=0.0006)
    before, begin = heard(source)
    after, begin_after = heard(tmp_path / "out.mkv")
    assert np.array_equal(before, after)
    assert float(begin_after) == pytest.approx(float(begin), abs=0.0006)
    again, _ = heard(tmp_path / "out.mp4")
    assert again.shape[1] == pytest.approx(before.shape[1], abs=1024)


def test_all_tracks_of_sound_are_kept(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mkv", UNEVEN, sound=("aac", "libmp3lame", "pcm_s16le"))
    carry(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as file:
        names = [s.codec_context.codec.canonical_name for s in file.streams.audio]
    assert names == ["aac", "mp3", "aac"]


def test_sound_that_is_encoded_anew_keeps_its_pauses(tmp_path: Path) -> None:
    holes = tuple(range(10, 20))
    source = make(tmp_path / "in.mkv", UNEVEN, sound=("pcm_s16le",), holes=holes)
    carry(source, tmp_path / "out.webm")
    samples, begin = heard(tmp_path / "out.webm")
    whole = np.zeros(RATE)
    place = round(float(begin) * RATE)
    whole[place : place + samples.shape[1]] = samples[0, : RATE - place]
    loud = np.abs(whole[: 90 * 512].reshape(90, 512)).max(axis=1) > 0.1
    assert loud[2:18].all() and loud[44:].all()
    assert not loud[22:38].any()


@pytest.mark.parametrize("layout", ["stereo", "5.1"])
def test_channels_are_kept(tmp_path: Path, layout: str) -> None:
    source = make(tmp_path / "in.mkv", UNEVEN[:4], sound=("pcm_s16le",), layout=layout)
    carry(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.streams.audio[0].layout.name == layout


def test_sound_ends_with_the_picture_where_the_picture_was_ended(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mp4", UNEVEN, sound=("aac",))
    carry(source, tmp_path / "out.mp4", most=6)
    samples, _ = heard(tmp_path / "out.mp4")
    assert 0.15 < samples.shape[1] / RATE < 0.3
    carry(make(tmp_path / "short.mp4", UNEVEN[:6], sound=("aac",)), tmp_path / "out.mp4")
    samples, _ = heard(tmp_path / "out.mp4")
    assert samples.shape[1] >= RATE


def turned(source: Path, out: Path, **turn: Any) -> Path:
    """Copy a video's packets and let it be shown turned."""
    with av.open(str(source)) as file, av.open(str(out), "w") as into:
        stream = into.add_stream_from_template(file.streams.video[0])
        stream.set_display_rotation(**turn)
        for packet in file.demux(video=0):
            if packet.size:
                packet.stream = stream
                into.mux(packet)
    return out


MIRROR: dict[str, Any] = {"degrees": 0, "hflip": True}


@pytest.mark.parametrize(
    ("suffix", "turn", "quarter"),
    [(suffix, {"degrees": 90 * n}, n) for suffix in (".mp4", ".mkv") for n in range(4)]
    # Matroska knows no mirrors.
    + [(".mp4", MIRROR, None)],
)
def test_turned_videos(
    tmp_path: Path, suffix: str, turn: dict[str, Any], quarter: int | None
) -> None:
    path = tmp_path / f"plain{suffix}"
    corner = np.zeros((48, 64, 3), np.uint8)
    corner[:24, :32] = 255
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(corner, format="rgb24")))
        file.mux(stream.encode())
    source = turned(path, tmp_path / f"in{suffix}", **turn)
    with open_source(source, LIMITS) as opened:
        (frame,) = opened
    expected = corner[:, ::-1] if quarter is None else np.rot90(corner, quarter)
    assert frame.pixels.shape == expected.shape == (opened.height, opened.width, 3)
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 10
    assert frame.pixels.flags.writeable and frame.pixels.flags.c_contiguous
    sideways = (quarter or 0) % 2 == 1
    assert opened.aspect == (Fraction(3, 4) if sideways else Fraction(4, 3))
    carry(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as file:
        shown = next(file.decode(video=0))
        assert file.streams.video[0].sample_aspect_ratio == opened.aspect
    assert (shown.height, shown.width) == expected.shape[:2] and shown.rotation == 0


@pytest.mark.parametrize(
    ("matrix", "tags", "full"),
    [(1, (1, 1, 1), False), (5, (6, 6, 6), False), (9, (9, 9, 16), False), (1, (1, 1, 1), True)],
)
def test_colours_come_back(
    tmp_path: Path, matrix: int, tags: tuple[int, int, int], full: bool
) -> None:
    red = (220, 30, 60)
    with av.open(str(tmp_path / "in.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"crf": "1"})
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if full else "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = tags
        context.color_range = 2 if full else 1
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), red, np.uint8), format="rgb24")
            shown = frame.reformat(
                format=stream.pix_fmt, dst_colorspace=matrix, dst_color_range=2 if full else 1
            )
            file.mux(stream.encode(shown))
        file.mux(stream.encode())
    with open_source(tmp_path / "in.mp4", LIMITS) as opened:
        assert opened.colour == Colour(*tags)
        assert np.abs(next(iter(opened)).pixels.astype(int) - red).max() < 5
    carry(tmp_path / "in.mp4", tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as file:
        shown = next(file.decode(video=0))
        assert (shown.colorspace, shown.color_primaries, shown.color_trc) == tags
        assert shown.color_range == 1
        assert np.abs(shown.to_ndarray(format="rgb24").astype(int) - red).max() < 8


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("in.mkv", "ffv1", "yuv420p10le"),
        ("in.mov", "prores_ks", "yuva444p10le"),
        ("in.mov", "qtrle", "argb"),
        ("in.mov", "png", "rgb24"),
        ("in.mkv", "ffv1", "gray"),
        ("in.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_kinds_of_pixels(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    tick = MILLI if name.endswith(("mkv", "webm")) else Fraction(1, 30)
    stamps = [33 * n if tick == MILLI else n for n in range(6)]
    source = make(tmp_path / name, stamps, codec=codec, tick=tick, between=0, pix_fmt=pix_fmt)
    with open_source(source, LIMITS) as opened:
        frames = []
        for frame in opened:
            frames.append(frame.pixels.copy())
            # Who draws on a frame must not be seen in the next one.
            frame.pixels[:] = 255
    assert len(frames) == 6
    for number, pixels in enumerate(frames):
        assert np.abs(pixels.astype(int) - 8 * number).max() < 6


def test_a_large_frame_within_the_limits_and_beyond(tmp_path: Path) -> None:
    path = make(
        tmp_path / "in.mov",
        [0],
        codec="qtrle",
        tick=Fraction(1, 30),
        size=(7680, 4320),
        pix_fmt="rgb24",
    )
    with open_source(path, LIMITS) as opened:
        assert (opened.width, opened.height) == (7680, 4320)
    with pytest.raises(TooManyPixels, match="7,680 x 4,320"):
        open_source(path, Limits(max_pixels=7680 * 4320 - 1))


def test_frames_that_grow_are_refused_where_they_do(tmp_path: Path) -> None:
    small, large = tmp_path / "small.mpg", tmp_path / "large.mpg"
    for path, size in ((small, (64, 48)), (large, (640, 480))):
        make(path, list(range(6)), codec="mpeg2video", tick=Fraction(1, 30), size=size)
    both = tmp_path / "both.mpg"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with open_source(both, LIMITS) as opened:
        sizes = {frame.pixels.shape for frame in opened}
    assert sizes == {(48, 64, 3)}
    with (
        open_source(both, Limits(max_pixels=100_000)) as opened,
        pytest.raises(TooManyPixels, match="640 x 480"),
    ):
        list(opened)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (2, 2), (65, 49)])
def test_odd_and_tiny_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    source = make(tmp_path / "in.mkv", [0, 33], codec="ffv1", tick=MILLI, size=size, pix_fmt="bgr0")
    for suffix in (".mp4", ".mkv", ".webm"):
        carry(source, tmp_path / f"out{suffix}")
        assert len(times(tmp_path / f"out{suffix}")) == 2


def test_a_frame_of_another_size_is_said(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mp4", UNEVEN[:3])
    with open_source(source, LIMITS) as opened, open_sink(tmp_path / "out.mp4", opened) as sink:
        frame = next(iter(opened))
        with pytest.raises(InvalidRequest, match="64 x 40 in a video of 64 x 48"):
            sink.write(frame.pixels[:40], frame)
        assert not (tmp_path / "out.mp4").exists()


def test_a_photo_becomes_a_video_of_one_frame(tmp_path: Path) -> None:
    make(tmp_path / "in.mp4", UNEVEN[:1])
    with open_source(tmp_path / "in.mp4", LIMITS) as opened:
        pixels = next(iter(opened)).pixels
    av.VideoFrame.from_ndarray(pixels, format="rgb24").save(str(tmp_path / "in.png"))
    carry(tmp_path / "in.png", tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == [0]


def test_a_photo_that_its_format_has_no_room_for(tmp_path: Path) -> None:
    with open_source(make(tmp_path / "in.mp4", UNEVEN[:1]), LIMITS) as opened:
        opened.is_image, opened.width = True, 16_384
        with pytest.raises(InvalidRequest, match=r"16,383 pixels at most"):
            open_sink(tmp_path / "out.webp", opened)
