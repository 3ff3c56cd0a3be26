"""Files of rows that were cut, or that a full disk or a killed writer left half-done."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from retinue.core.errors import DiskFull, StorageError
from retinue.store.rows import HEADER, RowFile, Rows

WIDTH = 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.rows"


@pytest.fixture
def file(path: Path) -> Iterator[RowFile]:
    with closing(RowFile.create(path, "float32", WIDTH)) as made:
        yield made


def some(count: int, first: int = 0) -> Rows:
    """Rows that tell their slots."""
    return np.arange(first * WIDTH, (first + count) * WIDTH, dtype=np.float32).reshape(-1, WIDTH)


def in_another_process(program: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_half_a_row_is_no_row_and_the_next_one_takes_its_place(path: Path, file: RowFile) -> None:
    file.append(some(3))
    file.close()
    with path.open("ab") as raw:
        raw.write(b"\xff" * (WIDTH * 4 - 1))
    with closing(RowFile.open(path)) as reader, closing(RowFile.open(path, write=True)) as writer:
        assert len(reader) == len(writer) == 3
        with pytest.raises(StorageError, match="has 3 rows, not 4"):
            reader.view(4)
        assert writer.append(some(1, 3)) == 3
        assert np.array_equal(reader.view(4), some(4))
        assert path.stat().st_size == HEADER + some(4).nbytes


def test_rows_that_nobody_knows_of_are_taken_back(path: Path, file: RowFile) -> None:
    file.append(some(10))
    file.close()
    with path.open("ab") as raw:
        raw.write(b"\xff" * 5)
    with closing(RowFile.open(path)) as reader, closing(RowFile.open(path, write=True)) as writer:
        assert np.array_equal(reader.view(10), some(10))
        assert np.array_equal(writer.view(10), some(10))
        writer.truncate(4)
        assert (len(writer), len(reader)) == (4, 4)
        assert path.stat().st_size == HEADER + some(4).nbytes
        for each in (reader, writer):
            with pytest.raises(StorageError, match="has 4 rows, not 5"):
                each.view(5)
        assert writer.append(some(2, 100)) == 4
        expected = np.concatenate([some(4), some(2, 100)])
        assert np.array_equal(writer.view(6), expected)
        assert np.array_equal(reader.view(6), expected)
        writer.truncate(6)
        assert len(writer) == 6


def test_a_file_that_was_cut_says_what_to_do(path: Path, file: RowFile) -> None:
    file.append(some(1000))
    file.close()
    os.truncate(path, HEADER + some(400).nbytes + 3)
    with closing(RowFile.open(path, write=True)) as writer:
        with pytest.raises(StorageError, match=r"has 400 rows and 1,000 are known.*index it anew"):
            writer.truncate(1000)
        assert len(writer) == 400
    with closing(RowFile.open(path)) as reader:
        for use in (lambda: reader.view(1000), lambda: reader.read(np.array([0, 999]))):
            with pytest.raises(StorageError, match=r"400 rows, not 1,000: it was cut.*restore it"):
                use()
        assert np.array_equal(reader.read(np.array([399])), some(1, 399))


def test_a_file_that_is_cut_while_it_is_read_kills_nobody(path: Path, file: RowFile) -> None:
    """Reading a memory map behind the end of its file would end the process by a signal."""
    file.append(some(10_000))
    program = (
        "import os, sys; from pathlib import Path; import numpy as np\n"
        "from retinue.core.errors import StorageError\n"
        "from retinue.store.rows import RowFile\n"
        "path = Path(sys.argv[1]); file = RowFile.open(path)\n"
        "assert file.view(10_000).any(); os.truncate(path, 8192)\n"
        "for use in (lambda: file.view(10_000).sum(), lambda: file.read(np.array([9_999]))):\n"
        "    try: use()\n"
        "    except StorageError as error: print(error)\n"
    )
    told = in_another_process(program, str(path)).splitlines()
    assert len(told) == 2
    assert all("has 128 rows, not 10,000: it was cut" in one for one in told)


FILLS = """
import resource, sys
from pathlib import Path
import numpy as np
from retinue.core.errors import StorageError
from retinue.store.rows import RowFile
path, limit = Path(sys.argv[1]), int(sys.argv[2])
file = RowFile.open(path, write=True)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
before = len(file)
try:
    file.append(np.full((int(sys.argv[3]), file.width), 7, file.dtype))
except StorageError as error:
    print(error.code, len(file) == before, path.stat().st_size, error)
file.append(np.ones((1, file.width), file.dtype))
file.sync()
"""


def test_a_disk_that_runs_full_in_a_row_adds_nothing(path: Path, file: RowFile) -> None:
    file.append(some(100))
    file.close()
    size = path.stat().st_size
    limit = size + 5 * some(1).nbytes + 3
    code, same, left, message = in_another_process(FILLS, str(path), str(limit), "50").split(" ", 3)
    assert (code, same, int(left)) == ("storage_error", "True", size)
    assert "writing rows" in message
    with closing(RowFile.open(path)) as reader:
        assert len(reader) == 101
        assert np.array_equal(reader.view(100), some(100))
        assert (reader.view(101)[100] == 1).all()


def test_a_full_disk_adds_nothing(tmp_path: Path) -> None:
    mounted = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from retinue.store.rows import RowFile\n"
        "file = RowFile.create(Path(sys.argv[1]), 'float32', 8)\n"
        "file.append(np.full((100, 8), 3, np.float32)); file.sync()\n"
    )
    check = (
        "import sys; from pathlib import Path; from retinue.store.rows import RowFile\n"
        "file = RowFile.open(Path(sys.argv[1]))\n"
        "print(len(file), (file.view(100) == 3).all(), (file.view(101)[100] == 1).all())\n"
    )
    script = (
        'mount -t tmpfs -o size=256k none "$1" && "$2" -c "$3" "$1/r" && '
        '"$2" -c "$4" "$1/r" 0 100000 && "$2" -c "$5" "$1/r"'
    )
    arguments = ["sh", str(tmp_path), sys.executable, program, FILLS, check]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told, read = done.stdout.splitlines()
    assert told.startswith(f"{DiskFull.code} True {HEADER + 3200} ")
    assert "free some" in told
    assert read == "101 True True"


def test_a_disk_that_is_full_at_first_leaves_no_file(path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from retinue.core.errors import StorageError\n"
        "from retinue.store.rows import RowFile\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "try: RowFile.create(Path(sys.argv[1]), 'float32', 8)\n"
        "except StorageError as error: print(error)\n"
    )
    assert "making a file of rows" in in_another_process(program, str(path))
    assert not list(path.parent.iterdir())


def test_a_reader_is_not_disturbed_when_rows_are_taken_back(path: Path, file: RowFile) -> None:
    """Also between the counting of the rows and the mapping of the file."""
    file.append(some(1))
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            file.append(some(200, 1))
            file.truncate(1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(3000):
            with closing(RowFile.open(path)) as reader:
                assert np.array_equal(reader.view(1), some(1))
    finally:
        done.set()
        thread.join()
