"""Getting models: installed ones, those of the catalogue, and text models when they are needed."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from retinue.core.errors import ConfigError, RetinueError, ShuttingDown
from retinue.core.protocols import TextEncoder
from retinue.core.settings import Settings
from retinue.host.progress import Bar
from retinue.models.card import Card
from retinue.models.obtain import obtain as quietly
from retinue.models.registry import Entry, Registry

log = logging.getLogger("retinue")


def obtain(registry: Registry, model: str) -> Entry:
    """Do as `retinue.models.obtain.obtain`, with a progress bar.

    Args:
        registry: Where it is looked for.
        model: "NAME" or "NAME@REF".

    Raises:
        ModelNotFound: neither installed nor in the catalogue.
        RetinueError: the pull failed, or its licence must be accepted first.
    """
    with Bar() as bar:
        return quietly(registry, model, bar)


def obtain_text(registry: Registry, model: str) -> None:
    """Pull the text model of an embedding model now, so that no query waits for it.

    Where it cannot be had, pictures are searched all the same, and a text says why it is not.
    """
    try:
        obtain(registry, model)
    except RetinueError as error:
        log.warning("text model %s: %s", model, error.message)


def check_pictures(card: Card) -> None:
    """Refuse a model that takes no pictures where one is to be served.

    Raises:
        ConfigError: it is a text model.
    """
    if card.task == "text":
        raise ConfigError(
            f"model {card.name} is a text model and takes no pictures; leave it out: it is loaded "
            "with the embedding model that names it"
        )


class Texts:
    """Text models, each loaded once, when it is first asked for; on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loads: dict[str, asyncio.Task[TextEncoder]] = {}
        self._one = asyncio.Lock()
        self._closed = False

    async def get(self, model: str) -> TextEncoder:
        """Return a text model.

        Raises:
            ModelNotFound: it is neither installed nor in the catalogue.
            ConfigError: it is no text model.
            ShuttingDown: all are closed.
            RetinueError: it cannot be loaded; the next call tries again.
        """
        if self._closed:
            raise ShuttingDown("the server is stopping; send the request again to another one")
        load = self._loads.get(model)
        if load is None:
            load = self._loads[model] = asyncio.create_task(self._load_alone(model))
            load.add_done_callback(partial(self._forget_failed, model))
        # A caller that goes away takes nothing from the next one.
        return await asyncio.shield(load)

    def _forget_failed(self, model: str, load: asyncio.Task[TextEncoder]) -> None:
        if load.cancelled() or load.exception() is not None:
            self._loads.pop(model, None)

    async def _load_alone(self, model: str) -> TextEncoder:
        async with self._one:
            return await asyncio.to_thread(self._load, model)

    def _load(self, model: str) -> TextEncoder:
        # Tokenizers take a while to import, and most servers read no texts.
        from retinue.models.text import load_text

        entry = obtain(Registry(self._settings.cache), model)
        if entry.card.task != "text":
            raise ConfigError(f"model {model} is for {entry.card.task}; it encodes no texts")
        return load_text(entry, self._settings.execution)

    async def close(self, timeout_s: float) -> None:
        """Close all, and wait so long for one that is being loaded. May be called twice."""
        self._closed = True
        loads, self._loads = list(self._loads.values()), {}
        if not loads:
            return
        done, _ = await asyncio.wait(loads, timeout=timeout_s)
        for load in done:
            if not load.cancelled() and load.exception() is None:
                load.result().close()
