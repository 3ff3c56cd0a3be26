"""Bulk indexing into a collection of its own, with models whose work is counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinue.apps.search.api import Collection
from retinue.apps.search.bulk import BulkIndex
from retinue.apps.search.local import LocalModels
from retinue.apps.search.progress import Progress
from retinue.apps.search.sources import open_source, source_name
from retinue.core.settings import Settings
from retinue.testing.embedders import EMBEDDER, photo, settings


class Counting:
    """A model that notes how many pictures it was given at once; it may be made to misbehave."""

    def __init__(self, model: Any, seen: list[int]) -> None:
        self._model, self._seen = model, seen

    def predict(self, images: Sequence[Any]) -> Any:
        """Note how many there are, and pass them on."""
        self._seen.append(len(images))
        return self._model.predict(images)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class CountingModels(LocalModels):
    """Models of the registry, each instance for bulk indexing in a `Counting`."""

    kind: type[Counting] = Counting

    def __init__(self, given: Settings) -> None:
        super().__init__(given)
        self.seen: list[int] = []

    def fresh(self, name: str) -> Any:
        """Return a counted instance."""
        return self.kind(super().fresh(name), self.seen)


class Rig:
    """A collection, and runs of bulk indexing over whatever is given."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        self.settings = settings(folder, **fields)
        self.photos = folder / "photos"
        self.collection = Collection.open("shop", settings=self.settings)
        self.models = CountingModels(self.settings)

    def bulk(self, models: CountingModels | None = None, **options: Any) -> BulkIndex:
        """Return a run with two threads."""
        opened = self.collection
        return BulkIndex(
            opened._library,
            opened._opened,
            models or self.models,
            EMBEDDER,
            limits=self.settings.limits,
            **{"threads": 2, "batch": 4, **options},
        )

    def index(self, source: Path | None = None, *, remove: bool = False) -> Progress:
        """Index the folder of photos, or another source; `embedded` counts from 0."""
        where = str(source or self.photos)
        self.models.seen.clear()
        offers = open_source(where, limits=self.settings.limits)
        return self.bulk().run(offers, source_name(where), remove=remove)

    @property
    def embedded(self) -> int:
        """Pictures that the last run embedded."""
        return sum(self.models.seen)

    def ids(self) -> list[str]:
        """Return the ids of all items, sorted."""
        return sorted(item.id for item in self.collection.items())

    def nearest(self, number: int) -> str:
        """Return the id of the item that is most like a photo of this number."""
        return self.collection.search(photo(number), k=1, dedupe=False)[0].item.id


def put(folder: Path, *numbers: int) -> None:
    """Write photos as files that are called by their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:03}.jpg").write_bytes(photo(number))


def counts(progress: Progress) -> tuple[int, int, int, int]:
    """Return how many were indexed, unchanged, failed and removed."""
    return progress.indexed, progress.unchanged, progress.failed, progress.removed
