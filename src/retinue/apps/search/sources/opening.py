"""From what a user names to the pictures in it.

What SOURCE may be:

- a folder: its pictures, with those of its folders, by suffix;
- a pattern such as ``photos/**/*.jpg`` or ``shards/*.tar``, for pictures and archives;
- a picture;
- a ZIP or tar file (plain, gzip, bzip2, xz), told by its content;
- a table (.csv, .tsv, .jsonl, .parquet) with a column of paths or URLs;
- an http(s) URL of a picture;
- ``s3://BUCKET/PREFIX`` or the URL of another file system that fsspec knows.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from retinue.apps.search.sources.base import (
    MAX_MEMBERS,
    SUFFIXES,
    Found,
    Offer,
    Options,
    Refused,
    check_regular,
    check_suffix,
    file_path,
    reading,
    scheme,
    suffix,
    text,
)
from retinue.apps.search.sources.files import (
    fixed_part,
    matches,
    open_folder,
    open_match,
    open_single,
)
from retinue.apps.search.sources.rows import TABLES
from retinue.apps.search.sources.stores import check_url, open_store
from retinue.apps.search.sources.tables import open_table
from retinue.apps.search.sources.tars import compression, open_tar
from retinue.apps.search.sources.zips import open_zip
from retinue.core.errors import InputNotFound, InvalidRequest, UnsupportedMedia
from retinue.core.settings import Limits
from retinue.media.sniff import HEAD, READ, sniff

_TAR = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)


def _local(source: str) -> str:
    """Return the absolute path that SOURCE names, its links not followed; "" for a URL."""
    if not source.strip():
        raise InvalidRequest("the source is empty; name a folder, a file or a URL")
    if "\0" in source:
        raise InvalidRequest("the source's name has a NUL character")
    kind = scheme(source)
    if kind in ("file", "local"):
        source = file_path(source)
    elif kind:
        return ""
    return os.path.abspath(os.path.expanduser(source))  # noqa: PTH100, PTH111


def source_name(source: str) -> str:
    """Return the normalised name of a source, which each `Found` of it carries.

    It is the absolute path of a folder, archive, table or pattern, links in the way to it
    followed; a URL without a slash at its end.

    Raises:
        InvalidRequest: it is empty, or no URL of a kind that can be one.
    """
    path = _local(source)
    if not path:
        if scheme(source) in ("http", "https"):
            # Here, as below: most sources are files, and the web's library takes long to import.
            from retinue.apps.search.sources.web import parse

            return str(parse(source))
        return check_url(source).rstrip("/")
    if glob.has_magic(path) and not os.path.lexists(path):
        fixed = fixed_part(path)
        return text(os.path.realpath(fixed).rstrip("/") + path[len(fixed.rstrip("/")) :])
    return text(os.path.realpath(path))


def open_source(
    source: str,
    *,
    limits: Limits,
    allow_private: bool = False,
    id_column: str = "",
    path_column: str = "",
    encoding: str = "",
    text_columns: Sequence[str] = (),
    max_members: int = MAX_MEMBERS,
) -> Iterator[Found | Refused]:
    """Return the pictures that a source offers, and what of it is refused, lazily.

    Args:
        source: What is named, as the module's first lines list it.
        limits: Bytes that a picture may have.
        allow_private: Whether URLs may lead to private, loopback and link-local addresses.
        id_column: A table's column with the ids; "": the one called ``id``, or else the path.
        path_column: A table's column with paths or URLs; "": found by its name.
        encoding: A CSV table's encoding; "": UTF-8, or UTF-16 with its mark.
        text_columns: CSV columns whose values stay text, even if all look like numbers.
        max_members: Entries that an archive may have.

    Raises:
        InputNotFound: there is nothing of that name.
        InputError: it is not a source, cannot be read, or lacks a column.
        MissingExtra: it needs an optional package.
        FetchError: an object store cannot be reached.
    """
    options = Options(
        limits=limits,
        allow_private=allow_private,
        id_column=id_column,
        path_column=path_column,
        encoding=encoding,
        text_columns=tuple(text_columns),
        max_members=max_members,
    )
    return _dispatch(source, options)


def _dispatch(source: str, options: Options) -> Iterator[Offer]:
    name = source_name(source)
    path = _local(source)
    if not path:
        if scheme(source) in ("http", "https"):
            from retinue.apps.search.sources.web import Web

            web = Web(options.limits, allow_private=options.allow_private)
            return iter([web.offer(source, source=name)])
        return open_store(source, name, options)
    if glob.has_magic(path) and not os.path.lexists(path):
        found = matches(path)
        if not found:
            raise InputNotFound(f"no file matches {text(path)}; name another pattern")
        return _matched(found, fixed_part(path), name, options)
    return _open(os.path.realpath(path), name, options)


def _matched(found: list[str], root: str, name: str, options: Options) -> Iterator[Offer]:
    for path in found:
        if suffix(path) == ".zip" or _TAR.search(path):
            prefix = text(os.path.relpath(path, root)).replace(os.sep, "/")
            yield from _archive(path, prefix, name, options)
        else:
            yield from open_match(path, root, name, options)


def _archive(path: str, prefix: str, name: str, options: Options) -> Iterator[Offer]:
    opener = open_zip if suffix(path) == ".zip" else open_tar
    return opener(path, prefix, name, options)


def _open(path: str, name: str, options: Options) -> Iterator[Offer]:
    shown = text(path)
    with reading(shown):
        status = os.stat(path)  # noqa: PTH116
        if os.path.isdir(path):  # noqa: PTH112
            with os.scandir(path):
                return open_folder(path, name, options)
        check_regular(status, shown)
        with open(path, "rb") as file:  # noqa: PTH123
            head = file.read(HEAD)
    prefix = text(Path(path).name)
    if suffix(path) in TABLES:
        return open_table(path, name, options)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return open_zip(path, prefix, name, options)
    if head[257:262] == b"ustar" or _TAR.search(path) or _is_packed_tar(path, head):
        return open_tar(path, prefix, name, options)
    if suffix(path) in SUFFIXES or sniff(head).kind == "image":
        return open_single(path, name, options)
    check_suffix(path)
    message = f"{shown} looks like {sniff(head).name}, which is no folder, archive or table"
    raise UnsupportedMedia(f"{message} of pictures; {READ}")


def _is_packed_tar(path: str, head: bytes) -> bool:
    """Whether a compressed file is to be tried as a tar: it is, unless its name says another."""
    return bool(compression(head)) and suffix(Path(path).stem) not in TABLES
