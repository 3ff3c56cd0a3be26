"""A running server whose versions take each other's place under load."""

from __future__ import annotations

import asyncio
import collections
import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pictures

from retinue.models.ledger import Target
from retinue.models.registry import Registry
from retinue.testing.load import ask
from retinue.testing.onnx_models import color_detector

CARD = """
family = "yolo"
license = "MIT"
classes = [{classes}]
[input]
height = 64
width = 64
[output]
layout = "yolov8"
"""
REQUESTS, SWAPS = 10_000, 20


def install(folder: Path, cell: int, classes: tuple[str, str, str]) -> str:
    """Add a version of "one" whose answers nobody can take for another's; return its digest."""
    card = folder / f"card{cell}.toml"
    card.write_text(CARD.format(classes=", ".join(f'"{name}"' for name in classes)))
    file = color_detector(folder / f"{cell}.onnx", cell=cell)
    entry = Registry(folder / "cache").import_onnx(file, name="one", task="detect", card=card)
    return entry.version


def red() -> bytes:
    out = io.BytesIO()
    Pictures.fromarray(np.full((64, 64, 3), (255, 0, 0), np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def swapping(retinue_up, tmp_path: Path):
    """A server of two versions, their registry, and what each answers: how many boxes of what."""
    versions = {
        install(tmp_path, 16, ("red", "green", "blue")): (16, "red"),
        install(tmp_path, 32, ("rot", "gruen", "blau")): (4, "rot"),
    }
    registry = Registry(tmp_path / "cache")
    registry.promote("one", next(iter(versions)), actor="test")
    program = retinue_up(
        '[apps.detect]\nmodel = "one"\n[rollout]\nfollow_s = 0.05\n[records]\nsample = 0\n'
    )
    return program, registry, versions


def status(program) -> dict[str, Any]:
    models = program.get("/v1/status").json()["models"]
    return next(model for model in models if model["name"] == "one")


def serving(program) -> str:
    return str(status(program)["version"])


def until_serving(program, version: str) -> None:
    limit = time.monotonic() + 30
    while serving(program) != version:
        assert time.monotonic() < limit, program.log.read_text()
        time.sleep(0.02)


def test_ten_thousand_requests_during_twenty_swaps(swapping) -> None:
    program, registry, versions = swapping
    names = list(versions)
    done = threading.Event()
    answered = 0
    swapped: list[str] = []

    def swap() -> None:
        for turn in range(SWAPS):
            while answered < (turn + 1) * REQUESTS / (SWAPS + 1) and not done.is_set():
                time.sleep(0.01)
            version = names[(turn + 1) % 2]
            registry.promote("one", version, actor="test", reason=f"swap {turn}")
            until_serving(program, version)
            swapped.append(version)

    def count(_: object) -> None:
        nonlocal answered
        answered += 1

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        answers = asyncio.run(
            ask(program.url + "/v1/detect", [red()], REQUESTS, clients=8, heard=count)
        )
    finally:
        done.set()
        swapper.join()
    assert collections.Counter(answer.status for answer in answers) == {200: REQUESTS}
    seen = collections.Counter()
    for answer in answers:
        body = json.loads(answer.body)
        boxes, kind = versions[body["model_version"]]
        assert [one["class"] for one in body["detections"]] == [kind] * boxes
        seen[body["model_version"]] += 1
    assert len(swapped) == SWAPS
    assert min(seen.values()) > REQUESTS / 5
    assert len(registry.ledger("one").events()) >= SWAPS
    assert program.is_alive()


def test_what_cannot_be_served_leaves_what_is(swapping, tmp_path: Path) -> None:
    program, registry, versions = swapping
    first, second = versions
    # Its files vanish while it serves: what runs goes on, and the alias leads nowhere.
    until_serving(program, first)
    for file in registry.get("one", second).path.parent.iterdir():
        file.unlink()
    ledger = registry.ledger("one")
    ledger.append("promote", {"prod": Target(second)}, expect=None, actor="test", reason="")
    limit = time.monotonic() + 20
    while "retinue_rollout_failures_total" not in program.get("/metrics").text:
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert program.post("/v1/detect", content=red()).json()["model_version"] == first
    assert "goes on as it is" in program.log.read_text()
    registry.rollback("one", actor="test")
    assert program.post("/v1/detect", content=red()).json()["model_version"] == first
    # The server holds its version in memory: deleting the files of what serves changes nothing.
    for file in registry.get("one", first).path.parent.iterdir():
        file.unlink()
    assert program.post("/v1/detect", content=red()).status_code == 200
    assert program.is_alive()


def test_a_canary_answers_its_share_and_the_same_users(swapping) -> None:
    program, registry, versions = swapping
    first, second = versions
    registry.alias("one", "canary", second, share=0.25, actor="test")
    limit = time.monotonic() + 30
    while len(status(program)["versions"]) < 2:
        assert time.monotonic() < limit
        time.sleep(0.02)

    def versions_of(user: int) -> set[str]:
        url = f"/v1/detect?key=user-{user}"
        return {program.post(url, content=red()).json()["model_version"] for _ in range(2)}

    chosen = [versions_of(user) for user in range(80)]
    assert all(len(found) == 1 for found in chosen)
    assert 8 <= sum(found == {second} for found in chosen) <= 35
    named = program.post(f"/v1/detect?model=one@{second[:6]}", content=red()).json()
    assert named["model_version"] == second
    oip = program.get(f"/v2/models/one/versions/{second}").json()
    assert set(oip["versions"]) == {first, second} or oip["versions"] == [second]
    metrics = program.get("/metrics").text
    assert f'retinue_serving{{model="one",role="canary",version="{second}"}} 0.25' in metrics
