"""Bulk indexing with a real, tiny model: what changes, what fails, what stops it, what dies."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from retinue.apps.search.api import Collection
from retinue.apps.search.bulk import BulkIndex, Progress
from retinue.apps.search.local import LocalModels
from retinue.apps.search.sources import Found, Refused, open_source, source_name
from retinue.core.errors import Conflict, InputError, ModelRunFailed, NotWritable, StorageError
from retinue.core.settings import Settings
from retinue.core.types import Outcome
from retinue.testing.embedders import COLOURS, EMBEDDER, install, photo, settings

NAMES = list(COLOURS)


class Counting:
    """A model that notes how many pictures it was given at once; it may be made to misbehave."""

    def __init__(self, model: Any, seen: list[int]) -> None:
        self._model, self._seen = model, seen

    def predict(self, images: Sequence[Any]) -> Any:
        self._seen.append(len(images))
        return self._model.predict(images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class CountingModels(LocalModels):
    kind: type[Counting] = Counting

    def __init__(self, given: Settings) -> None:
        super().__init__(given)
        self.seen: list[int] = []

    def fresh(self, name: str) -> Any:
        return self.kind(super().fresh(name), self.seen)


class Rig:
    """A collection, and runs of bulk indexing over whatever is given."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        self.settings = settings(folder, **fields)
        self.photos = folder / "photos"
        self.collection = Collection.open("shop", settings=self.settings)
        self.models = CountingModels(self.settings)

    def bulk(self, models: CountingModels | None = None, **options: Any) -> BulkIndex:
        opened = self.collection
        return BulkIndex(
            opened._library,
            opened._opened,
            models or self.models,
            EMBEDDER,
            limits=self.settings.limits,
            **{"threads": 2, "batch": 4, **options},
        )

    def index(self, source: Path | None = None, *, remove: bool = False) -> Progress:
        where = str(source or self.photos)
        self.models.seen.clear()
        offers = open_source(where, limits=self.settings.limits)
        return self.bulk().run(offers, source_name(where), remove=remove)

    @property
    def embedded(self) -> int:
        return sum(self.models.seen)

    def ids(self) -> list[str]:
        return sorted(item.id for item in self.collection.items())

    def nearest(self, number: int) -> str:
        return self.collection.search(photo(number), k=1, dedupe=False)[0].item.id


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.collection.close()


def put(folder: Path, *numbers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:03}.jpg").write_bytes(photo(number))


def counts(progress: Progress) -> tuple[int, int, int, int]:
    return progress.indexed, progress.unchanged, progress.failed, progress.removed


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


# What stops a run.


def endless(rig: Rig, read_s: float = 0.0) -> Iterator[Found]:
    number = 0
    while True:

        def read(number: int = number) -> bytes:
            time.sleep(read_s)
            return photo(number % 50)

        yield Found("/endless", f"e{number}", f"/endless/{number}", -1, 0, "", read)
        number += 1


def running(bulk: BulkIndex, offers: Iterable[Any]) -> tuple[threading.Thread, list[Any]]:
    said: list[Any] = []

    def run() -> None:
        try:
            said.append(bulk.run(offers, "/endless"))
        except BaseException as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, said


def until(true: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_stop_ends_soon_and_keeps_what_was_done(rig: Rig) -> None:
    bulk = rig.bulk()
    thread, said = running(bulk, endless(rig, 0.005))
    until(lambda: bulk.progress.indexed >= 20)
    bulk.stop()
    thread.join(5)
    assert not thread.is_alive()
    (progress,) = said
    assert progress.indexed == len(rig.ids()) >= 20
    assert progress.indexed == sum(rig.models.seen)  # nothing was embedded in vain
    assert rig.nearest(3)
    assert rig.bulk().run([], "/endless").indexed == 0


def test_a_second_run_at_once_is_refused(rig: Rig) -> None:
    bulk = rig.bulk()
    thread, said = running(bulk, endless(rig, 0.01))
    until(lambda: bulk.progress.indexed)
    other = Rig(rig.settings.home.parent)
    put(rig.photos, 1)
    begun = time.monotonic()
    with pytest.raises(Conflict, match=rf"'shop' is being written .*\(process {os.getpid()}\)"):
        other.index()
    assert time.monotonic() - begun < 10
    assert other.embedded == 0
    bulk.stop()
    thread.join(5)
    assert isinstance(said[0], Progress)
    assert counts(other.index()) == (1, 0, 0, 0)
    other.collection.close()


class Broken(Counting):
    def predict(self, images: Sequence[Any]) -> Any:
        if sum(self._seen) > 10:
            raise ZeroDivisionError("in the model")
        return super().predict(images)


class BrokenModels(CountingModels):
    kind = Broken


def breaking_offers(rig: Rig, error: Exception | None, odd: object = None) -> Iterator[Any]:
    for count, offer in enumerate(endless(rig)):
        if count == 30:
            if error is not None:
                raise error
            yield odd
        yield offer


def unreadable(rig: Rig) -> Iterator[Any]:
    def read() -> bytes:
        raise KeyError("in the source")

    for count, offer in enumerate(endless(rig)):
        yield replace(offer, read=read) if count == 30 else offer


def spoilt_thumbnails(rig: Rig) -> Iterator[Any]:
    for count, offer in enumerate(endless(rig)):
        if count == 600:
            folder = next(rig.settings.home.rglob("thumbnails"))
            folder.rename(folder.with_name("away"))
            folder.write_bytes(b"a file in its place")
        yield offer


BREAKS = {
    "list": (lambda rig: breaking_offers(rig, ZeroDivisionError("of the lister")), None),
    "list, foreseen": (lambda rig: breaking_offers(rig, StorageError("gone")), None),
    "choose": (lambda rig: breaking_offers(rig, None, "no offer"), None),
    "read": (unreadable, None),
    "embed": (endless, BrokenModels),
    "write": (spoilt_thumbnails, None),
}
ERRORS = {
    "list": ZeroDivisionError,
    "list, foreseen": StorageError,
    "choose": AttributeError,
    "read": KeyError,
    "embed": ZeroDivisionError,
    "write": NotWritable,
}


@pytest.mark.parametrize("where", BREAKS)
def test_an_exception_in_each_thread_ends_the_run(rig: Rig, where: str) -> None:
    offers, kind = BREAKS[where]
    models = (kind or CountingModels)(rig.settings)
    before = threading.active_count()
    thread, said = running(rig.bulk(models), offers(rig))
    thread.join(30)
    assert not thread.is_alive(), f"it hangs after an error in {where}"
    assert isinstance(said[0], ERRORS[where])
    until(lambda: threading.active_count() <= before, 5)
    if where == "write":
        folder = next(rig.settings.home.rglob("thumbnails"))
        folder.unlink()
        folder.with_name("away").rename(folder)
    # The lock is free, and what was written is whole.
    put(rig.photos, 1)
    assert rig.index().indexed == 1
    known = rig.ids()
    assert len(known) == len(rig.collection) == len(set(known))
    assert rig.nearest(1) in {"001.jpg", *known}


class Picky(Counting):
    """Fails each picture that is wider than others, as a model may, item by item."""

    def predict(self, images: Sequence[Any]) -> Any:
        outcomes = super().predict(images)
        failed = Outcome(error=ModelRunFailed("too wide for it"))
        return [failed if i.width > 200 else o for i, o in zip(images, outcomes, strict=True)]


class PickyModels(CountingModels):
    kind = Picky


def test_what_a_model_refuses_is_a_failure(rig: Rig) -> None:
    put(rig.photos, *range(6))
    (rig.photos / "wide.jpg").write_bytes(photo(9, width=300))
    offers = open_source(str(rig.photos), limits=rig.settings.limits)
    done = rig.bulk(PickyModels(rig.settings)).run(offers, "x")
    assert counts(done) == (6, 0, 1, 0)
    assert [one.message for one in rig.collection.failures()] == ["too wide for it"]


# A full disk.

FULL = """
import os, resource, sys
from pathlib import Path
from retinue.apps.search.api import Collection
from retinue.apps.search.indexing import run
from retinue.core.errors import RetinueError
from retinue.testing.embedders import settings
folder, room, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with Collection.open("shop", settings=settings(folder)) as shop:
    run(shop, str(folder / "some"), quiet=True)
    (file,) = (one for one in (folder / "home").rglob(what))
    limit = file.stat().st_size + room
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        run(shop, str(folder / "photos"), quiet=True)
        print("nothing")
    except RetinueError as error:
        print(error.code)
    known = {item.id for item in shop.items()}
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    report = run(shop, str(folder / "photos"), quiet=True)
    assert report["indexed"] + report["unchanged"] == 60, report
    print(len(known), report["indexed"], report["failed"], len(shop))
"""


@pytest.mark.parametrize(("what", "room"), [("*.image.rows", 40), ("records.sqlite3", 30_000)])
def test_a_full_disk_in_the_middle(tmp_path: Path, what: str, room: int) -> None:
    put(tmp_path / "some", 900)
    put(tmp_path / "photos", *range(60))
    install(tmp_path / "cache", tmp_path / "made")
    run = [sys.executable, "-c", FULL, str(tmp_path), str(room), what]
    said = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert said[0] in ("disk_full", "storage_error")
    before, indexed, failed, items = map(int, said[1:])
    assert (failed, items) == (0, 61)
    assert indexed == 61 - before


# SIGKILL.

ZYGOTE = """
import os, random, sys, time
from dataclasses import replace
from pathlib import Path
from retinue.apps.search import bulk
from retinue.apps.search.api import Collection
from retinue.apps.search.sources import open_source, source_name
from retinue.testing.embedders import settings
import cv2, faiss, numpy, onnxruntime, pdqhash, sqlalchemy
bulk.WRITE_AT, bulk.WRITE_EVERY_S = 6, 0.01
folder = Path(sys.argv[1])
given, photos = settings(folder), str(folder / "photos")

def work():
    log = os.open(folder / "read.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def noted(offer):
        def read():
            os.write(log, offer.id.encode() + b"\\n")
            time.sleep(0.01)
            return offer.read()
        return replace(offer, read=read)
    with Collection.open("shop", settings=given) as shop:
        run = shop.bulk(threads=2)
        os.write(1, b"ready\\n")
        offers = open_source(photos, limits=given.limits)
        done = run.run(map(noted, offers), source_name(photos))
        os.write(1, b"done %d %d\\n" % (done.indexed, done.unchanged))

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    os.write(1, b"child %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"ended\\n")
"""


def read_line(process: subprocess.Popen[str], wait_s: float = 30.0) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], wait_s)
    assert readable, "the child said nothing"
    return process.stdout.readline()


def lines_until(process: subprocess.Popen[str], last: str) -> list[str]:
    found: list[str] = []
    while not found or not found[-1].startswith(last):
        found.append(read_line(process))
        assert found[-1], "the child's parent ended"
    return found


def killed_runs(process: subprocess.Popen[str], rig: Rig, kills: int) -> list[set[str]]:
    """Let runs be killed; return what was durable before each, and before a last whole one."""
    draw = random.Random(7)
    durable: list[set[str]] = []
    log = rig.settings.home.parent / "read.log"
    log.touch()
    assert process.stdin is not None
    for kill in range(kills + 1):
        durable.append(set(rig.ids()))
        began = log.stat().st_size
        process.stdin.write("go\n")
        process.stdin.flush()
        child = int(lines_until(process, "child ")[-1].split()[1])
        if kill < kills:
            lines_until(process, "ready")
            time.sleep(draw.uniform(0.0, 0.3))
            os.kill(child, signal.SIGKILL)
        lines_until(process, "ended")
        read = log.read_bytes()[began:].decode().split()
        assert len(read) == len(set(read))
        assert not set(read) & durable[-1], "what was durable was read again"
    return durable


def test_killed_and_resumed(rig: Rig) -> None:
    put(rig.photos, *range(120))
    run = [sys.executable, "-u", "-c", ZYGOTE, str(rig.settings.home.parent)]
    with subprocess.Popen(
        run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        durable = killed_runs(process, rig, 10)
        assert process.stdin is not None
        process.stdin.close()
    assert all(one <= other for one, other in pairwise(durable))
    assert len(durable[-1]) > 0
    assert rig.ids() == [f"{n:03}.jpg" for n in range(120)]
    assert len(rig.collection) == 120
    space = rig.collection.open_space()
    assert len(space) == len(set(space.numbers(space.slots()).tolist())) == 120
    assert all(rig.nearest(n) == f"{n:03}.jpg" for n in range(0, 120, 7))
    assert counts(rig.index()) == (0, 120, 0, 0)
