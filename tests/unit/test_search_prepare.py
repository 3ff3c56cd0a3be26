"""Pictures made ready: digests, thumbnails, hashes, and regions against slices of the pixels."""

from __future__ import annotations

import hashlib
import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from retinue.apps.search.prepare import (
    THUMBNAIL,
    clipped,
    cut,
    perceptual_hash,
    prepare,
    reduced,
    region,
)
from retinue.core.errors import CorruptMedia, InputError, InvalidRequest, TooManyBytes
from retinue.core.settings import Limits
from retinue.core.types import Image
from retinue.media.decode import decode

LIMITS = Limits()
SIZE = (32, 32)


def photo(height: int = 120, width: int = 200, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def saved(pixels: np.ndarray, kind: str = "PNG", orientation: int = 1) -> bytes:
    file = io.BytesIO()
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind == "JPEG" else {}
    PillowImage.fromarray(pixels).save(file, kind, exif=exif, **options)
    return file.getvalue()


def shown(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """How a picture that is stored like this is to be seen."""
    turn = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p, 1),
    }
    return turn[orientation](pixels)


def close(one: np.ndarray, other: np.ndarray, most: float) -> None:
    assert one.shape == other.shape
    assert np.abs(one.astype(int) - other.astype(int)).mean() < most


def test_a_picture_has_all_that_is_kept_of_it() -> None:
    data = saved(photo(300, 600), "JPEG")
    picture = prepare(data, LIMITS, (224, 224))
    assert (picture.image.width, picture.image.height) == (600, 300)
    assert picture.sha256 == hashlib.sha256(data).hexdigest()
    assert picture.size == len(data)
    small = decode(picture.thumbnail, limits=LIMITS)
    assert small.pixels.shape == (128, 256, 3)
    close(small.pixels, reduced(picture.image.pixels, 256), 3)
    assert picture.pdq == perceptual_hash(reduced(picture.image.pixels, 256))
    assert len(picture.pdq or b"") == 32


def test_what_is_decoded_is_large_enough_for_the_model_and_for_the_thumbnail() -> None:
    data = saved(photo(1600, 2400), "JPEG")
    for asked in (SIZE, (224, 224), (600, 300)):
        pixels = prepare(data, LIMITS, asked).image.pixels
        assert max(pixels.shape) >= THUMBNAIL
        assert pixels.shape[0] >= asked[0] or pixels.shape[1] >= asked[1]


def test_a_small_picture_is_its_own_thumbnail_and_a_plain_one_has_no_hash() -> None:
    picture = prepare(saved(np.full((5, 9, 3), 80, np.uint8)), LIMITS, SIZE)
    assert decode(picture.thumbnail, limits=LIMITS).pixels.shape == (5, 9, 3)
    assert picture.pdq is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 2), (7, 5000)])
def test_pictures_of_any_shape_are_made_ready(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    picture = prepare(saved(pixels), LIMITS, SIZE)
    assert (picture.image.height, picture.image.width) == shape
    assert max(decode(picture.thumbnail, limits=LIMITS).pixels.shape) <= THUMBNAIL


def test_an_upright_thumbnail_and_hash_of_a_rotated_photo() -> None:
    upright = prepare(saved(photo(300, 400)), LIMITS, SIZE)
    stored = np.ascontiguousarray(np.rot90(photo(300, 400)))
    turned = prepare(saved(stored, orientation=6), LIMITS, SIZE)
    assert turned.thumbnail == upright.thumbnail
    assert turned.pdq == upright.pdq


def test_what_is_no_picture_is_refused() -> None:
    data = saved(photo(), "JPEG")
    with pytest.raises(CorruptMedia):
        prepare(data[: len(data) // 2], LIMITS, SIZE)
    for junk in (b"", b"no picture", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(InputError):
            prepare(junk, LIMITS, SIZE)
    with pytest.raises(TooManyBytes):
        prepare(data, Limits(max_bytes=100), SIZE)
    with pytest.raises(InputError):
        region(data[:200], (0, 0, 5, 5), LIMITS, SIZE)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_region_of_whole_pixels_is_a_slice(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    x1, y1 = data.draw(st.integers(-5, width - 1)), data.draw(st.integers(-5, height - 1))
    x2 = data.draw(st.integers(max(x1, 0) + 1, width + 9))
    y2 = data.draw(st.integers(max(y1, 0) + 1, height + 9))
    orientation = data.draw(st.integers(1, 8))
    upright = shown(pixels, orientation)
    if orientation >= 5:
        x1, y1, x2, y2 = y1, x1, y2, x2
    found = region(saved(pixels, orientation=orientation), (x1, y1, x2, y2), LIMITS, SIZE)
    want = upright[max(y1, 0) : y2, max(x1, 0) : x2]
    np.testing.assert_array_equal(found.pixels, want)
    assert found.pixels.flags.c_contiguous
    assert (found.height, found.width) == want.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_region_of_a_picture_that_is_decoded_smaller(orientation: int) -> None:
    stored = photo(1600, 2400, seed=1)
    upright = shown(stored, orientation)
    data = saved(stored, "JPEG", orientation)
    height, width = upright.shape[:2]
    box = (width // 4, height // 8, width // 4 + width // 2, height // 8 + height // 2)
    found = region(data, box, LIMITS, (64, 64))
    assert found.pixels.shape[0] < (box[3] - box[1]) // 2, "it was not decoded smaller"
    assert (found.width, found.height) == (box[2] - box[0], box[3] - box[1])
    want = upright[box[1] : box[3], box[0] : box[2]]
    size = found.pixels.shape[1::-1]
    close(found.pixels, cv2.resize(want, size, interpolation=cv2.INTER_AREA), 3)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.floats(0, 0.98), st.floats(0, 0.98), st.floats(0.01, 1), st.floats(0.01, 1)),
    st.sampled_from([(32, 32), (224, 224), (100, 300)]),
)
def test_a_region_has_the_pixels_that_the_model_wants_or_all_there_are(
    part: tuple[float, float, float, float], asked: tuple[int, int]
) -> None:
    left, top, across, down = part
    box = (left * 2400, top * 1600, (left + across) * 2400, (top + down) * 1600)
    x1, y1, x2, y2 = clipped(box, 2400, 1600)
    found = region(BIG, box, LIMITS, asked)
    height, width = found.pixels.shape[:2]
    fits = min(asked[0] / (y2 - y1), asked[1] / (x2 - x1), 1)
    assert height >= int((y2 - y1) * fits) - 1
    assert width >= int((x2 - x1) * fits) - 1
    assert abs(found.width - (x2 - x1)) <= 1
    assert abs(found.height - (y2 - y1)) <= 1


BIG = saved(photo(1600, 2400), "JPEG")


def test_a_box_is_clipped_to_the_picture() -> None:
    assert clipped((-5, -5, 500, 500), 200, 100) == (0, 0, 200, 100)
    assert clipped((10.5, 20, 30, 99.5), 200, 100) == (10.5, 20, 30, 99.5)
    assert clipped((-1e300, 0, 1e300, 1), 200, 100) == (0, 0, 200, 1)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 10, 20),
        (20, 10, 10, 20),
        (10, 20, 20, 10),
        (NAN, 0, 10, 10),
        (0, 0, 10, NAN),
        (0, 0, INFINITE, 10),
        (-INFINITE, 0, 10, 10),
        (200, 0, 210, 10),
        (-20, 0, 0, 10),
        (0, 100, 10, 120),
        (199.5, 0, 300, 10),
        (5, 5, 5.5, 50),
        (1e300, 1e300, 2e300, 2e300),
    ],
    ids=str,
)
def test_no_box_or_one_outside_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InvalidRequest, match="box"):
        clipped(box, 200, 100)
    with pytest.raises(InvalidRequest, match="box"):
        region(saved(photo(100, 200)), box, LIMITS, SIZE)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_cut_is_never_empty(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 5000)), data.draw(st.integers(1, 5000))
    divisor = data.draw(st.sampled_from([1, 2, 4, 8]))
    pixels = np.zeros((-(-height // divisor), -(-width // divisor), 3), np.uint8)
    x1 = data.draw(st.floats(0, width - 1))
    y1 = data.draw(st.floats(0, height - 1))
    x2 = data.draw(st.floats(min(x1 + 1, width), width))
    y2 = data.draw(st.floats(min(y1 + 1, height), height))
    found = cut(Image(pixels, width, height), (x1, y1, x2, y2))
    assert abs(found.pixels.shape[1] - (x2 - x1) / divisor) <= 2
    assert abs(found.pixels.shape[0] - (y2 - y1) / divisor) <= 2


def test_pixels_are_reduced_and_never_enlarged() -> None:
    pixels = photo(300, 600)
    assert reduced(pixels, 256).shape == (128, 256, 3)
    assert reduced(pixels, 600) is pixels
    assert reduced(np.zeros((1, 10_000, 3), np.uint8), 256).shape == (1, 256, 3)
