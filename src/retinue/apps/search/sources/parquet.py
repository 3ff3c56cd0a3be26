"""Rows of Parquet tables, through pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from retinue.apps.search.sources.base import reading, text
from retinue.apps.search.sources.rows import Row
from retinue.core.errors import CorruptMedia, MissingExtra

BATCH_ROWS = 64
"""Rows that are held at a time: they may carry the pictures themselves."""


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # type: ignore[import-untyped,unused-ignore]
        import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        message = "reading Parquet needs pyarrow: pip install 'retinue[parquet]'"
        raise MissingExtra(message) from error
    return pyarrow, pyarrow.parquet


@contextmanager
def _translated(path: str, pyarrow: Any) -> Iterator[None]:
    try:
        with reading(text(path)):
            yield
    # ValueError: text that is not UTF-8, dates beyond Python's.
    except (pyarrow.ArrowException, ValueError) as error:
        raise CorruptMedia(f"{text(path)} cannot be read as Parquet: {error}") from error


def open_parquet(path: str) -> tuple[list[str], Callable[[], Iterator[Row]]]:
    """Return a table's columns, and what reads its rows; see `open_rows`."""
    pyarrow, parquet = _pyarrow()
    with _translated(path, pyarrow), parquet.ParquetFile(path) as file:
        columns = list(file.schema_arrow.names)

    def rows() -> Iterator[Row]:
        number = 0
        with _translated(path, pyarrow), parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for values in _plain(batch, pyarrow):
                    number += 1
                    yield Row(f"row {number}", values)

    return columns, rows


def _plain(batch: Any, pyarrow: Any) -> list[dict[str, Any]]:
    """Return a batch as Python values; times lose what is finer than a microsecond."""
    columns = []
    for column in batch.columns:
        if pyarrow.types.is_timestamp(column.type):
            column = column.cast(pyarrow.timestamp("us", column.type.tz), safe=False)
        columns.append(column)
    made = pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)
    rows: list[dict[str, Any]] = made.to_pylist()
    return rows
