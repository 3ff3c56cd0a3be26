"""The response cache alone."""

from __future__ import annotations

import numpy as np

from retinue.core.types import Outcome, Scores
from retinue.pipeline.cache import Cached, ResponseCache


def test_the_response_cache_is_bounded_and_forgets_the_least_used():
    cache = ResponseCache(5000)

    def outcome(size: int) -> Cached:
        return Cached(Outcome(Scores(np.zeros(size, np.float32))), 1, 1)

    for key in "abc":
        cache.put(key, outcome(64))
    assert cache.get("a") is not None
    cache.put("d", outcome(64))
    assert cache.get("b") is None
    assert all(cache.get(key) for key in "acd")
    cache.put("large", outcome(2000))
    assert cache.get("large") is None
    cache.put("a", outcome(600))
    assert len(cache) == 2
    view = Cached(Outcome(Scores(np.zeros((50, 64), np.float32)[3])), 1, 1)
    cache.put("a view keeps its whole batch", view)
    assert cache.get("a view keeps its whole batch") is None
    assert not ResponseCache(0).enabled
