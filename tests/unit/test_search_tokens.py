"""Late interaction of patch tokens against nested loops."""

from __future__ import annotations

import statistics

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.apps.search import geometry
from retinue.apps.search.tokens import (
    DEVIATIONS,
    MATCHED,
    distances,
    interaction,
    matched_regions,
    outstanding,
)


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def differing_bits(one: np.ndarray, other: np.ndarray) -> int:
    return sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(one, other, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(0, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([1, 2, 7, 8, 16, 24]),
)
def test_distances_and_their_score_are_those_of_nested_loops(
    seed: int, items: int, patches: int, asked: int, width: int
) -> None:
    theirs, ours = drawn(seed, items, patches, width), drawn(seed + 1, asked, width)
    got = distances(ours, theirs)
    want = np.array(
        [[[differing_bits(t, q) for q in ours] for t in item] for item in theirs], np.uint16
    ).reshape(items, patches, asked)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.uint16
    bits = 8 * width
    scores = interaction(got, bits)
    assert scores.shape == (items,)
    assert scores.dtype == np.float32
    for score, item in zip(scores, want.tolist(), strict=True):
        asked_for = [max(1 - 2 * row[q] / bits for row in item) for q in range(asked)]
        shown = [max(1 - 2 * bit / bits for bit in row) for row in item]
        best = max(sum(asked_for) / asked, sum(shown) / patches)
        assert score == pytest.approx(best, abs=1e-6)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9))
def test_what_stands_out_is_more_than_the_median_and_the_usual_spread(values: list[float]) -> None:
    median = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(value - median) for value in values)
    want = [max(value - median - DEVIATIONS * spread, 0) for value in values]
    got = outstanding(np.array(values, np.float32))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_same_picture_scores_one_its_opposite_minus_one() -> None:
    tokens = drawn(0, 49, 16)
    both = np.stack([tokens, tokens[::-1]])
    np.testing.assert_array_equal(interaction(distances(tokens, both), 128), [1, 1])
    one = tokens[:1]
    np.testing.assert_array_equal(interaction(distances(one, ~one[None]), 128), [-1])


def test_many_bits_do_not_overflow() -> None:
    zeros = np.zeros((1, 1, 512), np.uint8)
    assert distances(~zeros[0], zeros).tolist() == [[[4096]]]


def test_slices_that_are_not_contiguous_are_read_right() -> None:
    wide, query = drawn(1, 3, 4, 32), drawn(2, 5, 32)
    np.testing.assert_array_equal(
        distances(query[::2, :16], wide[:, ::2, :16]),
        distances(query[::2, :16].copy(), wide[:, ::2, :16].copy()),
    )


def test_random_tokens_hardly_ever_match() -> None:
    one, other = drawn(3, 100, 8), drawn(4, 100, 8)
    similar = 1 - 2 * distances(one, other[None])[0] / 64
    assert (similar >= MATCHED).mean() < 1 / 20
    long = 1 - 2 * distances(drawn(5, 200, 16), drawn(6, 1, 200, 16))[0] / 128
    assert (long >= MATCHED).mean() < 1 / 300


def test_regions_are_the_connected_patches_that_match_strongest_first() -> None:
    bits = 128
    best = np.full((4, 5), 64)  # similarity 0
    best[0, 0:2] = 0  # 1.0
    best[2:4, 3] = 4  # 0.9375
    best[3, 4] = 6
    best[1, 2] = 0  # diagonal to the first: a region of its own
    differing = np.stack([best.ravel(), np.full(20, 70)], axis=1).astype(np.uint16)
    found = matched_regions(differing, bits, (4, 5), 500, 400)
    assert found == [
        [0.0, 0.0, 200.0, 100.0, 1.0],
        [200.0, 100.0, 300.0, 200.0, 1.0],
        [300.0, 200.0, 500.0, 400.0, 1 - 2 * 4 / 128],
    ]


def test_regions_are_plain_numbers_in_pixels_of_the_original() -> None:
    differing = np.zeros((6, 3), np.uint16)
    (region,) = matched_regions(differing, 64, (2, 3), 1001, 77)
    assert region == [0.0, 0.0, 1001.0, 77.0, 1.0]
    assert all(type(value) is float for value in region)


def test_no_region_where_nothing_matches_and_at_most_eight_where_all_does() -> None:
    nothing = np.full((4, 2), 32, np.uint16)
    assert matched_regions(nothing, 64, (2, 2), 10, 10) == []
    board = np.where(np.indices((8, 8)).sum(axis=0) % 2 == 0, 0, 32).reshape(64, 1)
    assert len(matched_regions(board.astype(np.uint16), 64, (8, 8), 80, 80)) == 8


def photo(seed: int, height: int = 300, width: int = 400) -> np.ndarray:
    """A picture with objects, shades and grain: the same for the same seed."""
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        colour = tuple(int(c) for c in draw.integers(0, 256, 3))
        at = draw.integers(0, (width, height), (1, 2))
        corners = at + draw.integers(-60, 60, (int(draw.integers(3, 7)), 2))
        cv2.fillPoly(pixels, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    grain = draw.normal(0, 4, pixels.shape)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def turned(pixels: np.ndarray, degrees: float, scale: float) -> np.ndarray:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    return cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


COPIES = {
    "itself": lambda p: p,
    "turned by 20": lambda p: turned(p, 20, 1),
    "upside down": lambda p: np.ascontiguousarray(p[::-1, ::-1]),
    "turned by 90": lambda p: np.ascontiguousarray(np.rot90(p)),
    "smaller": lambda p: cv2.resize(p, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA),
    "turned and zoomed": lambda p: turned(p, -35, 1.3),
    "cropped": lambda p: np.ascontiguousarray(p[60:260, 80:330]),
    "darker": lambda p: (p * 0.6).astype(np.uint8),
    "compressed": lambda p: cv2.imdecode(
        cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR
    ),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_copy_has_many_inliers(copy) -> None:
    for seed in range(4):
        original = photo(seed)
        count = geometry.inliers(geometry.features(copy(original)), geometry.features(original))
        assert count >= 10


def test_other_pictures_have_few_inliers() -> None:
    known = [geometry.features(photo(seed)) for seed in range(12)]
    counts = [geometry.inliers(one, other) for one in known for other in known if one is not other]
    assert max(counts) <= 5


def test_the_count_is_always_the_same() -> None:
    one, other = geometry.features(photo(1)), geometry.features(turned(photo(1), 15, 0.9))
    counts = set()
    for seed in range(5):
        cv2.setRNGSeed(seed)
        counts.add(geometry.inliers(one, other))
    assert len(counts) == 1


def test_many_features_at_one_place_are_no_match() -> None:
    """A transform that puts the whole picture into one point explains nothing."""
    points, descriptors = geometry.features(photo(1))
    again = np.repeat(points[:1], len(points), axis=0)
    assert geometry.inliers((points, descriptors), (again, descriptors)) < 8
    assert geometry.inliers((again, descriptors), (points, descriptors)) < 8


SHAPES = [(1, 1), (1, 300), (300, 1), (2, 2), (20, 4000), (62, 62), (63, 64), (256, 62), (3, 256)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_small_and_thin_pictures_have_no_features_but_an_answer(shape: tuple[int, int]) -> None:
    known = geometry.features(photo(0))
    one = geometry.features(drawn(0, *shape, 3))
    assert one[0].shape == (len(one[1]), 2)
    assert one[1].shape[1:] == (32,)
    assert geometry.inliers(one, known) < 8
    assert geometry.inliers(known, one) < 8


def test_a_plain_picture_has_no_features() -> None:
    plain = geometry.features(np.full((300, 300, 3), 99, np.uint8))
    assert len(plain[0]) == 0
    assert geometry.inliers(plain, plain) == 0
    assert geometry.inliers(plain, geometry.features(photo(0))) == 0


def test_corners_lie_in_the_reduced_picture() -> None:
    points, descriptors = geometry.features(photo(2, 600, 800))
    assert points.dtype == np.float32
    assert descriptors.dtype == np.uint8
    assert 50 < len(points) <= geometry.CORNERS
    assert (points >= 0).all()
    assert (points < [256, 192]).all()
