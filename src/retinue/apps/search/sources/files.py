"""Pictures in folders, by pattern, and single ones."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from retinue.apps.search.sources.base import (
    Found,
    Offer,
    Options,
    Refused,
    check_regular,
    check_size,
    check_suffix,
    mtime_us,
    read_file,
    reading,
    text,
)
from retinue.core.errors import InputError, RetinueError


def offer_file(
    path: str, *, source: str, item_id: str, options: Options, root: str = ""
) -> Found | Refused:
    """Offer a file of this machine.

    Args:
        path: The file.
        source: See `Found`.
        item_id: See `Found`.
        options: The limits.
        root: The real path of a folder that the file, its links followed, must lie in; "": any.
    """
    shown = text(path)
    try:
        with reading(shown):
            real = os.path.realpath(path, strict=True) if root else path
            if root and not Path(real).is_relative_to(root):
                message = f"{shown} leads out of {text(root)}, to {text(real)}; copy it there"
                raise InputError(message)
            status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
        check_regular(status, shown)
        check_size(status.st_size, shown, options.limits)
    except RetinueError as error:
        return Refused(source, shown, error, item_id)
    read = partial(read_file, real, options.limits)
    return Found(source, item_id, shown, status.st_size, mtime_us(status), "", read)


def open_single(path: str, source: str, options: Options) -> Iterator[Offer]:
    """Offer one picture under its file name."""
    yield offer_file(path, source=source, item_id=text(Path(path).name), options=options)


def open_folder(folder: str, source: str, options: Options) -> Iterator[Offer]:
    """Offer the pictures below a folder, in the order of their names.

    Hidden files and folders are left out. A link to a file is followed inside the folder and
    refused where it leads out of it; a link to a folder is never followed, since what is inside
    has its own place already.
    """
    root = os.path.realpath(folder)
    stack: list[Iterator[os.DirEntry[str] | Refused]] = [iter(_entries(root, source))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, Refused):
            yield entry
        elif entry.is_dir(follow_symlinks=False):
            stack.append(iter(_entries(entry.path, source)))
        else:
            offer = _entry(entry, root, source, options)
            if offer is not None:
                yield offer


def _entries(folder: str, source: str) -> list[os.DirEntry[str] | Refused]:
    try:
        with reading(text(folder)), os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except RetinueError as error:
        return [Refused(source, text(folder), error, partial=True)]
    return [*sorted(shown, key=lambda entry: entry.name)]


def _entry(entry: os.DirEntry[str], root: str, source: str, options: Options) -> Offer | None:
    item_id = text(os.path.relpath(entry.path, root)).replace(os.sep, "/")
    link = entry.is_symlink()
    try:
        with reading(text(entry.path)):
            folder = link and entry.is_dir()
        if folder:
            if Path(os.path.realpath(entry.path)).is_relative_to(root):
                return None
            message = f"{text(entry.path)} is a link to a folder elsewhere; index that by its name"
            raise InputError(message)
        if not check_suffix(entry.name):
            return None
    except RetinueError as error:
        return Refused(source, text(entry.path), error, item_id)
    return offer_file(
        entry.path, source=source, item_id=item_id, options=options, root=root if link else ""
    )


def fixed_part(pattern: str) -> str:
    """Return the folder of an absolute pattern up to its first wildcard."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return str(Path(*parts[:first]))


def matches(pattern: str) -> list[str]:
    """Return the files that a pattern names, sorted; ``**`` is any number of folders."""
    found = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - pathlib names hidden files too
    return sorted({path for path in found if not os.path.isdir(path)})  # noqa: PTH112


def open_match(path: str, root: str, source: str, options: Options) -> Iterator[Offer]:
    """Offer one file that a pattern names, if it is a picture."""
    item_id = text(os.path.relpath(path, root)).replace(os.sep, "/")
    try:
        if not check_suffix(path):
            return
    except RetinueError as error:
        yield Refused(source, text(path), error, item_id)
        return
    base = os.path.realpath(root)
    yield offer_file(path, source=source, item_id=item_id, options=options, root=base)
