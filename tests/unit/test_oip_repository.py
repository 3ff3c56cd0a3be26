"""The repository extension, beside what the fronts' own tests try: clashing names, lost clients."""

from __future__ import annotations

import asyncio
import time

import pytest

from retinue.core.settings import Server, Settings
from retinue.host.edge import State
from retinue.host.oip.inference import Inference
from retinue.host.oip.repository import Repository
from retinue.testing.host import FakeHost
from retinue.testing.pipelines import FakeServed

CONTROLLED = Settings(server=Server(model_control=True))


class SlowHost(FakeHost):
    """Takes a moment to load."""

    async def load(self, model: str) -> None:
        await asyncio.sleep(0.05)
        await super().load(model)


def test_what_is_listed_is_what_answers_also_where_a_model_has_the_name_of_a_twin() -> None:
    models = (FakeServed("a"), FakeServed("a-image", task="classify"))
    host, state = FakeHost(CONTROLLED, models=models), State(ready=True)
    repository, inference = Repository(host, state), Inference(host, state)

    def listed(*, ready: bool) -> list[str]:
        return [one.name for one in repository.index(ready=ready)]

    assert listed(ready=True) == list(inference.names())
    asyncio.run(repository.unload("a-image"))
    assert inference.find("a-image").inputs[0].name == "image"  # the twin of "a" again
    assert listed(ready=True) == list(inference.names()) == ["a", "a-image"]
    assert listed(ready=False) == ["a", "a-image", "spare"]
    asyncio.run(repository.load("a-image"))
    assert inference.find("a-image").inputs[0].name == "x"


def test_a_change_goes_on_when_its_client_leaves() -> None:
    async def run() -> None:
        host = SlowHost(CONTROLLED)
        task = asyncio.create_task(Repository(host, State(ready=True)).load("spare"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        end = time.monotonic() + 5
        while "spare" not in host.pipelines:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)

    asyncio.run(run())
