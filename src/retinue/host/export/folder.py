"""Writing a folder so that it is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from retinue.core.errors import ConfigError, storage_errors


@contextmanager
def whole_folder(target: Path, *, replaces: Callable[[Path], bool] | None) -> Iterator[Path]:
    """Make a folder: the block fills a temporary one beside it, which then takes its name.

    Args:
        target: The folder; it must not exist, or be empty. Of a link, what it points to.
        replaces: Whether an entry of a folder that is not empty may be replaced with it; None
            replaces nothing.

    Raises:
        ConfigError: the folder is not empty, and may not be replaced; or nothing can take its
            place, as with a mount point.
        StorageError: it cannot be written, also in the block; what was there before is there
            still.
    """
    with storage_errors(target, "making the folder"):
        target = Path(os.path.realpath(target))
        _check(target, replaces)
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        made = work / "made"
        with storage_errors(target, "writing the folder"):
            made.mkdir()
            yield made
        with storage_errors(target, "putting the folder in its place"):
            _check(target, replaces)
            for path in (*made.rglob("*"), made):
                _sync(path)
            _put(made, target, work / "replaced")
            _sync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put(made: Path, target: Path, replaced: Path) -> None:
    if target.exists():
        target.rename(replaced)
    try:
        made.rename(target)
    except OSError:
        if replaced.exists():
            replaced.rename(target)
        raise


def _check(target: Path, replaces: Callable[[Path], bool] | None) -> None:
    if target.is_mount() or Path.cwd().is_relative_to(target):
        where = "a mount point" if target.is_mount() else "where this command is run"
        raise ConfigError(f"{target} is {where} and cannot be replaced; name a folder inside it")
    found = sorted(target.iterdir()) if target.exists() else []
    if found and replaces is None:
        raise ConfigError(
            f"{target} is not empty; choose another folder, or replace it with --force"
        )
    for entry in found:
        if replaces is not None and not replaces(entry):
            raise ConfigError(
                f"{target} holds {entry.name!r}, which no export made; it is not replaced, even "
                "with --force: choose another folder"
            )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
