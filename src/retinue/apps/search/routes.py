"""``/v1/search``: collections, and queries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from retinue.apps.search.api import on_thumbnail
from retinue.apps.search.ask import Asked, AskedTerm, Given, parse_asked, to_query
from retinue.apps.search.local import as_embedding
from retinue.apps.search.packing import pack, unpack
from retinue.apps.search.prepare import THUMBNAIL, Pixels, region
from retinue.apps.search.searcher import OpenCollection
from retinue.apps.search.show import result
from retinue.apps.search.space import OpenSpace
from retinue.apps.search.state import SearchState
from retinue.core.apps import AppRequest, Services
from retinue.core.errors import InvalidRequest
from retinue.core.protocols import Pipeline
from retinue.core.types import Embedding, Image
from retinue.media.decode import decode

APP = "search"


def state_of(services: Services) -> SearchState:
    """Return the app's state of a running server."""
    state: SearchState = services.state(APP)
    return state


def describe(opened: OpenCollection, state: SearchState) -> dict[str, Any]:
    """Return a collection as JSON."""
    collection = opened.collection
    models = []
    for space in opened.models().values():
        dims = {"image": space.image_dim, **({"text": space.text_dim} if space.text_dim else {})}
        models.append(
            {
                "name": space.model,
                "version": space.version,
                "items": space.count,
                "dims": dims,
                "tokens": space.token_bytes > 0,
            }
        )
    return {
        "name": collection.name,
        "items": collection.count,
        "generation": collection.generation,
        "created": collection.created_us / 1e6,
        "models": models,
        "fields": state.library.store.fields(collection),
    }


async def list_collections(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """List the client's collections."""
    state = state_of(services)
    tenant = state.tenant(request.client)

    def work() -> list[dict[str, Any]]:
        names = [one.name for one in state.library.store.all(tenant)]
        return [describe(state.library.collection(tenant, name), state) for name in names]

    return {"collections": await state.run(work), "request_id": request.request_id}


async def create_collection(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Make a collection; one that exists is returned as it is.

    Raises:
        InvalidRequest: the name cannot be one.
    """
    state = state_of(services)
    fields = request.json
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise InvalidRequest('give an object with a name: {"name": "shop"}')
    unknown = sorted(set(fields) - {"name"})
    if unknown:
        raise InvalidRequest(f"no field {unknown[0][:60]!r}; a collection has: name")
    tenant, name = state.tenant(request.client), fields["name"]
    answer = await state.run(lambda: describe(state.library.create(tenant, name), state))
    return {**answer, "request_id": request.request_id}


async def get_collection(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Show a collection."""
    state = state_of(services)
    opened = await state.opened(request.client, request.path["collection"])
    answer = await state.run(lambda: describe(opened, state))
    return {**answer, "request_id": request.request_id}


async def delete_collection(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Delete a collection with all its items; the originals stay."""
    state = state_of(services)
    opened = await state.opened(request.client, request.path["collection"])
    await state.run(lambda: state.forget(opened.collection))
    collection = opened.collection
    count = await state.run(lambda: state.library.delete(collection.tenant, collection.name))
    return {"deleted": count, "request_id": request.request_id}


async def search(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Find the items that are most like a picture, a text, an item, or a mix of them.

    Raises:
        RetinueError: whatever was wrong with the request, its pictures or the collection.
    """
    state = state_of(services)
    fields: dict[str, Any] = {**request.query, **request.fields}
    body = request.body
    if request.json is not None:
        fields |= request.json
        body = b""
    asked = parse_asked(fields, body)
    opened = await state.opened(request.client, request.path["collection"])
    name = opened.collection.name
    if not await state.run(opened.spaces):
        return {**_nothing(opened), "request_id": request.request_id}
    space = await state.run(lambda: opened.space(asked.model))
    known = await _cached(state, opened, space, asked)
    if known is not None:
        return {**known, "cached": True, "request_id": request.request_id}
    given = [await _given(state, request, opened, space, term) for term in asked.terms]
    deadline = state.settings.deadline_ms

    def work() -> dict[str, Any]:
        answer = opened.search(to_query(asked, opened, space, given, deadline), space)
        return {
            "collection": name,
            "generation": answer.generation,
            "model": answer.model,
            "model_version": answer.version,
            "count": answer.count,
            "results": [result(hit, name) for hit in answer.hits],
            "skipped": list(answer.skipped),
            "timings_ms": dict(answer.timings_ms),
        }

    answer = await state.run(work)
    if not answer["skipped"]:
        # An answer that had to leave something out may be better the next time.
        await _keep(state, opened, space, asked, answer)
    return {**answer, "cached": False, "request_id": request.request_id}


def _nothing(opened: OpenCollection) -> dict[str, Any]:
    collection = opened.collection
    return {
        "collection": collection.name,
        "generation": collection.generation,
        "model": "",
        "model_version": "",
        "count": 0,
        "results": [],
        "skipped": [],
        "timings_ms": {},
        "cached": False,
    }


async def _given(
    state: SearchState,
    request: AppRequest,
    opened: OpenCollection,
    space: OpenSpace,
    term: AskedTerm,
) -> Given:
    if term.text:
        return await _text(state, space, term.text)
    data, box = term.image, term.box
    if not data:
        if box is None:
            return None
        store = state.library.store
        item = await state.run(lambda: store.item(opened.collection, term.id))
        data = await state.run(lambda: opened.thumbnail(item))
        box = on_thumbnail(box, item)
    embedding = await _embedding(state, request, space, data, box)
    limits = state.services.limits

    def pixels() -> Pixels:
        size = (THUMBNAIL, THUMBNAIL)
        if box is not None:
            return region(data, box, limits, size).pixels
        return decode(data, limits=limits, target=size).pixels

    return embedding, pixels


def pipeline_of(state: SearchState, space: OpenSpace) -> Pipeline:
    """Return what serves the version of a model that a space was made by.

    Raises:
        ModelNotFound: it is not loaded.
    """
    return state.services.pipeline(f"{space.space.model}@{space.space.version}")


async def _embedding(
    state: SearchState,
    request: AppRequest,
    space: OpenSpace,
    data: bytes,
    box: tuple[float, float, float, float] | None,
) -> Embedding:
    pipeline = pipeline_of(state, space)
    digest = hashlib.sha256(data)
    digest.update(repr((box, space.space.model, space.space.version)).encode())
    key = b"embedding:" + digest.digest()
    if state.cache is not None:
        kept = await state.run(lambda: state.cache.get(key) if state.cache else None)
        if kept is not None:
            return unpack(kept)
    item: bytes | Image = data
    if box is not None:
        limits, size = state.services.limits, pipeline.model.decode_size
        wanted = box
        item = await state.run(lambda: region(data, wanted, limits, size))
    record = await pipeline.submit(item, app=APP, source=request.filename, client=request.client)
    await state.services.finish(record, data)
    embedding = as_embedding(record.outcome.unwrap())
    cache = state.cache
    if cache is not None:
        await state.run(lambda: cache.put(key, pack(embedding)))
    return embedding


async def _text(state: SearchState, space: OpenSpace, text: str) -> NDArray[np.float32]:
    card = pipeline_of(state, space).model.card
    if not card.text:
        raise InvalidRequest(
            f"model {space.space.model!r} cannot be searched by text; give a picture"
        )
    encoder = await state.services.text_encoder(card.text)
    vectors = await state.run(lambda: encoder.encode([text]))
    return np.asarray(vectors[0], np.float32)


def _key(opened: OpenCollection, space: OpenSpace, asked: Asked) -> bytes:
    digest = hashlib.sha256(asked.key())
    for term in asked.terms:
        digest.update(hashlib.sha256(term.image).digest())
    where = f"{opened.collection.folder}:{space.space.key}:{space.generation}:"
    return b"answer:" + where.encode() + digest.digest()


async def _cached(
    state: SearchState, opened: OpenCollection, space: OpenSpace, asked: Asked
) -> dict[str, Any] | None:
    cache = state.cache
    if cache is None:
        return None
    kept = await state.run(lambda: cache.get(_key(opened, space, asked)))
    answer: dict[str, Any] | None = None if kept is None else orjson.loads(kept)
    return answer


async def _keep(
    state: SearchState, opened: OpenCollection, space: OpenSpace, asked: Asked, answer: Any
) -> None:
    cache = state.cache
    if cache is not None and answer["generation"] == space.generation:
        key, value = _key(opened, space, asked), orjson.dumps(answer)
        await state.run(lambda: cache.put(key, value))
