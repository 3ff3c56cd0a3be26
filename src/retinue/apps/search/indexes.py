"""Which index a collection gets, by the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from retinue.apps.search.settings import SearchSettings
from retinue.core import plugins
from retinue.core.protocols import Index, VectorSource

STEADY: Final = 4
"""An index learns anew when there are so many times the vectors that it was made for."""
HIDDEN: Final = 0.25
"""Share of removed vectors, which still cost memory and time, from which it is built anew."""
LATE: Final = 4
"""How many times ``flat_up_to`` a live index stays exact, until the trained one is ready."""


class Indexes:
    """Makes and loads the indexes that the settings ask for."""

    def __init__(self, settings: SearchSettings) -> None:
        self._settings = settings
        self._plugin = "faiss" if settings.vectors == "faiss" else "milvus"

    @property
    def remote(self) -> bool:
        """Whether indexes keep their vectors in a server, and must be dropped there."""
        return self._plugin == "milvus"

    def make(self, dim: int, exact: VectorSource, expected: int, name: str) -> Index:
        """Return an empty index for about so many vectors.

        Raises:
            MissingExtra, ConfigError, Unavailable: the index's engine cannot be had.
        """
        factory: Any = plugins.load(plugins.INDEXES, self._plugin)
        if self._plugin == "milvus":
            uri = self._settings.vectors.removeprefix("milvus://")
            local = uri.startswith("/")
            made: Index = factory(
                dim, exact=exact, uri=uri if local else f"http://{uri}", collection=name
            )
            return made
        # A live index grows past the bound: it is built anew beside, not in the middle of an add.
        bound = self._settings.flat_up_to
        flat = expected <= bound
        built: Index = factory(
            dim,
            exact=exact,
            kind=self._settings.kind,
            flat_up_to=LATE * bound if flat else bound,
            expected=expected,
        )
        return built

    def load(self, path: Path, exact: VectorSource) -> Index:
        """Return the index of a file.

        Raises:
            IndexCorrupt: it is damaged, of another version, or of another kind than is set.
            NotFound: there is no such file.
        """
        factory: Any = plugins.load(plugins.INDEXES, self._plugin)
        loaded: Index = factory.load(path, exact=exact)
        return loaded

    def outgrown(self, index: Index, count: int) -> bool:
        """Whether an index should be built anew for so many vectors."""
        if self._plugin == "milvus":
            return False
        trained = bool(getattr(index, "trained", False))
        if int(getattr(index, "hidden", 0)) > HIDDEN * count:
            return True
        expected = int(getattr(index, "trained_for", 0))
        if not trained:
            return count > self._settings.flat_up_to
        return count > STEADY * max(expected, 1)
