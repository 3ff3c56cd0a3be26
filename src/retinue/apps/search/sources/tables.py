"""Pictures that a table names, row by row, with the other columns as their metadata."""

from __future__ import annotations

import datetime
import decimal
import difflib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import orjson

from retinue.apps.search.sources.base import (
    Found,
    Offer,
    Options,
    Refused,
    Value,
    check_size,
    file_path,
    scheme,
    text,
)
from retinue.apps.search.sources.files import offer_file
from retinue.apps.search.sources.rows import Row, open_rows
from retinue.apps.search.sources.stores import SCHEMES, Stores
from retinue.core.errors import CorruptMedia, InputError, InvalidRequest, RetinueError

if TYPE_CHECKING:
    from retinue.apps.search.sources.web import Web

PATH_COLUMNS = (
    "path",
    "file",
    "image",
    "url",
    "file_name",
    "filename",
    "file_path",
    "filepath",
    "image_path",
    "image_url",
    "uri",
)
"""What the column with the pictures is called where none is given, the first that is there."""

MAX_TEXT = 1 << 16
"""Characters of a value of metadata."""


def open_table(path: str, source: str, options: Options) -> Iterator[Offer]:
    """Offer the pictures that a table names.

    A relative path is below the table's folder and may not lead out of it, nor may a link there;
    an absolute one, the table being the user's own, may be anywhere. ``http(s)`` URLs and those of
    object stores are read from there. A Parquet column may also hold the pictures themselves, as
    bytes or as a struct of ``bytes`` and ``path``.

    Raises:
        InputError: it has no such column, or cannot be read at all.
        MissingExtra: pyarrow is not installed.
    """
    columns, rows = open_rows(path, options)
    shown = text(path)
    path_column = _column(columns, options.path_column, PATH_COLUMNS, shown)
    if not path_column:
        message = f"{shown} has no column {' or '.join(map(repr, PATH_COLUMNS[:4]))}; "
        message += f"it has {_listed(columns)}; say which one names the pictures"
        raise InvalidRequest(message)
    id_column = _column(columns, options.id_column, ("id",), shown)
    return _Table(path, source, options, path_column, id_column).offers(rows())


def _listed(columns: list[str]) -> str:
    shown = ", ".join(name[:60] for name in columns[:30])
    return shown + (f" and {len(columns) - 30} more" if len(columns) > 30 else "")


def _column(columns: list[str], given: str, usual: tuple[str, ...], shown: str) -> str:
    """Return the column that is given, or else the first of the usual ones, or ""."""
    if given in columns:
        return given
    if given:
        near = difflib.get_close_matches(given, columns, 1, 0.5)
        message = f"{shown} has no column {given!r}; it has {_listed(columns)}"
        raise InvalidRequest(message + (f"; did you mean {near[0]!r}?" if near else ""))
    folded = {name.lower(): name for name in reversed(columns)}
    return next((folded[name] for name in usual if name in folded), "")


class _Table:
    def __init__(
        self, path: str, source: str, options: Options, path_column: str, id_column: str
    ) -> None:
        self._shown, self._source, self._options = text(path), source, options
        self._path_column, self._id_column = path_column, id_column
        self._folder = os.path.realpath(os.path.dirname(path))  # noqa: PTH120
        self._stores = Stores(options.limits)

    @cached_property
    def _web(self) -> Web:
        # Here, since most tables name files, and the web's library takes long to import.
        from retinue.apps.search.sources.web import Web

        return Web(self._options.limits, allow_private=self._options.allow_private)

    def offers(self, rows: Iterator[Row]) -> Iterator[Offer]:
        try:
            for row in rows:
                yield self._offer(row)
        except RetinueError as error:
            yield Refused(self._source, self._shown, error, partial=True)

    def _offer(self, row: Row) -> Offer:
        place = f"{self._shown}, {row.place}"
        if not isinstance(row.values, dict):
            error = type(row.values)(f"{place}: {row.values.message}")
            return Refused(self._source, place, error, partial=True)
        item_id = ""
        try:
            item_id = self._id(row.values)
            offer = self._picture(row, item_id, place)
            used = (self._path_column, self._id_column)
            meta = {
                name: plain(value)
                for name, value in row.values.items()
                if name not in used and name and not isinstance(value, bytes)
            }
        except RetinueError as error:
            error = type(error)(f"{place}: {error.message}")
            return Refused(self._source, place, error, item_id, partial=not item_id)
        return replace(offer, meta=meta) if isinstance(offer, Found) else offer

    def _id(self, values: Mapping[str, Any]) -> str:
        if not self._id_column:
            return ""
        value = values.get(self._id_column)
        if isinstance(value, bool | float) or not isinstance(value, str | int) or value == "":
            raise InputError(f"column {self._id_column!r} has no id, but {value!r:.40}")
        return str(value)

    def _picture(self, row: Row, item_id: str, place: str) -> Offer:
        assert isinstance(row.values, dict)
        value = row.values.get(self._path_column)
        name = ""
        if isinstance(value, dict):
            name = str(value.get("path") or "")
            value = value.get("bytes") or name
        if isinstance(value, bytes):
            check_size(len(value), place, self._options.limits)
            read = partial(bytes, value)
            name = item_id or name or row.place
            return Found(self._source, name, place, len(value), 0, "", read)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"column {self._path_column!r} is empty; it is to name a picture")
        return self._named(value.strip(), item_id)

    def _named(self, value: str, item_id: str) -> Offer:
        kind = scheme(value)
        if kind in ("http", "https"):
            return self._web.offer(value, source=self._source, item_id=item_id)
        if kind in SCHEMES:
            return self._stores.offer(value, source=self._source, item_id=item_id or value)
        if kind == "file":
            value = file_path(value)
        elif kind:
            raise InputError(f"URLs of scheme {kind!r} are not read from a table; copy the file")
        if "\0" in value:
            raise CorruptMedia("the path has a NUL character")
        root = ""
        path = value
        if not os.path.isabs(value):  # noqa: PTH117
            path, root = os.path.normpath(f"{self._folder}/{value}"), self._folder
            if path != root and not path.startswith(root.rstrip("/") + "/"):
                raise InputError(f"{value!r} leads out of the table's folder; give it absolute")
        item_id = item_id or text(value)
        return offer_file(
            path, source=self._source, item_id=item_id, options=self._options, root=root
        )


def plain(value: Any) -> Value:
    """Return a table's value as one of metadata: numbers stay, times and lists become text.

    Raises:
        InputError: it is longer than `MAX_TEXT`.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, decimal.Decimal):
        return float(value) if value.is_finite() else None
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        value = value.isoformat()
    elif not isinstance(value, str):
        try:
            value = orjson.dumps(value, default=str).decode()
        except orjson.JSONEncodeError as error:
            raise InputError(f"a value cannot be kept as metadata: {error}") from error
    if len(value) > MAX_TEXT:
        raise InputError(f"a value has {len(value):,} characters; the limit is {MAX_TEXT:,}")
    return str(value)
