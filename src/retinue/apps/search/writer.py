"""The one writer of a collection: rows first, made durable, then the database's word for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import orjson
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from retinue.apps.search.files import row_files, rows_path
from retinue.core.errors import Conflict, InvalidRequest, NotFound, RetinueError, storage_errors
from retinue.core.types import Embedding
from retinue.store.collections import Collection, Collections, Failure, Put, Space
from retinue.store.rows import RowFile

MAX_ID: Final = 512
RESERVED: Final = "/thumbnail"
MAX_META: Final = 16 * 1024
MAX_FIELDS: Final = 64
MAX_FIELD_NAME: Final = 128


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """An item to be written, with what the models made of its picture.

    Attributes:
        put: The item; its ``vectors`` are filled in by the writer.
        embeddings: Space's key to the model's answer.
    """

    put: Put
    embeddings: Mapping[int, Embedding]


class Writer:
    """Holds a collection's lock from `open` to `close`; one thread at a time."""

    def __init__(
        self, store: Collections, collection: Collection, folder: Path, lock: FileLock
    ) -> None:
        self._store = store
        self.collection = collection
        self._folder = folder
        self._lock = lock
        self._files: dict[int, dict[str, RowFile]] = {}

    @classmethod
    def open(
        cls, store: Collections, collection: Collection, folder: Path, *, wait_s: float = 0.0
    ) -> Self:
        """Become the writer of a collection; what a crashed one left half-done is taken back.

        Args:
            store: The database.
            collection: Which.
            folder: Of the collection's files; made when there is none.
            wait_s: How long to wait for another writer.

        Raises:
            Conflict: another program writes the collection.
            DiskFull, NotWritable, StorageError: its files cannot be written.
        """
        with storage_errors(folder, "making the collection's folder"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(str(folder / "writer.lock"))
        note = folder / "writer.json"
        with storage_errors(folder, "locking the collection"):
            try:
                lock.acquire(timeout=wait_s, poll_interval=0.02)
            except Timeout:  # an OSError, which is nobody's disk
                raise Conflict(
                    f"collection {collection.name!r} is being written by another program"
                    f"{_whose(note)}; wait until it is done, or end it"
                ) from None
        try:
            with storage_errors(folder, "locking the collection"):
                note.write_bytes(orjson.dumps({"pid": os.getpid()}))
            return cls(store, store.refresh(collection), folder, lock)
        except BaseException:
            lock.release()
            raise

    def add_space(self, space: Space) -> Space:
        """Return the collection's space of a model, made when it is not there, ready to be written.

        Raises:
            DiskFull, NotWritable, StorageError: its files cannot be made.
        """
        made = self._store.add_space(self.collection, space)
        if row_files(replace(made, key=0)) != row_files(replace(space, key=0)):
            raise Conflict(
                f"model {space.model} {space.version} gives vectors of another length than those "
                f"that collection {self.collection.name!r} has of it; make a new collection"
            )
        self._open_files(made)
        return made

    def _open_files(self, space: Space) -> dict[str, RowFile]:
        if space.key in self._files:
            return self._files[space.key]
        files: dict[str, RowFile] = {}
        for name, (dtype, width) in row_files(space).items():
            path = rows_path(self._folder, space, name)
            try:
                files[name] = RowFile.open(path, write=True)
            except NotFound:
                if space.next_slot:
                    raise
                files[name] = RowFile.create(path, dtype, width)
            # A writer that died had written rows, but not yet what they are.
            files[name].truncate(space.next_slot)
        self._files[space.key] = files
        return files

    def write(
        self,
        entries: Sequence[Entry] = (),
        removes: Sequence[str] = (),
        failed: Sequence[Failure] = (),
    ) -> int:
        """Write items with their vectors, and remove others; durable when it returns.

        Returns:
            The collection's new generation.

        Raises:
            InvalidRequest: an id or metadata is out of its limits, or an id is given twice.
            DiskFull, NotWritable, StorageError: nothing was written.
        """
        spaces = {space.key: space for space in self._store.spaces(self.collection)}
        keys = {key for entry in entries for key in entry.embeddings}
        for key in keys:
            self._open_files(spaces[key])
        slots: list[dict[int, int]] = [{} for _ in entries]
        try:
            for key in keys:
                having = [i for i, entry in enumerate(entries) if key in entry.embeddings]
                first = self._append(spaces[key], [entries[i].embeddings[key] for i in having])
                for offset, i in enumerate(having):
                    slots[i][key] = first + offset
            puts = [replace(e.put, vectors=s) for e, s in zip(entries, slots, strict=True)]
            return self._store.write(self.collection, puts, removes, failed)
        except BaseException:
            with suppress(RetinueError):  # the first error is the one to tell
                self._take_back()
            raise

    def _take_back(self) -> None:
        """Cut the files to what the database knows: a commit that failed may have been made."""
        for space in self._store.spaces(self.collection):
            for file in self._files.get(space.key, {}).values():
                file.truncate(space.next_slot)

    def _append(self, space: Space, embeddings: Sequence[Embedding]) -> int:
        firsts = set()
        for name, file in self._files[space.key].items():
            rows = np.stack([_row(name, one) for one in embeddings])
            firsts.add(file.append(rows))
            file.sync()
        (first,) = firsts
        return first

    def close(self) -> None:
        """Let another one write. May be called twice."""
        for files in self._files.values():
            for file in files.values():
                file.close()
        self._files = {}
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _row(name: str, embedding: Embedding) -> NDArray[Any]:
    if name == "image":
        return embedding.vector.astype(np.float16)
    if name == "text":
        assert embedding.semantic is not None
        return embedding.semantic.astype(np.float16)
    assert embedding.tokens is not None
    return embedding.tokens.reshape(-1)


def _whose(note: Path) -> str:
    try:
        return f" (process {int(orjson.loads(note.read_bytes())['pid'])})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def space_of(model: str, version: str, embedding: Embedding) -> Space:
    """Return the space that a model's answers belong to."""
    return Space(
        model=model,
        version=version,
        image_dim=len(embedding.vector),
        text_dim=0 if embedding.semantic is None else len(embedding.semantic),
        grid_rows=embedding.grid[0],
        grid_columns=embedding.grid[1],
        token_bytes=0 if embedding.tokens is None else embedding.tokens.shape[1],
    )


def check_id(item_id: str) -> str:
    """Return an item's id: 1 to 512 characters, each of which a URL can carry.

    Raises:
        InvalidRequest: it is something else.
    """
    if not 1 <= len(item_id) <= MAX_ID:
        raise InvalidRequest(f"an item's id must have 1 to {MAX_ID} characters, not {len(item_id)}")
    if any(character < " " or character == "\x7f" for character in item_id):
        raise InvalidRequest(f"the id {item_id[:80]!r} has control characters; leave them out")
    if item_id.endswith(RESERVED):
        raise InvalidRequest(f"the id {item_id[:80]!r} ends in {RESERVED}, which is a route's name")
    return item_id


def check_meta(meta: Any) -> Mapping[str, Any]:
    """Return an item's metadata: text, numbers, flags, null and lists of text by field name.

    Raises:
        InvalidRequest: it is something else, or too large.
    """
    if not isinstance(meta, dict):
        raise InvalidRequest("metadata must be an object of fields")
    if len(meta) > MAX_FIELDS:
        raise InvalidRequest(f"metadata has {len(meta)} fields; at most {MAX_FIELDS} are kept")
    for name, value in meta.items():
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_FIELD_NAME:
            raise InvalidRequest(
                f"a field's name must have 1 to {MAX_FIELD_NAME} characters, not {name!r:.80}"
            )
        texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
        if not (value is None or texts or isinstance(value, str | bool | int | float)):
            raise InvalidRequest(
                f"field {name!r} must be a text, a number, true, false, null or a list of texts"
            )
        if isinstance(value, float) and not np.isfinite(value):
            raise InvalidRequest(f"field {name!r} is no finite number")
    try:
        size = len(orjson.dumps(meta))
    except (TypeError, orjson.JSONEncodeError) as error:
        raise InvalidRequest(f"metadata cannot be kept as JSON: {error}") from error
    if size > MAX_META:
        raise InvalidRequest(f"metadata has {size:,} bytes; at most {MAX_META:,} are kept")
    return meta
