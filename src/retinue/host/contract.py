"""What the HTTP front needs of the composition root, so that either can be read alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from retinue.core.protocols import App, Pipeline, Services
from retinue.core.settings import Settings


class Metrics(Protocol):
    """The part of the metrics observer that the HTTP front uses."""

    def render(self) -> tuple[bytes, str]:
        """Return the exposition's body and content type."""
        ...

    def http(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; route and method come from a bounded set."""
        ...


class Host(Services, Protocol):
    """Services, and what the fronts (not the apps) may see."""

    @property
    def settings(self) -> Settings:
        """All settings."""
        ...

    @property
    def apps(self) -> tuple[App, ...]:
        """The apps that are served."""
        ...

    @property
    def metrics(self) -> Metrics:
        """Where requests are counted."""
        ...

    @property
    def pipelines(self) -> Mapping[str, Pipeline]:
        """The loaded models' pipelines by model name."""
        ...


class ServedHost(Host, Protocol):
    """A host with the life cycle that a server drives."""

    async def start(self) -> None:
        """Load the models and start the workers."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Finish accepted work in at most so many seconds, then give everything back."""
        ...
