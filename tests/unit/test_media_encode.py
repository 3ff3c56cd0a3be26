"""Encoding: what is written is read back."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from retinue.core.settings import Limits
from retinue.media.decode import decode
from retinue.media.encode import encode_jpeg, encode_png


def sample(name: str) -> np.ndarray:
    """A real photo that ships inside scikit-learn, whose slow import is avoided."""
    spec = importlib.util.find_spec("sklearn")
    assert spec
    assert spec.origin
    with PillowImage.open(Path(spec.origin).parent / "datasets" / "images" / name) as photo:
        return np.asarray(photo)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_png_is_exact(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert (decode(encode_png(pixels), limits=Limits()).pixels == pixels).all()


def test_jpeg_is_near_and_smaller_with_less_quality() -> None:
    photo = sample("china.jpg")
    sizes = []
    for quality in (95, 75, 30):
        data = encode_jpeg(photo, quality)
        sizes.append(len(data))
        back = decode(data, limits=Limits()).pixels
        assert np.abs(back.astype(int) - photo.astype(int)).mean() < 10
    assert sizes == sorted(sizes, reverse=True)


def test_views_are_encoded() -> None:
    photo = sample("china.jpg")[::2, ::-1]
    assert not photo.flags.c_contiguous
    assert (decode(encode_png(photo), limits=Limits()).pixels == photo).all()
    assert decode(encode_jpeg(photo), limits=Limits()).pixels.shape == photo.shape


@pytest.mark.parametrize("encode", [encode_jpeg, encode_png])
@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_other_arrays_are_refused(encode: object, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"pixels must be \(H, W, 3\) uint8"):
        encode(pixels)  # type: ignore[operator]


def test_quality_is_checked() -> None:
    with pytest.raises(ValueError, match=r"quality must be 1\.\.100, not 0"):
        encode_jpeg(np.zeros((4, 4, 3), np.uint8), 0)
