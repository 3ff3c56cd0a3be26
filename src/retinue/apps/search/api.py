"""The Python API: a collection to add to and to search, in this process, without a server.

with Collection.open("shop") as shop:
    shop.add("shoe.jpg", meta={"price": 40})
    for hit in shop.search(text="shoe", where={"price": {"lt": 50}}):
        print(hit.rank, hit.item.id, hit.score)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retinue.apps.search.answer import Answer, Hit
from retinue.apps.search.ask import Asked, Given, parse_asked, to_query
from retinue.apps.search.bulk import BulkIndex
from retinue.apps.search.duplicates import first_of
from retinue.apps.search.library import Library
from retinue.apps.search.local import LocalModels
from retinue.apps.search.prepare import Picture, prepare
from retinue.apps.search.query import Query, image_term
from retinue.apps.search.searcher import OpenCollection
from retinue.apps.search.settings import SearchSettings
from retinue.apps.search.space import OpenSpace
from retinue.apps.search.writer import Entry, check_id, check_meta, space_of
from retinue.core.errors import EmptyInput, InvalidRequest, storage_errors
from retinue.core.protocols import TextEncoder
from retinue.core.settings import Limits, Settings, load_settings
from retinue.core.types import Embedding
from retinue.store.collections import Failure, Item, Put, Space

ALIKE = 8
"""Nearest neighbours whose hashes tell whether a new item is a duplicate."""


def app_settings(settings: Settings) -> SearchSettings:
    """Return the app's table of the settings.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    return settings.app("search", SearchSettings)


def open_library(settings: Settings) -> Library:
    """Open the collections that the settings name."""
    return Library(
        app_settings(settings),
        url=settings.records_url,
        blobs_url=settings.blobs_url,
        folder=settings.home / "search",
    )


class Collection:
    """A collection of pictures; made by `open`. One thread at a time."""

    def __init__(
        self,
        library: Library,
        opened: OpenCollection,
        models: LocalModels,
        model: str,
        settings: Settings,
    ) -> None:
        self._library, self._opened, self._models = library, opened, models
        self._model, self._settings = model, settings

    @classmethod
    def open(
        cls,
        name: str,
        *,
        model: str = "",
        tenant: str = "",
        settings: Settings | None = None,
        make: bool = True,
    ) -> Self:
        """Open a collection.

        Args:
            name: Letters, digits, ".", "_" and "-", at most 64.
            model: The embedding model; "" for the collection's first, or the settings' default.
            tenant: Whose it is.
            settings: None reads ``retinue.toml`` and the ``RETINUE_*`` variables.
            make: Whether it is made when there is none.

        Raises:
            InvalidRequest: the name cannot be one.
            NotFound: there is none, and none is to be made.
            RetinueError: a store or the model cannot be opened.
        """
        chosen = settings or load_settings()
        library = open_library(chosen)
        try:
            opened = library.create(tenant, name) if make else library.collection(tenant, name)
            first = next((s.model for s in opened.spaces()), library.settings.model)
            return cls(library, opened, LocalModels(chosen), model or first, chosen)
        except BaseException:
            library.close()
            raise

    @property
    def name(self) -> str:
        """Its name."""
        return self._opened.collection.name

    @property
    def model(self) -> str:
        """The embedding model that it adds and searches with."""
        return self._model

    def __len__(self) -> int:
        """Items."""
        return self._opened.refresh().count

    def add(
        self,
        picture: str | Path | bytes,
        *,
        id: str = "",  # noqa: A002 (what it is called everywhere else)
        path: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> str:
        """Add a picture; durable and searchable when it returns.

        Args:
            picture: A file's path, or its bytes.
            id: What to call it; "" for the path, or for the digest of the bytes. An item that has
                this id is replaced.
            path: Where the original is; "" for the picture's own path.
            meta: Text, numbers, flags and lists of text by field name.

        Returns:
            The item's id.

        Raises:
            InputError: the picture cannot be read, or the id or metadata is out of its limits.
            Conflict: another program is writing the collection.
            DiskFull, StorageError: nothing was written.
        """
        data = picture if isinstance(picture, bytes) else read_picture(Path(picture))
        place = path or ("" if isinstance(picture, bytes) else str(picture))
        size = self._models.model(self._model).decode_size
        ready = prepare(data, self._settings.limits, size)
        (embedding,) = self._models.embed(self._model, [ready.image])
        put = self._put(ready, id or place or ready.sha256, place, meta or {})
        entry = self._models.entry(self._model)
        with self._library.writer(self._opened.collection) as writer:
            space = writer.add_space(space_of(entry.card.name, entry.version, embedding))
            writer.write([Entry(put, {space.key: embedding})])
        self._group(put.id, embedding, space)
        return put.id

    def _put(self, ready: Picture, item_id: str, path: str, meta: Mapping[str, Any]) -> Put:
        return Put(
            id=check_id(item_id),
            path=path,
            sha256=ready.sha256,
            size=ready.size,
            width=ready.image.width,
            height=ready.image.height,
            meta=check_meta(dict(meta)),
            pdq=ready.pdq,
            thumbnail=self._library.thumbnails.put(ready.thumbnail, ".jpg"),
        )

    def _group(self, item_id: str, embedding: Embedding, space: Space) -> None:
        group_new(self._library, self._opened, item_id, embedding, space)

    def search(
        self,
        image: str | Path | bytes | None = None,
        *,
        text: str = "",
        id: str = "",  # noqa: A002
        box: Sequence[float] | None = None,
        terms: Sequence[Mapping[str, Any]] = (),
        where: Mapping[str, Any] | None = None,
        k: int = 20,
        offset: int = 0,
        rerank: bool = True,
        dedupe: bool = True,
        deadline_ms: float | None = None,
    ) -> list[Hit]:
        """Find the items that are most like what is asked; see `ask` for all of the answer.

        Args:
            image: A file's path, or its bytes.
            text: A text.
            id: An item of the collection; it is not found itself.
            box: x1, y1, x2, y2: a region of the image, or of the item, in pixels of its original.
            terms: More terms, each with "text", "id" or "image" (base64) and a "weight"; negative
                for "not this".
            where: A condition on metadata; see `retinue.apps.search.filters`.
            k: Results, 1 to 1000.
            offset: Results before them.
            rerank: Whether the stages after the index are run.
            dedupe: Whether of duplicates only the best is shown.
            deadline_ms: A stage that would end later is left out.

        Raises:
            InvalidRequest: what is asked is out of its limits, or this model cannot answer it.
            InputError: a picture cannot be read.
            NotFound: the item that is searched by is not there.
        """
        data = b""
        if image is not None:
            data = image if isinstance(image, bytes) else read_picture(Path(image))
            if not data:
                raise EmptyInput("the image has zero bytes; give the image file itself")
        fields: dict[str, Any] = {
            "text": text,
            "id": id,
            "box": None if box is None else list(box),
            "terms": list(terms),
            "where": None if where is None else dict(where),
            "k": k,
            "offset": offset,
            "rerank": rerank,
            "dedupe": dedupe,
            "deadline_ms": deadline_ms,
        }
        return list(self.ask(parse_asked(fields, data)).hits)

    def ask(self, asked: Asked) -> Answer:
        """Answer what was parsed by `retinue.apps.search.ask.parse_asked`."""
        self._opened.refresh()
        model = asked.model or self._model
        if not self._opened.spaces():
            return Answer((), model, "", self._opened.collection.generation, 0)
        space = self._opened.space(model, self._version(model))
        given = [self._given(model, term) for term in asked.terms]
        query = to_query(asked, self._opened, space, given, self._library.settings.deadline_ms)
        return self._opened.search(query, space)

    def _version(self, model: str) -> str:
        return self._models.model(model).version

    def _given(self, model: str, term: Any) -> Given:
        if term.image:
            embedding, image = self._models.see(model, term.image, term.box)
            return embedding, lambda: image.pixels
        if term.text:
            vector: NDArray[np.float32] = self._models.text(model).encode([term.text])[0]
            return vector
        if term.box is None:
            return None
        item = self.get(term.id)
        embedding, image = self._models.see(
            model, self._opened.thumbnail(item), on_thumbnail(term.box, item)
        )
        return embedding, lambda: image.pixels

    def get(self, item_id: str) -> Item:
        """Return an item.

        Raises:
            NotFound: there is none of this id.
        """
        return self._library.store.item(self._opened.collection, item_id)

    def items(self) -> Iterator[Item]:
        """Yield all items, in the order in which they were first added."""
        cursor = -1
        while True:
            page = self._library.store.page(self._opened.collection, limit=500, cursor=cursor)
            yield from page.items
            cursor = page.cursor
            if cursor < 0:
                return

    def delete(self, *ids: str) -> int:
        """Delete items; return how many there were.

        Raises:
            Conflict: another program is writing the collection.
        """
        before = len(self)
        with self._library.writer(self._opened.collection) as writer:
            writer.write(removes=list(dict.fromkeys(ids)))
        return before - len(self)

    def drop(self) -> int:
        """Delete the whole collection with its files; return how many items it had.

        Raises:
            Conflict: another program is writing it.
        """
        collection = self._opened.collection
        return self._library.delete(collection.tenant, collection.name)

    def failures(self) -> list[Failure]:
        """Return the pictures that bulk indexing could not index, and why."""
        return self._library.store.failures(self._opened.collection)

    def duplicates(self) -> list[list[Item]]:
        """Return the groups of duplicates, each with its first item in front."""
        return self._library.store.duplicates(self._opened.collection, limit=10_000)[0]

    @property
    def limits(self) -> Limits:
        """What a decoder may be given."""
        return self._settings.limits

    def bulk(self, *, threads: int = 0) -> BulkIndex:
        """Return a run of bulk indexing with this collection's model."""
        return BulkIndex(
            self._library,
            self._opened,
            self._models,
            self._model,
            limits=self.limits,
            threads=threads,
            batch=self._settings.batching.max_batch,
        )

    def open_space(self) -> OpenSpace:
        """Return the model's space, up to date.

        Raises:
            InvalidRequest: the collection has no vectors of this model.
        """
        self._opened.refresh()
        space = self._opened.space(self._model, self._version(self._model))
        space.catch_up()
        return space

    def text_encoder(self) -> TextEncoder | None:
        """Return what turns texts into vectors; None where the model compares none."""
        return self._models.text(self._model) if self._models.model(self._model).card.text else None

    def close(self) -> None:
        """Close models and stores. May be called twice."""
        self._models.close()
        self._library.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def group_new(
    library: Library, opened: OpenCollection, item_id: str, embedding: Embedding, space: Space
) -> None:
    """Put a new item into the group of what it is a duplicate of.

    Its nearest neighbours are the only ones that are compared: a duplicate is among them.
    """
    opened.refresh()
    store, collection = library.store, opened.collection
    item = store.item(collection, item_id)
    near = opened.search(
        Query([image_term(embedding)], k=ALIKE, rerank=False, dedupe=False),
        opened.open_space(space),
    )
    others = [hit.item for hit in near.hits]
    others += store.items(collection, store.same_content(collection, item.sha256)[:1]).values()
    group = first_of(item, others)
    if group != item.duplicate_of:
        store.set_duplicates(collection, {item.number: group})


def on_thumbnail(box: Sequence[float], item: Item) -> tuple[float, float, float, float]:
    """Return a box of an item's original in pixels of its thumbnail."""
    from retinue.apps.search.prepare import THUMBNAIL

    scale = min(1.0, THUMBNAIL / max(item.width, item.height))
    x1, y1, x2, y2 = (edge * scale for edge in box)
    return x1, y1, x2, y2


def read_picture(path: Path) -> bytes:
    """Return a picture's file.

    Raises:
        InvalidRequest: there is no such file.
        EmptyInput: it has zero bytes.
        StorageError: it cannot be read.
    """
    with storage_errors(path, "reading"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise InvalidRequest(f"there is no file {path}; give an existing one") from None
        except IsADirectoryError:
            raise InvalidRequest(f"{path} is a folder; give a picture's file") from None
    if not data:
        raise EmptyInput(f"{path} has zero bytes; give an image file")
    return data
