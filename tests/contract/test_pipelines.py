"""The pipeline keeps the contract, whatever its policy."""

import asyncio

import pytest

from retinue.core.settings import Batching, Limits
from retinue.pipeline.pipeline import ModelPipeline
from retinue.testing import pipeline_suite
from retinue.testing.models import FakeModel

POLICIES = {
    "default": Batching(),
    "batches of 8": Batching(max_batch=8),
    "a window": Batching(max_batch=8, window_ms=2),
    "fused": Batching(),
}


@pytest.mark.parametrize("check", pipeline_suite.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("policy", POLICIES)
def test_contract(policy: str, check: pipeline_suite.Check) -> None:
    def make(model: FakeModel) -> ModelPipeline:
        return ModelPipeline(
            [model],
            batching=POLICIES[policy],
            limits=Limits(),
            workers=2,
            fused=policy == "fused",
        )

    asyncio.run(check(make))
