"""Choosing what calibrates and what measures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import cv2
import numpy as np
import pytest

from retinue.calibrate.samples import Sample, Samples
from retinue.calibrate.select import Split, split
from retinue.core.errors import CorruptMedia, InputError, InvalidRequest
from retinue.core.settings import Limits
from retinue.media.encode import encode_jpeg, encode_png
from retinue.testing.datasets import squares

LIMITS = Limits()
PICTURES = squares(200)
FILES = [picture.png for picture in PICTURES]


def sample(name: str, content: bytes) -> Sample:
    return Sample(name, partial(bytes, content))


def samples(*more: Sample, number: int = 200) -> Samples:
    items = [sample(p.name, content) for p, content in zip(PICTURES[:number], FILES, strict=False)]
    return Samples((*items, *more), "", "the pictures")


def names(chosen: tuple[Sample, ...]) -> set[str]:
    return {sample.name for sample in chosen}


@cache
def usual() -> Split:
    """All of them, of which 40 calibrate."""
    return split(samples(), calibration=40, limits=LIMITS)


def test_the_parts_are_the_whole_and_disjoint() -> None:
    parts = usual()
    assert len(parts.calibration) == 40
    assert len(parts.held_out) == 100
    assert len(parts.spare) == 60
    everything = [*parts.calibration, *parts.held_out, *parts.spare]
    assert sorted(s.name for s in everything) == [p.name for p in PICTURES]
    assert parts.duplicates == 0
    assert parts.unreadable == ()


def test_at_most_half_calibrates() -> None:
    parts = split(samples(), limits=LIMITS)
    assert len(parts.calibration) == len(parts.held_out) == 100
    assert parts.spare == ()


def test_the_order_of_files_does_not_matter_but_the_seed_does() -> None:
    once = usual()
    turned = Samples(samples().items[::-1], "", "")
    again = split(turned, calibration=40, limits=LIMITS)
    assert again.digest == once.digest
    for part in ("calibration", "held_out", "spare"):
        assert [s.name for s in getattr(again, part)] == [s.name for s in getattr(once, part)]
    other = split(samples(), calibration=40, limits=LIMITS, seed=1)
    assert names(other.held_out) != names(once.held_out)
    assert other.digest != once.digest


def test_the_names_of_files_do_not_matter() -> None:
    renamed = [sample(f"x{999 - i}", content) for i, content in enumerate(FILES)]
    once = usual()
    again = split(Samples(tuple(renamed), "", ""), calibration=40, limits=LIMITS)
    assert again.digest == once.digest
    assert {s.read() for s in again.held_out} == {s.read() for s in once.held_out}


def changed(kind: str, pixels: np.ndarray) -> bytes:
    if kind == "equal":
        return encode_png(pixels)
    if kind == "jpeg":
        return encode_jpeg(pixels, 85)
    if kind == "scaled":
        return encode_png(cv2.resize(pixels, (150, 150), interpolation=cv2.INTER_CUBIC))
    return encode_png((pixels * 0.97).astype(np.uint8))


@pytest.mark.parametrize("kind", ["equal", "jpeg", "scaled", "darker"])
def test_what_looks_the_same_is_reduced_to_one(kind: str) -> None:
    copies = [sample(f"copy{p.name}", changed(kind, p.pixels)) for p in PICTURES[:30]]
    parts = split(samples(*copies, number=80), calibration=40, limits=LIMITS)
    assert parts.duplicates == 30
    kept = names(parts.calibration) | names(parts.held_out) | names(parts.spare)
    for picture in PICTURES[:30]:
        assert len({picture.name, f"copy{picture.name}"} & kept) == 1


def test_plain_pictures_of_other_colours_differ() -> None:
    plain = [
        sample(f"{level}", encode_png(np.full((20, 20, 3), level, np.uint8)))
        for level in range(0, 256, 32)
    ]
    assert split(samples(*plain, number=64), limits=LIMITS).duplicates == 0


def unreadable(error: Exception) -> Callable[[], bytes]:
    def read() -> bytes:
        raise error

    return read


def test_what_cannot_be_read_is_named() -> None:
    bad = Sample("link", unreadable(CorruptMedia("a link")))
    parts = split(samples(bad, sample("text", b"hello")), limits=LIMITS)
    assert dict(parts.unreadable).keys() == {"link", "text"}
    assert dict(parts.unreadable)["link"] == "a link"
    assert "plain text" in dict(parts.unreadable)["text"]


def test_too_few() -> None:
    more = [sample("copy", PICTURES[0].png), sample("text", b"hello")]
    with pytest.raises(InputError) as error:
        split(samples(*more, number=63), limits=LIMITS)
    message = error.value.message
    for part in (
        "only 63 different",
        "1 are duplicates",
        "1 cannot be read",
        "text",
        "64 are needed",
    ):
        assert part in message
    assert len(split(samples(number=64), limits=LIMITS).calibration) == 32


def test_too_little_is_asked_for() -> None:
    with pytest.raises(InvalidRequest, match="at least 32"):
        split(samples(), calibration=31, limits=LIMITS)


def test_what_is_rare_is_found() -> None:
    """Of 150 pictures of one kind and 50 of four others, all five kinds calibrate."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 256, (5, 3))
    items = []
    for index in range(200):
        kind = 0 if index < 150 else 1 + index % 4
        noise = rng.normal(0, 25, (8, 8, 3))
        pixels = cv2.resize((kinds[kind] + noise).clip(0, 255).astype(np.uint8), (32, 32))
        items.append(sample(f"{kind}-{index}", encode_png(pixels)))
    parts = split(Samples(tuple(items), "", ""), calibration=32, limits=LIMITS)
    found = [s.name[0] for s in parts.calibration]
    assert set(found) == set("01234")
    # A random half holds a quarter of the others; a diverse choice holds more.
    assert sum(kind != "0" for kind in found) > 8


def test_progress_counts_the_pictures() -> None:
    class Heard:
        total, done, ended = 0, 0, 0

        def start(self, label: str, total: int | None = None) -> None:
            self.total = total or 0

        def advance(self, n: int) -> None:
            self.done += n

        def finish(self) -> None:
            self.ended += 1

    heard = Heard()
    split(samples(), limits=LIMITS, progress=heard)
    assert (heard.total, heard.done, heard.ended) == (200, 200, 1)
