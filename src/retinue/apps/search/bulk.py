"""Bulk indexing: list, decode, embed and write side by side, and go on where a kill stopped it.

Only what is durable counts: an item is known when its rows and its line in the database are. What
is known and unchanged is not read again, so a second run embeds nothing twice but for the pictures
that were under way when the first one was killed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from retinue.apps.search.duplicates import group_all
from retinue.apps.search.library import Library
from retinue.apps.search.local import LocalModels, as_embedding
from retinue.apps.search.pipe import Pipe
from retinue.apps.search.prepare import Picture, prepare
from retinue.apps.search.progress import Progress
from retinue.apps.search.searcher import OpenCollection
from retinue.apps.search.sources import Found, Refused
from retinue.apps.search.writer import Entry, Writer, check_id, check_meta, space_of
from retinue.core.errors import InputError, InvalidRequest, RetinueError
from retinue.core.protocols import Model
from retinue.core.settings import Limits, cores
from retinue.core.types import Embedding
from retinue.store.collections import Collection, Collections, Failure, Known, Put

LISTED_AHEAD: Final = 2_000
LOOKED_UP: Final = 256
DONE_AHEAD: Final = 256
WRITE_AT: Final = 128
WRITE_EVERY_S: Final = 0.5
MOST_FAILURES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Work:
    found: Found
    known: Known | None


@dataclass(frozen=True, slots=True, eq=False)
class _Done:
    work: _Work
    picture: Picture | None = None
    embedding: Embedding | None = None
    error: RetinueError | None = None


class BulkIndex:
    """One run over one source.

    Args:
        library: Where the collection is.
        opened: The collection.
        models: Loads the model, once a thread.
        model: Its name.
        limits: What a decoder may be given.
        threads: That decode and embed; 0 for one a core.
        batch: Pictures that one thread embeds together.
    """

    def __init__(
        self,
        library: Library,
        opened: OpenCollection,
        models: LocalModels,
        model: str,
        *,
        limits: Limits,
        threads: int = 0,
        batch: int = 1,
    ) -> None:
        self._library, self._opened, self._models = library, opened, models
        self._model, self._limits = model, limits
        self._threads, self._batch = threads or cores(), batch
        self.progress = Progress()
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._listed: Pipe[Found | Refused] = Pipe(LISTED_AHEAD, self._stopped)
        self._todo: Pipe[_Work] = Pipe(4 * self._threads * batch, self._stopped)
        # The threads that embed, and the one that tells what cannot be.
        self._done: Pipe[_Done] = Pipe(DONE_AHEAD, self._stopped, makers=self._threads + 1)
        self._seen: set[int] = set()
        self._failing: set[str] = set()
        self._failed: set[str] = set()
        self._whole = True

    @property
    def whole(self) -> bool:
        """Whether the source could be listed to its end."""
        return self._whole

    def stop(self) -> None:
        """Ask the run to end soon; what is embedded is still written."""
        self._stopped.set()

    def run(
        self, offers: Iterable[Found | Refused], source: str, *, remove: bool = False
    ) -> Progress:
        """Index what a source offers; returns when the indexes are ready and saved.

        Args:
            offers: Of `retinue.apps.search.sources.open_source`.
            source: The source's normalised name.
            remove: Whether items that came from the source and are offered no longer are removed.

        Raises:
            Conflict: another program writes the collection.
            DiskFull, StorageError: it cannot be written; what was written before stays.
            RetinueError: the model cannot be loaded, or the source cannot be read.
        """
        entry = self._models.entry(self._model)
        before = self._opened.refresh().generation
        models = [self._models.fresh(self._model) for _ in range(self._threads)]
        try:
            with self._library.writer(self._opened.collection) as writer:
                self._space = _known_space(
                    self._library.store, writer.collection, entry.card.name, entry.version
                )
                self._version = (entry.card.name, entry.version)
                failures = self._library.store.failures(writer.collection, limit=MOST_FAILURES)
                self._failing = {one.path for one in failures}
                began = time.monotonic()
                self._pump(writer, offers, models)
                self.progress.embedding_s = time.monotonic() - began
                if self._whole and not self._stopped.is_set():
                    self._library.store.forget_failures(writer.collection, source, self._failed)
                    if remove:
                        self._remove(writer, source)
        finally:
            for model in models:
                model.close()
        if not self._stopped.is_set():
            self._finish(before)
        return self.progress

    def _pump(
        self, writer: Writer, offers: Iterable[Found | Refused], models: Sequence[Model]
    ) -> None:
        threads = [
            threading.Thread(target=self._guard, args=(self._list, offers), daemon=True),
            threading.Thread(target=self._guard, args=(self._choose, writer.collection)),
            *(threading.Thread(target=self._guard, args=(self._embed, m)) for m in models),
        ]
        for thread in threads:
            thread.start()
        try:
            self._write(writer)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            # The lister may hang in a network call; it is a daemon.
            for thread in threads[1:]:
                thread.join()
        if self._error is not None:
            raise self._error

    def _guard(self, work: Callable[[Any], None], argument: Any) -> None:
        try:
            work(argument)
        except BaseException as error:  # noqa: BLE001 (a thread's failure is the run's)
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._stopped.set()

    def _list(self, offers: Iterable[Found | Refused]) -> None:
        try:
            for offer in offers:
                if self._stopped.is_set():
                    return
                self._listed.put(offer)
                self.progress.listed += 1
        except RetinueError as error:
            self._whole = False
            self._fail(error)
        finally:
            self.progress.complete = True
            self._listed.end()

    def _choose(self, collection: Collection) -> None:
        """Pass on what is new or changed."""
        try:
            for offers in self._listed.batches(LOOKED_UP):
                found = [one for one in offers if isinstance(one, Found)]
                known = self._library.store.known(collection, (one.id for one in found))
                for offer in offers:
                    if isinstance(offer, Refused):
                        self._whole &= not offer.partial
                        self._seen.add(hash(offer.id))
                        self._done.put(_Done(_refused(offer), error=offer.error))
                    else:
                        self._pass_on(offer, known.get(offer.id))
        finally:
            self._todo.end()
            self._done.end()

    def _pass_on(self, offer: Found, known: Known | None) -> None:
        try:
            check_id(offer.id)
            check_meta(dict(offer.meta))
            if (mark := hash(offer.id)) in self._seen:
                raise InvalidRequest(
                    f"the id {offer.id[:80]!r} is given twice; the first one stays"
                )
            self._seen.add(mark)
        except InputError as error:
            self._done.put(_Done(_Work(offer, None), error=error))
            return
        if known is not None and self._is_unchanged(offer, known):
            self.progress.unchanged += 1
        else:
            self._todo.put(_Work(offer, known))

    def _is_unchanged(self, offer: Found, known: Known) -> bool:
        told = offer.mtime_us > 0 or offer.etag
        return bool(
            told
            and self._embedded(known)
            # A file that was put back as it had been is read again, so that its failure ends.
            and offer.path not in self._failing
            and known.source == offer.source
            and (known.size, known.mtime_us) == (offer.size, offer.mtime_us)
            and known.etag == offer.etag[:255]
            and orjson.loads(known.meta) == dict(offer.meta)
        )

    def _embedded(self, known: Known) -> bool:
        return self._space in known.spaces

    def _embed(self, model: Model) -> None:
        try:
            for works in self._todo.batches(self._batch):
                self._embed_some(model, works)
        finally:
            self._done.end()

    def _embed_some(self, model: Model, works: Sequence[_Work]) -> None:
        ready: list[tuple[_Work, Picture]] = []
        for work in works:
            try:
                picture = prepare(work.found.read(), self._limits, model.decode_size)
            except RetinueError as error:
                self._done.put(_Done(work, error=error))
                continue
            known = work.known
            if known is not None and known.sha256 == picture.sha256 and self._embedded(known):
                # Only its time or its metadata changed: its vectors stay.
                self._done.put(_Done(work, picture))
            else:
                ready.append((work, picture))
        outcomes = model.predict([picture.image for _, picture in ready]) if ready else []
        for (work, picture), outcome in zip(ready, outcomes, strict=True):
            try:
                embedding = as_embedding(outcome.unwrap())
            except RetinueError as error:
                self._done.put(_Done(work, error=error))
            else:
                self._done.put(_Done(work, picture, embedding))

    def _write(self, writer: Writer) -> None:
        """Write what is done, some together, until all threads have ended."""
        for done in self._done.batches(WRITE_AT, wait_s=WRITE_EVERY_S, drain=True):
            self._write_some(writer, done)

    def _write_some(self, writer: Writer, done: Sequence[_Done]) -> None:
        good = [one for one in done if one.picture is not None]
        pictures = [one.picture.thumbnail for one in good if one.picture is not None]
        keys = self._library.thumbnails.put_many(pictures, ".jpg")
        entries = []
        for one, key in zip(good, keys, strict=True):
            embeddings: dict[int, Embedding] = {}
            if one.embedding is not None:
                if self._space < 0:
                    space = space_of(*self._version, one.embedding)
                    self._space = writer.add_space(space).key
                embeddings[self._space] = one.embedding
            entries.append(Entry(_put(one, key), embeddings))
        failed = [
            Failure(one.work.found.source, one.work.found.path, one.error.code, one.error.message)
            for one in done
            if one.error is not None
        ]
        writer.write(entries, failed=failed)
        self.progress.indexed += len(entries)
        self.progress.failed += len(failed)
        self._failed.update(one.path for one in failed)

    def _remove(self, writer: Writer, source: str) -> None:
        """Remove what came from the source and was not offered; it offered all that it has."""
        self.progress.step = "removing"
        store = self._library.store
        gone = [i for i in store.ids(writer.collection, source) if hash(i) not in self._seen]
        for start in range(0, len(gone), LOOKED_UP):
            some = gone[start : start + LOOKED_UP]
            writer.write(removes=some)
            self.progress.removed += len(some)

    def _finish(self, before: int) -> None:
        """Group what changed since a generation; bring the indexes up to date and save them."""
        collection = self._opened.refresh()
        self.progress.step = "duplicates"
        self.progress.grouped = group_all(self._library.store, collection, before)
        self.progress.step = "index"
        collection = self._opened.refresh()
        if self._space >= 0:
            space = self._opened.space(*self._version)
            space.wait()
            space.catch_up()
            space.save()


def _known_space(store: Collections, collection: Collection, model: str, version: str) -> int:
    for space in store.spaces(collection):
        if (space.model, space.version) == (model, version):
            return space.key
    return -1


def _put(one: _Done, thumbnail: str) -> Put:
    found, picture = one.work.found, one.picture
    assert picture is not None
    return Put(
        id=found.id,
        path=found.path,
        source=found.source,
        sha256=picture.sha256,
        size=found.size if found.size >= 0 else picture.size,
        mtime_us=found.mtime_us,
        etag=found.etag,
        width=picture.image.width,
        height=picture.image.height,
        meta=dict(found.meta),
        pdq=picture.pdq,
        thumbnail=thumbnail,
    )


def _refused(offer: Refused) -> _Work:
    def read() -> bytes:
        raise offer.error

    found = Found(offer.source, offer.id, offer.path, -1, 0, "", read)
    return _Work(found, None)
