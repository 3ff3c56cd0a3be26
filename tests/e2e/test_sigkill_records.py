"""Records that were acknowledged outlive a SIGKILL in the middle of writing."""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from retinue.store.blobs import open_blobs
from retinue.store.records import open_records

APPENDS = """
import sys
from retinue.core.record import new_id
from retinue.store.records import open_records
from retinue.testing.records import record
store = open_records(sys.argv[1])
while True:
    group = [record(id=new_id()) for _ in range(5)]
    store.append(group)
    print(*(one.id for one in group), flush=True)
"""

SUBMITS = """
import sys
from retinue.core.record import new_id
from retinue.core.settings import Blobs, Records
from retinue.store.blobs import open_blobs
from retinue.store.records import open_records
from retinue.store.writer import RecordWriter
from retinue.testing.records import record
records, blobs = open_records(sys.argv[1]), open_blobs(sys.argv[2])
kept = Records(keep_days=1e5)  # the records of the suite are old
writer = RecordWriter(records, blobs, kept, Blobs(sample=0.2), retention_s=0.02)
while True:
    group = [record(id=new_id()) for _ in range(20)]
    futures = [writer.submit(one, one.id.encode() * 100) for one in group]
    print(*(one.id for one, f in zip(group, futures) if f.result()), flush=True)
"""


class Worker:
    """A program that prints the ids of what it has stored, until it is killed."""

    def __init__(self, program: str, *arguments: str) -> None:
        command = [sys.executable, "-W", "error", "-c", program, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.ids: list[str] = []
        self.started = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                self.ids += line.split()
            self.started.set()
        self.started.set()

    def kill(self) -> int:
        self._process.kill()
        self._reader.join()
        with self._process:  # closes its output
            return self._process.wait()


@pytest.mark.parametrize("program", [APPENDS, SUBMITS], ids=["append", "writer"])
def test_acknowledged_records_are_there(program: str, tmp_path: Path) -> None:
    database = tmp_path / "records.sqlite3"
    url, blobs_url = f"sqlite:///{database}", (tmp_path / "blobs").as_uri()
    acknowledged: set[str] = set()
    dice = random.Random(3)
    for _ in range(3):
        # Two at a time: the first dies while the other writes, the second leaves the log to nobody.
        workers = [Worker(program, url, blobs_url) for _ in range(2)]
        started = [worker.started.wait(60) for worker in workers]
        for worker in workers:
            time.sleep(dice.uniform(0.0, 0.08))
            assert worker.kill() == -signal.SIGKILL
            acknowledged |= set(worker.ids)
        assert all(started)
        assert all(worker.ids for worker in workers)

    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        stored = connection.execute("SELECT id, blob FROM retinue_records").fetchall()
    assert acknowledged <= {record_id for record_id, _ in stored}
    blobs = open_blobs(blobs_url)
    for record_id, key in stored:
        assert not key or blobs.get(key) == record_id.encode() * 100
    with closing(open_records(url)) as store:
        assert store.count() == len(stored)
        assert all(store.get(record_id).record.id == record_id for record_id in acknowledged)
