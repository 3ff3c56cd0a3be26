"""What the fronts need of the composition root, so that either can be read alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from retinue.core.apps import App, Services
from retinue.core.settings import Settings


@dataclass(frozen=True, slots=True)
class RepositoryEntry:
    """One installed model.

    Attributes:
        name: Its name.
        version: Its version; the loaded one where one is.
        state: "READY", "LOADING", "UNLOADING" or "UNAVAILABLE", as Triton calls them.
        reason: Why it is not ready, "" if it is.
    """

    name: str
    version: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One loaded version of a model.

    Attributes:
        version: The version.
        role: "prod", "canary", "shadow" or "reference".
        share: Share of the requests that it answers.
        guard: What the live guard knows of it: ``compared``, ``agreement``, ``evidence``; empty
            where it is not compared with anything.
    """

    version: str
    role: str
    share: float
    guard: Mapping[str, float] = field(default_factory=dict)


class Metrics(Protocol):
    """The part of the metrics observer that the fronts use."""

    def render(self) -> tuple[bytes, str]:
        """Return the exposition's body and content type."""
        ...

    def http(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; route and method come from a bounded set."""
        ...

    def grpc(self, method: str, code: str, seconds: float) -> None:
        """Count one finished call; the code is the status' name, such as "NOT_FOUND"."""
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
    def models(self) -> tuple[str, ...]:
        """The names of the models that are loaded."""
        ...

    def versions(self, model: str) -> Sequence[VersionStatus]:
        """Return the loaded versions of a loaded model, the one that answers first."""
        ...

    def repository(self) -> Sequence[RepositoryEntry]:
        """Return all models that are installed, loaded or not, by name."""
        ...

    async def load(self, model: str) -> None:
        """Load an installed model; one that is loaded already is loaded anew from the registry.

        The old pipeline answers until the new one is ready, then finishes what it accepted.

        Raises:
            AccessError: ``server.model_control`` is off.
            ModelNotFound: it is not installed.
            RetinueError: it cannot be loaded; what served before goes on.
        """
        ...

    async def unload(self, model: str) -> None:
        """Refuse new work for a model, finish what was accepted, give its memory back.

        Raises:
            AccessError: ``server.model_control`` is off.
            ModelNotFound: it is not loaded.
        """
        ...


class ServedHost(Host, Protocol):
    """A host with the life cycle that a server drives."""

    async def start(self) -> None:
        """Load the models and start the workers."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Finish accepted work in at most so many seconds, then give everything back."""
        ...
