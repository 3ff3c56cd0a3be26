"""Visual search: index pictures, find similar ones by picture, region, text or item."""

from __future__ import annotations

from typing import Any

from retinue.core.apps import App, Command, Page, PipelineSpec, Route

_STRING: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_INTEGER: dict[str, Any] = {"type": "integer"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_OBJECT: dict[str, Any] = {"type": "object"}
_BOX = {
    "description": "x1, y1, x2, y2 in pixels of the upright original",
    "type": "array",
    "items": _NUMBER,
    "minItems": 4,
    "maxItems": 4,
}
_TERM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "contentEncoding": "base64"},
        "text": _STRING,
        "id": _STRING,
        "box": _BOX,
        "weight": {"type": "number", "minimum": -100, "maximum": 100},
    },
}
_ITEM = {
    "type": "object",
    "required": ["id", "path", "width", "height", "meta", "group", "thumbnail"],
    "properties": {
        "id": _STRING,
        "path": _STRING,
        "width": _INTEGER,
        "height": _INTEGER,
        "meta": _OBJECT,
        "group": {"type": "integer", "description": "The same for duplicates"},
        "thumbnail": _STRING,
    },
}
_ITEMS = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": _ITEM}, "cursor": _STRING},
}
_GROUPS = {
    "type": "object",
    "properties": {
        "groups": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"group": _INTEGER, "items": {"type": "array", "items": _ITEM}},
            },
        },
        "cursor": _STRING,
    },
}
_COLLECTION = {
    "type": "object",
    "required": ["name", "items", "generation", "models", "fields"],
    "properties": {
        "name": _STRING,
        "items": _INTEGER,
        "generation": _INTEGER,
        "created": _NUMBER,
        "models": {"type": "array", "items": _OBJECT},
        "fields": {"type": "object", "additionalProperties": _STRING},
    },
}
_RESULT = {
    "type": "object",
    "required": ["rank", "id", "path", "score", "relevance", "stages"],
    "properties": {
        "rank": _INTEGER,
        "id": _STRING,
        "path": _STRING,
        "score": _NUMBER,
        "relevance": {"type": "number", "minimum": 0, "maximum": 1},
        "stages": {"type": "object", "additionalProperties": _NUMBER},
        "width": _INTEGER,
        "height": _INTEGER,
        "meta": _OBJECT,
        "thumbnail": _STRING,
        "duplicates": _INTEGER,
        "regions": {"type": "array", "items": {"type": "array", "items": _NUMBER}},
    },
}
ANSWER_SCHEMA = {
    "type": "object",
    "required": ["collection", "generation", "model", "count", "results", "skipped"],
    "properties": {
        "collection": _STRING,
        "generation": _INTEGER,
        "model": _STRING,
        "model_version": _STRING,
        "count": _INTEGER,
        "results": {"type": "array", "items": _RESULT},
        "skipped": {"type": "array", "items": _STRING},
        "timings_ms": {"type": "object", "additionalProperties": _NUMBER},
        "cached": _FLAG,
        "request_id": _STRING,
    },
}
QUERY_SCHEMA = {
    "type": "object",
    "properties": {
        **_TERM["properties"],
        "terms": {"type": "array", "items": _TERM, "maxItems": 16},
        "where": {"type": "object", "description": "Condition on metadata"},
        "k": {"type": "integer", "minimum": 1, "maximum": 1000},
        "offset": {"type": "integer", "minimum": 0},
        "model": _STRING,
        "rerank": _FLAG,
        "dedupe": _FLAG,
        "deadline_ms": {"type": "number", "exclusiveMinimum": 0, "maximum": 60000},
    },
}
_QUERY_PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "text": (_STRING, "Find what this says"),
    "id": (_STRING, "Find what is like this item"),
    "box": (_STRING, "Region of the picture: x1,y1,x2,y2 in pixels of the upright original"),
    "where": (_STRING, 'Condition on metadata, as JSON: {"price": {"lt": 5}}'),
    "k": ({"type": "integer", "minimum": 1, "maximum": 1000}, "Results; 20 if left out"),
    "offset": ({"type": "integer", "minimum": 0}, "Results before them"),
    "model": (_STRING, "Whose vectors are compared; the collection's first if left out"),
    "rerank": (_FLAG, "Whether the stages after the index are run"),
    "dedupe": (_FLAG, "Whether of duplicates only the best is shown"),
    "deadline_ms": (_NUMBER, "A stage that would end later is left out"),
}
_PAGE_PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "limit": ({"type": "integer", "minimum": 1, "maximum": 1000}, "At most so many"),
    "cursor": (_STRING, "The previous page's cursor"),
}
_ITEM_PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "id": (_STRING, "What to call it; the path, or the file's digest, if left out"),
    "path": (_STRING, "Where the original is"),
    "meta": (_STRING, 'Metadata, as JSON: {"price": 3, "tags": ["red"]}'),
}
_DELETED = {"type": "object", "properties": {"deleted": _INTEGER}}
_HERE = "retinue.apps.search"
_ONE = "/v1/search/{collection}"

APP = App(
    name="search",
    title="Search",
    summary="Find similar pictures by picture, region, text or item",
    settings=f"{_HERE}.settings:SearchSettings",
    pipelines=(PipelineSpec(task="embed"),),
    routes=(
        Route(
            path="/v1/search",
            handler=f"{_HERE}.routes:list_collections",
            summary="List the collections",
            method="GET",
            body="none",
            response={
                "type": "object",
                "properties": {"collections": {"type": "array", "items": _COLLECTION}},
            },
        ),
        Route(
            path="/v1/search",
            handler=f"{_HERE}.routes:create_collection",
            summary="Make a collection",
            body="json",
            schema={"type": "object", "required": ["name"], "properties": {"name": _STRING}},
            response=_COLLECTION,
        ),
        Route(
            path=_ONE,
            handler=f"{_HERE}.routes:get_collection",
            summary="Show a collection",
            method="GET",
            body="none",
            response=_COLLECTION,
        ),
        Route(
            path=_ONE,
            handler=f"{_HERE}.routes:delete_collection",
            summary="Delete a collection; the originals stay",
            method="DELETE",
            body="none",
            response=_DELETED,
        ),
        Route(
            path=_ONE,
            handler=f"{_HERE}.routes:search",
            summary="Find similar items",
            body="any",
            schema=QUERY_SCHEMA,
            parameters=_QUERY_PARAMETERS,
            response=ANSWER_SCHEMA,
        ),
        Route(
            path=f"{_ONE}/items",
            handler=f"{_HERE}.item_routes:list_items",
            summary="List items",
            method="GET",
            body="none",
            parameters=_PAGE_PARAMETERS,
            response=_ITEMS,
        ),
        Route(
            path=f"{_ONE}/items",
            handler=f"{_HERE}.item_routes:add_item",
            summary="Add a picture, or replace the item that has its id",
            body="any",
            parameters=_ITEM_PARAMETERS,
            schema={
                "type": "object",
                "properties": {
                    name: dict(schema) for name, (schema, _) in _ITEM_PARAMETERS.items()
                },
            },
            response=_ITEM,
        ),
        # An id may hold slashes: the longer path is looked at first.
        Route(
            path=f"{_ONE}/items/{{id:path}}/thumbnail",
            handler=f"{_HERE}.item_routes:get_thumbnail",
            summary="An item's thumbnail",
            method="GET",
            body="none",
            binary="image/jpeg",
        ),
        Route(
            path=f"{_ONE}/items/{{id:path}}",
            handler=f"{_HERE}.item_routes:get_item",
            summary="Show an item",
            method="GET",
            body="none",
            response=_ITEM,
        ),
        Route(
            path=f"{_ONE}/items/{{id:path}}",
            handler=f"{_HERE}.item_routes:change_item",
            summary="Replace an item's metadata",
            method="PATCH",
            body="json",
            schema={"type": "object", "required": ["meta"], "properties": {"meta": _OBJECT}},
            response=_ITEM,
        ),
        Route(
            path=f"{_ONE}/items/{{id:path}}",
            handler=f"{_HERE}.item_routes:delete_item",
            summary="Delete an item",
            method="DELETE",
            body="none",
            response=_DELETED,
        ),
        Route(
            path=f"{_ONE}/duplicates",
            handler=f"{_HERE}.item_routes:list_duplicates",
            summary="List items that are the same picture",
            method="GET",
            body="none",
            parameters=_PAGE_PARAMETERS,
            response=_GROUPS,
        ),
    ),
    commands=(Command("search", f"{_HERE}.command:search_cli"),),
    observers=("metrics",),
    pages=(Page(path="/search", title="Search", template="search.html", script="search.js"),),
    state=f"{_HERE}.state:open_state",
)
