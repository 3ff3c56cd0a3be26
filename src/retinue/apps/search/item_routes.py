"""``/v1/search/{collection}/items``: adding, showing, changing and deleting items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from retinue.apps.search.local import as_embedding
from retinue.apps.search.prepare import prepare
from retinue.apps.search.routes import APP, state_of
from retinue.apps.search.searcher import OpenCollection
from retinue.apps.search.show import item_json
from retinue.apps.search.state import SearchState
from retinue.apps.search.writer import Entry, check_id, check_meta, space_of
from retinue.core.apps import AppRequest, Content, Services
from retinue.core.errors import EmptyInput, InvalidRequest, ModelNotFound
from retinue.core.protocols import Pipeline
from retinue.core.types import Embedding
from retinue.store.collections import Item, Put, Space

MAX_PAGE: Final = 1000
MAX_PATH: Final = 4096


def _page(query: Mapping[str, str], usual: int) -> tuple[int, int]:
    """Return limit and cursor of a query string."""
    found = []
    for name, default, low, high in (("limit", usual, 1, MAX_PAGE), ("cursor", -1, -1, 2**62)):
        text = query.get(name) or str(default)
        value = int(text) if text.lstrip("-").isdigit() and len(text) < 20 else low - 1
        if not low <= value <= high:
            raise InvalidRequest(f"{name} must be a whole number from {low} on, not {text[:40]!r}")
        found.append(value)
    return found[0], found[1]


async def list_items(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """List items in the order in which they were first added."""
    state = state_of(services)
    limit, cursor = _page(request.query, 50)
    opened = await state.opened(request.client, request.path["collection"])
    store, collection = state.library.store, opened.collection
    page = await state.run(lambda: store.page(collection, limit=limit, cursor=cursor))
    return {
        "items": [item_json(item, collection.name) for item in page.items],
        "cursor": "" if page.cursor < 0 else str(page.cursor),
        "request_id": request.request_id,
    }


async def list_duplicates(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """List groups of items that are the same picture."""
    state = state_of(services)
    limit, cursor = _page(request.query, 50)
    opened = await state.opened(request.client, request.path["collection"])
    store, collection = state.library.store, opened.collection
    groups, after = await state.run(
        lambda: store.duplicates(collection, limit=limit, cursor=cursor)
    )
    return {
        "groups": [
            {
                "group": group[0].duplicate_of,
                "items": [item_json(item, collection.name) for item in group],
            }
            for group in groups
        ],
        "cursor": "" if after < 0 else str(after),
        "request_id": request.request_id,
    }


async def _item(state: SearchState, request: AppRequest) -> tuple[OpenCollection, Item]:
    opened = await state.opened(request.client, request.path["collection"])
    store = state.library.store
    item = await state.run(lambda: store.item(opened.collection, request.path["id"]))
    return opened, item


async def get_item(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Show an item."""
    opened, item = await _item(state_of(services), request)
    return {**item_json(item, opened.collection.name), "request_id": request.request_id}


async def get_thumbnail(services: Services, request: AppRequest) -> Content:
    """Return an item's thumbnail."""
    state = state_of(services)
    opened, item = await _item(state, request)
    data = await state.run(lambda: opened.thumbnail(item))
    # The key is the content's digest: the same URL may show another picture later.
    return Content(data, "image/jpeg", {"etag": f'"{item.thumbnail}"', "cache-control": "no-cache"})


async def delete_item(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Delete an item; it is not found any more when this answers."""
    state = state_of(services)
    opened, item = await _item(state, request)
    await state.write(opened.collection, remove=item.id)
    return {"deleted": 1, "request_id": request.request_id}


async def change_item(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Replace an item's metadata.

    Raises:
        InvalidRequest: the metadata is out of its limits.
    """
    state = state_of(services)
    fields = request.json
    if not isinstance(fields, dict) or set(fields) != {"meta"}:
        raise InvalidRequest('give an object with the metadata: {"meta": {"price": 3}}')
    meta = check_meta(fields["meta"])
    opened, item = await _item(state, request)
    await state.run(lambda: state.library.change_meta(opened.collection, item.id, meta))
    changed = replace(item, meta=meta)
    return {**item_json(changed, opened.collection.name), "request_id": request.request_id}


async def add_item(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Add a picture; durable and searchable when this answers. The same id replaces.

    Raises:
        RetinueError: whatever was wrong with the request or its picture; nothing was written.
    """
    state = state_of(services)
    fields = {**request.query, **request.fields}
    unknown = sorted(set(fields) - {"id", "path", "meta"})
    if unknown:
        raise InvalidRequest(f"no field {unknown[0][:60]!r}; an item has: id, path, meta")
    if not request.body or request.json is not None:
        raise EmptyInput("there is no picture; send an image file as the body or in a form")
    meta = _meta(fields.get("meta", ""))
    path = fields.get("path", "") or request.filename
    if len(path) > MAX_PATH:
        raise InvalidRequest(f"path has {len(path)} characters; at most {MAX_PATH} are kept")
    tenant, name = state.tenant(request.client), request.path["collection"]
    opened = await state.run(lambda: state.library.create(tenant, name))
    pipelines = await _pipelines(state, opened)
    size = max(pipeline.model.decode_size for pipeline in pipelines)
    ready = await state.run(lambda: prepare(request.body, state.services.limits, size))
    embeddings: dict[int, Embedding] = {}
    spaces: list[Space] = []
    for place, pipeline in enumerate(pipelines):
        record = await pipeline.submit(
            ready.image, app=APP, source=request.filename, client=request.client
        )
        await state.services.finish(record, request.body)
        embedding = as_embedding(record.outcome.unwrap())
        spaces.append(replace(space_of(record.model, record.version, embedding), key=place))
        embeddings[place] = embedding
    thumbnail = await state.run(lambda: state.library.thumbnails.put(ready.thumbnail, ".jpg"))
    put = Put(
        id=check_id(fields.get("id", "") or path or ready.sha256),
        path=path,
        sha256=ready.sha256,
        size=ready.size,
        width=ready.image.width,
        height=ready.image.height,
        meta=meta,
        pdq=ready.pdq,
        thumbnail=thumbnail,
    )
    await state.write(opened.collection, entry=(Entry(put, embeddings), spaces))
    item = await state.run(lambda: state.library.store.item(opened.collection, put.id))
    return {**item_json(item, name), "request_id": request.request_id}


def _meta(text: str) -> Mapping[str, Any]:
    if not text:
        return {}
    try:
        return check_meta(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"meta is no JSON: {error}") from error


async def _pipelines(state: SearchState, opened: OpenCollection) -> Sequence[Pipeline]:
    """Return what serves the models of a collection; the settings' one for a new collection."""
    models = await state.run(opened.models)
    if not models:
        return [state.services.pipeline(state.settings.model)]
    found = []
    for space in models.values():
        try:
            found.append(state.services.pipeline(f"{space.model}@{space.version}"))
        except ModelNotFound:
            # Another version is in production now; its vectors make a space of their own.
            found.append(state.services.pipeline(space.model))
    return found
