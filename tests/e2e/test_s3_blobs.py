"""Blobs in S3: a real server that checks signatures (OpenStack Swift), through s3fs."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import s3fs

from retinue.core.errors import ConfigError, NotFound, StorageError
from retinue.store import blobs
from retinue.store.blobs import open_blobs
from retinue.testing import blob_store_suite
from retinue.testing.swift import Swift, swift_server

SLOW_CHECKS = (
    blob_store_suite.old_blobs_are_pruned_in_chunks,
    blob_store_suite.putting_again_makes_a_blob_young,
)


def _name(check: Callable[..., None]) -> str:
    return check.__name__


@pytest.fixture(scope="module")
def swift() -> Iterator[Swift]:
    try:
        with swift_server() as server:
            yield server
    except LookupError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def bucket(swift: Swift, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in swift.variables.items():
        monkeypatch.setenv(name, value)
    name = f"b-{uuid.uuid4()}"
    s3fs.S3FileSystem().mkdir(name)
    return name


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set variables as a user would; s3fs reads them when it is first used, which takes a while."""

    def use(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()

    yield use
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("check", blob_store_suite.CHECKS, ids=_name)
def test_the_contract_of_blob_stores(
    bucket: str, check: blob_store_suite.Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    # S3 tells when an object was stored in whole seconds.
    monkeypatch.setattr(blob_store_suite, "PAUSE_S", 1.1 if check in SLOW_CHECKS else 0.0)
    check(lambda: open_blobs(f"s3://{bucket}/some/blobs"))


def test_a_whole_bucket_holds_many_blobs(bucket: str) -> None:
    store = open_blobs(f"s3://{bucket}")
    data = [b"blob %d" % n for n in range(12)]
    keys = [store.put(each, ".jpg") for each in data]
    assert [store.get(key) for key in keys] == data
    assert sorted(s3fs.S3FileSystem().find(bucket)) == sorted(
        f"{bucket}/{key[:2]}/{key}" for key in keys
    )
    assert store.prune(datetime(2100, 1, 1, tzinfo=UTC), limit=9) == 9
    assert store.prune(datetime(2100, 1, 1, tzinfo=UTC)) == 3
    with pytest.raises(NotFound):
        store.get(keys[0])


def test_a_damaged_object_is_told_apart(bucket: str) -> None:
    store = open_blobs(f"s3://{bucket}/blobs")
    key = store.put(b"whole")
    s3fs.S3FileSystem().pipe_file(f"{bucket}/blobs/{key[:2]}/{key}", b"hole")
    with pytest.raises(StorageError, match="damaged"):
        store.get(key)


def _calls(url: str) -> dict[str, Callable[[], object]]:
    store = open_blobs(url)
    return {
        "storing": lambda: store.put(b"x"),
        "reading": lambda: store.get("a" * 64),
        "looking": lambda: store.exists("a" * 64),
        "deleting old": lambda: store.prune(datetime.now(UTC)),
    }


@pytest.mark.parametrize("wrong", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_named(bucket: str, user: Callable[..., None], wrong: str) -> None:
    user(**{wrong: "wrong"})
    for doing, call in _calls(f"s3://{bucket}/blobs").items():
        with pytest.raises(StorageError) as caught:
            call()
        assert doing in caught.value.message
        assert bucket in caught.value.message
        assert "access is denied" in caught.value.message
        assert "check AWS_ENDPOINT_URL" in caught.value.message


def test_missing_credentials_are_named(
    bucket: str, user: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    user(AWS_EC2_METADATA_DISABLED="true", HOME="/nonexistent")
    for call in _calls(f"s3://{bucket}/blobs").values():
        with pytest.raises(StorageError, match="check AWS_ENDPOINT_URL"):
            call()


def test_a_bucket_that_does_not_exist_is_not_made(bucket: str) -> None:
    name = f"{bucket}-not"
    for url in (f"s3://{name}/blobs", f"s3://{name}"):
        with pytest.raises(StorageError, match=r"does not exist.*make the bucket"):
            open_blobs(url).put(b"x")
    assert not s3fs.S3FileSystem().exists(name)


def test_a_url_without_a_bucket_is_refused() -> None:
    for url in ("s3://", "s3:///"):
        with pytest.raises(ConfigError, match="BUCKET"):
            open_blobs(url)


def test_a_dead_endpoint_is_told_within_seconds(user: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    user(**Swift(f"http://127.0.0.1:{port}", "key", "secret").variables)
    begun = time.monotonic()
    with pytest.raises(StorageError, match=f"127.0.0.1:{port}.*check AWS_ENDPOINT_URL"):
        open_blobs("s3://bucket/blobs").put(b"x")
    assert time.monotonic() - begun < 15


def test_a_silent_endpoint_is_given_up(
    user: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "_ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        user(**Swift(endpoint, "key", "secret").variables)
        begun = time.monotonic()
        for call in _calls("s3://bucket/blobs").values():
            with pytest.raises(StorageError, match="no answer for 1 s; check AWS_ENDPOINT_URL"):
                call()
    assert time.monotonic() - begun < 15
