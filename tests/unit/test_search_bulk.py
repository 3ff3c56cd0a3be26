"""Bulk indexing with a real, tiny model: new, changed, vanished and unreadable pictures."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from retinue.apps.search.sources import Found, Refused, open_source, source_name
from retinue.core.errors import InputError, StorageError
from retinue.testing.bulk import CountingModels, Rig, counts, put
from retinue.testing.embedders import EMBEDDER, install, photo


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.collection.close()


def test_a_second_run_embeds_nothing(rig: Rig) -> None:
    put(rig.photos, *range(20))
    put(rig.photos / "deep" / "er", 20, 21)
    first = rig.index()
    assert counts(first) == (22, 0, 0, 0)
    assert (first.listed, first.complete, first.done) == (22, True, 22)
    assert rig.embedded == 22
    assert max(rig.models.seen) <= 4
    assert {"000.jpg", "deep/er/021.jpg"} < set(rig.ids())
    assert all(rig.nearest(n) == f"{n:03}.jpg" for n in range(20))
    before = rig.collection._opened.refresh().generation
    assert counts(rig.index()) == (0, 22, 0, 0)
    assert rig.embedded == 0
    assert rig.collection._opened.refresh().generation == before


def test_it_follows_what_changed(rig: Rig) -> None:
    put(rig.photos, *range(10))
    rig.index()
    (rig.photos / "003.jpg").write_bytes(photo(103))
    (rig.photos / "004.jpg").unlink()
    put(rig.photos, 50)
    os.utime(rig.photos / "005.jpg")
    assert counts(rig.index()) == (3, 7, 0, 0)
    assert rig.embedded == 2  # of 005.jpg only the time changed
    assert rig.nearest(103) == "003.jpg"
    assert "004.jpg" in rig.ids()
    assert counts(rig.index(remove=True)) == (0, 10, 0, 1)
    assert "004.jpg" not in rig.ids()
    assert rig.nearest(50) == "050.jpg"
    assert rig.nearest(4) != "004.jpg"


def test_what_came_from_elsewhere_is_not_removed(rig: Rig, tmp_path: Path) -> None:
    put(rig.photos, 1, 2)
    put(tmp_path / "others", 3)
    rig.collection.add(photo(4), id="by hand")
    rig.index()
    rig.index(tmp_path / "others")
    (rig.photos / "001.jpg").unlink()
    assert counts(rig.index(remove=True)) == (0, 1, 0, 1)
    assert rig.ids() == ["002.jpg", "003.jpg", "by hand"]


def test_only_metadata_changed(rig: Rig, tmp_path: Path) -> None:
    put(tmp_path, 1, 2)
    table = tmp_path / "shop.csv"
    table.write_text("id,path,price\na,001.jpg,5\nb,002.jpg,7\n")
    rig.index(table)
    table.write_text("id,path,price\na,001.jpg,5\nb,002.jpg,9\n")
    assert counts(rig.index(table)) == (1, 1, 0, 0)
    assert rig.embedded == 0
    assert rig.collection.get("b").meta == {"price": 9}
    hits = rig.collection.search(photo(1), where={"price": {"gt": 8}})
    assert [hit.item.id for hit in hits] == ["b"]


def test_failures_are_listed_and_heal(rig: Rig) -> None:
    put(rig.photos, *range(4))
    whole = (rig.photos / "002.jpg").read_bytes()
    (rig.photos / "000.jpg").write_bytes(b"")
    (rig.photos / "001.jpg").write_bytes(b"no picture at all" * 9)
    (rig.photos / "002.jpg").write_bytes(whole[: len(whole) // 4])
    assert counts(rig.index()) == (1, 0, 3, 0)
    failed = {Path(one.path).name: one for one in rig.collection.failures()}
    assert {name: one.code for name, one in failed.items()} == {
        "000.jpg": "empty_input",
        "001.jpg": "unsupported_media",
        "002.jpg": "corrupt_media",
    }
    assert all(one.message for one in failed.values())
    put(rig.photos, 0, 1)
    assert counts(rig.index()) == (2, 1, 1, 0)
    assert [Path(one.path).name for one in rig.collection.failures()] == ["002.jpg"]
    put(rig.photos, 2)
    assert counts(rig.index()) == (1, 3, 0, 0)
    assert rig.collection.failures() == []


def test_a_failure_heals_when_the_same_file_is_put_back(rig: Rig) -> None:
    put(rig.photos, 1, 2)
    rig.index()
    file = rig.photos / "001.jpg"
    status, whole = file.stat(), file.read_bytes()
    file.write_bytes(whole[:100])
    assert counts(rig.index()) == (0, 1, 1, 0)
    assert rig.nearest(1) == "001.jpg"  # what was known stays
    file.write_bytes(whole)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    rig.index()
    assert rig.embedded == 0
    assert rig.collection.failures() == []


def test_a_file_that_goes_while_it_is_indexed(rig: Rig) -> None:
    put(rig.photos, 1, 2)

    def offers() -> Iterator[Found | Refused]:
        for offer in open_source(str(rig.photos), limits=rig.settings.limits):
            if offer.id == "001.jpg":
                (rig.photos / "001.jpg").unlink()
            yield offer

    assert counts(rig.bulk().run(offers(), source_name(str(rig.photos)))) == (1, 0, 1, 0)
    assert [one.code for one in rig.collection.failures()] == ["input_not_found"]


def test_the_same_id_twice(rig: Rig, tmp_path: Path) -> None:
    put(tmp_path, 1, 2, 3)
    table = tmp_path / "shop.csv"
    table.write_text("id,path\na,001.jpg\na,002.jpg\nb,003.jpg\n")
    for expected in ((2, 0, 1, 0), (0, 2, 1, 0)):
        assert counts(rig.index(table)) == expected
        (failure,) = rig.collection.failures()
        assert "'a' is given twice" in failure.message
        assert failure.path.endswith("002.jpg")
    assert rig.ids() == ["a", "b"]
    assert rig.nearest(1) == "a"


def test_ids_and_metadata_out_of_their_limits(rig: Rig, tmp_path: Path) -> None:
    put(tmp_path, 1, 2, 3)
    table = tmp_path / "shop.jsonl"
    rows = [
        '{"id": "%s", "path": "001.jpg"}' % ("x" * 513),
        '{"id": "long", "path": "002.jpg", "note": "%s"}' % ("y" * 20_000),
        '{"id": "fine", "path": "003.jpg", "note": "z"}',
    ]
    table.write_text("\n".join(rows))
    assert counts(rig.index(table)) == (1, 0, 2, 0)
    assert {one.code for one in rig.collection.failures()} == {"invalid_request"}
    assert rig.ids() == ["fine"]


def archive(path: Path, *numbers: int) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for number in numbers:
            made.writestr(f"in/{number:03}.jpg", photo(number))
    return path


def test_an_archive(rig: Rig, tmp_path: Path) -> None:
    packed = archive(tmp_path / "photos.zip", 1, 2, 3)
    assert counts(rig.index(packed)) == (3, 0, 0, 0)
    assert rig.ids() == [f"photos.zip/in/{n:03}.jpg" for n in (1, 2, 3)]
    assert counts(rig.index(packed)) == (0, 3, 0, 0)
    archive(packed, 2, 3, 4)
    done = rig.index(packed, remove=True)
    assert (done.failed, done.removed) == (0, 1)
    assert rig.embedded == 1
    assert rig.nearest(4) == "photos.zip/in/004.jpg"


def test_a_source_that_is_partly_refused_removes_nothing(rig: Rig) -> None:
    put(rig.photos, *range(6))
    rig.index()
    listed = list(open_source(str(rig.photos), limits=rig.settings.limits))
    name = source_name(str(rig.photos))
    partial = Refused(name, "photos/locked", InputError("it may not be read"), partial=True)
    bulk = rig.bulk()
    done = bulk.run([*listed[:2], partial], name, remove=True)
    assert (bulk.whole, done.removed, done.failed) == (False, 0, 1)
    assert len(rig.ids()) == 6
    refused = Refused(name, "005", InputError("no"), id="005.jpg")
    bulk = rig.bulk()
    done = bulk.run([*listed[:2], refused], name, remove=True)
    assert (bulk.whole, done.removed) == (True, 3)
    assert rig.ids() == ["000.jpg", "001.jpg", "005.jpg"]  # refused, yet there


def test_a_source_that_breaks_off_removes_nothing(rig: Rig) -> None:
    put(rig.photos, *range(6))
    rig.index()

    def offers() -> Iterator[Found | Refused]:
        yield from list(open_source(str(rig.photos), limits=rig.settings.limits))[:2]
        raise StorageError("the disk was pulled out")

    with pytest.raises(StorageError, match="pulled out"):
        rig.bulk().run(offers(), source_name(str(rig.photos)), remove=True)
    assert len(rig.ids()) == 6


def test_a_model_of_another_version_embeds_all_anew(rig: Rig, tmp_path: Path) -> None:
    put(rig.photos, *range(5))
    rig.index()
    again = install(rig.settings.cache, tmp_path / "made", turned=True)
    models = CountingModels(rig.settings)
    assert models.entry(EMBEDDER).version == again.version
    offers = open_source(str(rig.photos), limits=rig.settings.limits)
    done = rig.bulk(models).run(offers, source_name(str(rig.photos)))
    assert counts(done) == (5, 0, 0, 0)
    assert sum(models.seen) == 5
    assert len(rig.ids()) == 5
    spaces = rig.collection._opened.spaces()
    assert [space.count for space in spaces] == [5, 5]


def test_duplicates_are_grouped(rig: Rig) -> None:
    put(rig.photos, *range(8))
    (rig.photos / "exact.jpg").write_bytes(photo(1))
    (rig.photos / "near.jpg").write_bytes(photo(1, quality=60))
    (rig.photos / "small.jpg").write_bytes(photo(2, width=120))
    assert rig.index().grouped == 5
    groups = [[item.id for item in group] for group in rig.collection.duplicates()]
    assert sorted(map(sorted, groups)) == [
        ["001.jpg", "exact.jpg", "near.jpg"],
        ["002.jpg", "small.jpg"],
    ]
    best = rig.collection.search(photo(1), k=5)[0]
    assert best.duplicates == 2
    (rig.photos / "exact.jpg").write_bytes(photo(70))
    (rig.photos / "near.jpg").unlink()
    assert rig.index(remove=True).grouped == 2
