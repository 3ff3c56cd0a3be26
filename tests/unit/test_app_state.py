"""What the host opens for apps: their state, text models, and their groups of commands."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from retinue.core.apps import App, Services
from retinue.core.errors import ConfigError, ModelNotFound, ShuttingDown, StorageError
from retinue.core.protocols import TextEncoder
from retinue.core.settings import Settings
from retinue.host import obtaining, services
from retinue.host.obtaining import Texts
from retinue.host.services import HostServices
from retinue.models.card import Card
from retinue.models.fetch import sha256_of
from retinue.models.registry import Registry
from retinue.testing.text_towers import WORDS, D, random, word_tokenizer, write_safetensors

EVENTS: list[str] = []


@pytest.fixture(autouse=True)
def no_events() -> None:
    EVENTS.clear()


@asynccontextmanager
async def good(_services: Services) -> AsyncIterator[str]:
    EVENTS.append("good opens")
    yield "the state"
    EVENTS.append("good closes")


@asynccontextmanager
async def fails_to_open(_services: Services) -> AsyncIterator[str]:
    raise StorageError("no disk")
    yield ""


@asynccontextmanager
async def fails_to_close(_services: Services) -> AsyncIterator[str]:
    yield ""
    raise ZeroDivisionError("a bug of the app")


@asynccontextmanager
async def hangs(_services: Services) -> AsyncIterator[str]:
    yield ""
    await asyncio.Event().wait()


@asynccontextmanager
async def works_to_the_end(given: Services) -> AsyncIterator[None]:
    assert isinstance(given, HostServices)
    drain = given._served.drain

    async def noted(timeout_s: float) -> None:
        EVENTS.append("models close")
        await drain(timeout_s)

    given._served.drain = noted  # type: ignore[method-assign]
    yield None
    EVENTS.append("app works")


def app(name: str, state: str = "") -> App:
    return App(
        name=name,
        title=name,
        summary=name,
        settings="retinue.testing.host:EchoSettings",
        pipelines=(),
        state=f"{__name__}:{state}" if state else "",
    )


def host(folder: Path, *apps: App, models: tuple[str, ...] = ()) -> HostServices:
    settings = Settings(home=folder / "home", cache=folder / "cache")
    return HostServices(settings, apps, models=models)


def test_a_state_is_open_as_long_as_the_host_runs(tmp_path: Path) -> None:
    async def main() -> None:
        running = host(tmp_path, app("a", "good"), app("b"))
        await running.start()
        assert EVENTS == ["good opens"]
        assert running.state("a") == "the state"
        assert running.home == tmp_path / "home"
        assert running.records_url == running.settings.records_url
        await running.drain(1)
        assert EVENTS == ["good opens", "good closes"]
        await running.drain(1)
        assert EVENTS == ["good opens", "good closes"]

    asyncio.run(main())


def test_an_app_has_the_models_until_it_is_done(tmp_path: Path) -> None:
    async def main() -> None:
        running = host(tmp_path, app("a", "works_to_the_end"))
        await running.start()
        await running.drain(1)

    asyncio.run(main())
    assert EVENTS == ["app works", "models close"]


def test_a_state_that_cannot_be_opened_stops_the_start_and_closes_the_others(
    tmp_path: Path,
) -> None:
    before = set(threading.enumerate())
    with pytest.raises(StorageError, match="no disk"):
        asyncio.run(host(tmp_path, app("a", "good"), app("b", "fails_to_open")).start())
    assert EVENTS == ["good opens", "good closes"]
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("state", "said"), [("fails_to_close", "could not be closed"), ("hangs", "not closed within")]
)
def test_a_state_that_does_not_close_keeps_nothing_else_open(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    state: str,
    said: str,
) -> None:
    monkeypatch.setattr(services, "CLOSE_S", 0.5)
    before = set(threading.enumerate())

    async def main() -> None:
        running = host(tmp_path, app("a", "good"), app("b", state))
        await running.start()
        await running.drain(1)

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert said in caplog.text
    assert EVENTS == ["good opens", "good closes"]
    assert set(threading.enumerate()) <= before


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache in which a text model, "tiny-text", is installed."""
    hub = tmp_path / "hub"
    hub.mkdir()
    table = random(1 + len(WORDS), D).astype("f2")
    write_safetensors(hub / "l2_256.safetensors", table)
    word_tokenizer({"<unk>": 0}).save(str(hub / "tokenizer_config.json"))
    files = {path.name: sha256_of(path) for path in sorted(hub.iterdir())}
    source = {"url": hub.as_uri(), "files": files, "importer": "wordllama"}
    card = Card.model_validate(
        {"name": "tiny-text", "task": "text", "family": "text", "license": "MIT", "source": source}
    )
    Registry(tmp_path / "cache").pull(card)
    return tmp_path / "cache"


def test_a_text_model_is_loaded_once_and_closed_at_the_end(cache: Path) -> None:
    async def main() -> None:
        running = host(cache.parent)
        await running.start()
        first, second = await asyncio.gather(
            running.text_encoder("tiny-text"), running.text_encoder("tiny-text")
        )
        assert first is second
        assert first.encode(["a cat"]).shape == (1, D)
        with pytest.raises(ModelNotFound, match="nope"):
            await running.text_encoder("nope")
        await running.drain(1)
        with pytest.raises(Exception, match="closed"):
            first.encode(["a cat"])
        with pytest.raises(ShuttingDown):
            await running.text_encoder("tiny-text")

    asyncio.run(main())


def test_a_text_model_is_not_served_itself(cache: Path) -> None:
    with pytest.raises(ConfigError, match="tiny-text is a text model and takes no pictures"):
        asyncio.run(host(cache.parent, models=("tiny-text",)).start())


class _Slow:
    """Counts loads; each waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads: list[str] = []
        self.go = threading.Event()
        monkeypatch.setattr(Texts, "_load", lambda _, model: self._load(model))

    def _load(self, model: str) -> Any:
        self.loads.append(model)
        assert self.go.wait(10)
        if model == "broken":
            raise ConfigError("broken")
        return self

    def close(self) -> None:
        self.loads.append("closed")


def test_callers_that_go_away_do_not_make_it_load_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = _Slow(monkeypatch)

    async def main() -> None:
        texts = Texts(Settings())
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(texts.get("a"), 0.02)
        slow.go.set()
        made: TextEncoder | _Slow = await texts.get("a")
        assert made is slow
        await texts.close(1)
        await texts.close(1)

    asyncio.run(main())
    assert slow.loads == ["a", "closed"]


def test_a_load_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = _Slow(monkeypatch)
    slow.go.set()

    async def main() -> None:
        texts = Texts(Settings())
        for _ in range(2):
            with pytest.raises(ConfigError, match="broken"):
                await texts.get("broken")
        await texts.close(1)

    asyncio.run(main())
    assert slow.loads == ["broken", "broken"]


def test_a_load_under_way_at_the_end_is_closed_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = _Slow(monkeypatch)

    async def main() -> None:
        texts = Texts(Settings())
        waits = asyncio.create_task(texts.get("a"))
        await asyncio.sleep(0.02)
        asyncio.get_running_loop().call_later(0.05, slow.go.set)
        await texts.close(5)
        await waits

    asyncio.run(main())
    assert slow.loads == ["a", "closed"]


def test_a_model_of_pictures_encodes_no_texts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Registry(cache).get("tiny-text")
    card = entry.card.model_copy(update={"task": "embed"})
    monkeypatch.setattr(obtaining, "obtain", lambda *_: type("E", (), {"card": card})())
    with pytest.raises(ConfigError, match="is for embed"):
        asyncio.run(Texts(Settings(cache=cache)).get("tiny-text"))


def test_help_is_quick_and_knows_the_groups_of_apps() -> None:
    code = (
        "import sys; from retinue.host.cli import main\n"
        "sys.argv = ['retinue', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'tokenizers', 'starlette'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)\n"
    )
    for arguments, words in ((["--help"], "search"), (["search", "--help"], "COMMAND")):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert words in done.stdout


def test_a_text_model_that_cannot_be_had_stops_nothing(tmp_path, caplog) -> None:  # type: ignore[no-untyped-def]
    from retinue.host.obtaining import obtain_text
    from retinue.models.registry import Registry

    obtain_text(Registry(tmp_path), "no-such-text")
    assert "no-such-text" in caplog.text
