"""Loading, replacing and unloading models while the server goes on."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from retinue.core.errors import (
    AccessError,
    ConfigError,
    ModelCorrupt,
    ModelNotFound,
    ShuttingDown,
    UnsupportedMedia,
)
from retinue.core.protocols import Model
from retinue.core.settings import Batching, Execution, Rollout, Server, Settings
from retinue.core.types import Image
from retinue.host import loader, models
from retinue.host.services import HostServices
from retinue.models.ledger import Target
from retinue.models.registry import Entry, Registry
from retinue.testing.models import FakeModel, until
from retinue.testing.onnx_models import color_detector

CARD = """
family = "yolo"
license = "MIT"
classes = ["red", "green", "blue"]
[input]
height = 64
width = 64
[output]
layout = "yolov8"
"""
RED = Image(np.full((64, 64, 3), (255, 0, 0), np.uint8), 64, 64)


def install(cache: Path, name: str, *, cell: int = 16) -> Path:
    cache.mkdir(exist_ok=True)
    (cache / "card.toml").write_text(CARD)
    file = color_detector(cache / f"{name}-{cell}.onnx", cell=cell)
    entry = Registry(cache).import_onnx(file, name=name, task="detect", card=cache / "card.toml")
    return entry.path


def served(
    cache: Path,
    main: Callable[[HostServices], Awaitable[None]],
    *models: str,
    control: bool = True,
    follow_s: float = 0.02,
    **policy: object,
) -> None:
    settings = Settings(
        home=cache,
        cache=cache,
        server=Server(model_control=control),
        execution=Execution(instances=2),
        batching=Batching(**policy),  # type: ignore[arg-type]
        rollout=Rollout(follow_s=follow_s),
    )

    async def run() -> None:
        host = HostServices(settings, (), models=models, record=False)
        await host.start()
        try:
            await main(host)
        finally:
            await host.drain(5)

    asyncio.run(run())


def states(host: HostServices) -> dict[str, tuple[str, str]]:
    return {entry.name: (entry.state, entry.reason) for entry in host.repository()}


def test_models_come_and_go(tmp_path: Path) -> None:
    install(tmp_path, "one")
    install(tmp_path, "two", cell=32)

    async def main(host: HostServices) -> None:
        assert states(host) == {"one": ("READY", ""), "two": ("UNAVAILABLE", "unloaded")}
        await host.load("two")
        assert states(host)["two"] == ("READY", "")
        pipelines = [host.pipeline(name) for name in ("one", "two")]
        records = await asyncio.gather(*(p.submit(RED) for p in pipelines for _ in range(5)))
        assert [len(r.outcome.unwrap()) for r in records] == [16] * 5 + [4] * 5
        metrics = host.metrics.render()[0].decode()
        assert 'retinue_queue_depth{model="two"' in metrics
        assert 'retinue_batches_total{model="two",reason="full"' in metrics
        await host.unload("two")
        assert states(host)["two"] == ("UNAVAILABLE", "unloaded")
        assert 'retinue_queue_depth{model="two"' not in host.metrics.render()[0].decode()
        with pytest.raises(ModelNotFound):
            host.pipeline("two")
        with pytest.raises(ModelNotFound):
            await host.unload("two")
        with pytest.raises(ModelNotFound):
            await host.load("three")
        assert (await host.pipeline("one").submit(RED)).outcome.error is None

    served(tmp_path, main, "one")


def test_a_new_version_takes_over_without_a_lost_request(tmp_path: Path) -> None:
    install(tmp_path, "one")

    async def main(host: HostServices) -> None:
        stop = False
        versions: list[str] = []

        async def client() -> None:
            while not stop:
                record = await host.pipeline("one").submit(RED)
                cells = 16 if record.version == old else 4
                assert len(record.outcome.unwrap()) == cells
                versions.append(record.version)

        old = host.pipeline("one").model.version
        clients = [asyncio.create_task(client()) for _ in range(4)]
        await asyncio.sleep(0.05)
        install(tmp_path, "one", cell=32)
        await host.load("one")
        await asyncio.sleep(0.05)
        stop = True
        await asyncio.gather(*clients)
        assert len(set(versions)) == 2
        assert versions[0] == old != versions[-1]

    served(tmp_path, main, "one")


def test_what_cannot_be_loaded_leaves_what_is(tmp_path: Path) -> None:
    install(tmp_path, "one")

    async def main(host: HostServices) -> None:
        broken = install(tmp_path, "one", cell=32)
        broken.write_bytes(b"no model")
        with pytest.raises(ModelCorrupt):
            await host.load("one")
        assert states(host)["one"] == ("READY", "")
        assert len((await host.pipeline("one").submit(RED)).outcome.unwrap()) == 16
        path = install(tmp_path, "two")
        path.write_bytes(b"no model")
        with pytest.raises(ModelCorrupt):
            await host.load("two")
        state, reason = states(host)["two"]
        assert state == "UNAVAILABLE"
        assert "damaged" in reason

    served(tmp_path, main, "one")


def test_clients_may_change_models_only_where_the_settings_let_them(tmp_path: Path) -> None:
    install(tmp_path, "one")

    async def main(host: HostServices) -> None:
        for change in (host.load, host.unload):
            with pytest.raises(AccessError, match=r"server\.model_control"):
                await change("one")
        assert states(host)["one"] == ("READY", "")

    served(tmp_path, main, "one", control=False)


def test_a_model_that_is_unloaded_finishes_its_work_while_the_server_ends(tmp_path: Path) -> None:
    install(tmp_path, "one")

    async def main(host: HostServices) -> None:
        pipeline = host.pipeline("one")
        records = [asyncio.create_task(pipeline.submit(RED)) for _ in range(40)]
        await asyncio.sleep(0)
        unload = asyncio.create_task(host.unload("one"))
        await asyncio.sleep(0)
        await host.drain(5)
        await unload
        assert [(await record).outcome.error for record in records] == [None] * 40

    served(tmp_path, main, "one")


def test_a_model_that_is_loaded_while_the_server_ends_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "one")
    loaded: list[Model] = []
    go = threading.Event()

    def load(entry: Entry, execution: Execution) -> Model:
        assert go.wait(5)
        loaded.append(FakeModel(name=entry.card.name, version=entry.version))
        return loaded[-1]

    async def main(host: HostServices) -> None:
        monkeypatch.setattr("retinue.host.loader.load_model", load)
        loading = asyncio.create_task(host.load("one"))
        await asyncio.sleep(0.01)
        await host.drain(0.01)
        go.set()
        with pytest.raises(ShuttingDown):
            await loading
        assert len(loaded) == 2
        assert all(model.fake.closed for model in loaded)
        with pytest.raises(ShuttingDown):
            await host.load("one")

    served(tmp_path, main)


def test_a_model_that_was_unloaded_is_no_failure(tmp_path: Path) -> None:
    install(tmp_path, "one")

    async def main(host: HostServices) -> None:
        install(tmp_path, "one", cell=32).write_bytes(b"no model")
        with pytest.raises(ModelCorrupt):
            await host.load("one")
        await host.unload("one")
        assert states(host)["one"] == ("UNAVAILABLE", "unloaded")

    served(tmp_path, main, "one")


def two_versions(cache: Path) -> tuple[str, str]:
    """Install two versions of "one", the first in production by somebody's choice."""
    first, second = (install(cache, "one", cell=cell).parent.name for cell in (16, 32))
    Registry(cache).promote("one", first, actor="test")
    return first, second


def version_of(host: HostServices, model: str = "one") -> str:
    return host.pipeline(model).model.version


def test_one_version_is_served_whatever_the_aliases_say(tmp_path: Path) -> None:
    first, second = two_versions(tmp_path)

    async def main(host: HostServices) -> None:
        assert version_of(host) == version_of(host, f"one@{second[:6]}") == second
        Registry(tmp_path).promote("one", first, actor="test", expect=None)
        await asyncio.sleep(0.1)
        await host.load("one")
        assert version_of(host) == second
        await host.unload("one")
        await host.load("one")
        assert version_of(host) == second
        with pytest.raises(ModelNotFound, match="no version"):
            host.pipeline(f"one@{first}")

    # An app's default names it, too.
    served(tmp_path, main, f"one@{second[:6]}", "one")


def test_two_versions_of_one_model_are_not_served_by_their_names(tmp_path: Path) -> None:
    first, second = two_versions(tmp_path)
    with pytest.raises(ConfigError, match="one is asked for as"):
        HostServices(Settings(cache=tmp_path), (), models=(f"one@{first}", f"one@{second}"))


def test_a_promotion_after_one_that_failed_is_served_at_once(tmp_path: Path) -> None:
    first, second = two_versions(tmp_path)
    third = install(tmp_path, "one", cell=8).parent.name
    registry = Registry(tmp_path)
    registry.get("one", second).path.write_bytes(b"no model")

    async def main(host: HostServices) -> None:
        registry.ledger("one").append("promote", {"prod": Target(second)})
        await until(lambda: "damaged" in states(host)["one"][1])
        assert version_of(host) == first
        registry.promote("one", third, actor="test")
        await until(lambda: version_of(host) == third, 1.5)
        assert states(host)["one"] == ("READY", "")

    served(tmp_path, main, "one")


def test_a_canary_that_cannot_be_loaded_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(models, "RETRY_S", 0.05)
    _, second = two_versions(tmp_path)
    path = Registry(tmp_path).get("one", second).path
    whole = path.read_bytes()

    async def main(host: HostServices) -> None:
        path.write_bytes(b"no model")
        Registry(tmp_path).ledger("one").append("alias", {"canary": Target(second)})
        await until(lambda: "canary" in states(host)["one"][1])
        await asyncio.sleep(0.3)
        assert caplog.text.count("is served without canary") == 1
        path.write_bytes(whole)
        await until(lambda: version_of(host) == second)
        assert states(host)["one"] == ("READY", "")
        assert 'rollout_failures_total{model="one"}' in host.metrics.render()[0].decode()

    served(tmp_path, main, "one")


def test_a_ledger_that_is_gone_or_damaged_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(models, "RETRY_S", 0.02)
    first, second = two_versions(tmp_path)
    registry = Registry(tmp_path)
    ledger = registry.ledger("one").path
    whole = ledger.read_bytes()

    async def main(host: HostServices) -> None:
        for spoil, says in (
            (ledger.unlink, "is gone"),
            (lambda: ledger.write_bytes(b"{}\n"), "line 1"),
            (lambda: (ledger.unlink(), ledger.symlink_to(ledger)), "looking at the ledger"),
        ):
            spoil()
            await until(lambda says=says: says in caplog.text)
            await asyncio.sleep(0.2)
            assert version_of(host) == first
        ledger.unlink()
        ledger.write_bytes(whole)
        registry.promote("one", second, actor="test")
        await until(lambda: version_of(host) == second)
        assert states(host)["one"] == ("READY", "")

    served(tmp_path, main, "one")


def test_a_failure_that_nobody_foresaw_does_not_end_following(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(models, "RETRY_S", 0.02)
    _, second = two_versions(tmp_path)

    async def main(host: HostServices) -> None:
        def broken(*_: object) -> Model:
            raise MemoryError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(loader, "load_model", broken)
            Registry(tmp_path).promote("one", second, actor="test")
            await until(lambda: "no room" in caplog.text)
        await until(lambda: version_of(host) == second)

    served(tmp_path, main, "one")


def test_a_version_that_comes_while_the_server_ends_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, second = two_versions(tmp_path)
    loaded: list[FakeModel] = []
    began, go = threading.Event(), threading.Event()

    def load(entry: Entry, execution: Execution) -> Model:
        began.set()
        assert go.wait(5)
        loaded.append(FakeModel(name=entry.card.name, version=entry.version))
        return loaded[-1]

    async def main(host: HostServices) -> None:
        monkeypatch.setattr(loader, "load_model", load)
        Registry(tmp_path).promote("one", second, actor="test")
        await until(began.is_set)
        end = asyncio.create_task(host.drain(5))
        await asyncio.sleep(0.05)
        go.set()
        await end
        assert len(loaded) == 2
        assert all(model.fake.closed for model in loaded)
        assert "goes on as it is" not in caplog.text

    served(tmp_path, main, "one")


def test_a_command_asks_what_a_bare_name_means(tmp_path: Path) -> None:
    first, second = two_versions(tmp_path)
    Registry(tmp_path).alias("one", "canary", second, share=1.0, actor="test")
    settings = Settings(home=tmp_path, cache=tmp_path)

    async def main() -> None:
        host = HostServices(settings, (), models=("one",), record=False, rollout=False)
        await host.start()
        assert [one.version for one in host.versions("one")] == [first]
        assert version_of(host) == version_of(host, f"one@{first[:4]}") == first
        await host.drain(5)

    asyncio.run(main())


def test_failed_requests_do_not_keep_an_old_version_in_memory(tmp_path: Path) -> None:
    _, second = two_versions(tmp_path)

    async def fail(host: HostServices) -> None:
        pipeline = host.pipeline("one")
        record = await pipeline.submit(b"no picture")
        record.outcome.unwrap()

    async def main(host: HostServices) -> None:
        with pytest.raises(UnsupportedMedia):
            await fail(host)
        old = host.pipeline("one").model.version
        Registry(tmp_path).promote("one", second, actor="test")
        await until(lambda: version_of(host) == second)
        depth = f'queue_depth{{model="one",version="{old}"}}'
        await until(lambda: depth not in host.metrics.render()[0].decode())

    gc.disable()
    try:
        served(tmp_path, main, "one")
    finally:
        gc.enable()
