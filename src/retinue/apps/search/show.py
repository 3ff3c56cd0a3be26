"""Results and reports: as JSON objects, and as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from retinue.apps.search.answer import Answer, Hit
from retinue.store.collections import Item


def item_json(item: Item, collection: str) -> dict[str, Any]:
    """Return an item as JSON: what the server answers for it."""
    return {
        "id": item.id,
        "path": item.path,
        "width": item.width,
        "height": item.height,
        "meta": dict(item.meta),
        "group": item.duplicate_of,
        "thumbnail": thumbnail_path(item, collection),
    }


def thumbnail_path(item: Item, collection: str) -> str:
    """Return where the server has an item's thumbnail; "" if it has none."""
    if not item.thumbnail:
        return ""
    return f"/v1/search/{quote(collection, safe='')}/items/{quote(item.id, safe='')}/thumbnail"


def result(hit: Hit, collection: str) -> dict[str, Any]:
    """Return one result as JSON."""
    item = hit.item
    return {
        "rank": hit.rank,
        "id": item.id,
        "path": item.path,
        "score": hit.score,
        "relevance": hit.relevance,
        "stages": dict(hit.stages),
        "width": item.width,
        "height": item.height,
        "meta": dict(item.meta),
        "thumbnail": thumbnail_path(item, collection),
        "duplicates": hit.duplicates,
        "regions": [list(region) for region in hit.regions],
    }


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def print_hits(answer: Answer, collection: str) -> None:
    """Print a table of results."""
    table = Table(box=None, pad_edge=False)
    stages = list(dict.fromkeys(name for hit in answer.hits for name in hit.stages))
    for name in ("rank", "id", "score", "relevance", *stages):
        table.add_column(name, justify="left" if name == "id" else "right", overflow="fold")
    for hit in answer.hits:
        values = [f"{hit.stages[name]:.3f}" if name in hit.stages else "" for name in stages]
        more = f" (+{hit.duplicates})" if hit.duplicates else ""
        table.add_row(
            str(hit.rank),
            escape(hit.item.id) + more,
            f"{hit.score:.4f}",
            f"{hit.relevance:.3f}",
            *values,
        )
    console = _console()
    console.print(table)
    total = sum(answer.timings_ms.values())
    late = f"; no time for {', '.join(answer.skipped)}" if answer.skipped else ""
    searched = f"{answer.count:,} items of {collection} searched in {total:.1f} ms{late}"
    console.print(f"{searched} ({answer.model}@{answer.version})" if answer.version else searched)


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with the same keys as a table."""
    table = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name)
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    _console().print(table if rows else f"{title}: none yet")


def print_report(report: Mapping[str, Any], indent: str = "") -> None:
    """Print names and figures, one a line."""
    console = _console()
    for name, value in report.items():
        if isinstance(value, Mapping):
            console.print(f"{indent}{name}")
            print_report(value, f"{indent}  ")
        else:
            console.print(f"{indent}{name:<22} {escape(_cell(value))}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
