"""The response cache: outcomes by content. One pipeline serves one model digest and owns one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from retinue.core.types import Outcome

_ENTRY_BYTES: Final = 1024
"""What an entry costs beside its arrays, about."""


@dataclass(frozen=True, slots=True)
class Cached:
    """What is kept of an answered item.

    Attributes:
        outcome: Its value and embedding.
        width: Width of the upright original in pixels.
        height: Height of the upright original in pixels.
    """

    outcome: Outcome
    width: int
    height: int


class ResponseCache:
    """The least recently used outcomes leave first once their memory exceeds the bound."""

    def __init__(self, max_bytes: int) -> None:
        """Set the bound; 0 keeps nothing."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, tuple[Cached, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def enabled(self) -> bool:
        """Whether it keeps anything."""
        return self._max_bytes > 0

    def get(self, digest: str) -> Cached | None:
        """Return what is known of the content with this digest."""
        found = self._entries.get(digest)
        if found is None:
            return None
        self._entries.move_to_end(digest)
        return found[0]

    def put(self, digest: str, cached: Cached) -> None:
        """Keep a successful outcome."""
        size = _ENTRY_BYTES + _freeze(cached.outcome)
        if size > self._max_bytes or cached.outcome.error is not None:
            return
        old = self._entries.pop(digest, None)
        if old is not None:
            self._bytes -= old[1]
        self._entries[digest] = (cached, size)
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed


def _freeze(value: Any) -> int:
    """Make all arrays of a value read-only and return the memory that they keep."""
    if isinstance(value, np.ndarray):
        # Many requests are answered with these arrays; and a view keeps its whole batch alive.
        value.setflags(write=False)
        return value.base.nbytes if isinstance(value.base, np.ndarray) else value.nbytes
    if not hasattr(value, "__dataclass_fields__"):
        return 0
    return sum(_freeze(getattr(value, field.name)) for field in fields(value))
