"""``retinue search index``: one run, with progress on the terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from retinue.apps.search.api import Collection
from retinue.apps.search.evaluate import tune
from retinue.apps.search.progress import Progress
from retinue.apps.search.sources import open_source, source_name
from retinue.core.errors import RetinueError

PLAIN_EVERY_S: Final = 10.0
_PACKED: Final = (".gz", ".tgz", ".bz2", ".xz", ".zst")


def run(
    collection: Collection,
    source: str,
    *,
    remove: bool = False,
    id_column: str = "",
    path_column: str = "",
    allow_private: bool = False,
    threads: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Index a source into a collection; see `retinue.apps.search.bulk.BulkIndex`.

    Args:
        collection: Where to.
        source: As of `retinue.apps.search.sources.open_source`.
        remove: Whether items that vanished from the source are removed.
        id_column: A table's column of ids.
        path_column: A table's column of paths or URLs.
        allow_private: Whether URLs may lead to private addresses.
        threads: That decode and embed; 0 for one a core.
        quiet: Whether nothing is shown.

    Returns:
        What was done, as JSON.

    Raises:
        RetinueError: as of `BulkIndex.run` and `open_source`.
    """

    def offers() -> Any:
        return open_source(
            source,
            limits=collection.limits,
            allow_private=allow_private,
            id_column=id_column,
            path_column=path_column,
        )

    bulk = collection.bulk(threads=threads)
    found = offers()  # what is wrong with the source itself is said before any work
    with _shown(bulk.progress, offers if _countable(source) else None, quiet):
        progress = bulk.run(found, source_name(source), remove=remove)
        if progress.indexed and collection.open_space().trained_anew:
            progress.step = "tuning"
            tune(collection)
    report = {
        "collection": collection.name,
        "model": collection.model,
        "indexed": progress.indexed,
        "unchanged": progress.unchanged,
        "failed": progress.failed,
        "removed": progress.removed,
        "in_groups_of_duplicates": progress.grouped,
        "seconds": round(time.monotonic() - progress.started, 2),
        "images_a_second": round(progress.embedding_rate, 1),
        "whole": bulk.whole,
    }
    if not quiet:
        _summary(report)
    return report


def _countable(source: str) -> bool:
    """Whether counting all that a source offers costs little beside indexing it."""
    return "://" not in source and not source.lower().endswith(_PACKED)


def _summary(report: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{report['collection']}: {report['indexed']:,} indexed "
        f"({report['images_a_second']:,.1f} a second), {report['unchanged']:,} unchanged, "
        f"{report['failed']:,} failed, {report['removed']:,} removed, "
        f"{report['in_groups_of_duplicates']:,} in groups of duplicates"
    )
    if report["failed"]:
        console.print(f"see them with: retinue search failures -c {report['collection']}")
    if not report["whole"]:
        console.print(
            "part of the source could not be listed: nothing was removed, and what is missing "
            "is among the failures"
        )


@contextmanager
def _shown(progress: Progress, offers: Any, quiet: bool) -> Iterator[None]:
    """Show progress until the block ends: a bar on a terminal, else a line now and then."""
    ended = threading.Event()
    if quiet:
        yield
        return
    total = [0]
    threads = [threading.Thread(target=_show, args=(progress, total, ended), daemon=True)]
    if offers is not None:
        threads.append(threading.Thread(target=_count, args=(offers, total, ended), daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        threads[0].join()


def _count(offers: Any, total: list[int], ended: threading.Event) -> None:
    count = 0
    try:
        for _ in offers():
            count += 1
            if ended.is_set():
                return
    except RetinueError:
        return  # the run itself meets it, and says so
    total[0] = count


def _show(progress: Progress, total: list[int], ended: threading.Event) -> None:
    if sys.stderr.isatty():
        _show_bar(progress, total, ended)
        return
    while not ended.wait(PLAIN_EVERY_S):
        of = f" of {total[0]:,}" if total[0] else ""
        print(
            f"{progress.step}: {progress.done:,}{of}, {progress.rate:,.1f} a second"
            f"{_eta(progress, total[0])}",
            file=sys.stderr,
        )


def _eta(progress: Progress, total: int) -> str:
    left = total - progress.done
    speed = progress.done / max(time.monotonic() - progress.started, 1e-6)
    return f", about {left / speed:,.0f} s left" if total and speed and left > 0 else ""


def _show_bar(progress: Progress, total: list[int], ended: threading.Event) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.1f}/s"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("listing", total=None, rate=0.0)
        while not ended.wait(0.2):
            bar.update(
                task,
                description=progress.step,
                completed=progress.done,
                total=total[0] or None,
                rate=progress.rate,
            )
