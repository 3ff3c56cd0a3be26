"""The contract of every `BlobStore`, as checks that any test runner can call.

A check takes a function that opens one and the same store, empty at first, each time it is called,
and raises `AssertionError` where the contract is broken::

    @pytest.mark.parametrize("check", blob_store_suite.CHECKS, ids=lambda c: c.__name__)
    def test_contract(check, tmp_path):
        check(lambda: open_blobs(tmp_path.as_uri()))
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from retinue.core.errors import InvalidRequest, NotFound
from retinue.store.interface import BlobStore
from retinue.testing.checks import raises

Open = Callable[[], BlobStore]
Check = Callable[[Open], None]

NOT_KEYS = (
    "",
    "a",
    "../../etc/passwd",
    "/etc/passwd",
    "a" * 63,
    "A" * 64,
    "a" * 65,
    "a" * 64 + ".",
    "a" * 64 + ".jp/g",
    "a" * 64 + "/..",
    "a" * 64 + ".jpg\n",
    "a" * 64 + "\0",
    "../" + "a" * 64,
)
NOT_SUFFIXES = ("jpg", ".", ".JPG", "/", "..", ".jpg/", ".jpg\n", ".tar.gz", "." + "a" * 9)
PAUSE_S = 0.05


def _key(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def bytes_come_back_under_their_digest(open_store: Open) -> None:
    """None, few and many bytes; also from another opening."""
    store = open_store()
    assert isinstance(store, BlobStore)
    for data in (b"", b"x", bytes(range(256)) * 5000):
        for suffix in ("", ".jpg", ".7z"):
            key = store.put(data, suffix)
            assert key == _key(data) + suffix
            assert store.exists(key)
            assert open_store().get(key) == data


def several_are_put_at_once(open_store: Open) -> None:
    """In their order, the same bytes twice too, and none at all."""
    store = open_store()
    blobs = [b"one", b"two", b"one", bytes(range(256)) * 100]
    keys = store.put_many(blobs, ".jpg")
    assert keys == [_key(data) + ".jpg" for data in blobs]
    assert [store.get(key) for key in keys] == blobs
    assert store.put_many(blobs, ".jpg") == keys
    assert store.put_many([]) == []
    raises(InvalidRequest, lambda: store.put_many(blobs, "jpg"))


def what_is_not_there_is_not_found(open_store: Open) -> None:
    """Also in a store that never held anything."""
    store = open_store()
    for key in ("a" * 64, "a" * 64 + ".jpg"):
        assert not store.exists(key)
        assert not store.delete(key)
        raises(NotFound, store.get, key)
    assert store.prune(datetime.now(UTC)) == 0


def other_keys_and_suffixes_are_refused(open_store: Open) -> None:
    """Nothing leaves the store's own folder."""
    store = open_store()
    for key in NOT_KEYS:
        for method in (store.get, store.exists, store.delete):
            raises(InvalidRequest, method, key)
    for suffix in NOT_SUFFIXES:
        raises(InvalidRequest, store.put, b"x", suffix)


def a_deleted_blob_is_gone_and_can_be_put_again(open_store: Open) -> None:
    """Others stay."""
    store = open_store()
    key, other = store.put(b"one"), store.put(b"other")
    assert store.delete(key)
    assert not store.exists(key)
    assert not store.delete(key)
    assert store.get(other) == b"other"
    assert store.put(b"one") == key
    assert store.get(key) == b"one"


def old_blobs_are_pruned_in_chunks(open_store: Open) -> None:
    """Only those from before the moment, never more than the limit in one call."""
    store = open_store()
    old = [store.put(b"old %d" % n) for n in range(7)]
    time.sleep(PAUSE_S)
    moment = datetime.now(UTC)
    time.sleep(PAUSE_S)
    new = [store.put(b"new %d" % n) for n in range(3)]
    assert store.prune(moment - timedelta(days=1)) == 0
    assert store.prune(moment, limit=5) == 5
    assert sum(store.exists(key) for key in old) == 2
    assert store.prune(moment, limit=5) == 2
    assert store.prune(moment, limit=5) == 0
    assert all(store.exists(key) for key in new)


def putting_again_makes_a_blob_young(open_store: Open) -> None:
    """So that a blob that a new record names is not pruned for its age."""
    store = open_store()
    key = store.put(b"again")
    time.sleep(PAUSE_S)
    moment = datetime.now(UTC)
    time.sleep(PAUSE_S)
    assert store.put(b"again") == key
    assert store.prune(moment) == 0
    assert store.get(key) == b"again"


def threads_may_put_the_same_bytes(open_store: Open) -> None:
    """Whoever sees the key sees all of the bytes."""
    data = bytes(range(256)) * 2000
    key = _key(data)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            store = open_store()
            for _ in range(5):
                if store.exists(key):
                    assert store.get(key) == data
                assert store.put(data) == key
        except BaseException as error:  # noqa: BLE001 (handed to the checking thread)
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert open_store().get(key) == data


CHECKS: tuple[Check, ...] = (
    bytes_come_back_under_their_digest,
    several_are_put_at_once,
    what_is_not_there_is_not_found,
    other_keys_and_suffixes_are_refused,
    a_deleted_blob_is_gone_and_can_be_put_again,
    old_blobs_are_pruned_in_chunks,
    putting_again_makes_a_blob_young,
    threads_may_put_the_same_bytes,
)
