"""All collections of one place: what the server, the commands and the Python API share."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from retinue.apps.search.indexes import Indexes
from retinue.apps.search.rerank import Reranker
from retinue.apps.search.searcher import OpenCollection
from retinue.apps.search.settings import SearchSettings
from retinue.apps.search.writer import Writer
from retinue.core.errors import InvalidRequest, NotFound, StorageError
from retinue.store.blobs import open_blobs
from retinue.store.collections import Collection, Collections, open_collections
from retinue.store.interface import BlobStore

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WRITE_WAIT_S: Final = 2.0


def check_name(name: str) -> str:
    """Return a collection's name.

    Raises:
        InvalidRequest: it cannot be one.
    """
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:80]!r} is no collection's name: letters, digits, '.', '_' and '-', at most 64"
        )
    return name


class Library:
    """Collections with their files, thumbnails and open indexes. May be used by several threads.

    Args:
        settings: The app's.
        url: The database.
        blobs_url: Where thumbnails are put, in a folder of their own.
        folder: Where the files of rows and the indexes are.

    Raises:
        ConfigError, MissingExtra, NotWritable, DiskFull, StorageError: a store cannot be opened.
    """

    def __init__(self, settings: SearchSettings, *, url: str, blobs_url: str, folder: Path) -> None:
        self.settings = settings
        self._folder = folder
        self._indexes = Indexes(settings)
        self._reranker = Reranker(settings.stages)
        self.thumbnails: BlobStore = open_blobs(f"{blobs_url.rstrip('/')}/thumbnails")
        self.store: Collections = open_collections(url)
        self._open: dict[int, OpenCollection] = {}
        self._lock = threading.Lock()

    def create(self, tenant: str, name: str) -> OpenCollection:
        """Return a collection, made when there is none."""
        return self._opened(self.store.create(tenant, check_name(name)))

    def collection(self, tenant: str, name: str) -> OpenCollection:
        """Return a collection, up to date.

        Raises:
            NotFound: the tenant has none of this name.
        """
        with self._lock:
            known = [
                one
                for one in self._open.values()
                if (one.collection.tenant, one.collection.name) == (tenant, name)
            ]
        for one in known:
            try:
                one.refresh()
            except NotFound:
                self._forget(one)
            else:
                return one
        return self._opened(self.store.get(tenant, check_name(name)))

    def _opened(self, collection: Collection) -> OpenCollection:
        with self._lock:
            if collection.key not in self._open:
                self._open[collection.key] = OpenCollection(
                    self.store,
                    collection,
                    self.folder(collection),
                    thumbnails=self.thumbnails,
                    indexes=self._indexes,
                    reranker=self._reranker,
                    candidates=self.settings.candidates,
                )
            return self._open[collection.key]

    def _forget(self, one: OpenCollection) -> None:
        with self._lock:
            self._open.pop(one.collection.key, None)
        one.close()

    def folder(self, collection: Collection) -> Path:
        """Return where a collection's files are."""
        return self._folder / collection.folder

    def writer(self, collection: Collection, *, wait_s: float = WRITE_WAIT_S) -> Writer:
        """Become the writer of a collection; see `Writer.open`.

        Raises:
            NotFound: it was deleted.
            Conflict: another program writes it.
        """
        folder = self.folder(collection)
        try:
            return Writer.open(self.store, collection, folder, wait_s=wait_s)
        except NotFound:
            shutil.rmtree(folder, ignore_errors=True)  # made again for the lock
            raise
        except StorageError:
            # Its folder may have gone with the collection, deleted at this moment.
            self.store.refresh(collection)
            raise

    def change_meta(self, collection: Collection, item_id: str, meta: Mapping[str, Any]) -> int:
        """Replace the metadata of an item; return the new generation.

        Raises:
            NotFound: there is no such item.
            Conflict: another program writes the collection.
        """
        with self.writer(collection):
            return self.store.set_meta(collection, item_id, meta)

    def delete(self, tenant: str, name: str) -> int:
        """Delete a collection with its files; return how many items it had.

        Raises:
            NotFound: there is none.
            Conflict: another program writes it.
        """
        collection = self.store.get(tenant, check_name(name))
        with self.writer(collection):
            if self._indexes.remote:
                opened = self._opened(collection)
                for space in opened.spaces():
                    opened.open_space(space).discard()
            removed = self.store.delete(collection)
        with self._lock:
            closing = self._open.pop(collection.key, None)
        if closing is not None:
            closing.close()
        shutil.rmtree(self.folder(collection), ignore_errors=True)
        return removed

    def close(self) -> None:
        """Close all. May be called twice."""
        with self._lock:
            opened, self._open = list(self._open.values()), {}
        for one in opened:
            one.close()
        self.store.close()
