"""What a store of records and a store of blobs promise.

`retinue.testing.record_store_suite` and `retinue.testing.blob_store_suite` check these promises.
All methods may be called from several threads at once, and raise only `RetinueError`:
`DiskFull`, `NotWritable` and `StorageError` from any of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from retinue.core.record import Record

MAX_PAGE = 1000
NO_BLOBS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are meant; every field that is None allows all.

    Attributes:
        since: Created at this moment or later.
        until: Created before this moment.
        app: Name of the app.
        model: Name of the model.
        version: Version of the model.
        source: Where the input came from, whole and exact.
        code: Code of the error; "" stands for success.
        failed: True for failures only, False for successes only.
    """

    since: datetime | None = None
    until: datetime | None = None
    app: str | None = None
    model: str | None = None
    version: str | None = None
    source: str | None = None
    code: str | None = None
    failed: bool | None = None


ALL = Filter()


@dataclass(frozen=True, slots=True, eq=False)
class StoredRecord:
    """A record as the store gives it back; its arrays are read-only.

    Attributes:
        record: Equal to what was appended, to the last bit; ``created_at`` in UTC, in microseconds.
        blob: Key of its input in the blob store, "" when it was not kept.
    """

    record: Record
    blob: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Some of the records that a query found.

    Attributes:
        records: Newest first.
        cursor: Give it to the next query to go on, "" when there are no more.
    """

    records: tuple[StoredRecord, ...] = field(default=())
    cursor: str = ""


@runtime_checkable
class RecordStore(Protocol):
    """Keeps records; what `append` returned from survives a crash of the process or machine."""

    def append(self, records: Sequence[Record], blobs: Mapping[str, str] = NO_BLOBS) -> None:
        """Store records in one transaction; durable when it returns.

        A record whose id is there already changes nothing: sending it again is safe.

        Args:
            records: Any number; all of them are stored, or none.
            blobs: Record id to the key of its input in the blob store.

        Raises:
            TypeError, ValueError: a record's field is not what `Record` documents.
        """
        ...

    def get(self, record_id: str) -> StoredRecord:
        """Return one record.

        Raises:
            NotFound: no record has this id.
        """
        ...

    def query(self, where: Filter = ALL, *, limit: int = 50, cursor: str = "") -> Page:
        """Return a page of records, newest first, ties broken by id.

        Records that are appended while a reader pages are not shown twice and push nothing out.

        Args:
            where: Which records.
            limit: At most so many, 1 to 1000.
            cursor: The previous page's cursor, "" for the first page.

        Raises:
            InvalidRequest: the limit or the cursor is wrong.
        """
        ...

    def count(self, where: Filter = ALL) -> int:
        """Return how many records there are."""
        ...

    def prune(
        self, *, before: datetime | None = None, keep: int | None = None, limit: int = 500
    ) -> int:
        """Delete the oldest records that were created before a moment, or that are too many.

        Args:
            before: Older ones go; None spares all.
            keep: Only the newest so many stay; None spares all.
            limit: Delete at most so many in this call, so that writers do not wait for long.

        Returns:
            How many were deleted; 0 means that nothing is left to delete.
        """
        ...

    def close(self) -> None:
        """Give back the connections; later calls raise `StorageError`. May be called twice."""
        ...


@runtime_checkable
class BlobStore(Protocol):
    """Keeps bytes under the digest of their content."""

    def put(self, data: bytes, suffix: str = "") -> str:
        """Store bytes, whole or not at all, and return their key.

        Putting the same bytes again gives the same key and makes the blob young again.

        Args:
            data: Any bytes.
            suffix: For example ".jpg": a dot and 1 to 8 lower-case letters or digits, or nothing.

        Returns:
            The sha256 in hex digits, with the suffix.

        Raises:
            InvalidRequest: the suffix is of another form.
        """
        ...

    def put_many(self, blobs: Sequence[bytes], suffix: str = "") -> list[str]:
        """Store several, each whole or not at all, and return their keys in their order.

        Much quicker than one by one: they share their waits for the disk or the network.

        Raises:
            InvalidRequest: the suffix is of another form.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return the bytes of a key.

        Raises:
            InvalidRequest: this cannot be a key.
            NotFound: no blob has this key.
            StorageError: what is stored is not what was put.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether a blob has this key. Raises `InvalidRequest` for what cannot be a key."""
        ...

    def delete(self, key: str) -> bool:
        """Delete a blob; return whether there was one. Raises `InvalidRequest` as `get` does."""
        ...

    def prune(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most ``limit`` blobs that were last put before a moment.

        Returns:
            How many were deleted; 0 means that nothing is left to delete.
        """
        ...
