"""AR filters: masks that sit on faces, in photos, in video and before a camera, on this machine."""

from __future__ import annotations

from typing import Any

from retinue.core.apps import App, Command, Page, Route

_STRING: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_FILTER = {
    "type": "object",
    "properties": {
        "name": _STRING,
        "title": _STRING,
        "summary": _STRING,
        "author": _STRING,
        "license": _STRING,
        "files": {"type": "array", "items": _STRING},
    },
}
_FILTERS = {
    "type": "object",
    "properties": {
        "filters": {"type": "array", "items": _FILTER},
        "models": {"type": "object", "additionalProperties": _STRING},
        "fov": _NUMBER,
        "budget_ms": _NUMBER,
        "max_faces": {"type": "integer"},
    },
}

APP = App(
    name="ar",
    title="AR filters",
    summary="Put a filter on the faces of a photo, a video or a camera",
    settings="retinue.apps.ar.settings:ArSettings",
    doctor="retinue.apps.ar.render.choose:facts",
    pipelines=(),
    routes=(
        Route(
            path="/v1/ar/filters",
            handler="retinue.apps.ar.routes:list_filters",
            summary="List the filters, and what they are run with",
            response=_FILTERS,
            method="GET",
            body="none",
        ),
        Route(
            path="/v1/ar/filters/{name}/{file:path}",
            handler="retinue.apps.ar.routes:filter_file",
            summary="Get a file of a filter",
            method="GET",
            body="none",
            binary="application/octet-stream",
        ),
        Route(
            path="/v1/ar/models/{name}",
            handler="retinue.apps.ar.routes:model_file",
            summary="Get a network as a .tflite file, for the browser",
            method="GET",
            body="none",
            binary="application/octet-stream",
        ),
    ),
    pages=(Page("/ar", "AR filters", "ar.html", "ar.js", wasm=True, camera=True),),
    commands=(Command("ar", "retinue.apps.ar.command:ar_cli"),),
)
