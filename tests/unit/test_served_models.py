"""Loading, replacing and unloading models while the server goes on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from retinue.core.errors import (
    AccessError,
    ModelCorrupt,
    ModelNotFound,
    ShuttingDown,
)
from retinue.core.protocols import Model
from retinue.core.settings import Execution
from retinue.host.services import HostServices
from retinue.models.registry import Entry, Registry
from retinue.testing.models import FakeModel
from retinue.testing.serving import RED, served, states
from retinue.testing.versions import install


def add(cache: Path, name: str, cell: int = 16) -> Path:
    """Install a model; return its weights."""
    return install(Registry(cache), cache, cell, name=name).path


def test_models_come_and_go(tmp_path: Path) -> None:
    add(tmp_path, "one")
    add(tmp_path, "two", 32)

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
    add(tmp_path, "one")

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
        add(tmp_path, "one", 32)
        await host.load("one")
        await asyncio.sleep(0.05)
        stop = True
        await asyncio.gather(*clients)
        assert len(set(versions)) == 2
        assert versions[0] == old != versions[-1]

    served(tmp_path, main, "one")


def test_what_cannot_be_loaded_leaves_what_is(tmp_path: Path) -> None:
    add(tmp_path, "one")

    async def main(host: HostServices) -> None:
        broken = add(tmp_path, "one", 32)
        broken.write_bytes(b"no model")
        with pytest.raises(ModelCorrupt):
            await host.load("one")
        assert states(host)["one"] == ("READY", "")
        assert len((await host.pipeline("one").submit(RED)).outcome.unwrap()) == 16
        path = add(tmp_path, "two")
        path.write_bytes(b"no model")
        with pytest.raises(ModelCorrupt):
            await host.load("two")
        state, reason = states(host)["two"]
        assert state == "UNAVAILABLE"
        assert "damaged" in reason

    served(tmp_path, main, "one")


def test_clients_may_change_models_only_where_the_settings_let_them(tmp_path: Path) -> None:
    add(tmp_path, "one")

    async def main(host: HostServices) -> None:
        for change in (host.load, host.unload):
            with pytest.raises(AccessError, match=r"server\.model_control"):
                await change("one")
        assert states(host)["one"] == ("READY", "")

    served(tmp_path, main, "one", control=False)


def test_a_model_that_is_unloaded_finishes_its_work_while_the_server_ends(tmp_path: Path) -> None:
    add(tmp_path, "one")

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
    add(tmp_path, "one")
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
    add(tmp_path, "one")

    async def main(host: HostServices) -> None:
        add(tmp_path, "one", 32).write_bytes(b"no model")
        with pytest.raises(ModelCorrupt):
            await host.load("one")
        await host.unload("one")
        assert states(host)["one"] == ("UNAVAILABLE", "unloaded")

    served(tmp_path, main, "one")
