"""Writing so that a crash leaves the old state or the new one, whole."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from retinue.core.errors import Unavailable, storage_errors
from retinue.models.sources.base import Progress

TEMPORARY = ".tmp-"
LOCK_WAIT_S = 3600.0


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a small file by a new one, whole; text is written in UTF-8."""
    descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def move_in(staged: Path, final: Path) -> None:
    """Give a finished folder its final name; a folder of that name is put beside ``staged``."""
    for file in staged.iterdir():
        sync(file)
    sync(staged)
    if final.exists():
        final.rename(staged.with_name("replaced"))
    staged.rename(final)
    sync(final.parent)


def clean(folder: Path) -> None:
    """Remove what interrupted writers left in a folder; only while holding its lock."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def tidy(folder: Path, lock: Path) -> None:
    """Remove what interrupted writers left, if no writer is at work and it can be removed."""
    if any(folder.glob(f"{TEMPORARY}*")):
        with suppress(OSError, Timeout), FileLock(str(lock), timeout=0):
            clean(folder)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Make a temporary folder inside ``folder``; both are gone afterwards if nothing was kept.

    Raises:
        StorageError: a folder cannot be made.
    """
    with storage_errors(folder, "making the model's folder"):
        folder.mkdir(parents=True, exist_ok=True)
        clean(folder)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=folder))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """Make a folder inside ``folder`` for long work, gone afterwards; no lock need be held.

    What killed processes left of theirs is removed first: a workspace is in use while its lock is
    held.

    Raises:
        StorageError: it cannot be made.
    """
    name = f"{TEMPORARY}{secrets.token_hex(8)}"
    with storage_errors(folder, "making a folder to work in"):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.lock"):
            with suppress(OSError, Timeout), FileLock(str(left), timeout=0):
                shutil.rmtree(left.with_suffix(""), ignore_errors=True)
                left.unlink(missing_ok=True)
        lock = FileLock(str(folder / f"{name}.lock"))
        lock.acquire()
    try:
        with storage_errors(folder, "making a folder to work in"):
            (folder / name).mkdir()
        yield folder / name
    finally:
        shutil.rmtree(folder / name, ignore_errors=True)
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def locked(path: Path, what: str, progress: Progress) -> Iterator[None]:
    """Hold a lock between processes; the system gives it back when its holder dies.

    Raises:
        StorageError: the lock's file cannot be written.
        Unavailable: another process held it for an hour.
    """
    with storage_errors(path, "making the lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.start(f"waiting for another process that works on {what}")
            try:
                lock.acquire(timeout=LOCK_WAIT_S)
            except Timeout as error:
                message = f"another process has been working on {what} for too long; end it first"
                raise Unavailable(message) from error
            progress.finish()
    try:
        yield
    finally:
        lock.release()
