"""The protocol's model repository extension: what is installed, loading and unloading.

Source:
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import Any

from retinue.core.errors import InvalidRequest, ShuttingDown
from retinue.host.contract import Host, RepositoryEntry
from retinue.host.edge import State
from retinue.host.oip.inference import IMAGE_SUFFIX

READY = "READY"
UNLOAD_DEPENDENTS = "unload_dependents"


class Repository:
    """The installed models, as clients see and control them."""

    def __init__(self, host: Host, state: State) -> None:
        self._host = host
        self._state = state
        self._changes: set[asyncio.Task[None]] = set()

    def index(self, *, ready: bool = False) -> list[RepositoryEntry]:
        """Return all installed models, loaded or not, and the loaded ones' twins for images.

        Args:
            ready: Leave out those that take no work.
        """
        installed = self._host.repository()
        found = {entry.name: entry for entry in installed}
        for entry in installed:
            twin = entry.name + IMAGE_SUFFIX
            if entry.state == READY and twin not in self._host.models:
                found[twin] = replace(entry, name=twin)  # it answers, whatever else is installed
        return [found[name] for name in sorted(found) if not ready or found[name].state == READY]

    async def load(self, model: str, parameters: Iterable[str] = ()) -> None:
        """Load an installed model, or load it anew.

        Args:
            model: Its name.
            parameters: Names of the request's parameters; none is offered.

        Raises:
            AccessError: the setting ``server.model_control`` is off.
            ModelNotFound: it is not installed.
            InvalidRequest: there are parameters: a client may not bring a configuration or files.
            RetinueError: it cannot be loaded.
        """
        self._check(model, parameters, "load")
        await self._to_its_end(self._host.load(model))

    async def unload(self, model: str, parameters: Iterable[str] = ()) -> None:
        """Unload a model once what it accepted is done.

        Args:
            model: Its name.
            parameters: Names of the request's parameters; ``unload_dependents`` changes nothing,
                for no model here depends on another one.

        Raises:
            AccessError: the setting ``server.model_control`` is off.
            ModelNotFound: it is not loaded.
            InvalidRequest: there are other parameters.
        """
        self._check(model, (one for one in parameters if one != UNLOAD_DEPENDENTS), "unload")
        await self._to_its_end(self._host.unload(model))

    async def _to_its_end(self, change: Coroutine[Any, Any, None]) -> None:
        """Carry a change out even if the client leaves; the next one waits for it.

        A model that is being loaded cannot be stopped half-way, only forgotten.
        """
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    def _check(self, model: str, parameters: Iterable[str], verb: str) -> None:
        if self._state.draining:
            raise ShuttingDown(f"the server is stopping and can {verb} no model")
        unknown = ", ".join(sorted(f"{name[:40]!r}" for name in parameters)[:5])
        if unknown:
            raise InvalidRequest(
                f"{verb} takes no parameters here, and got {unknown}: a model is served as it is "
                "installed; change the settings, or install another one with `retinue models`"
            )
        base = model.removesuffix(IMAGE_SUFFIX)
        names = {one.name for one in self._host.repository()}
        if base != model and base in names and model not in names:
            raise InvalidRequest(
                f"{model[:80]!r} comes and goes with the model {base[:80]!r}; {verb} that"
            )
