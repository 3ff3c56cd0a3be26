"""Rows of text tables: CSV, TSV and JSON lines, read as a stream.

`open_rows` gives a table's columns and a function that reads its rows from the start. A row that
cannot be read is an error in its place; the others follow.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from retinue.apps.search.sources.base import Options, reading, suffix, text
from retinue.core.errors import CorruptMedia, EmptyInput, InvalidRequest, RetinueError

MAX_LINE = 1 << 20
"""Characters of a line; one far longer is a sign of another kind of file."""

HEAD_ROWS = 1000
"""Rows that tell which columns of a CSV table are numbers."""

TABLES = frozenset({".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet", ".pq"})

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,14})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class Row:
    """A row: where it is ("line 7"), and its values by column, or why it cannot be read."""

    place: str
    values: dict[str, Any] | RetinueError


Rows = tuple[list[str], Callable[[], Iterator[Row]]]


def open_rows(path: str, options: Options) -> Rows:
    """Return a table's columns, and what reads its rows from the start.

    Raises:
        InputError: it is empty, has no header, or is in another encoding.
        InputNotFound: there is no such file.
        MissingExtra: it is a Parquet file and pyarrow is not installed.
    """
    kind = suffix(path)
    if kind in (".parquet", ".pq"):
        from retinue.apps.search.sources.parquet import open_parquet

        return open_parquet(path)
    if kind in (".jsonl", ".ndjson"):
        return _open_json(path)
    return _open_csv(path, options)


class _Lines:
    """The lines of a text file; one too long raises, and the next call gives the one after it."""

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream = stream
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == MAX_LINE and not line.endswith("\n"):
            while (rest := self._stream.readline(MAX_LINE)) and not rest.endswith("\n"):
                pass
            raise CorruptMedia(f"the line is longer than {MAX_LINE:,} characters")
        if "\0" in line:
            raise CorruptMedia("the line has NUL bytes; is it text, and in the right encoding?")
        if any("\udc80" <= c <= "\udcff" for c in line) if not line.isascii() else False:
            raise CorruptMedia("the line is in another encoding; give it (encoding='latin-1')")
        return line


@contextmanager
def _opened(path: str, encoding: str) -> Iterator[_Lines]:
    with reading(text(path)), open(path, "rb") as file:  # noqa: PTH123
        head = file.read(4)
        file.seek(0)
        if not encoding:
            marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            encoding = "utf-16" if head.startswith(marks) else "utf-8-sig"
        try:
            codecs.lookup(encoding)
        except LookupError as error:
            message = f"there is no encoding {encoding!r}; give one such as 'utf-8' or 'latin-1'"
            raise InvalidRequest(message) from error
        try:
            stream = io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="")
            yield _Lines(stream)
        except UnicodeError as error:
            message = f"{text(path)} is not {encoding}: {error}; give its encoding"
            raise CorruptMedia(message) from error


def _dialect(path: str, header: str) -> str:
    if suffix(path) in (".tsv", ".tab"):
        return "\t"
    bare = re.sub(r'"[^"]*"', "", header)
    return max(",;\t|", key=bare.count)


def _open_csv(path: str, options: Options) -> Rows:
    shown = text(path)
    try:
        with _opened(path, options.encoding) as lines:
            header = next(lines, "")
    except CorruptMedia as error:
        raise CorruptMedia(f"{shown}, line 1: {error.message}") from error
    delimiter = _dialect(path, header)
    columns = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    if not any(columns):
        raise EmptyInput(f"{shown} has no header; its first line names the columns")
    twice = sorted({name for name in columns if columns.count(name) > 1 and name})
    if twice:
        raise InvalidRequest(f"{shown} has two columns {twice[0]!r}; give them different names")

    def rows() -> Iterator[Row]:
        with _opened(path, options.encoding) as lines:
            read = _csv_rows(lines, columns, delimiter)
            head = list(islice(read, HEAD_ROWS))
            kinds = {
                name: _kind(name, head)
                for name in columns
                if name not in (*options.text_columns, options.id_column, options.path_column)
            }
            yield from (_typed(row, kinds) for row in head)
            yield from (_typed(row, kinds) for row in read)

    return columns, rows


def _csv_rows(lines: _Lines, columns: list[str], delimiter: str) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    first = True
    while True:
        place = f"line {lines.number + 1}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(place, CorruptMedia(f"{error}; is a quotation mark left open?"))
            continue
        except RetinueError as error:
            yield Row(f"line {lines.number}", error)
            continue
        if first:
            first = False
        elif len(fields) > len(columns):
            message = f"it has {len(fields)} fields, but the header has {len(columns)}"
            yield Row(place, CorruptMedia(f"{message}; quote fields that hold {delimiter!r}"))
        elif fields:
            yield Row(place, dict(zip(columns, fields, strict=False)))


def _kind(name: str, head: list[Row]) -> Callable[[str], Any]:
    values = [row.values.get(name) for row in head if isinstance(row.values, dict)]
    given = [value for value in values if value]
    for convert in (_number, _flag):
        if given and all(convert(value) is not value for value in given):
            return convert
    return str


def _number(value: str) -> Any:
    if _INTEGER.fullmatch(value):
        return int(value)
    return float(value) if len(value) < 64 and _FLOAT.fullmatch(value) else value


def _flag(value: str) -> Any:
    return {"true": True, "false": False}.get(value.lower(), value)


def _typed(row: Row, kinds: dict[str, Callable[[str], Any]]) -> Row:
    if not isinstance(row.values, dict):
        return row
    values = {k: kinds[k](v) if k in kinds else v for k, v in row.values.items() if v}
    return Row(row.place, values)


def _open_json(path: str) -> Rows:
    def rows() -> Iterator[Row]:
        with _opened(path, "") as lines:
            while True:
                try:
                    line = next(lines, None)
                except RetinueError as error:
                    yield Row(f"line {lines.number}", error)
                    continue
                if line is None:
                    return
                if line.strip():
                    yield Row(f"line {lines.number}", _parsed(line))

    first = next(rows(), None)
    if first is None:
        raise EmptyInput(f"{text(path)} is empty; each line is to be a JSON object")
    if not isinstance(first.values, dict):
        raise CorruptMedia(f"{text(path)}, {first.place}: {first.values.message}")
    return list(first.values), rows


def _parsed(line: str) -> dict[str, Any] | RetinueError:
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return CorruptMedia(f"it is not JSON: {error}")
    if not isinstance(values, dict):
        return CorruptMedia('it is no JSON object, such as {"path": "a.jpg"}')
    return values
