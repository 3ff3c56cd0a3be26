"""Durable records a second: the store against bare SQLite, by group size; and the writer.

Run with ``python benchmarks/records.py [FOLDER]``; the folder decides which disk is measured. Each
round measures bare SQLite and the store one after the other (A B A B); the table gives the medians.
Bare SQLite writes the same rows into the same table with the same durability, and no more.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from retinue.core.record import Record, new_id
from retinue.core.settings import Blobs, Records
from retinue.core.types import Outcome
from retinue.store.codec import to_row
from retinue.store.records import open_records
from retinue.store.writer import RecordWriter
from retinue.testing.records import detections, record

ROUNDS = 5
GROUPS = {1: 100, 16: 40, 64: 20, 256: 8}
TIMINGS = {"decode": 1.5, "preprocess": 0.4, "queue": 0.1, "run": 30.2, "postprocess": 0.3}


def new(count: int) -> list[Record]:
    outcome = Outcome(value=detections(8), timings_ms=TIMINGS)
    return [record(id=new_id(), outcome=outcome) for _ in range(count)]


def groups(size: int) -> list[list[Record]]:
    return [new(size) for _ in range(GROUPS[size])]


def rate(size: int, append: Callable[[list[Record]], object]) -> float:
    work = groups(size)
    start = time.perf_counter()
    for group in work:
        append(group)
    return size * len(work) / (time.perf_counter() - start)


def bare(path: Path) -> tuple[sqlite3.Connection, Callable[[list[Record]], object]]:
    open_records(f"sqlite:///{path}").close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    names = list(to_row(record()))
    slots = ", ".join(f":{name}" for name in names)
    insert = f"INSERT INTO retinue_records ({', '.join(names)}) VALUES ({slots})"

    def append(group: list[Record]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, [to_row(one) for one in group])
        connection.execute("COMMIT")

    return connection, append


def main() -> None:
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        connection, append = bare(folder / "bare.sqlite3")
        with (
            closing(connection),
            closing(open_records(f"sqlite:///{folder}/store.sqlite3")) as store,
        ):
            print(f"{'group':>6} {'bare SQLite':>12} {'store':>12}   records/s")
            for size in GROUPS:
                pairs = [(rate(size, append), rate(size, store.append)) for _ in range(ROUNDS)]
                one, other = (statistics.median(column) for column in zip(*pairs, strict=True))
                print(f"{size:>6} {one:>12,.0f} {other:>12,.0f}")
            with closing(RecordWriter(store, None, Records(), Blobs())) as writer:
                given = new(4000)
                start, cpu = time.perf_counter(), time.thread_time()
                futures = [writer.submit(one) for one in given]
                cpu = time.thread_time() - cpu
                assert all(future.result() for future in futures)
                took = time.perf_counter() - start
            print(f"writer: {len(given) / took:,.0f} durable records/s; ", end="")
            print(f"submit {1e6 * cpu / len(given):.1f} us of CPU a record")


if __name__ == "__main__":
    main()
