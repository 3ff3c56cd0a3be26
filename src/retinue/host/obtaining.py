"""Getting models: installed ones, those of the catalogue, and text models when they are needed."""

from __future__ import annotations

import asyncio

from retinue.core.errors import ConfigError
from retinue.core.protocols import TextEncoder
from retinue.core.settings import Settings
from retinue.host.progress import Bar
from retinue.models.card import Card
from retinue.models.catalogue import find
from retinue.models.registry import Entry, Registry, split_ref


def obtain(registry: Registry, model: str) -> Entry:
    """Return an installed model; pull it first when it is only in the catalogue.

    Args:
        registry: Where it is looked for.
        model: "NAME" or "NAME@REF".

    Raises:
        ModelNotFound: neither installed nor in the catalogue.
        RetinueError: the pull failed, or its licence must be accepted first.
    """
    name, ref = split_ref(model)
    if not registry.versions(name):
        with Bar() as bar:
            registry.pull(find(name), progress=bar)
    return registry.get(name, ref)


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
    """Text models, each loaded when it is first asked for; on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: dict[str, TextEncoder] = {}
        self._lock = asyncio.Lock()

    async def get(self, model: str) -> TextEncoder:
        """Return a text model.

        Raises:
            ModelNotFound: it is neither installed nor in the catalogue.
            ConfigError: it is no text model.
            RetinueError: it cannot be loaded.
        """
        async with self._lock:
            if model not in self._loaded:
                self._loaded[model] = await asyncio.to_thread(self._load, model)
            return self._loaded[model]

    def _load(self, model: str) -> TextEncoder:
        # Tokenizers take a while to import, and most servers read no texts.
        from retinue.models.text import load_text

        entry = obtain(Registry(self._settings.cache), model)
        if entry.card.task != "text":
            raise ConfigError(f"model {model} is for {entry.card.task}; it encodes no texts")
        return load_text(entry, self._settings.execution)

    def close(self) -> None:
        """Close all. May be called twice."""
        loaded, self._loaded = list(self._loaded.values()), {}
        for one in loaded:
            one.close()
