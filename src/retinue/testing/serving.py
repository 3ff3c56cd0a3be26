"""A host that serves small real models, for as long as a test needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from retinue.core.settings import Execution, Rollout, Server, Settings
from retinue.core.types import Image
from retinue.host.services import HostServices

RED = Image(np.full((64, 64, 3), (255, 0, 0), np.uint8), 64, 64)
FOLLOWING = Rollout(follow_s=0.02)


def served(
    cache: Path,
    main: Callable[[HostServices], Awaitable[None]],
    *models: str,
    control: bool = True,
    instances: int = 2,
    rollout: Rollout = FOLLOWING,
) -> None:
    """Start a host, do something with it, and drain it.

    Args:
        cache: The registry's folder; the host's state is there too.
        main: What is done while it runs.
        models: What it loads at its start.
        control: Whether clients may load and unload models.
        instances: Of each model.
        rollout: How it follows the ledgers.
    """
    settings = Settings(
        home=cache,
        cache=cache,
        server=Server(model_control=control),
        execution=Execution(instances=instances),
        rollout=rollout,
    )

    async def run() -> None:
        host = HostServices(settings, (), models=models, record=False)
        await host.start()
        try:
            await main(host)
        finally:
            await host.drain(5)

    asyncio.run(run())


def states(host: HostServices) -> dict[str, tuple[str, str]]:
    """Return each model's state and the reason for it."""
    return {entry.name: (entry.state, entry.reason) for entry in host.repository()}
