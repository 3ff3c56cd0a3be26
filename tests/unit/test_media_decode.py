"""Decoding: every format, colour model, depth and orientation gives the right pixels."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from retinue.core.settings import Limits
from retinue.media.decode import Header, decode, probe


def sample(name: str) -> np.ndarray:
    """A real photo that ships inside scikit-learn, whose slow import is avoided."""
    spec = importlib.util.find_spec("sklearn")
    assert spec
    assert spec.origin
    with PillowImage.open(Path(spec.origin).parent / "datasets" / "images" / name) as photo:
        return np.asarray(photo)


LIMITS = Limits()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A real photo, (214, 320, 3)."""
    return np.array(PillowImage.fromarray(sample("flower.jpg")).reduce(2))


def saved(pixels: np.ndarray, fmt: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).convert(mode).save(stream, fmt, **options)
    return stream.getvalue()


def error(got: np.ndarray, want: np.ndarray) -> float:
    assert got.shape == want.shape
    return float(np.abs(got.astype(int) - want.astype(int)).mean())


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))
        + kind
        + payload
        + struct.pack(">I", zlib.crc32(kind + payload))
    )


def png(width: int, height: int, depth: int, color: int, rows: bytes, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + b"".join(more)
    body += png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("fmt", "options", "bound"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}, 1.5),
        ("JPEG", {"quality": 95, "progressive": True}, 2.0),
        ("PNG", {}, 0.0),
        ("WEBP", {"lossless": True}, 0.0),
        ("WEBP", {"quality": 95}, 3.0),
        ("BMP", {}, 0.0),
    ],
)
def test_colour(photo: np.ndarray, fmt: str, options: dict[str, object], bound: float) -> None:
    image = decode(saved(photo, fmt, **options), limits=LIMITS)
    assert (image.height, image.width) == photo.shape[:2]
    assert image.pixels.flags.c_contiguous
    assert error(image.pixels, photo) <= bound


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "BMP", "GIF"])
def test_grey(photo: np.ndarray, fmt: str) -> None:
    grey = np.asarray(PillowImage.fromarray(photo).convert("L"))
    got = decode(saved(grey, fmt, "L"), limits=LIMITS).pixels
    assert (got[..., 0] == got[..., 1]).all()
    assert error(got, np.repeat(grey[..., None], 3, 2)) < 2


@pytest.mark.parametrize("fmt", ["PNG", "GIF", "BMP"])
def test_palette(photo: np.ndarray, fmt: str) -> None:
    stream = io.BytesIO()
    PillowImage.fromarray(photo).quantize(64).save(stream, fmt)
    assert error(decode(stream.getvalue(), limits=LIMITS).pixels, photo) < 8


def test_one_bit() -> None:
    bits = np.arange(64).reshape(8, 8) % 3 == 0
    stream = io.BytesIO()
    PillowImage.fromarray(bits).save(stream, "PNG")
    got = decode(stream.getvalue(), limits=LIMITS).pixels
    assert (got == np.where(bits, 255, 0)[..., None]).all()


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_transparent_parts_lie_on_white(photo: np.ndarray, fmt: str) -> None:
    alpha = np.zeros(photo.shape[:2], np.uint8)
    alpha[:, 100:200] = 128
    alpha[:, 200:] = 255
    got = decode(saved(np.dstack([photo, alpha]), fmt, "RGBA", lossless=True), limits=LIMITS).pixels
    want = (photo * (alpha[..., None] / 255.0) + 255 - alpha[..., None]).round()
    assert np.abs(got - want).max() <= 1


def test_grey_with_alpha_and_palette_with_transparency() -> None:
    grey = np.dstack([np.full((4, 4), 40, np.uint8), np.zeros((4, 4), np.uint8)])
    grey[:2, :, 1] = 255
    got = decode(saved(grey, "PNG", "LA"), limits=LIMITS).pixels
    assert (got[:2] == 40).all()
    assert (got[2:] == 255).all()
    indexed = PillowImage.new("P", (4, 4), 1)
    indexed.putpalette([10, 20, 30, 200, 100, 50])
    indexed.paste(0, (0, 0, 2, 4))
    for fmt in ("PNG", "GIF"):
        stream = io.BytesIO()
        indexed.save(stream, fmt, transparency=0)
        got = decode(stream.getvalue(), limits=LIMITS).pixels
        assert (got[:, :2] == 255).all()
        assert (got[:, 2:] == (200, 100, 50)).all()


def test_colour_key_transparency() -> None:
    rows = b"\0" + bytes([1, 2, 3, 9, 9, 9])
    data = png(2, 1, 8, 2, rows, png_chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3)))
    assert decode(data, limits=LIMITS).pixels.tolist() == [[[255, 255, 255], [9, 9, 9]]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_scaled_and_not_clipped(channels: int) -> None:
    ramp = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(32, 32)
    deep = ramp if channels == 1 else np.dstack([ramp] * channels)
    if channels == 4:
        deep[..., 3] = 65535
    data = cv2.imencode(".png", deep)[1].tobytes()
    got = decode(data, limits=LIMITS).pixels
    assert (got == (ramp >> 8)[..., None]).all()
    assert got.min() == 0
    assert got.max() == 255


def test_sixteen_bits_grey_with_alpha_and_colour_key() -> None:
    rows = b"\0" + struct.pack(">HHHH", 0x8000, 0xFFFF, 0x1234, 0)
    got = decode(png(2, 1, 16, 4, rows), limits=LIMITS).pixels
    assert got.tolist() == [[[128] * 3, [255] * 3]]
    rows = b"\0" + struct.pack(">HHH", 300, 600, 65535)
    key = png_chunk(b"tRNS", struct.pack(">HHH", 300, 600, 65535))
    got = decode(png(1, 1, 16, 2, rows, key), limits=LIMITS).pixels
    assert got.tolist() == [[[1, 2, 255]]]


def cmyk(photo: np.ndarray, *, transform: int | None) -> bytes:
    """A CMYK JPEG: Adobe's (stored inverted, as CMYK or as YCCK), or a plain one without marker."""
    inks = np.asarray(PillowImage.fromarray(photo).convert("CMYK")).copy()
    inks[..., 3] = 30
    light = 255 - inks
    if transform == 2:
        # libjpeg turns YCC into inks by 255 - RGB(YCC), and Adobe stores those inverted.
        ycc = PillowImage.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr")
        stored = np.dstack([np.asarray(ycc), light[..., 3]])
    else:
        stored = inks if transform is None else light
    # Pillow inverts what it writes and adds Adobe's marker, which is replaced here.
    stream = io.BytesIO()
    PillowImage.fromarray(255 - stored, "CMYK").save(stream, "JPEG", quality=97)
    data = stream.getvalue()
    at = data.index(b"\xff\xee")
    bare = data[:at] + data[at + 16 :]
    if transform is None:
        return bare
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    return bare[:2] + marker + bare[2:]


@pytest.mark.parametrize("transform", [0, 2, None])
def test_cmyk_jpeg(photo: np.ndarray, transform: int | None) -> None:
    want = photo * ((255 - 30) / 255)
    data = cmyk(photo, transform=transform)
    assert probe(data, LIMITS).channels == 4
    assert error(decode(data, limits=LIMITS).pixels, want.round()) < 2
    small = decode(data, limits=LIMITS, target=(32, 32))
    assert small.pixels.shape == (27, 40, 3)


def test_cmyk_as_pillow_writes_it(photo: np.ndarray) -> None:
    data = saved(photo, "JPEG", "CMYK", quality=95)
    assert error(decode(data, limits=LIMITS).pixels, photo) < 2


def exif(orientation: int) -> bytes:
    tags = PillowImage.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


# What EXIF 2.32 says of each value, as a slow twin: where the stored row 0 and column 0 are seen.
SEEN = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: np.swapaxes(p, 0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.swapaxes(np.rot90(p, 2), 0, 1),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(photo: np.ndarray, orientation: int, fmt: str) -> None:
    options = {"lossless": True} if fmt == "WEBP" else {"quality": 95, "subsampling": 0}
    data = saved(photo, fmt, exif=exif(orientation), **options)
    header = probe(data, LIMITS)
    assert header.orientation == orientation
    image = decode(data, limits=LIMITS)
    want = SEEN[orientation](photo)
    assert (header.height, header.width) == (image.height, image.width) == want.shape[:2]
    assert error(image.pixels, want) < 1.5
    assert image.pixels.flags.c_contiguous


@pytest.mark.parametrize(
    "block", [b"", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"XX" * 9, b"II" * 40]
)
def test_damaged_exif_says_nothing(photo: np.ndarray, block: bytes) -> None:
    data = saved(photo, "JPEG", exif=b"Exif\0\0" + block)
    assert probe(data, LIMITS).orientation == 1


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(fmt: str) -> None:
    colors = ["red", "lime", "blue"]
    images = [PillowImage.new("RGB", (20, 10), color) for color in colors]
    stream = io.BytesIO()
    options = {"lossless": True} if fmt == "WEBP" else {}
    images[0].save(stream, fmt, save_all=True, append_images=images[1:], duration=50, **options)
    data = stream.getvalue()
    header = probe(data, LIMITS)
    assert header == Header(fmt.lower(), 20, 10, frames=3, animated=fmt == "WEBP")
    image = decode(data, limits=LIMITS)
    assert (image.pixels == (255, 0, 0)).all()


def test_gif_frame_outside_its_screen() -> None:
    stream = io.BytesIO()
    PillowImage.new("RGB", (20, 10), "red").save(stream, "GIF")
    data = bytearray(stream.getvalue())
    data[6:10] = struct.pack("<HH", 5, 5)
    image = decode(bytes(data), limits=LIMITS)
    assert (image.width, image.height) == (20, 10)


def test_bmp_upside_down_and_old() -> None:
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    data = bytearray(saved(pixels, "BMP"))
    data[22:26] = struct.pack("<i", -2)
    assert (decode(bytes(data), limits=LIMITS).pixels == pixels[::-1]).all()
    old = b"BM" + struct.pack("<IHHI", 26 + 8, 0, 0, 26) + struct.pack("<IHHHH", 12, 1, 2, 1, 24)
    old += bytes([1, 2, 3, 0, 4, 5, 6, 0])
    assert decode(old, limits=LIMITS).pixels.tolist() == [[[6, 5, 4]], [[3, 2, 1]]]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("target", [(13, 16), (50, 50), (107, 160), (200, 400), (5000, 5000)])
def test_scaled_decode_keeps_what_a_letterbox_needs(
    photo: np.ndarray, orientation: int, target: tuple[int, int]
) -> None:
    data = saved(photo, "JPEG", quality=95, exif=exif(orientation))
    whole = decode(data, limits=LIMITS)
    image = decode(data, limits=LIMITS, target=target)
    assert (image.width, image.height) == (whole.width, whole.height)
    scale = min(target[0] / whole.height, target[1] / whole.width, 1)
    height, width = image.pixels.shape[:2]
    assert height >= round(whole.height * scale)
    assert width >= round(whole.width * scale)
    assert whole.width / width < 2 * max(1, 1 / scale)
    shrunk = cv2.resize(whole.pixels, (width, height), interpolation=cv2.INTER_AREA)
    assert error(image.pixels, shrunk) < 4


def test_all_formats_come_back_at_the_same_scaled_size(photo: np.ndarray) -> None:
    jpeg = decode(saved(photo, "JPEG", quality=95), limits=LIMITS, target=(20, 30))
    png = decode(saved(photo, "PNG"), limits=LIMITS, target=(20, 30))
    assert png.pixels.shape == jpeg.pixels.shape < photo.shape
    assert (png.width, png.height) == (jpeg.width, jpeg.height)
    assert error(png.pixels, jpeg.pixels) < 4


def test_real_photos_of_packages() -> None:
    folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    files = [p for p in sorted(folder.iterdir()) if p.suffix in (".png", ".jpg", ".gif")]
    assert len(files) >= 10
    for path in files:
        data = path.read_bytes()
        with PillowImage.open(io.BytesIO(data)) as twin:
            image = decode(data, limits=LIMITS)
            assert (image.width, image.height) == twin.size
            if twin.mode == "RGB":
                assert error(image.pixels, np.asarray(twin)) < 1


def test_colour_profile_is_ignored(photo: np.ndarray) -> None:
    profile = zlib.compress(b"not a profile")
    data = saved(photo, "PNG")
    cut = data.index(b"IDAT") - 4
    extra = png_chunk(b"iCCP", b"x\0\0" + profile)
    image = decode(data[:cut] + extra + data[cut:], limits=LIMITS)
    assert (image.pixels == photo).all()
