"""What every source offers, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Progress(Protocol):
    """Hears how far a long step is. One step runs at a time; `start` also begins a retry."""

    def start(self, label: str, total: int | None = None) -> None:
        """Begin a step; ``total`` is its size in bytes, None where it is not known."""
        ...

    def advance(self, n: int) -> None:
        """Say that ``n`` further bytes are done."""
        ...

    def finish(self) -> None:
        """End the step."""
        ...


class Quiet:
    """A `Progress` that shows nothing."""

    def start(self, label: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, n: int) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Bounds of a fetch.

    Attributes:
        max_bytes: Largest archive, and largest file, that is accepted.
        timeout_s: Longest silence of a server, in seconds.
        total_s: Longest run of a package client, in seconds.
        tries: Attempts before a transient error counts as final.
        backoff_s: Pause after the first failed attempt; it doubles each time.
    """

    max_bytes: int = 4 * 2**30
    timeout_s: float = 60.0
    total_s: float = 3600.0
    tries: int = 3
    backoff_s: float = 0.5


class SourcePlugin(Protocol):
    """What a source's file exposes as ``SOURCE``."""

    def __call__(
        self, url: str, targets: Mapping[str, Path], *, progress: Progress, policy: Policy
    ) -> None:
        """Write each named file of a package to its target.

        The caller checks the digests; a source checks whatever its own protocol offers. What a
        failed call leaves behind in the targets' folder is the caller's to remove.

        Args:
            url: As in the card, scheme included.
            targets: Name inside the package to the path to write; all in one folder, on which
                temporary files may be put too.
            progress: Hears of the transfer.
            policy: Bounds.

        Raises:
            FetchError: unknown package or file, a refused or failed transfer, a limit passed.
            ChecksumMismatch: the package does not match the digest that its registry states.
            MissingExtra: the package client is not installed.
            OSError: a target cannot be written.
        """
        ...
