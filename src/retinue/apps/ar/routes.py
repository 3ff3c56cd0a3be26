"""``/v1/ar``: what the page needs to apply filters in the browser. No picture is sent here."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from retinue.apps.ar.filters import folder, load, names
from retinue.apps.ar.originals import original
from retinue.apps.ar.settings import ArSettings
from retinue.core.apps import AppRequest, Content, Services
from retinue.core.errors import InputNotFound, NotFound

TYPES: Final = {".glb": "model/gltf-binary", ".gltf": "model/gltf+json", ".toml": "text/plain"}
KEPT: Final = {"cache-control": "private, max-age=3600"}


async def list_filters(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """List the filters that come with Retinue, and what the page is to run them with."""
    settings: ArSettings = services.app_settings("ar")
    return {
        "filters": await asyncio.to_thread(_all),
        "models": {
            "detector": settings.detector,
            "far_detector": settings.far_detector,
            "mesh": settings.mesh,
            "iris_mesh": settings.iris_mesh,
            "segmenter": settings.segmenter,
        },
        "fov": settings.fov,
        "budget_ms": settings.budget_ms,
        "max_faces": settings.max_faces,
        "request_id": request.request_id,
    }


def _all() -> list[dict[str, Any]]:
    rows = []
    for name in names():
        spec, place = load(name).spec, folder(name)
        rows.append(
            {
                "name": name,
                "title": spec.title,
                "summary": spec.summary,
                "author": spec.author,
                "license": spec.license,
                "files": sorted(
                    str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()
                ),
            }
        )
    return rows


async def filter_file(services: Services, request: AppRequest) -> Content:
    """Return a file of a filter that comes with Retinue."""
    name, wanted = request.path["name"], request.path["file"]
    path = await asyncio.to_thread(_file, name, wanted)
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    body = await asyncio.to_thread(path.read_bytes)
    return Content(body, kind or "application/octet-stream", KEPT)


def _file(name: str, wanted: str) -> Path:
    if name not in names():
        raise NotFound(f"there is no filter {name!r}; there are: {', '.join(names())}")
    place = folder(name).resolve()
    path = (place / wanted).resolve()
    if not path.is_relative_to(place) or not path.is_file():
        raise InputNotFound(f"filter {name!r} has no file {wanted!r}")
    return path


async def model_file(services: Services, request: AppRequest) -> Content:
    """Return a network's .tflite file, as its maker published it."""
    folder = services.home / "ar" / "originals"
    path = await asyncio.to_thread(original, folder, request.path["name"])
    body = await asyncio.to_thread(path.read_bytes)
    return Content(body, "application/octet-stream", KEPT)
