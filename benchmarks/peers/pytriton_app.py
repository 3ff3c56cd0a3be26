"""PyTriton, that is Triton with a Python function: ``python pytriton_app.py``; see the environment.

The photo is one BYTES tensor and the answer another that holds JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any

import detector
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.model_config.common import QueuePolicy, TimeoutAction
from pytriton.triton import Triton, TritonConfig

WORKERS = int(detector.number("WORKERS", 2))
MAX_BATCH = int(detector.number("MAX_BATCH", 1))
WAIT_S = detector.number("WAIT_S", 0.0)
DEADLINE_S = detector.number("DEADLINE_S", 30)


def instance() -> Any:
    """Return a function with a model of its own."""
    model = detector.load()

    @batch
    def infer(photo: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        found = model.detect([row[0] for row in photo])
        rows = [[json.dumps({"detections": one}).encode()] for one in found]
        return {"detections": np.array(rows, object)}

    return infer


def main() -> None:
    """Serve until a signal."""
    policy = QueuePolicy(
        timeout_action=TimeoutAction.REJECT,
        default_timeout_microseconds=int(DEADLINE_S * 1e6),
        max_queue_size=1024,
    )
    batcher = DynamicBatcher(
        max_queue_delay_microseconds=int(WAIT_S * 1e6), default_queue_policy=policy
    )
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(os.environ["PORT"]),
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="detector",
            infer_func=[instance() for _ in range(WORKERS)],
            inputs=[Tensor(name="photo", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="detections", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=batcher),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main()
