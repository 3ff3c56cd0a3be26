"""Bulk indexing that is stopped: by a wish, another run, an error, a full disk, SIGKILL."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from retinue.apps.search.bulk import BulkIndex
from retinue.apps.search.progress import Progress
from retinue.apps.search.sources import Found, open_source
from retinue.core.errors import Conflict, ModelRunFailed, NotWritable, StorageError
from retinue.core.types import Outcome
from retinue.testing.bulk import Counting, CountingModels, Rig, counts, put
from retinue.testing.embedders import install, photo


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.collection.close()


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

PHOTOS = 240

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
            if kill % 2:  # surely in the middle, however slow the machine is
                until(lambda: len(rig.collection) > min(len(durable[-1]), PHOTOS - 1))
            time.sleep(draw.uniform(0.0, 0.15))
            with suppress(ProcessLookupError):  # it was done before
                os.kill(child, signal.SIGKILL)
        lines_until(process, "ended")
        read = log.read_bytes()[began:].decode().split()
        assert len(read) == len(set(read))
        assert not set(read) & durable[-1], "what was durable was read again"
    return durable


def test_killed_and_resumed(rig: Rig) -> None:
    put(rig.photos, *range(PHOTOS))
    run = [sys.executable, "-u", "-c", ZYGOTE, str(rig.settings.home.parent)]
    with subprocess.Popen(
        run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        durable = killed_runs(process, rig, 10)
        assert process.stdin is not None
        process.stdin.close()
    assert all(one <= other for one, other in pairwise(durable))
    assert len(durable[-1]) >= 5
    assert rig.ids() == [f"{n:03}.jpg" for n in range(PHOTOS)]
    assert len(rig.collection) == PHOTOS
    space = rig.collection.open_space()
    assert len(space) == len(set(space.numbers(space.slots()).tolist())) == PHOTOS
    assert all(rig.nearest(n) == f"{n:03}.jpg" for n in range(0, PHOTOS, 11))
    assert counts(rig.index()) == (0, PHOTOS, 0, 0)
