"""Which version a server serves: it follows the aliases, whatever becomes of files and ledger."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import pytest

from retinue.core.errors import (
    ConfigError,
    ModelNotFound,
    UnsupportedMedia,
)
from retinue.core.protocols import Model
from retinue.core.settings import Execution, Settings
from retinue.host import loader, models
from retinue.host.services import HostServices
from retinue.models.ledger import Target
from retinue.models.registry import Entry, Registry
from retinue.testing.models import FakeModel, until
from retinue.testing.serving import served, states
from retinue.testing.versions import install


def two_versions(cache: Path) -> tuple[str, str]:
    """Install two versions of "one", the first in production by somebody's choice."""
    registry = Registry(cache)
    first, second = (install(registry, cache, cell, name="one").version for cell in (16, 32))
    registry.promote("one", first, actor="test")
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
    registry = Registry(tmp_path)
    third = install(registry, tmp_path, 8, name="one").version
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
