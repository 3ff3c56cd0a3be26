"""LitServe: ``python litserve_app.py``; port, deadline and batching are in the environment.

No postponed annotations here: LitServe hands the annotation of ``decode_request`` to FastAPI.
"""

import os
from typing import Annotated, Any

import detector
import litserve
from fastapi import Depends, Request

WORKERS = int(detector.number("WORKERS", 2))
API_SERVERS = int(detector.number("API_SERVERS", 1))
MAX_BATCH = int(detector.number("MAX_BATCH", 1))
WAIT_S = detector.number("WAIT_S", 0.0)


async def body(request: Request) -> bytes:
    """Read the raw body: no JSON, no base64, no form."""
    return await request.body()


class One(litserve.LitAPI):
    """Photos one by one."""

    def setup(self, device: str) -> None:
        """Load the model, in each worker."""
        self.detector = detector.load()

    def decode_request(self, request: Annotated[bytes, Depends(body)]) -> bytes:
        """Pass the photo on."""
        return request

    def predict(self, photo: bytes) -> list[detector.Detection]:
        """Detect objects in one photo."""
        return self.detector.detect([photo])[0]

    def encode_response(self, output: list[detector.Detection]) -> dict[str, Any]:
        """Name the answer."""
        return {"detections": output}


class Batched(One):
    """Photos in batches."""

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Keep a batch a list."""
        return inputs

    def predict(self, photos: list[bytes]) -> list[list[detector.Detection]]:
        """Detect objects in a batch of photos."""
        return self.detector.detect(photos)

    def unbatch(self, output: list[list[detector.Detection]]) -> list[list[detector.Detection]]:
        """Keep a batch a list."""
        return output


if __name__ == "__main__":
    api = Batched(max_batch_size=MAX_BATCH, batch_timeout=WAIT_S) if MAX_BATCH > 1 else One()
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=WORKERS,
        timeout=detector.number("DEADLINE_S", 30),
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=API_SERVERS,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
