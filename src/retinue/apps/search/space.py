"""One model's view of a collection, ready to be searched: rows, indexes, who has which slot.

It follows the database by generation. An index may always be thrown away: it is loaded from its
newest file, brought up to date, and built anew beside the old one when it has grown out of its
shape or its file is damaged.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.search.files import row_files, rows_path
from retinue.core.errors import IndexCorrupt, NotFound, RetinueError
from retinue.core.protocols import Index, VectorSource
from retinue.store.collections import Changes, Collection, Collections, Space
from retinue.store.rows import RowFile

log = logging.getLogger("retinue")

AT_ONCE: Final = 20_000
"""Vectors that an index is given in one call, so that queries come in between."""
INLINE: Final = 2_000
"""Changes that a query applies itself; more are applied in the background."""
SAMPLE: Final = 1_000

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
MakeIndex = Callable[[int, VectorSource, int, str], Index]
"""Makes an empty index: (dim, exact, expected vectors, name)."""
LoadIndex = Callable[[Path, VectorSource], Index]


class Field:
    """The vectors of one kind ("image" or "text") and their index."""

    def __init__(self, name: str, rows: RowFile, folder: Path, space: Space) -> None:
        self.name = name
        self.rows = rows
        self.lock = threading.Lock()
        self.index: Index | None = None
        self.generation = 0
        self.saved = 0
        self._folder = folder
        self._stem = f"{space.key}.{name}"
        self._sample: Floats | None = None
        self._sampled = 0

    def exact(self, slots: Ids) -> Floats:
        """Return the vectors (N, D) float32 of slots (N,)."""
        return self.rows.read(slots).astype(np.float32)

    def files(self) -> list[tuple[int, Path]]:
        """Return the index's files with their generations, newest first."""
        found = []
        for path in self._folder.glob(f"{self._stem}.*.index"):
            middle = path.name.removeprefix(f"{self._stem}.").removesuffix(".index")
            if middle.isdigit():
                found.append((int(middle), path))
        return sorted(found, reverse=True)

    def load(self, load: LoadIndex, newest: int) -> tuple[Index, int] | None:
        """Return the newest index that can be read, with its generation; None if there is none."""
        for generation, path in self.files():
            if generation > newest:
                continue  # of a database that was put back to an older state
            try:
                return load(path, self.exact), generation
            except IndexCorrupt as error:
                log.warning("%s; it is built anew", error.message)
            except NotFound:
                continue  # another process has just replaced it
        return None

    def save(self, index: Index, generation: int) -> None:
        """Write the index under its generation, and remove older files."""
        index.save(self._folder / f"{self._stem}.{generation}.index")
        self.saved = generation
        for old, path in self.files():
            if old < generation:
                path.unlink(missing_ok=True)

    def background(self, count: int, slots: Callable[[], Ids]) -> Floats:
        """Return some vectors of the collection (at most `SAMPLE`), drawn anew as it grows.

        Args:
            count: How many there are.
            slots: Gives them all.
        """
        if self._sample is None or not self._sampled <= count < 2 * self._sampled:
            draw, known = np.random.default_rng(0), slots()
            some = known if len(known) <= SAMPLE else draw.choice(known, SAMPLE, replace=False)
            self._sample, self._sampled = self.exact(np.sort(some)), max(len(known), 1)
        return self._sample


class OpenSpace:
    """A space that is open for reading. May be used by several threads at once.

    Attributes:
        space: What the database knows of it.
        generation: State of the collection that it holds.
        trained_anew: Whether an index that approximates was built, and has no tuned parameters yet.

    Args:
        store: The database.
        collection: Whose space it is.
        space: Which.
        folder: Of the collection's files.
        make: Makes an empty index.
        load: Loads one.
        outgrown: Says whether an index should be built anew for so many vectors.
    """

    def __init__(
        self,
        store: Collections,
        collection: Collection,
        space: Space,
        folder: Path,
        *,
        make: MakeIndex,
        load: LoadIndex,
        outgrown: Callable[[Index, int], bool],
    ) -> None:
        self.space = space
        self.generation = 0
        self.trained_anew = False
        self._store, self._collection, self._folder = store, collection, folder
        self._make, self._load, self._outgrown = make, load, outgrown
        self._numbers = np.full(0, -1, np.int32)
        self._alive = 0
        self._lock = threading.Lock()
        self._work = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._files = {
            name: RowFile.open(rows_path(folder, space, name)) for name in row_files(space)
        }
        self.fields: Mapping[str, Field] = {
            name: Field(name, self._files[name], folder, space)
            for name in ("image", "text")
            if name in self._files
        }
        self._open()

    def _open(self) -> None:
        changes = self._store.changes(self.space, self._collection, 0)
        self._note(changes)
        self.generation = changes.generation
        for field in self.fields.values():
            loaded = field.load(self._load, changes.generation)
            since = None
            if loaded is not None:
                since = self._store.changes(self.space, self._collection, loaded[1])
            if loaded is None or since is None or since.whole:
                self._build(field, save=field.files() != [])
            else:
                field.index, field.generation = loaded
                field.saved = loaded[1]
                self._apply(field, since)

    @property
    def tokens(self) -> RowFile | None:
        """The patch tokens' rows, or None."""
        return self._files.get("tokens")

    def __len__(self) -> int:
        """Items that have vectors here."""
        return self._alive

    def numbers(self, slots: Ids) -> Ids:
        """Return the items (N,) that slots (N,) belong to; -1 for what is no longer in use."""
        known = self._numbers
        inside = slots < len(known)
        found = np.full(len(slots), -1, np.int64)
        found[inside] = known[slots[inside]]
        return found

    def background(self, name: str) -> Floats:
        """Return some vectors (at most `SAMPLE`) of a field, for what is usual in it."""
        return self.fields[name].background(len(self), self.slots)

    def slots(self) -> Ids:
        """Return all slots in use, ascending."""
        return np.flatnonzero(self._numbers >= 0)

    def slots_among(self, mask: NDArray[np.bool_]) -> Ids:
        """Return the slots in use whose item's number a mask holds for."""
        numbers = self._numbers
        inside = (numbers >= 0) & (numbers < len(mask))
        allowed = np.zeros(len(numbers), np.bool_)
        allowed[inside] = mask[numbers[inside]]
        return np.flatnonzero(allowed)

    def refresh(self, generation: int) -> None:
        """Bring it to a generation; what is too much for a query is done in the background.

        Raises:
            RetinueError: the database or the rows cannot be read.
        """
        if generation <= self.generation:
            return
        with self._work:
            if generation <= self.generation:
                return
            changes = self._store.changes(self.space, self._collection, self.generation)
            if len(changes.slots) + len(changes.dropped) <= INLINE and not changes.whole:
                self._follow(changes)
                self._tidy()
                return
        self._in_background(self.catch_up)

    def catch_up(self) -> None:
        """Apply all that happened, and build anew what has outgrown its shape; returns when done.

        Raises:
            RetinueError: the database or the rows cannot be read, or the disk is full.
        """
        with self._work:
            self._follow(self._store.changes(self.space, self._collection, self.generation))
        for field in self.fields.values():
            if self._grown(field):
                self._build(field, save=True)

    def save(self, *, again: bool = False) -> None:
        """Write the indexes to their files.

        Args:
            again: Also those that hold nothing new, because their parameters were changed.

        Raises:
            DiskFull, NotWritable, StorageError: the old files are as they were.
        """
        for field in self.fields.values():
            with field.lock:
                if field.index is not None and (again or field.saved < field.generation):
                    field.save(field.index, field.generation)
        self._store.forget_dropped(self.space, min(f.saved for f in self.fields.values()))

    def rebuild(self) -> None:
        """Build all indexes anew from the rows, save them, and swap them in."""
        for field in self.fields.values():
            self._build(field, save=True)

    def _follow(self, changes: Changes) -> None:
        if changes.whole:
            # What was dropped is told by what is no longer among the living.
            gone = np.setdiff1d(self.slots(), changes.slots, assume_unique=True)
            new = ~np.isin(changes.slots, self.slots(), assume_unique=True)
            changes = Changes(
                changes.generation, changes.slots[new], changes.numbers[new], gone, False
            )
        self._note(changes)
        for field in self.fields.values():
            self._apply(field, changes)
        self.generation = changes.generation

    def _note(self, changes: Changes) -> None:
        with self._lock:
            end = max([len(self._numbers), *(changes.slots[-1:] + 1)])
            numbers = self._numbers
            if end > len(numbers):
                grown = np.full(max(end, len(numbers) * 5 // 4), -1, np.int32)
                grown[: len(numbers)] = numbers
                numbers = grown
            dropped = changes.dropped[changes.dropped < len(numbers)]
            # Counted by what changes: a look at all slots takes a millisecond of every write.
            self._alive -= int((numbers[dropped] >= 0).sum())
            numbers[dropped] = -1
            self._alive += int((numbers[changes.slots] < 0).sum())
            numbers[changes.slots] = changes.numbers
            self._numbers = numbers

    def _apply(self, field: Field, changes: Changes) -> None:
        assert field.index is not None
        if field.generation < changes.generation:
            self._update(field.index, field, changes)
            field.generation = changes.generation

    def _update(self, index: Index, field: Field, changes: Changes) -> None:
        if len(changes.dropped):
            with field.lock:
                index.remove(changes.dropped)
        for start in range(0, len(changes.slots), AT_ONCE):
            slots = changes.slots[start : start + AT_ONCE]
            vectors = field.exact(slots)
            with field.lock:
                index.add(slots, vectors)

    def _grown(self, field: Field) -> bool:
        return field.index is not None and self._outgrown(field.index, len(self))

    def _tidy(self) -> None:
        """Start what need not be done at once: building anew, saving."""
        behind = self.generation - min(field.saved for field in self.fields.values())
        if any(self._grown(field) for field in self.fields.values()):
            self._in_background(self.catch_up)
        elif behind > max(10_000, len(self) // 5):
            self._in_background(self.save)

    def _build(self, field: Field, *, save: bool) -> None:
        """Build an index beside the old one and swap it in."""
        generation = self.generation
        with self._lock:
            slots = self.slots()
        name = f"retinue_{self._folder.name}_{self.space.key}_{field.name}_{secrets.token_hex(4)}"
        index = self._make(field.rows.width, field.exact, len(slots), name)
        for some in _shuffled(slots):
            index.add(some, field.exact(some))
        if save:
            field.save(index, generation)
        with self._work:
            if self.generation > generation:
                since = self._store.changes(self.space, self._collection, generation)
                # Nobody sees it yet: what came meanwhile is in it before it takes the place.
                self._update(index, field, since)
                generation = since.generation
            with field.lock:
                old = field.index
                field.index, field.generation = index, generation
                self.trained_anew |= bool(getattr(index, "trained", False))
                _discard(old)

    def _in_background(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except RetinueError as error:
                # Queries go on with what there is; the next write tries again.
                log.error("collection %s: %s", self._collection.name, error.message)

        with self._lock:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(target=guarded, name="retinue-index", daemon=True)
            self._thread.start()

    def discard(self) -> None:
        """Give back what the indexes keep elsewhere; the space is not searched any more."""
        for field in self.fields.values():
            with field.lock:
                _discard(field.index)

    def wait(self) -> None:
        """Wait until nothing is being done in the background."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """Close the files; a build that runs is waited for. May be called twice."""
        self._closed = True
        self.wait()
        for file in self._files.values():
            with suppress(RetinueError):
                file.close()

    def statistics(self) -> dict[str, Any]:
        """Return what status pages show: vectors and the kind of index, by field."""
        return {
            name: {"vectors": len(field.index or ()), "kind": getattr(field.index, "kind", "")}
            for name, field in self.fields.items()
        }


def _discard(index: Index | None) -> None:
    """Give back what an index keeps elsewhere, in a server for example."""
    drop = getattr(index, "drop", None)
    if drop is not None:
        try:
            drop()
        except RetinueError as error:
            log.warning("an index that is not needed any more stays: %s", error.message)


def _shuffled(slots: Ids) -> Iterator[Ids]:
    """Yield slots in pieces, in random order: an index learns from the first ones."""
    order = np.random.default_rng(0).permutation(slots)
    for start in range(0, len(order), AT_ONCE):
        yield order[start : start + AT_ONCE]
