"""Rows that were acknowledged outlive a SIGKILL in the middle of writing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from retinue.store.rows import RowFile, Rows

KILLS = 15
WIDTH = 2000  # of several pages, so that a row can be cut

WRITES = """
import sys
from pathlib import Path
import numpy as np
from retinue.store.rows import RowFile
path, known, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
file = RowFile.open(path, write=True)
file.truncate(known)
draw = np.random.default_rng(seed)
print("ready", flush=True)
while True:
    slots = np.arange(len(file), len(file) + draw.integers(1, 40))
    rows = (slots[:, None] * 31 + np.arange(file.width) + seed) % 251
    file.append(rows.astype(np.uint8))
    file.sync()
    print(len(file), flush=True)
"""


def _written(slots: Rows, seed: int) -> Rows:
    rows: Rows = (slots[:, None] * 31 + np.arange(WIDTH) + seed) % 251
    return rows.astype(np.uint8)


def test_acknowledged_rows_are_there_and_equal(tmp_path: Path) -> None:
    path = tmp_path / "tokens.rows"
    RowFile.create(path, "uint8", WIDTH).close()
    draw = random.Random(4)
    expected = np.empty((0, WIDTH), np.uint8)
    killed_with_more = 0
    with closing(RowFile.open(path)) as old_reader:
        for seed in range(KILLS):
            run = [sys.executable, "-W", "error", "-c", WRITES, str(path), str(len(expected))]
            with subprocess.Popen([*run, str(seed)], stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
                time.sleep(draw.uniform(0, 0.06))
                child.kill()
                lines = [line for line in child.stdout if line.endswith("\n")]
                assert child.wait() == -signal.SIGKILL
            known = int(lines[-1]) if lines else len(expected)
            expected = np.concatenate([expected, _written(np.arange(len(expected), known), seed)])
            with closing(RowFile.open(path)) as reader:
                killed_with_more += len(reader) > known
                for each in (reader, old_reader):
                    assert len(each) >= known
                    assert np.array_equal(each.view(known), expected)
    assert len(expected) > KILLS
    with closing(RowFile.open(path, write=True)) as writer:
        writer.truncate(len(expected))
        assert writer.append(_written(np.array([1]), 99)) == len(expected)
        assert np.array_equal(writer.view(len(expected)), expected)
    print(f"{len(expected)} rows; {killed_with_more} of {KILLS} were killed in a write")
