"""The record writer: groups, sampling, bounds, storage that fails, retention."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import CorruptMedia, DiskFull, StorageError
from retinue.core.record import Record, new_id
from retinue.core.settings import Blobs, Records
from retinue.core.types import Outcome
from retinue.store.blobs import FolderBlobs
from retinue.store.interface import Filter, RecordStore
from retinue.store.records import open_records
from retinue.store.writer import RecordWriter, sampled
from retinue.testing.records import NOON, record

FAILURE = Outcome(error=CorruptMedia("the JPEG ends early; send it again"))
ALL_BODIES = Blobs(sample=1.0)


class Gated:
    """A store of records that waits, counts its groups, and fails on demand."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.groups: list[int] = []
        self.error: Exception | None = None

    def append(self, records: Sequence[Record], blobs: Mapping[str, str]) -> None:
        self.entered.set()
        assert self.open.wait(10)
        self.groups.append(len(records))
        if self.error is not None:
            raise self.error
        self._store.append(records, blobs)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Gated]:
    with closing(open_records(f"sqlite:///{tmp_path}/records.sqlite3")) as records:
        yield Gated(records)


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def writer(store, blobs=None, records=None, bodies=None, **options) -> RecordWriter:
    return RecordWriter(store, blobs, records or Records(), bodies or Blobs(), **options)


def test_what_is_true_is_durable_and_waiting_records_share_a_commit(store: Gated) -> None:
    with closing(writer(store)) as one:
        store.open.clear()
        futures = [one.submit(record(0))]
        assert store.entered.wait(10)
        futures += [one.submit(record(n)) for n in range(1, 50)]
        assert not any(future.done() for future in futures)
        assert not one.flush(0.01)
        store.open.set()
        assert all(future.result(10) for future in futures)
        assert store.count() == 50
        assert store.groups == [1, 49]
        assert one.flush(10)
        assert one.counts() == {"stored": 50}


def test_groups_have_a_largest_size(store: Gated) -> None:
    with closing(writer(store, max_group=8)) as one:
        store.open.clear()
        futures = [one.submit(record(n)) for n in range(30)]
        store.open.set()
        assert all(future.result(10) for future in futures)
    assert max(store.groups) <= 8


def test_close_stores_what_waits_and_later_records_are_counted(store: Gated) -> None:
    dropped: Counter[str] = Counter()
    one = writer(store, on_drop=lambda name, number: dropped.update({name: number}))
    futures = [one.submit(record(n)) for n in range(20)]
    assert one.close(10)
    assert one.close(10)
    assert all(future.result(0) for future in futures)
    assert one.submit(record(99)).result(0) is False
    assert dropped == {"record_after_close": 1}
    assert store.count() == 20


def test_close_waits_no_longer_than_it_is_told(store: Gated) -> None:
    one = writer(store)
    store.open.clear()
    future = one.submit(record(0))
    assert store.entered.wait(10)
    assert not one.close(0.01)
    store.open.set()
    assert one.close(10)
    assert future.result(0)


def test_a_full_queue_drops_and_never_waits(store: Gated) -> None:
    dropped: Counter[str] = Counter()
    one = writer(store, max_queue=5, on_drop=lambda name, n: dropped.update({name: n}))
    with closing(one):
        store.open.clear()
        first = one.submit(record(0))
        assert store.entered.wait(10)
        waiting = [one.submit(record(n)) for n in range(1, 6)]
        late = [one.submit(record(n)) for n in range(6, 9)]
        assert [future.result(0) for future in late] == [False] * 3
        store.open.set()
        assert all(future.result(10) for future in (first, *waiting))
    assert dropped == {"record_queue_full": 3}
    assert one.counts() == {"record_queue_full": 3, "stored": 6}


def test_a_caller_that_goes_away_does_not_disturb_the_writer(store: Gated) -> None:
    with closing(writer(store)) as one:
        store.open.clear()
        future = one.submit(record(0))
        assert not future.cancel()
        store.open.set()
        assert future.result(10)


def test_failures_are_kept_whatever_the_share(store: Gated) -> None:
    with closing(writer(store, records=Records(sample=0.0))) as one:
        success, failure = one.submit(record(0)), one.submit(record(1, outcome=FAILURE))
        assert success.result(10) is False
        assert failure.result(10) is True
    assert store.count() == store.count(Filter(failed=True)) == 1
    assert one.counts() == {"sampled_out": 1, "stored": 1}


def test_a_share_of_successes_is_kept_by_their_id(store: Gated) -> None:
    given_ = [record(n, id=new_id()) for n in range(400)]
    with closing(writer(store, records=Records(sample=0.25))) as one:
        kept = [future.result(10) for future in [one.submit(r) for r in given_]]
    assert kept == [sampled(r.id, 0.25) for r in given_]
    assert 60 < sum(kept) < 140
    assert store.count() == sum(kept)


@settings(deadline=None)
@given(st.text(st.characters()), st.floats(0, 1), st.floats(0, 1))
def test_shares_are_nested(record_id: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    assert sampled(record_id, smaller) <= sampled(record_id, larger)
    assert sampled(record_id, 1.0)
    assert not sampled(record_id, 0.0)


def test_bodies_are_kept_beside_their_records(store: Gated, blobs: FolderBlobs) -> None:
    with closing(writer(store, blobs, bodies=ALL_BODIES)) as one:
        assert one.submit(record(0), b"a photo").result(10)
        assert one.submit(record(1)).result(10)
    assert blobs.get(store.get(record(0).id).blob) == b"a photo"
    assert store.get(record(1).id).blob == ""


def test_by_default_no_body_is_kept(store: Gated, blobs: FolderBlobs) -> None:
    with closing(writer(store, blobs)) as one:
        assert one.submit(record(0), b"a photo").result(10)
    assert store.get(record(0).id).blob == ""


def test_too_many_bytes_of_bodies_cost_the_bodies_only(store: Gated, blobs: FolderBlobs) -> None:
    with closing(writer(store, blobs, bodies=ALL_BODIES, max_queue_bytes=100)) as one:
        store.open.clear()
        futures = [one.submit(record(n), bytes([n]) * 40) for n in range(4)]
        store.open.set()
        assert all(future.result(10) for future in futures)
        assert one.flush(10)
        assert one.submit(record(9), b"x" * 100).result(10)
    assert [store.get(record(n).id).blob != "" for n in (0, 1, 2, 3, 9)] == [
        *(True, True, False, False, True)
    ]
    assert one.counts()["blob_queue_full"] == 2


def test_a_blob_that_cannot_be_stored_costs_the_blob_only(
    store: Gated, blobs: FolderBlobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "blobs").rmdir()
    (tmp_path / "blobs").write_text("a file where the folder was")
    with closing(writer(store, blobs, bodies=ALL_BODIES)) as one:
        assert all(one.submit(record(n), b"a photo").result(10) for n in range(3))
    assert store.get(record(0).id).blob == ""
    assert one.counts() == {"stored": 3, "blob_storage_failed": 3}
    assert len(caplog.records) == 1


def test_failing_storage_is_logged_once_a_burst_and_counted(
    store: Gated, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dropped: Counter[str] = Counter()
    with closing(writer(store, on_drop=lambda name, n: dropped.update({name: n}))) as one:
        for burst in range(2):
            store.error = DiskFull("no space is left; free some")
            assert not any(one.submit(record(10 * burst + n)).result(10) for n in range(5))
            store.error = None
            assert one.submit(record(10 * burst + 9)).result(10)
    assert dropped == {"record_storage_failed": 10}
    assert [entry.levelname for entry in caplog.records] == ["ERROR", "WARNING"] * 2
    assert "no space is left" in caplog.text
    assert "5 were lost" in caplog.text


def test_a_record_that_cannot_be_stored_fails_alone(store: Gated) -> None:
    with closing(writer(store)) as one:
        store.open.clear()
        futures = [one.submit(record(n, width="wide" if n == 3 else 1)) for n in range(6)]
        store.open.set()
        assert [future.result(10) for future in futures] == [n != 3 for n in range(6)]
        assert one.submit(record(7)).result(10)
    assert store.count() == 6


def _days(n: int, count: int) -> list[Record]:
    return [
        record(100 * n + k, created_at=NOON - timedelta(days=n), id=new_id()) for k in range(count)
    ]


def test_records_that_are_too_old_or_too_many_are_deleted(store: Gated) -> None:
    store.append([r for n in range(5) for r in _days(n, 300)], {})
    settings = Records(keep_days=2.5, keep_rows=650)
    with closing(writer(store, records=settings, now=lambda: NOON)) as one:
        assert one.retain() == (850, 0)
        assert one.retain() == (0, 0)
    assert store.count() == 650
    assert store.count(Filter(until=NOON - timedelta(days=2.5))) == 0


def test_old_blobs_are_deleted(store: Gated, blobs: FolderBlobs) -> None:
    keys = [blobs.put(bytes([n])) for n in range(5)]
    with closing(writer(store, blobs, bodies=Blobs(keep_days=1.0))) as one:
        assert one.retain() == (0, 0)
    later = datetime.now(NOON.tzinfo) + timedelta(days=2)
    with closing(writer(store, blobs, bodies=Blobs(keep_days=1.0), now=lambda: later)) as one:
        assert one.retain() == (0, 5)
    assert not any(blobs.exists(key) for key in keys)


def test_a_very_long_time_keeps_all(store: Gated) -> None:
    store.append([record(0)], {})
    with closing(writer(store, records=Records(keep_days=1e12))) as one:
        assert one.retain() == (0, 0)


def test_retention_runs_now_and_then_and_outlives_failures(
    store: Gated, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    third = threading.Event()

    def prune(**_options: object) -> int:
        calls.append(1)
        if len(calls) >= 3:
            third.set()
        raise StorageError("the disk is gone; bring it back")

    monkeypatch.setattr(store, "prune", prune, raising=False)
    with closing(writer(store, retention_s=0.001)) as one:
        assert third.wait(10)
        assert one.submit(record(0)).result(10)
    assert len(caplog.records) == 1
