"""Storing records beside the requests: in groups, on a thread of its own, never in their way."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from retinue.core.errors import RetinueError
from retinue.core.record import Record
from retinue.core.settings import Blobs, Records
from retinue.store.interface import BlobStore, RecordStore

logger = logging.getLogger(__name__)

MAX_QUEUE = 4096
MAX_QUEUE_BYTES = 64 * 2**20
MAX_GROUP = 256
RETENTION_S = 60.0
CHUNK = 500

OnDrop = Callable[[str, int], None]


def sampled(record_id: str, share: float, purpose: str = "record") -> bool:
    """Whether a record belongs to a share; the same id always gets the same answer.

    Args:
        record_id: The record's id.
        share: In [0, 1]; what is in a share is also in every larger one.
        purpose: Shares of different purposes are independent of each other.
    """
    digest = hashlib.blake2b(f"{purpose}:{record_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7]) < share * 2**56


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    record: Record
    body: bytes | None
    future: Future[bool]


class _Burst:
    """Logs the first of a row of failures, and their number once it is over."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0

    def failed(self, count: int, error: BaseException) -> None:
        if not self._failures:
            logger.error("%s failed (later failures are only counted): %s", self._what, error)
        self._failures += count

    def worked(self) -> None:
        if self._failures:
            logger.warning("%s works again; %d were lost", self._what, self._failures)
        self._failures = 0


class RecordWriter:
    """Takes finished records, stores a share of them in groups, and deletes the old ones.

    Records that arrive while one group is being synced make up the next group. Nothing here blocks
    or fails a request: what cannot be stored is counted and dropped.

    `counts` and ``on_drop`` use these names: "stored", "sampled_out"; and, dropped:
    "record_queue_full", "record_after_close", "record_storage_failed", "blob_queue_full",
    "blob_storage_failed".
    """

    def __init__(
        self,
        records: RecordStore,
        blobs: BlobStore | None,
        record_settings: Records,
        blob_settings: Blobs,
        *,
        on_drop: OnDrop | None = None,
        max_queue: int = MAX_QUEUE,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
        max_group: int = MAX_GROUP,
        retention_s: float = RETENTION_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Start the threads.

        Args:
            records: Where records go; it is not closed here.
            blobs: Where inputs go; None keeps none.
            record_settings: Share, age and number of records kept.
            blob_settings: Share (of the records kept) and age of inputs kept.
            on_drop: Called with a name and a number for all that is dropped, from any thread; it
                must not raise.
            max_queue: Records that may wait.
            max_queue_bytes: Bytes of inputs that may wait; a record beyond goes without its input.
            max_group: Records in one transaction.
            retention_s: Seconds between two looks for old records.
            now: The clock that ages are measured by.
        """
        self._records, self._blobs = records, blobs
        self._record_settings, self._blob_settings = record_settings, blob_settings
        self._on_drop, self._now = on_drop, now
        self._max_queue, self._max_bytes, self._max_group = max_queue, max_queue_bytes, max_group
        self._queue: deque[_Entry] = deque()
        self._queued_bytes = 0
        self._busy = False
        self._closing = False
        self._changed = threading.Condition()
        self._counts: Counter[str] = Counter()
        self._counts_lock = threading.Lock()
        self._record_burst, self._blob_burst = _Burst("storing records"), _Burst("storing blobs")
        self._stop_retention = threading.Event()
        self._writer = threading.Thread(target=self._write, name="records", daemon=True)
        self._retention = threading.Thread(
            target=self._retain_now_and_then, args=(retention_s,), name="retention", daemon=True
        )
        self._writer.start()
        self._retention.start()

    def submit(self, record: Record, body: bytes | None = None) -> Future[bool]:
        """Take a record in, without waiting.

        Args:
            record: Failures are always kept; of successes, the share in the settings.
            body: The input's bytes, kept for the share in the settings.

        Returns:
            True once the record is durable; False when it is sampled out or cannot be stored. It
            never raises and cannot be cancelled. Its callbacks run on the writer's thread.
        """
        future: Future[bool] = Future()
        # From here on a caller that goes away cannot cancel it under the writer.
        future.set_running_or_notify_cancel()
        failed = record.outcome.error is not None
        if not failed and not sampled(record.id, self._record_settings.sample):
            self._count("sampled_out")
            future.set_result(False)
            return future
        if body is not None and not self._keeps_body(record):
            body = None
        dropped = self._enqueue(_Entry(record, body, future))
        if dropped:
            self._count(dropped, dropped=True)
            if dropped != "blob_queue_full":
                future.set_result(False)
        return future

    def counts(self) -> Mapping[str, int]:
        """Return how many records were stored, sampled out and dropped so far, by name."""
        with self._counts_lock:
            return dict(self._counts)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was submitted is stored or dropped; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Store what waits and stop; return whether that was done in time. May be called twice.

        The stores stay open: whoever opened them closes them, after this.
        """
        self._stop_retention.set()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        end = None if timeout is None else time.monotonic() + timeout
        for thread in (self._writer, self._retention):
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return not self._writer.is_alive() and not self._retention.is_alive()

    def retain(self) -> tuple[int, int]:
        """Delete all records and blobs whose time is over; return how many of each.

        Raises:
            StorageError: a store failed.
        """
        settings = self._record_settings
        before = _ago(self._now(), settings.keep_days)
        records = self._in_chunks(
            lambda: self._records.prune(before=before, keep=settings.keep_rows, limit=CHUNK)
        )
        if self._blobs is None:
            return records, 0
        blobs, blobs_before = self._blobs, _ago(self._now(), self._blob_settings.keep_days)
        return records, self._in_chunks(lambda: blobs.prune(blobs_before, limit=CHUNK))

    def _keeps_body(self, record: Record) -> bool:
        return self._blobs is not None and sampled(record.id, self._blob_settings.sample, "blob")

    def _enqueue(self, entry: _Entry) -> str:
        """Put an entry into the queue; return the name of what was dropped, "" for nothing."""
        size = 0 if entry.body is None else len(entry.body)
        with self._changed:
            if self._closing:
                return "record_after_close"
            if len(self._queue) >= self._max_queue:
                return "record_queue_full"
            fits = self._queued_bytes + size <= self._max_bytes
            if not fits:
                entry, size = _Entry(entry.record, None, entry.future), 0
            self._queued_bytes += size
            self._queue.append(entry)
            self._changed.notify_all()
        return "" if fits else "blob_queue_full"

    def _count(self, name: str, number: int = 1, *, dropped: bool = False) -> None:
        with self._counts_lock:
            self._counts[name] += number
        if dropped and self._on_drop is not None:
            self._on_drop(name, number)

    def _write(self) -> None:
        while group := self._next_group():
            kept = self._store(group)
            with self._changed:
                self._queued_bytes -= sum(len(entry.body or b"") for entry in group)
            for entry, stored in zip(group, kept, strict=True):
                entry.future.set_result(stored)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next_group(self) -> list[_Entry]:
        """Wait for entries; an empty list means that the writer is closed and all is stored."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            size = min(len(self._queue), self._max_group)
            group = [self._queue.popleft() for _ in range(size)]
            self._busy = bool(group)
            return group

    def _store(self, group: list[_Entry]) -> list[bool]:
        keys = {entry.record.id: self._put(entry.body) for entry in group if entry.body is not None}
        return self._append(group, keys)

    def _append(self, group: list[_Entry], keys: Mapping[str, str]) -> list[bool]:
        try:
            self._records.append([entry.record for entry in group], keys)
        except RetinueError as error:
            self._lost(len(group), error)
            return [False] * len(group)
        except Exception as error:  # noqa: BLE001 (a record of wrong types must not end the thread)
            if len(group) == 1:
                self._lost(1, error)
                return [False]
            return [stored for entry in group for stored in self._append([entry], keys)]
        self._record_burst.worked()
        self._count("stored", len(group))
        return [True] * len(group)

    def _lost(self, number: int, error: Exception) -> None:
        self._record_burst.failed(number, error)
        self._count("record_storage_failed", number, dropped=True)

    def _put(self, body: bytes) -> str:
        assert self._blobs is not None
        try:
            key = self._blobs.put(body)
        except Exception as error:  # noqa: BLE001 (a file system's package may raise anything)
            self._blob_burst.failed(1, error)
            self._count("blob_storage_failed", dropped=True)
            return ""
        self._blob_burst.worked()
        return key

    def _in_chunks(self, prune: Callable[[], int]) -> int:
        total = 0
        while deleted := prune():
            total += deleted
            # Between chunks the writer gets its turn.
            if self._stop_retention.wait(0.01):
                break
        return total

    def _retain_now_and_then(self, every_s: float) -> None:
        burst = _Burst("deleting old records")
        while not self._stop_retention.wait(every_s):
            try:
                self.retain()
            except Exception as error:  # noqa: BLE001 (a file system's package may raise anything)
                burst.failed(1, error)
            else:
                burst.worked()


def _ago(now: datetime, days: float) -> datetime:
    """A moment so many days earlier, or the beginning of time."""
    try:
        return now - timedelta(days=days)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
