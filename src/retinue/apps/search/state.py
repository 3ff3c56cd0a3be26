"""What the app keeps while the server runs: open collections, a cache, one thread a writer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from retinue.apps.search.api import group_new
from retinue.apps.search.library import Library
from retinue.apps.search.searcher import OpenCollection
from retinue.apps.search.settings import SearchSettings
from retinue.apps.search.writer import Entry
from retinue.core.apps import Services
from retinue.core.errors import Conflict, RetinueError, ShuttingDown
from retinue.core.settings import cores
from retinue.core.types import Embedding
from retinue.store.cache import Cache, open_cache
from retinue.store.collections import Collection, Space

log = logging.getLogger("retinue")

TOGETHER: Final = 64
"""Writes that share one transaction, and its wait for the disk."""
WAITING: Final = 1024
IDLE_S: Final = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """One change that a client waits for.

    Attributes:
        entry: An item with the model's answers by space; None for a removal.
        spaces: The spaces that those keys stand for, which may have to be made.
        remove: An id; "" for none.
        done: The collection's new generation, or the error.
    """

    done: Future[int]
    entry: tuple[Entry, Sequence[Space]] | None = None
    remove: str = ""

    @property
    def id(self) -> str:
        """Of the item that is meant."""
        return self.remove or (self.entry[0].put.id if self.entry else "")


class _Lane:
    """The writes of one collection, in their order, some together."""

    def __init__(self, library: Library, collection: Collection) -> None:
        self._library, self._collection = library, collection
        self._queue: queue.Queue[Write | None] = queue.Queue(WAITING)
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="retinue-write", daemon=True)
        self._thread.start()

    def submit(self, write: Write) -> None:
        name = self._collection.name
        with self._lock:  # what comes after the end of the queue would wait for ever
            if self._closed:
                raise Conflict(f"collection {name!r} is being deleted or closed; send it again")
            try:
                self._queue.put_nowait(write)
            except queue.Full:
                raise Conflict(
                    f"{WAITING} writes wait for collection {name!r}; send fewer at once"
                ) from None

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            ended = False
            while len(group) < TOGETHER and not ended:
                try:
                    one = self._queue.get_nowait()
                except queue.Empty:
                    break
                ended = one is None
                group += [one] if one is not None else []
            for part in _apart(group):
                self._write(part)
            if ended:
                return

    def _write(self, group: Sequence[Write]) -> None:
        try:
            with self._library.writer(self._collection) as writer:
                entries = []
                for write in group:
                    if write.entry is not None:
                        entry, spaces = write.entry
                        made = {space.key: writer.add_space(space).key for space in spaces}
                        embeddings = {made[key]: e for key, e in entry.embeddings.items()}
                        entries.append(Entry(entry.put, embeddings))
                generation = writer.write(entries, [w.remove for w in group if w.remove])
        except Exception as error:  # noqa: BLE001 (each client that waits must hear of it)
            for write in group:
                write.done.set_exception(error)
            return
        for write in group:
            write.done.set_result(generation)
        self._group(entries)

    def _group(self, entries: Sequence[Entry]) -> None:
        """Find what the new items are duplicates of; nobody waits for it."""
        for entry in entries:
            try:
                collection = self._collection
                opened = self._library.collection(collection.tenant, collection.name)
                for space in opened.models().values():
                    if space.key in entry.embeddings:
                        embedding: Embedding = entry.embeddings[space.key]
                        group_new(self._library, opened, entry.put.id, embedding, space)
            except RetinueError as error:
                log.info("duplicates of %s: %s", entry.put.id, error.message)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._queue.put(None)
        self._thread.join()


def _apart(group: Sequence[Write]) -> list[list[Write]]:
    """Split writes so that none of a part has the same id as another, in their order."""
    parts: list[list[Write]] = [[]]
    seen: set[str] = set()
    for write in group:
        if write.id in seen:
            parts.append([])
            seen = set()
        parts[-1].append(write)
        seen.add(write.id)
    return parts


class SearchState:
    """Of a running server; on its event loop, but for what is run in threads."""

    def __init__(self, services: Services, settings: SearchSettings) -> None:
        self.services, self.settings = services, settings
        self.library = Library(
            settings,
            url=services.records_url,
            blobs_url=services.blobs_url,
            folder=services.home / "search",
        )
        self.cache: Cache | None = None
        if settings.cache_mb:
            self.cache = open_cache(settings.cache, max_bytes=int(settings.cache_mb * 2**20))
        self._threads = ThreadPoolExecutor(max(4, cores()), thread_name_prefix="retinue-search")
        self._lanes: dict[int, _Lane] = {}
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Run what would block in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def tenant(self, client: str) -> str:
        """Return whose collections a client sees."""
        if self.settings.tenants == "one":
            return ""
        return hashlib.sha256(client.encode()).hexdigest()[:32]

    async def opened(self, client: str, name: str) -> OpenCollection:
        """Return a client's collection, up to date.

        Raises:
            NotFound: it has none of this name.
        """
        return await self.run(lambda: self.library.collection(self.tenant(client), name))

    async def write(
        self,
        collection: Collection,
        *,
        entry: tuple[Entry, Sequence[Space]] | None = None,
        remove: str = "",
    ) -> int:
        """Write one change, together with others that wait; durable when it returns.

        Raises:
            Conflict: another program writes the collection, or too many writes wait.
            RetinueError: nothing was written.
        """
        if self._closed:
            raise ShuttingDown("the server is stopping; send the request again to another one")
        lane = self._lanes.get(collection.key)
        if lane is None:
            lane = self._lanes[collection.key] = _Lane(self.library, collection)
        write = Write(Future(), entry, remove)
        lane.submit(write)
        return await asyncio.wrap_future(write.done)

    def forget(self, collection: Collection) -> None:
        """End the thread of a collection that was deleted."""
        lane = self._lanes.pop(collection.key, None)
        if lane is not None:
            lane.close()

    def close(self) -> None:
        """Write what waits, and close all."""
        self._closed = True
        for lane in self._lanes.values():
            lane.close()
        self._threads.shutdown()
        if self.cache is not None:
            self.cache.close()
        self.library.close()


@asynccontextmanager
async def open_state(services: Services) -> AsyncIterator[SearchState]:
    """Open the app's state for as long as the server runs."""
    settings: SearchSettings = services.app_settings("search")
    state = await asyncio.to_thread(SearchState, services, settings)
    try:
        yield state
    finally:
        await asyncio.to_thread(state.close)
