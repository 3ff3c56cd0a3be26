"""The real program with a tiny search model, and what asks it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from retinue.models.registry import Registry
from retinue.testing import versions
from retinue.testing.embedders import COLOURS, EMBEDDER, install, photo

from .conftest import Program, start

NAMES = list(COLOURS)
CONFIG = f"""
[apps.search]
model = "{EMBEDDER}"
deadline_ms = 5000
[apps.detect]
model = "{versions.NAME}"
[server]
grpc = false
[records]
sample = 0
"""


def serve(folder: Path, *, search: str = "", server: str = "") -> Program:
    """Start the program with its state and models in a folder."""
    install(folder / "cache", folder / "made")
    versions.install(Registry(folder / "cache"), folder / "made")
    config = folder / "retinue.toml"
    config.write_text(
        CONFIG.replace("[apps.detect]", f"{search}\n[apps.detect]").replace(
            "grpc = false", f"grpc = false\n{server}"
        )
    )
    return start(
        ["-m", "retinue", "up", "--port", "0", "--config", str(config)],
        folder / "server.log",
        RETINUE_HOME=str(folder / "home"),
        RETINUE_CACHE=str(folder / "cache"),
    )


def add(client: httpx.Client, shop: str, item: str, data: bytes, **more: str) -> dict[str, Any]:
    answer = client.post(f"/v1/search/{shop}/items", content=data, params={"id": item, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stock(client: httpx.Client, shop: str, count: int = 16) -> None:
    for number in range(count):
        colour = NAMES[number % 8]
        meta = f'{{"colour": "{colour}", "price": {number}}}'
        add(client, shop, f"p{number}", photo(number, colour), meta=meta)


def error(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"path", "error", "request_id"}
    assert body["error"]["code"] == code
    said: str = body["error"]["message"]
    return said


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["results"]]


def wait_for(true: Callable[[], bool], seconds: float = 10.0) -> None:
    waited = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        waited.wait(0.05)
    raise AssertionError("it did not happen in time")
