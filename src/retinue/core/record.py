"""The one value that crosses from serving to watching and learning."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from retinue.core.types import Outcome

# Seeded by the system, then without it: asking it for each id gives other threads the lock that
# this one has to win back.
_random = random.Random(os.urandom(32))  # noqa: S311 - ids are unique, not secret
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


def new_id() -> str:
    """Return a new unique id of 32 hex digits; ids sort by creation time (as UUIDv7 does)."""
    return f"{time.time_ns() // 1_000_000:012x}{_random.getrandbits(80):020x}"


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One finished request.

    Attributes:
        app: Name of the app that asked.
        model: Name of the model.
        version: Version of the model.
        outcome: The answer or the error, with timings.
        source: Where the input came from: a path, a camera, a file name given by the client.
        input_sha256: Hex digest of the input's bytes, "" when it had none.
        width: Width of the upright original in pixels, 0 when it was not decoded.
        height: Height of the upright original in pixels, 0 when it was not decoded.
        batch_size: Items that were run together with this one, itself included; 0 if none ran.
        queue_depth: Items waiting when this one was admitted.
        id: Unique, sorts by time.
        created_at: When it finished, UTC.
        tags: Free labels, for example ``{"camera": "gate-2"}``.
    """

    app: str
    model: str
    version: str
    outcome: Outcome
    source: str = ""
    input_sha256: str = ""
    width: int = 0
    height: int = 0
    batch_size: int = 0
    queue_depth: int = 0
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    tags: Mapping[str, str] = field(default_factory=dict)
