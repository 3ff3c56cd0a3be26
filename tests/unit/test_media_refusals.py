"""Bad input: refused by the header, before work is done, with a clear error and in silence."""

from __future__ import annotations

import io
import os
import re
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from retinue.core.errors import (
    CorruptMedia,
    EmptyInput,
    InputError,
    TooManyBytes,
    TooManyFrames,
    TooManyPixels,
    UnsupportedMedia,
)
from retinue.core.settings import Limits
from retinue.core.types import Image
from retinue.media.decode import decode, probe
from retinue.media.sniff import HEAD, sniff

LIMITS = Limits()
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
"""Raise it to fuzz for longer, with other examples each time."""
NOISE = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)
SMOOTH = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)


def saved(fmt: str, pixels: np.ndarray = NOISE, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).convert(mode).save(stream, fmt, **options)
    return stream.getvalue()


def animated(fmt: str, frames: int = 3) -> bytes:
    images = [PillowImage.new("RGB", (16, 8), (i * 40 % 256, 9, 9)) for i in range(frames)]
    stream = io.BytesIO()
    images[0].save(stream, fmt, save_all=True, append_images=images[1:], duration=20)
    return stream.getvalue()


def chunk(kind: bytes, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))
        + kind
        + payload
        + struct.pack(">I", zlib.crc32(kind + payload))
    )


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(10_000_000), 9)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


SAMPLES = {
    "jpeg": saved("JPEG"),
    "progressive jpeg": saved("JPEG", progressive=True, optimize=True),
    "grey jpeg": saved("JPEG", mode="L"),
    "cmyk jpeg": saved("JPEG", mode="CMYK"),
    "png": saved("PNG"),
    "palette png": saved("PNG", mode="P"),
    "16-bit png": saved("PNG", (NOISE[..., 0].astype(np.uint16) << 8), "I;16"),
    "apng": animated("PNG"),
    "webp": saved("WEBP"),
    "lossless webp": saved("WEBP", lossless=True),
    "alpha webp": saved("WEBP", np.dstack([NOISE, NOISE[..., :1]]), "RGBA"),
    "animated webp": animated("WEBP"),
    "bmp": saved("BMP"),
    "palette bmp": saved("BMP", mode="P"),
    "gif": saved("GIF"),
    "animated gif": animated("GIF"),
}


def test_zero_bytes() -> None:
    with pytest.raises(EmptyInput, match="zero bytes"):
        decode(b"", limits=LIMITS)


def test_too_many_bytes() -> None:
    with pytest.raises(TooManyBytes, match=r"limit is 100 \(setting limits.max_bytes\)"):
        decode(SAMPLES["jpeg"], limits=Limits(max_bytes=100))


@pytest.mark.parametrize("name", SAMPLES)
def test_too_many_pixels(name: str) -> None:
    data = SAMPLES[name]
    header = probe(data, LIMITS)
    pixels = header.width * header.height
    decode(data, limits=Limits(max_pixels=pixels))
    with pytest.raises(TooManyPixels, match=r"limits\.max_pixels"):
        decode(data, limits=Limits(max_pixels=pixels - 1))


def test_bomb_is_refused_without_allocating() -> None:
    data = bomb(50_000, 50_000)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(TooManyPixels, match=r"50,000 x 50,000 = 2,500,000,000 pixels"):
        decode(data, limits=LIMITS)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    assert seconds < 0.1


@pytest.mark.parametrize("name", ["apng", "animated webp", "animated gif"])
def test_too_many_frames(name: str) -> None:
    decode(SAMPLES[name], limits=Limits(max_frames=3))
    with pytest.raises(TooManyFrames, match="more than 2 frames"):
        decode(SAMPLES[name], limits=Limits(max_frames=2))


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a\x01\0\x01\0\0\0\0" + b"!\xff\0" * 1_000_000,
        b"GIF89a\x01\0\x01\0\0\0\0!\xfe" + b"\x01a" * 1_000_000,
        b"GIF89a\x01\0\x01\0\0\0\0" + b",\0\0\0\0\x01\0\x01\0\0\x02\x01\0\0" * 300_000,
        b"RIFF" + struct.pack("<I", 8_000_004) + b"WEBP" + b"JUNK\0\0\0\0" * 1_000_000,
        b"RIFF" + struct.pack("<I", 8_000_004) + b"WEBP" + b"ANMF\0\0\0\0" * 1_000_000,
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\1\0\0\0\1\x08\0\0\0\0")
        + chunk(b"tEXt", b"") * 1_000_000,
        b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000,
        b"\xff\xd8" + b"\xff" * 8_000_000,
        b"\xff\xd8\xff\xc2\0\x0b\x08\0\1\0\1\1\1\x11\0"
        + b"\xff\xda\0\x08\1\1\0\0\0\0\0" * 1_000_000,
    ],
    ids=["gif-empty", "gif-blocks", "gif-frames", "webp-junk", "webp-frames", "png", "jpeg",
         "jpeg-fill", "jpeg-scans"],
)  # fmt: skip
def test_walks_over_hostile_files_are_bounded(data: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises((CorruptMedia, TooManyFrames)):
        decode(data, limits=LIMITS)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"hello, I am no picture", "plain text"),
        ("Ünïcode".encode() * 900, "plain text"),
        (b'\xef\xbb\xbf <?xml version="1.0"?><svg xmlns="x"/>', "an SVG drawing"),
        (b"<svg width='9'/>", "an SVG drawing"),
        (b"<!DOCTYPE html><p>", "an HTML page"),
        (b"<?xml version='1.0'?><a/>", "an XML document"),
        (b'{"image": "..."}', "JSON text"),
        (saved("TIFF"), "a TIFF image"),
        (saved("ICO"), "a Windows icon"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "a HEIC or HEIF image"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1", "an AVIF image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isom", "an MP4 or QuickTime video"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\3\4" + bytes(30), "a ZIP archive"),
        (b"BMW is a car and no bitmap", "plain text"),
        (bytes(range(256)), "data of an unknown type"),
        (b"\0", "data of an unknown type"),
        (b"RIFF\0\0\0\0WAVE", "a WAVE sound"),
    ],
)
def test_other_content_is_named(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedMedia, match=f"looks like {name}; JPEG, PNG, WebP, BMP and GIF"):
        decode(data, limits=LIMITS)


def test_text_cut_in_the_middle_of_a_character_is_text() -> None:
    assert sniff(b"a" * (HEAD - 1) + "ü".encode()).key == "text"


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated(name: str) -> None:
    data = SAMPLES[name]
    first_frame_only = "animated" in name
    for size in (len(data) // 3, len(data) // 2, len(data) - 2):
        if first_frame_only and "gif" in name and size == len(data) - 2:
            continue
        with pytest.raises(CorruptMedia):
            decode(data[:size], limits=LIMITS)


@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_truncated_jpeg_is_refused_at_every_scale(at: float) -> None:
    data = saved("JPEG", np.tile(NOISE, (4, 4, 1)))
    for target in (None, (20, 20), (100, 100)):
        with pytest.raises(CorruptMedia, match="truncated or damaged"):
            decode(data[: int(at * len(data))], limits=LIMITS, target=target)


def sof(data: bytes) -> int:
    found = re.search(rb"\xff\xc0\0\x11", data)
    assert found
    return found.start()


def test_jpeg_whose_header_lies() -> None:
    data = bytearray(SAMPLES["jpeg"])
    at = sof(bytes(data))
    data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(TooManyPixels):
        decode(bytes(data), limits=LIMITS)
    data[at + 5 : at + 9] = struct.pack(">HH", 4800, 64)
    with pytest.raises(CorruptMedia):
        decode(bytes(data), limits=LIMITS)
    segment = SAMPLES["jpeg"][at : at + 19]
    small = segment[:5] + struct.pack(">HH", 8, 8) + segment[9:]
    with pytest.raises(CorruptMedia, match="two frame headers"):
        decode(SAMPLES["jpeg"][:at] + small + SAMPLES["jpeg"][at:], limits=LIMITS)


@pytest.mark.parametrize(
    ("offset", "value", "says"),
    [(1, 0xC3, "lossless"), (4, 12, "12 bits"), (9, 2, "2 channels"), (6, 0, "DNL")],
)
def test_unread_jpeg_variants(offset: int, value: int, says: str) -> None:
    data = bytearray(SAMPLES["jpeg"])
    data[sof(bytes(data)) + offset] = value
    if says == "DNL":
        data[sof(SAMPLES["jpeg"]) + 5] = 0
    with pytest.raises(UnsupportedMedia, match=says):
        decode(bytes(data), limits=LIMITS)


def progressive(size: tuple[int, int]) -> tuple[bytes, bytes]:
    """Return a grey progressive JPEG without its end, and the last of its scans."""
    stream = io.BytesIO()
    PillowImage.new("L", size).save(stream, "JPEG", progressive=True)
    data = stream.getvalue().removesuffix(b"\xff\xd9")
    return data, data[data.rindex(b"\xff\xda") :]


def test_scans_are_bounded_by_the_pixels_that_they_pass() -> None:
    small, scan = progressive((64, 48))
    probe(small + 50 * scan + b"\xff\xd9", LIMITS)
    large, scan = progressive((8000, 7000))
    probe(large + b"\xff\xd9", LIMITS)
    with pytest.raises(CorruptMedia, match="too many scans"):
        probe(large + 50 * scan + b"\xff\xd9", LIMITS)


def test_a_marker_without_a_length_hides_no_scan() -> None:
    """FF 01 (TEM) stands alone; what follows it is no length but the next scan."""
    data, scan = progressive((64, 48))
    with pytest.raises(CorruptMedia, match="too many scans"):
        probe(data + b"\xff\x01" + 150 * scan + b"\xff\xd9", LIMITS)
    at = data.index(b"\xff\xc2")
    hidden = data[:at] + b"\xff\x01" + data[at:] + 150 * scan
    with pytest.raises(CorruptMedia, match="too many scans"):
        probe(hidden + b"\xff\xd9", LIMITS)
    with pytest.raises(CorruptMedia, match="no marker"):
        probe(data[:at] + b"\xff\0\0\2" + data[at:] + b"\xff\xd9", LIMITS)


@pytest.mark.parametrize("size", [(1, 70_000), (70_000, 1)])
def test_a_side_beyond_what_decoders_bear(size: tuple[int, int]) -> None:
    stream = io.BytesIO()
    PillowImage.new("L", size).save(stream, "PNG")
    with pytest.raises(TooManyPixels, match="65,535"):
        decode(stream.getvalue(), limits=LIMITS)


@pytest.mark.parametrize("compression", [1, 2])
def test_run_length_bmp_is_not_read(compression: int) -> None:
    data = bytearray(saved("BMP"))
    data[30] = compression
    with pytest.raises(UnsupportedMedia, match="run-length"):
        decode(bytes(data), limits=LIMITS)


def test_bombs_in_png_texts_and_profiles_do_not_unfold() -> None:
    packed = zlib.compress(bytes(40_000_000), 9)
    data = SAMPLES["png"]
    cut = data.index(b"IDAT") - 4
    extra = chunk(b"iCCP", b"x\0\0" + packed) + chunk(b"zTXt", b"x\0\0" + packed)
    extra += chunk(b"iTXt", b"x\0\1\0\0\0" + packed)
    tracemalloc.start()
    image = decode(data[:cut] + extra + data[cut:], limits=LIMITS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (image.pixels == NOISE).all()
    assert peak < 5_000_000


def test_png_with_too_many_or_too_few_pixels() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100, 100, 8, 2, 0, 0, 0))
    for rows in (50, 99):
        packed = zlib.compress(bytes(301 * rows + 7))
        body = header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
        with pytest.raises(CorruptMedia):
            decode(b"\x89PNG\r\n\x1a\n" + body, limits=LIMITS)
    packed = zlib.compress(bytes(50_000_000), 9)
    body = header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    assert decode(b"\x89PNG\r\n\x1a\n" + body, limits=LIMITS).pixels.shape == (100, 100, 3)


def test_png_checksum_and_signature() -> None:
    data = bytearray(SAMPLES["png"])
    data[len(data) // 2] ^= 1
    with pytest.raises(CorruptMedia, match="checksum"):
        decode(bytes(data), limits=LIMITS)
    with pytest.raises(CorruptMedia, match="sent as text"):
        decode(SAMPLES["png"].replace(b"\r\n", b"\n"), limits=LIMITS)


def test_webp_of_two_sizes() -> None:
    data = bytearray(SAMPLES["alpha webp"])
    assert data[12:16] == b"VP8X"
    data[24] ^= 1
    with pytest.raises(CorruptMedia, match="two different sizes"):
        decode(bytes(data), limits=LIMITS)


def damaged(data: bytes, cut: int, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data[:cut])
    for at, bit in flips:
        if changed:
            changed[at % len(changed)] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("name", SAMPLES)
def test_fuzz(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Truncations and flipped bits give an image or an `InputError`, and print nothing."""
    data = SAMPLES[name]
    places = st.one_of(st.integers(0, 60), st.integers(0, len(data) - 1))
    flips = st.lists(st.tuples(places, st.integers(0, 7)), max_size=4)
    cuts = st.one_of(st.just(len(data)), st.integers(0, len(data)))

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES == 60)
    @given(cuts, flips, st.sampled_from([None, (9, 9)]))
    def check(cut: int, changes: list[tuple[int, int]], target: tuple[int, int] | None) -> None:
        try:
            image = decode(
                damaged(data, cut, changes), limits=Limits(max_pixels=10**6), target=target
            )
        except InputError as error:
            assert error.message
        else:
            assert isinstance(image, Image)

    check()
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_named_wrongly_is_read_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(SAMPLES["png"])
    assert (decode(path.read_bytes(), limits=LIMITS).pixels == NOISE).all()
