"""One request at a time, as a Flask prototype serves a model: no batches, a lock around the model.

Under gunicorn, threads read the requests and one of them at a time runs the model. ``WAY`` chooses
how: ``eager`` is plain PyTorch, ``graphs`` Retinue's torch runtime with its CUDA graphs.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import networks
import numpy as np
import torch
from flask import Flask, Response, request

from retinue.runtimes.torch import TorchRuntime

DEVICE, SIZE = os.environ["DEVICE"], int(os.environ["SIZE"])
NETWORK = next(
    one
    for one in (*networks.FULL, *networks.TINY)
    if one.name == os.environ["NETWORK"] and one.size == SIZE
)
SHAPE = (1, 3, SIZE, SIZE)

app = Flask(__name__)
lock = threading.Lock()
if os.environ["WAY"] == "graphs":
    runtime = TorchRuntime(
        Path(os.environ["PROGRAM"]),
        device=DEVICE,
        precision=NETWORK.precision,  # type: ignore[arg-type]
    )
else:
    runtime = None
    model = NETWORK.build("cpu").to(DEVICE)


def predict(batch: np.ndarray) -> np.ndarray:
    """Run one image."""
    if runtime is not None:
        return runtime.run({runtime.inputs[0].name: batch})[runtime.outputs[0].name]
    with torch.inference_mode():
        return model(torch.from_numpy(batch).to(DEVICE)).cpu().numpy()


@app.post("/predict")
def answer() -> Response:
    """Take the image's bytes, answer with those of the output."""
    batch = np.frombuffer(request.get_data(), np.uint8).reshape(SHAPE).copy()
    with lock:
        found = predict(batch)
    return Response(found.tobytes(), mimetype="application/octet-stream")


@app.get("/ready")
def ready() -> str:
    """Run once, then say so."""
    with lock:
        for _ in range(5):
            predict(np.zeros(SHAPE, np.uint8))
    return "ready"
