"""Fetching a card's files: through the source of its URL's scheme, then checked by sha256."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from retinue.core import plugins
from retinue.core.errors import ChecksumMismatch, ConfigError, FetchError, storage_errors
from retinue.models.card import Source
from retinue.models.sources import SOURCES
from retinue.models.sources.base import Policy, Progress, Quiet, SourcePlugin

__all__ = ["Policy", "Progress", "Quiet", "fetch", "sha256_of"]

CHUNK = 1 << 20
ALIASES = {"http": "https"}


def fetch(
    source: Source,
    into: Path,
    *,
    progress: Progress | None = None,
    policy: Policy | None = None,
) -> dict[str, Path]:
    """Fetch a source's files into an existing folder.

    Args:
        source: Where from, and the sha256 of each file.
        into: A folder of the caller's; the caller removes it when this raises.
        progress: Hears of the transfer.
        policy: Bounds; None for the usual ones.

    Returns:
        Name inside the package to the local file, verified and cut to the card's part of it.
        Local names are made here, never taken from the package; the suffix is kept.

    Raises:
        FetchError: unknown scheme, package or file, or the transfer failed.
        ChecksumMismatch: a file is not the one that the card names.
        ConfigError: the card names a part beyond the end of its file.
        MissingExtra: the package client is not installed.
        StorageError: the folder cannot be written.
    """
    targets = {name: into / _local(i, name) for i, name in enumerate(source.files)}
    plugin = _plugin(source.url)
    with storage_errors(into, f"fetching {source.url}"):
        plugin(source.url, targets, progress=progress or Quiet(), policy=policy or Policy())
        _verify(source, targets)
        for name, (start, end) in source.parts.items():
            _cut(name, targets[name], start, end)
    return targets


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hex. Raises ``OSError`` when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plugin(url: str) -> SourcePlugin:
    scheme = url.partition(":")[0].lower()
    key = ALIASES.get(scheme, scheme)
    known = plugins.names(SOURCES)
    if key not in known:
        raise FetchError(f"{url!r}: no source is called {scheme!r}; known: {', '.join(known)}")
    plugin: SourcePlugin = plugins.load(SOURCES, key)
    return plugin


def _local(number: int, name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return f"{number:03d}{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,16}', suffix) else ''}"


def _cut(name: str, path: Path, start: int, end: int) -> None:
    content = path.read_bytes()
    if end > len(content):
        raise ConfigError(
            f"the card names bytes {start} to {end} of {name}, which has {len(content)}; "
            "correct the card"
        )
    path.write_bytes(content[start:end])


def _verify(source: Source, files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        found, expected = sha256_of(path), source.files[name]
        if found != expected:
            path.unlink()
            raise ChecksumMismatch(
                f"{name} from {source.url} is not the file that the card names (sha256 {found}, "
                f"expected {expected}); it was not used. Try again; if it stays so, the package "
                "was changed or tampered with on the way"
            )
