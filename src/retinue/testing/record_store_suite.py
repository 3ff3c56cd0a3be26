"""The contract of every `RecordStore`, as checks that any test runner can call.

A check takes a function that opens one and the same store, empty at first, each time it is called,
and raises `AssertionError` where the contract is broken::

    @pytest.mark.parametrize("check", record_store_suite.CHECKS, ids=lambda c: c.__name__)
    def test_contract(check, tmp_path):
        check(lambda: open_records(f"sqlite:///{tmp_path}/records.sqlite3"))
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from retinue.core.errors import CorruptMedia, InvalidRequest, NotFound, QueueFull, StorageError
from retinue.core.record import Record
from retinue.core.types import Outcome
from retinue.store.interface import Filter, RecordStore
from retinue.testing.checks import raises
from retinue.testing.records import NOON, ODD_TEXTS, fingerprint, record, records

Open = Callable[[], RecordStore]
Check = Callable[[Open], None]


def _ids(store: RecordStore, where: Filter | None = None, limit: int = 7) -> list[str]:
    """Return the ids of all pages."""
    found: list[str] = []
    cursor = ""
    while True:
        page = store.query(where or Filter(), limit=limit, cursor=cursor)
        assert len(page.records) <= limit
        found += [stored.record.id for stored in page.records]
        cursor = page.cursor
        if not cursor:
            return found
        assert len(page.records) == limit


def what_was_appended_comes_back_to_the_last_bit(open_store: Open) -> None:
    """Every kind of outcome, through `get` and through `query`, also after a restart."""
    given = records()
    with closing(open_store()) as store:
        assert isinstance(store, RecordStore)
        store.append(given)
    with closing(open_store()) as store:
        for one in given:
            assert fingerprint(store.get(one.id).record) == fingerprint(one)
        found = store.query(limit=len(given)).records
    assert [fingerprint(s.record) for s in found] == [fingerprint(r) for r in reversed(given)]


def odd_text_comes_back_and_is_found(open_store: Open) -> None:
    """NUL, undecodable file names, very long and very foreign text, in every text."""
    given = [
        record(
            n, app=text, model=text, version=text, source=text, id=f"{n}{text}", tags={text: text}
        )
        for n, text in enumerate(ODD_TEXTS)
    ]
    with closing(open_store()) as store:
        store.append(given)
        for one in given:
            assert fingerprint(store.get(one.id).record) == fingerprint(one)
            for name in ("app", "model", "version", "source"):
                assert _ids(store, Filter(**{name: getattr(one, name)})) == [one.id]


def moments_keep_their_microseconds(open_store: Open) -> None:
    """Zones are turned into UTC; years long ago and far ahead work."""
    moments = [
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=timezone(timedelta(hours=5.75))),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
    with closing(open_store()) as store:
        store.append([record(n, created_at=moment) for n, moment in enumerate(moments)])
        for number, moment in enumerate(moments):
            found = store.get(f"{number:032x}").record.created_at
            assert found == moment
            assert found.tzinfo is UTC


def an_error_is_of_its_own_class_again(open_store: Open) -> None:
    """So that whoever reads it can ask for its status and exit code."""
    with closing(open_store()) as store:
        store.append([record(outcome=Outcome(error=QueueFull("the queue is full; wait")))])
        error = store.get(f"{0:032x}").record.outcome.error
    assert type(error) is QueueFull


def the_key_of_the_blob_is_kept(open_store: Open) -> None:
    """Only for the records that have one."""
    with closing(open_store()) as store:
        store.append([record(0), record(1)], {f"{1:032x}": "ab" * 32 + ".jpg"})
        assert store.get(f"{0:032x}").blob == ""
        assert store.get(f"{1:032x}").blob == "ab" * 32 + ".jpg"


def sending_a_record_again_changes_nothing(open_store: Open) -> None:
    """In another call, and twice in one; the first one stays, its neighbours are stored."""
    first, second = record(1), record(2)
    with closing(open_store()) as store:
        store.append([first])
        store.append([replace(first, app="other"), second, second])
        assert store.count() == 2
        assert fingerprint(store.get(first.id).record) == fingerprint(first)


def a_group_is_stored_whole_or_not_at_all(open_store: Open) -> None:
    """A record that cannot be stored takes its group with it, and the store still works."""
    bad = record(1, width="wide")
    with closing(open_store()) as store:
        try:
            store.append([record(0), bad, record(2)])
        except (TypeError, ValueError, StorageError):
            pass
        else:
            raise AssertionError("a width of 'wide' was stored")
        assert store.count() == 0
        store.append([])
        store.append([record(0), record(2)])
        assert store.count() == 2


def a_missing_record_is_not_found(open_store: Open) -> None:
    """With a message, whatever the id looks like."""
    with closing(open_store()) as store:
        for record_id in ("nothing", *ODD_TEXTS):
            raises(NotFound, store.get, record_id)


def pages_are_complete_and_newest_first(open_store: Open) -> None:
    """Ties of time are broken by id, and no record is lost or doubled at any page size."""
    given = [record(n, created_at=NOON + timedelta(seconds=n // 5)) for n in range(23)]
    shuffled = random.Random(1).sample(given, len(given))  # noqa: S311
    expected = [one.id for one in reversed(given)]
    with closing(open_store()) as store:
        store.append(shuffled)
        for limit in (1, 2, 5, 22, 23, 24, 1000):
            assert _ids(store, limit=limit) == expected


def new_records_do_not_disturb_a_reader(open_store: Open) -> None:
    """What is appended while pages are read neither repeats nor hides others."""
    with closing(open_store()) as store:
        store.append([record(n) for n in range(6)])
        first = store.query(limit=3)
        store.append([record(n) for n in range(6, 9)])
        rest = store.query(limit=3, cursor=first.cursor)
    ids = [stored.record.id for stored in (*first.records, *rest.records)]
    assert ids == [f"{n:032x}" for n in range(5, -1, -1)]


def wrong_limits_and_cursors_are_refused(open_store: Open) -> None:
    """As the caller's mistake."""
    with closing(open_store()) as store:
        for limit in (0, -1, 1001):
            raises(InvalidRequest, store.query, limit=limit)
        for cursor in ("x", "1", "x:y", ":", "9" * 30 + ":a", "1:\0", "1:\udce9"):
            raises(InvalidRequest, store.query, cursor=cursor)


def _matches(one: Record, where: Filter) -> bool:
    """The slow, obvious twin of a query's condition."""
    code = "" if one.outcome.error is None else one.outcome.error.code
    return (
        (where.since is None or one.created_at >= where.since)
        and (where.until is None or one.created_at < where.until)
        and (where.app is None or one.app == where.app)
        and (where.model is None or one.model == where.model)
        and (where.version is None or one.version == where.version)
        and (where.source is None or one.source == where.source)
        and (where.code is None or code == where.code)
        and (where.failed is None or (code != "") == where.failed)
    )


def filters_agree_with_their_twin(open_store: Open) -> None:
    """Random filters over random records: pages and counts."""
    dice = random.Random(5)  # noqa: S311

    def some(*values: object) -> object:
        return dice.choice([None, None, *values])

    failures = [Outcome(error=kind("it failed; try again")) for kind in (CorruptMedia, QueueFull)]
    given = [
        record(
            number,
            app=dice.choice("ab"),
            model=dice.choice("mn"),
            version=dice.choice("12"),
            source=dice.choice(["", "gate", "x" * 300]),
            outcome=dice.choice([record(number).outcome, *failures]),
        )
        for number in range(60)
    ]
    with closing(open_store()) as store:
        store.append(given)
        for _ in range(60):
            where = Filter(
                since=some(NOON, NOON + timedelta(seconds=dice.randrange(60))),  # type: ignore[arg-type]
                until=some(NOON, NOON + timedelta(seconds=dice.randrange(60))),  # type: ignore[arg-type]
                app=some("a", "b", "c"),  # type: ignore[arg-type]
                model=some("m", "n"),  # type: ignore[arg-type]
                version=some("1", "2"),  # type: ignore[arg-type]
                source=some("", "gate", "x" * 300),  # type: ignore[arg-type]
                code=some("", "corrupt_media", "queue_full", "no_such_code"),  # type: ignore[arg-type]
                failed=some(True, False),  # type: ignore[arg-type]
            )
            expected = [one.id for one in reversed(given) if _matches(one, where)]
            assert _ids(store, where) == expected, where
            assert store.count(where) == len(expected), where


def pruning_deletes_the_oldest_first_in_chunks(open_store: Open) -> None:
    """By age, by number, by both; never more than the limit in one call."""
    with closing(open_store()) as store:
        store.append([record(n) for n in range(10)])
        assert store.prune() == 0
        assert store.prune(before=NOON, keep=10) == 0
        assert store.prune(before=NOON + timedelta(seconds=5), limit=2) == 2
        assert _ids(store) == [f"{n:032x}" for n in range(9, 1, -1)]
        assert store.prune(before=NOON + timedelta(seconds=5), limit=100) == 3
        assert store.prune(keep=4, limit=100) == 1
        assert store.prune(before=NOON + timedelta(seconds=8), keep=4) == 2
        assert store.prune(before=NOON + timedelta(seconds=8), keep=1) == 1
        assert _ids(store) == [f"{9:032x}"]
        assert store.prune(keep=0) == 1
        assert store.prune(keep=0) == 0
        assert store.count() == 0


def threads_and_openings_share_one_store(open_store: Open) -> None:
    """Overlapping groups from several threads and two openings: every record once."""
    failures: list[BaseException] = []
    with closing(open_store()) as one, closing(open_store()) as other:

        def append(start: int, store: RecordStore) -> None:
            try:
                for first in range(start, start + 30, 3):
                    store.append([record(n) for n in range(first, first + 6)])
                    store.query(limit=5)
            except BaseException as error:  # noqa: BLE001 (handed to the checking thread)
                failures.append(error)

        threads = [
            threading.Thread(target=append, args=(10 * n, (one, other)[n % 2])) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        assert one.count() == other.count() == 63
        assert len(set(_ids(one))) == 63


def a_closed_store_says_so(open_store: Open) -> None:
    """Closing twice is fine; using it afterwards is a `StorageError`."""
    store = open_store()
    store.close()
    store.close()
    raises(StorageError, store.count)
    raises(StorageError, store.append, [record()])


CHECKS: tuple[Check, ...] = (
    what_was_appended_comes_back_to_the_last_bit,
    odd_text_comes_back_and_is_found,
    moments_keep_their_microseconds,
    an_error_is_of_its_own_class_again,
    the_key_of_the_blob_is_kept,
    sending_a_record_again_changes_nothing,
    a_group_is_stored_whole_or_not_at_all,
    a_missing_record_is_not_found,
    pages_are_complete_and_newest_first,
    new_records_do_not_disturb_a_reader,
    wrong_limits_and_cursors_are_refused,
    filters_agree_with_their_twin,
    pruning_deletes_the_oldest_first_in_chunks,
    threads_and_openings_share_one_store,
    a_closed_store_says_so,
)
