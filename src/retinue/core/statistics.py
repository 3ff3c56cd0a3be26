"""What a pipeline has done so far, in the terms of the Open Inference statistics extension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Total:
    """How often something was done and how long all of it took.

    Attributes:
        count: How often.
        ns: Nanoseconds, all of them together.
    """

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True)
class BatchTotal:
    """The runs of one batch size.

    Attributes:
        compute_input: Making the batch of its items; its count is that of the runs.
        compute_infer: The runs themselves.
        compute_output: Finishing the items.
    """

    compute_input: Total = Total()
    compute_infer: Total = Total()
    compute_output: Total = Total()


@dataclass(frozen=True, slots=True)
class Statistics:
    """Totals since the pipeline was started. An item is one image, or one row of raw tensors.

    Attributes:
        inference_count: Items that were answered by a run.
        execution_count: Runs.
        last_inference_ms: Milliseconds since the epoch of the last request, 0 if there was none.
        success: Requests that succeeded, from their admission to their end.
        fail: Requests that failed.
        queue: Requests' waiting, in all stages.
        compute_input: Their decoding and preprocessing.
        compute_infer: Their runs; a run of n requests counts n times.
        compute_output: Their postprocessing.
        cache_hit: Requests that the response cache answered.
        cache_miss: Requests that it was asked for and could not answer.
        batches: By batch size.
    """

    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    success: Total = Total()
    fail: Total = Total()
    queue: Total = Total()
    compute_input: Total = Total()
    compute_infer: Total = Total()
    compute_output: Total = Total()
    cache_hit: Total = Total()
    cache_miss: Total = Total()
    batches: Mapping[int, BatchTotal] = field(default_factory=dict)
