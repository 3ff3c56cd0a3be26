"""How far a run of bulk indexing is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """How far a run is; numbers only grow.

    Attributes:
        listed: Pictures that the source has offered so far.
        complete: Whether it has offered all.
        indexed: Embedded and durable.
        unchanged: Known already, and as they were.
        failed: Could not be read or embedded; they are listed with the collection.
        removed: Vanished from the source, and removed.
        grouped: Items of the collection that are in a group of duplicates.
        started: On ``time.monotonic()``'s clock.
        step: What is being done: "indexing", "removing", "duplicates", "index", "tuning".
        embedding_s: From the first picture to the last one that was written.
    """

    listed: int = 0
    complete: bool = False
    indexed: int = 0
    unchanged: int = 0
    failed: int = 0
    removed: int = 0
    grouped: int = 0
    started: float = field(default_factory=time.monotonic)
    step: str = "indexing"
    embedding_s: float = 0.0

    @property
    def done(self) -> int:
        """Pictures that need nothing more."""
        return self.indexed + self.unchanged + self.failed

    @property
    def rate(self) -> float:
        """Pictures indexed a second, so far."""
        return self.indexed / max(time.monotonic() - self.started, 1e-6)

    @property
    def embedding_rate(self) -> float:
        """Pictures indexed a second while there were any to embed."""
        return self.indexed / max(self.embedding_s, 1e-6)
