"""What apps keep while a host runs, and the text models that it loads when they are asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from retinue.core.apps import App, PipelineSpec, Services
from retinue.core.errors import (
    ConfigError,
    ModelNotFound,
    ModelRunFailed,
    PluginError,
    ShuttingDown,
    StorageError,
)
from retinue.core.settings import Settings
from retinue.host import obtaining
from retinue.host import services as host_services
from retinue.host.services import HostServices
from retinue.models.registry import Registry
from retinue.testing.embedders import COLOURS, EMBEDDER, TEXT, install, settings

EVENTS: list[str] = []


class Table(BaseModel):
    model: str = EMBEDDER
    word: str = "plain"


@asynccontextmanager
async def first(services: Services) -> AsyncIterator[dict[str, Any]]:
    """Look at all that a state may look at, and note when it comes and goes."""
    EVENTS.append("first opens")
    word = services.app_settings("first").word
    card = services.pipeline(EMBEDDER).model.card
    yield {"word": word, "text": card.text, "home": services.home, "url": services.records_url}
    EVENTS.append("first closes")


@asynccontextmanager
async def second(services: Services) -> AsyncIterator[str]:
    assert services.state("first")
    EVENTS.append("second opens")
    yield "second"
    EVENTS.append("second closes")


@asynccontextmanager
async def broken(services: Services) -> AsyncIterator[None]:
    EVENTS.append("broken opens")
    raise StorageError("its disk is gone")
    yield


@asynccontextmanager
async def hanging(services: Services) -> AsyncIterator[str]:
    yield "hanging"
    await asyncio.sleep(3600)


@asynccontextmanager
async def failing_at_the_end(services: Services) -> AsyncIterator[str]:
    yield "state"
    raise StorageError("it cannot be saved")


def app(name: str, state: str = "", model: str = EMBEDDER) -> App:
    where = f"{__name__}:{state}" if state else ""
    spec = (PipelineSpec(task="embed"),)
    return App(name, name, name, f"{__name__}:Table", spec, state=where)


@pytest.fixture
def given(tmp_path: Path) -> Settings:
    EVENTS.clear()
    made = settings(tmp_path)
    return made.model_copy(update={"apps": {}})


def run(given: Settings, main: Callable[[HostServices], Awaitable[None]], *apps: App) -> None:
    async def work() -> None:
        host = HostServices(given, apps, record=False)
        try:
            await host.start()
            await main(host)
        finally:
            await host.drain(5)

    asyncio.run(work())


def test_states_live_as_long_as_the_host(given: Settings) -> None:
    tables = {"first": {"word": "mine"}}

    async def main(host: HostServices) -> None:
        assert EVENTS == ["first opens", "second opens"]
        state = host.state("first")
        assert state == {
            "word": "mine",
            "text": TEXT,
            "home": given.home,
            "url": given.records_url,
        }
        assert host.state("second") == "second"
        with pytest.raises(KeyError):
            host.state("third")

    apps = (app("first", "first"), app("second", "second"), app("third"))
    run(given.model_copy(update={"apps": tables}), main, *apps)
    # The last one that was opened may stand on those before it.
    assert EVENTS == ["first opens", "second opens", "second closes", "first closes"]


def test_a_state_that_cannot_be_opened_ends_the_start(given: Settings) -> None:
    async def main(host: HostServices) -> None:
        raise AssertionError("it started")

    with pytest.raises(StorageError, match="disk is gone"):
        run(given, main, app("first", "first"), app("second", "broken"))
    assert EVENTS == ["first opens", "broken opens", "first closes"]


def test_a_state_that_does_not_exist(given: Settings) -> None:
    async def main(host: HostServices) -> None:
        raise AssertionError("it started")

    with pytest.raises(PluginError):
        run(given, main, app("first", "nothing_of_this_name"))


def test_a_state_that_hangs_does_not_hold_the_end(
    given: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host_services, "CLOSE_S", 0.2)

    async def main(host: HostServices) -> None:
        assert host.state("second") == "hanging"

    begun = time.monotonic()
    run(given, main, app("first", "first"), app("second", "hanging"))
    assert time.monotonic() - begun < 10
    assert "was not closed within 0.2 s" in caplog.text
    assert EVENTS[-1] == "first closes"


def test_a_state_that_fails_at_the_end_fails_alone(
    given: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(host: HostServices) -> None:
        assert host.state("second") == "state"

    run(given, main, app("first", "first"), app("second", "failing_at_the_end"))
    assert "cannot be saved" in caplog.text
    assert EVENTS[-1] == "first closes"


# Text models.


def test_a_text_model_is_loaded_once_when_it_is_asked_for(given: Settings) -> None:
    async def main(host: HostServices) -> None:
        found = await asyncio.gather(*(host.text_encoder(TEXT) for _ in range(8)))
        assert len(set(map(id, found))) == 1
        assert found[0].name == TEXT
        assert found[0].encode(["red", "blue"]).shape == (2, len(COLOURS))
        assert TEXT not in host.models

    run(given, main, app("first"))


def test_models_that_are_no_text_models(given: Settings) -> None:
    async def main(host: HostServices) -> None:
        with pytest.raises(ConfigError, match="is for embed; it encodes no texts"):
            await host.text_encoder(EMBEDDER)
        with pytest.raises(ModelNotFound, match="nobody"):
            await host.text_encoder("nobody")
        # One that failed does not keep others from being loaded.
        assert (await host.text_encoder(TEXT)).dim == len(COLOURS)

    run(given, main, app("first"))


def test_a_text_model_is_not_served_where_pictures_are(given: Settings) -> None:
    card = Registry(given.cache).get(TEXT).card
    with pytest.raises(ConfigError, match="takes no pictures"):
        obtaining.check_pictures(card)
    obtaining.check_pictures(Registry(given.cache).get(EMBEDDER).card)

    async def main(host: HostServices) -> None:
        raise AssertionError("it started")

    with pytest.raises(ConfigError, match="takes no pictures"):
        run(given.model_copy(update={"models": (TEXT,)}), main, app("first"))


def test_texts_may_be_closed_twice(given: Settings) -> None:
    async def work() -> None:
        texts = obtaining.Texts(given)
        encoder = await texts.get(TEXT)
        assert await texts.get(TEXT) is encoder
        await texts.close(5)
        await texts.close(5)
        with pytest.raises(ModelRunFailed, match="is closed"):
            encoder.encode(["red"])
        with pytest.raises(ShuttingDown):
            await texts.get(TEXT)

    asyncio.run(work())


def test_an_installed_model_is_obtained_as_it_is(given: Settings, tmp_path: Path) -> None:
    registry = Registry(given.cache)
    entry = obtaining.obtain(registry, EMBEDDER)
    assert entry == registry.get(EMBEDDER)
    assert obtaining.obtain(registry, f"{EMBEDDER}@{entry.version}") == entry
    newer = install(given.cache, tmp_path / "made", turned=True)
    assert newer.version != entry.version
    assert obtaining.obtain(registry, EMBEDDER) == newer
    assert obtaining.obtain(registry, f"{EMBEDDER}@{entry.version}").version == entry.version
    for wrong in ("nobody", f"{EMBEDDER}@nothing"):
        with pytest.raises(ModelNotFound):
            obtaining.obtain(registry, wrong)
