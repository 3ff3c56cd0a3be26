"""Filters' folders: made from a template, and read again when they change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinue.apps.ar import filters
from retinue.apps.ar.filters.load import load_folder
from retinue.core.errors import FilterInvalid, InvalidRequest

from .ar_folders import HEAD, PAINT, make, png

# Templates


def test_a_template_works_as_it_is(tmp_path: Path) -> None:
    made = filters.new("my-first", tmp_path / "new" / "place")
    assert made == tmp_path / "new" / "place" / "my-first"
    found = filters.load(made)
    assert found.spec.title == "My first"
    assert [part.kind for part in found.spec.parts] == ["paint", "model", "sticker"]
    assert {p.key for p in filters.check(made)} == {"license", "author"}
    assert sorted(path.name for path in made.parent.iterdir()) == ["my-first"]


@pytest.mark.parametrize("name", ["", "../up", "Dog", "a b", "-x", "x" * 64, "a/b"])
def test_a_bad_name_makes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="no name for a filter"):
        filters.new(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    with pytest.raises(InvalidRequest, match="is there already"):
        filters.new("dog", tmp_path)
    (tmp_path / "cat").symlink_to("nowhere")
    with pytest.raises(InvalidRequest, match="is there already"):
        filters.new("cat", tmp_path)


# Hot reload


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def touch(path: Path, text: str) -> None:
    path.write_text(text)
    stamp = path.stat().st_mtime_ns + 10_000_000
    os.utime(path, ns=(stamp, stamp))


def test_a_change_is_seen_and_a_bad_one_keeps_the_last_good(tmp_path: Path) -> None:
    folder = make(tmp_path)
    watched = filters.Watched(folder, clock=Clock())
    first = watched.filter
    assert not watched.poll()
    touch(folder / "filter.toml", HEAD.replace("Mine", "Yours") + PAINT)
    assert watched.poll()
    assert watched.filter.spec.title == "Yours"
    good = watched.filter
    touch(folder / "filter.toml", HEAD + PAINT + "opasity = 1\n")
    assert watched.poll()
    assert watched.filter is good
    assert watched.problem is not None
    assert "did you mean 'opacity'" in watched.problem
    assert not watched.poll()
    (folder / "filter.toml").unlink()
    assert watched.poll()
    assert watched.filter is good
    touch(folder / "filter.toml", HEAD + PAINT)
    assert watched.poll()
    assert watched.problem is None
    assert watched.filter.spec.title == first.spec.title


def test_a_changed_picture_is_seen(tmp_path: Path) -> None:
    folder = make(tmp_path)
    watched = filters.Watched(folder, clock=Clock())
    png(folder / "paint.png", 16)
    assert watched.poll()
    texture = watched.filter.assets[0].texture
    assert texture is not None
    assert texture.pixels.shape == (16, 16, 4)


def test_the_folder_is_not_looked_at_for_every_frame(tmp_path: Path) -> None:
    folder = make(tmp_path)
    now = [0.0]
    watched = filters.Watched(folder, every=0.25, clock=lambda: now[0])
    touch(folder / "filter.toml", HEAD.replace("Mine", "Yours") + PAINT)
    now[0] = 0.2
    assert not watched.poll()
    now[0] = 0.3
    assert watched.poll()


def test_what_is_wrong_from_the_start_is_raised(tmp_path: Path) -> None:
    with pytest.raises(FilterInvalid):
        filters.Watched(make(tmp_path, "[[parts]]\n"))
    with pytest.raises(FilterInvalid, match="cannot be read"):
        load_folder(tmp_path)
