"""``file:///...``: a file of this machine, or several below a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from retinue.core.errors import FetchError
from retinue.models.sources.base import Policy, Progress

CHUNK = 1 << 20


def fetch(url: str, targets: Mapping[str, Path], *, progress: Progress, policy: Policy) -> None:
    """Copy the files; see `retinue.models.sources.base.SourcePlugin`."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not path.is_absolute():
        raise FetchError(f"{url!r} is not of the form file:///absolute/path")
    if path.is_dir():
        for name, target in targets.items():
            _copy(_inside(path, name), target, progress, policy)
    elif len(targets) == 1:
        (target,) = targets.values()
        _copy(path, target, progress, policy)
    else:
        raise FetchError(f"{path} is not a folder, but the card names {len(targets)} files in it")


def _inside(folder: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise FetchError(f"{name!r} is not a name of a file below {folder}")
    return folder / pure


def _copy(path: Path, target: Path, progress: Progress, policy: Policy) -> None:
    try:
        reader = path.open("rb")
        size = path.stat().st_size
    except OSError as error:
        raise FetchError(f"cannot read {path}: {error.strerror}") from error
    if size > policy.max_bytes:
        reader.close()
        raise FetchError(f"{path} is larger than the limit of {policy.max_bytes} bytes")
    progress.start(path.name, size)
    with reader, target.open("wb") as out:
        while chunk := reader.read(CHUNK):
            out.write(chunk)
            progress.advance(len(chunk))
    progress.finish()


SOURCE = fetch
