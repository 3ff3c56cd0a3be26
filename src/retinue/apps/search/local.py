"""Models in this process, for the Python API and the commands: no server, no queue."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from retinue.apps.search.prepare import Box, region
from retinue.core.errors import InvalidRequest
from retinue.core.protocols import Model, TextEncoder
from retinue.core.settings import Settings
from retinue.core.types import Embedding, Image
from retinue.media.decode import decode
from retinue.models.loading import load_model
from retinue.models.obtain import obtain
from retinue.models.registry import Entry, Registry


class LocalModels:
    """Loads models when they are first asked for, pulling those that are in the catalogue.

    May be used by several threads; a model runs for one of them at a time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry(settings.cache)
        self._models: dict[str, Model] = {}
        self._texts: dict[str, TextEncoder] = {}
        self._lock = threading.Lock()

    def entry(self, name: str) -> Entry:
        """Return an installed model, pulled first if need be.

        Raises:
            ModelNotFound: neither installed nor in the catalogue.
            RetinueError: the pull failed, or its licence must be accepted first.
        """
        return obtain(self._registry, name)

    def fresh(self, name: str) -> Model:
        """Return another instance of an embedding model, which its caller closes.

        Raises:
            InvalidRequest: it is for another task.
            RetinueError: it cannot be loaded.
        """
        entry = self.entry(name)
        if entry.card.task != "embed":
            raise InvalidRequest(f"model {name!r} is for {entry.card.task}, not for embed")
        return load_model(entry, self._settings.execution)

    def model(self, name: str) -> Model:
        """Return the one instance of an embedding model that queries share."""
        with self._lock:
            if name not in self._models:
                self._models[name] = self.fresh(name)
            return self._models[name]

    def embed(self, name: str, images: Sequence[Image]) -> list[Embedding]:
        """Embed pictures together.

        Raises:
            RetinueError: the first picture's error.
        """
        model = self.model(name)
        with self._lock:
            outcomes = model.predict(images)
        return [as_embedding(outcome.unwrap()) for outcome in outcomes]

    def see(self, name: str, data: bytes, box: Box | None) -> tuple[Embedding, Image]:
        """Embed a file's picture, or a region of it."""
        model, limits = self.model(name), self._settings.limits
        size = model.decode_size
        image = (
            decode(data, limits=limits, target=size)
            if box is None
            else region(data, box, limits, size)
        )
        (embedding,) = self.embed(name, [image])
        return embedding, image

    def text(self, name: str) -> TextEncoder:
        """Return the text model that an embedding model's card names.

        Raises:
            InvalidRequest: it names none: the model cannot compare texts.
        """
        card = self.model(name).card
        if not card.text:
            raise InvalidRequest(f"model {name!r} cannot be searched by text; give a picture")
        with self._lock:
            if card.text not in self._texts:
                from retinue.models.text import load_text

                entry = self.entry(card.text)
                self._texts[card.text] = load_text(entry, self._settings.execution)
            return self._texts[card.text]

    def close(self) -> None:
        """Close all models. May be called twice."""
        with self._lock:
            models, self._models = list(self._models.values()), {}
            texts, self._texts = list(self._texts.values()), {}
        for model in models:
            model.close()
        for text in texts:
            text.close()


def as_embedding(value: object) -> Embedding:
    """Return an outcome's value, which must be an embedding.

    Raises:
        InvalidRequest: the model gives something else.
    """
    if not isinstance(value, Embedding):
        raise InvalidRequest("the model gives no embeddings; search needs one for embed")
    return value
