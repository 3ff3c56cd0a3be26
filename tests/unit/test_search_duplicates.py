"""Duplicates: near hashes against brute force, groups as chains, what an edit does to a hash."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from retinue.apps.search.duplicates import NEAR, first_of, group_all, hamming, near_pairs
from retinue.apps.search.library import Library
from retinue.apps.search.prepare import perceptual_hash, reduced
from retinue.store.collections import Collection, Item
from retinue.testing.search import item, library


def flipped(code: np.ndarray, bits: np.ndarray) -> np.ndarray:
    mask = np.zeros(256, np.uint8)
    mask[bits] = 1
    return np.asarray(code ^ np.packbits(mask), np.uint8)


def brute(codes: np.ndarray) -> set[tuple[int, int]]:
    bits = np.unpackbits(codes, axis=1).astype(int)
    return {
        (one, other)
        for other in range(len(bits))
        for one in range(other)
        if (bits[one] != bits[other]).sum() <= NEAR
    }


def spread(count: int) -> np.ndarray:
    """Bits that are shared out evenly over the 16 pieces: the hardest case."""
    places = np.arange(count)
    return (places % 16) * 16 + places // 16


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(20, 40))
def test_near_pairs_are_those_of_brute_force(seed: int, count: int, most: int) -> None:
    draw = np.random.default_rng(seed)
    centres = draw.integers(0, 256, (2, 32), dtype=np.uint8)
    codes = np.stack(
        [
            flipped(centres[draw.integers(2)], draw.permutation(256)[: draw.integers(most)])
            for _ in range(count)
        ]
    )
    found = list(near_pairs(codes))
    assert len(found) == len(set(found))
    assert set(found) == brute(codes)


@pytest.mark.parametrize("places", [spread, np.arange, lambda n: 255 - np.arange(n)])
def test_31_bits_are_near_and_32_are_not(places) -> None:
    code = np.random.default_rng(0).integers(0, 256, 32, dtype=np.uint8)
    for bits, near in ((0, True), (1, True), (30, True), (31, True), (32, False), (33, False)):
        codes = np.stack([code, flipped(code, places(bits))])
        assert hamming(code.tobytes(), codes).tolist() == [0, bits]
        assert list(near_pairs(codes)) == ([(0, 1)] if near else [])


def test_each_spread_of_31_bits_over_the_pieces_is_found() -> None:
    draw = np.random.default_rng(1)
    code = np.zeros(32, np.uint8)
    for _ in range(200):
        # Two bits in each piece but one, which has one.
        bits = np.concatenate([p * 16 + draw.permutation(16)[: 2 - (p == 7)] for p in range(16)])
        assert len(bits) == 31
        assert list(near_pairs(np.stack([flipped(code, bits), code]))) == [(0, 1)]


def test_pairs_are_found_across_the_pieces_that_are_asked_at_once(monkeypatch) -> None:
    monkeypatch.setattr("retinue.apps.search.duplicates._AT_ONCE", 3)
    draw = np.random.default_rng(2)
    codes = draw.integers(0, 256, (10, 32), dtype=np.uint8)
    codes[9], codes[4] = codes[0], flipped(codes[3], spread(31))
    assert set(near_pairs(codes)) == {(0, 9), (3, 4)}


def test_no_code_has_no_pair() -> None:
    assert list(near_pairs(np.empty((0, 32), np.uint8))) == []
    assert list(near_pairs(np.zeros((1, 32), np.uint8))) == []


@pytest.fixture
def place(tmp_path) -> Iterator[Library]:
    opened = library(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def shop(place: Library) -> Collection:
    return place.store.create("", "shop")


def groups(place: Library, shop: Collection) -> dict[str, str]:
    """Each item's id with the id of the first of its group."""
    items = {one.number: one for one in place.store.page(shop, limit=100).items}
    return {one.id: items[one.duplicate_of].id for one in items.values()}


CODE = np.random.default_rng(3).integers(0, 256, 32, dtype=np.uint8)


def step(number: int, bits: int = 25) -> bytes:
    """A chain: each code is ``bits`` from the one before."""
    return flipped(CODE, np.arange(number * bits)).tobytes()


def test_groups_are_chains(place: Library, shop: Collection) -> None:
    codes = [step(3), step(0), step(2), step(1)]
    place.store.write(shop, [item(n, pdq=code) for n, code in enumerate(codes)])
    assert group_all(place.store, shop) == 4
    assert set(groups(place, shop).values()) == {"i0"}


def test_a_chain_breaks_when_its_middle_goes(place: Library, shop: Collection) -> None:
    place.store.write(shop, [item(n, pdq=step(n)) for n in range(5)])
    group_all(place.store, shop)
    place.store.write(shop, removes=["i2"])
    assert group_all(place.store, shop) == 4
    assert groups(place, shop) == {"i0": "i0", "i1": "i0", "i3": "i3", "i4": "i3"}


def test_equal_files_are_a_group_also_without_a_hash(place: Library, shop: Collection) -> None:
    same = {"sha256": "f" * 64}
    puts = [item(0), item(1, **same), item(2), item(3, **same), item(4, pdq=step(0), **same)]
    place.store.write(shop, [*puts, item(5, pdq=step(0))])
    assert group_all(place.store, shop) == 4
    found = groups(place, shop)
    assert {one for one, first in found.items() if first == "i1"} == {"i1", "i3", "i4", "i5"}
    assert found["i0"] == "i0"
    assert found["i2"] == "i2"


def test_an_empty_collection_has_no_groups(place: Library, shop: Collection) -> None:
    assert group_all(place.store, shop) == 0


def test_groups_that_are_right_are_not_written_again(place: Library, shop: Collection) -> None:
    place.store.write(shop, [item(n, pdq=step(n)) for n in range(3)])
    group_all(place.store, shop)
    generation = place.store.refresh(shop).generation
    assert group_all(place.store, shop) == 3
    assert place.store.refresh(shop).generation == generation


def test_thousands_of_equal_hashes_are_no_millions_of_pairs(
    place: Library, shop: Collection
) -> None:
    place.store.write(shop, [item(n, pdq=step(0)) for n in range(5000)])
    start = time.perf_counter()
    assert group_all(place.store, shop) == 5000
    assert time.perf_counter() - start < 8


NAMES = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    opened = library(tmp_path_factory.mktemp("groups"))
    yield opened
    opened.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), max_size=8))
def test_groups_are_the_connected_ones_of_brute_force(
    shared: Library, drawn: list[tuple[int, int]]
) -> None:
    shop = shared.store.create("", f"shop{next(NAMES)}")
    codes = [step(at) if at else None for at, _ in drawn]
    puts = [
        item(n, pdq=code, sha256=f"{look:064x}")
        for n, (code, (_, look)) in enumerate(zip(codes, drawn, strict=True))
    ]
    shared.store.write(shop, puts)
    group_all(shared.store, shop)
    heads = list(range(len(puts)))
    for _ in puts:
        for one, a in enumerate(drawn):
            for other, b in enumerate(drawn):
                if a[1] == b[1] or (a[0] and b[0] and abs(a[0] - b[0]) <= 1):
                    heads[one] = min(heads[one], heads[other])
    assert groups(shared, shop) == {f"i{n}": f"i{head}" for n, head in enumerate(heads)}


def made(number: int, pdq: bytes | None, group: int | None = None, look: int = -1) -> Item:
    return Item(
        number=number,
        id=f"i{number}",
        path="",
        source="",
        sha256=f"{number if look < 0 else look:064x}",
        size=1,
        width=1,
        height=1,
        added_us=0,
        meta={},
        pdq=pdq,
        thumbnail="",
        duplicate_of=number if group is None else group,
    )


def test_the_first_of_some_that_is_alike_tells_the_group() -> None:
    new = made(9, step(0, 31))
    others = [made(5, step(1, 31), 2), made(3, step(1, 32), 1), made(7, step(0), 7), new]
    assert first_of(new, others) == 2
    assert first_of(new, [made(3, step(1, 32), 1)]) == 9
    assert first_of(new, [new]) == 9
    assert first_of(new, []) == 9


def test_equal_files_need_no_hash_and_a_missing_one_is_like_nothing() -> None:
    assert first_of(made(9, None), [made(3, None, 1, look=9)]) == 1
    assert first_of(made(9, None), [made(3, step(0), 1), made(4, None, 2)]) == 9
    assert first_of(made(9, step(0)), [made(3, None, 1)]) == 9


def photo(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    small = draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = cv2.resize(small, (400, 300), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        colour = tuple(int(c) for c in draw.integers(0, 256, 3))
        at = draw.integers(0, (400, 300))
        size = draw.integers(15, 70, 2)
        cv2.ellipse(
            pixels, at.tolist(), size.tolist(), float(draw.integers(180)), 0, 360, colour, -1
        )
    return np.clip(pixels + draw.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)


def hashed(pixels: np.ndarray) -> bytes:
    code = perceptual_hash(reduced(pixels, 256))
    assert code is not None
    return code


def compressed(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, "JPEG", quality=50)
    return np.asarray(PillowImage.open(file))


EDITS = {
    "compressed": compressed,
    "half the size": lambda p: cv2.resize(p, (200, 150), interpolation=cv2.INTER_AREA),
    "twice the size": lambda p: cv2.resize(p, (800, 600), interpolation=cv2.INTER_LINEAR),
    "brighter": lambda p: np.clip(p.astype(int) + 20, 0, 255).astype(np.uint8),
    "darker": lambda p: (p * 0.85).astype(np.uint8),
    "grey": lambda p: cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "a pixel cut off": lambda p: p[1:, 1:],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_small_edit_leaves_a_hash_near(edit) -> None:
    for seed in range(6):
        code = np.frombuffer(hashed(edit(photo(seed))), np.uint8)[None]
        assert hamming(hashed(photo(seed)), code)[0] <= NEAR


def test_other_photos_and_mirrored_ones_are_not_near() -> None:
    codes = np.stack([np.frombuffer(hashed(photo(seed)), np.uint8) for seed in range(25)])
    assert list(near_pairs(codes)) == []
    for seed in range(5):
        mirrored = np.frombuffer(hashed(photo(seed)[:, ::-1]), np.uint8)[None]
        assert hamming(hashed(photo(seed)), mirrored)[0] > NEAR


def test_what_is_new_joins_the_groups_that_there_are(place: Library, shop: Collection) -> None:
    draw = np.random.default_rng(5)
    hashes = [draw.bytes(32) for _ in range(30)]
    place.store.write(shop, [item(n, pdq=hashes[n]) for n in range(30)])
    group_all(place.store, shop)
    before = place.store.refresh(shop).generation
    near = bytearray(hashes[7])
    near[3] ^= 0b101
    new = {
        30: item(30, pdq=bytes(near)),
        31: item(31, pdq=bytes(near)),
        32: item(32, pdq=hashes[9]),
    }
    place.store.write(shop, list(new.values()))
    assert group_all(place.store, shop, before) == 5
    found = {tuple(i.id for i in g) for g in place.store.duplicates(shop)[0]}
    assert found == {("i7", "i30", "i31"), ("i9", "i32")}
    assert group_all(place.store, shop) == 5
