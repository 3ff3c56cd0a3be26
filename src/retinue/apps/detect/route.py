"""``POST /v1/detect``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from retinue.apps.detect.answer import answer, choose, decide
from retinue.core.apps import AppRequest, Services
from retinue.core.errors import InvalidRequest

MAX_NAME = 128


def _number(query: Mapping[str, str], name: str, low: float, high: float) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise InvalidRequest(f"{name} must be a number from {low:g} to {high:g}, not {text[:40]!r}")
    return value


def _name(query: Mapping[str, str], name: str) -> str:
    text = query.get(name, "")
    if len(text) > MAX_NAME:
        raise InvalidRequest(f"{name} must be at most {MAX_NAME} characters, not {len(text)}")
    return text


async def detect(services: Services, request: AppRequest) -> Mapping[str, Any]:
    """Detect objects in the request's photo.

    Raises:
        RetinueError: whatever was wrong with the request or its photo.
    """
    query = request.query
    conf = _number(query, "conf", 0, 1)
    deadline_ms = _number(query, "deadline_ms", 0.001, 86_400_000)
    priority = _number(query, "priority", -100, 100) or 0
    if priority != int(priority):
        raise InvalidRequest(f"priority must be a whole number, not {query['priority'][:40]!r}")
    stream, key = (_name(query, name) for name in ("stream", "key"))
    pipeline, card = choose(services, query.get("model", ""), key or stream or request.body)
    record = await pipeline.submit(
        request.body,
        deadline=None if deadline_ms is None else time.monotonic() + deadline_ms / 1000,
        priority=int(priority),
        app="detect",
        source=request.filename or stream,
        client=request.client,
        stream=stream,
    )
    record = decide(record, services.app_settings("detect").conf if conf is None else conf)
    recorded = await services.finish(record, request.body)
    headers = {"retinue-recorded": "true" if recorded else "false"}
    return {**answer(record, card), "request_id": request.request_id, "_headers": headers}
