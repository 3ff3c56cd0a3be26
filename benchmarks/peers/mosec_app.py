"""mosec: ``python mosec_app.py --port PORT --timeout MS``; the stages in the environment.

``STAGES=2`` decodes in one stage and runs in the next; ``STAGES=1`` does both in one.
"""

from __future__ import annotations

import json
from typing import Any

import detector
from mosec import Server, ValidationError, Worker

STAGES = int(detector.number("STAGES", 1))
WORKERS = int(detector.number("WORKERS", 2))
MAX_BATCH = int(detector.number("MAX_BATCH", 1))
WAIT_MS = int(detector.number("WAIT_MS", 1))


def answer(found: list[detector.Detection]) -> bytes:
    """Return the answer's JSON."""
    return json.dumps({"detections": found}).encode()


class Whole(Worker):
    """Decodes and runs."""

    def __init__(self) -> None:
        """Load the model, in each worker."""
        super().__init__()
        self.detector = detector.load()

    def deserialize(self, data: bytes) -> bytes:
        """Take the raw body: no JSON."""
        return data

    def serialize(self, data: list[detector.Detection]) -> bytes:
        """Return the answer's JSON."""
        return answer(data)

    def forward(self, data: Any) -> Any:
        """Detect objects in one photo, or in a batch of them."""
        try:
            if MAX_BATCH > 1:
                return self.detector.detect(data)
            return self.detector.detect([data])[0]
        except ValueError as error:
            raise ValidationError(str(error)) from error


class Decode(Whole):
    """The first of two stages."""

    def forward(self, data: bytes) -> Any:
        """Decode one photo."""
        return self.detector.prepare(data)


class Run(Whole):
    """The second of two stages."""

    def forward(self, data: Any) -> Any:
        """Run what was decoded, one or a batch."""
        if MAX_BATCH > 1:
            return self.detector.run(data)
        return self.detector.run([data])[0]


if __name__ == "__main__":
    server = Server()
    if STAGES == 2:
        server.append_worker(Decode, num=WORKERS)
    last = Run if STAGES == 2 else Whole
    server.append_worker(last, num=WORKERS, max_batch_size=MAX_BATCH, max_wait_time=WAIT_MS)
    server.run()
