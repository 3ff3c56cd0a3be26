"""Files of rows: what is written is read, by everybody, and what is damaged is refused."""

import json
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from retinue.core.errors import InvalidTensor, NotFound, NotWritable, StorageError
from retinue.store import rows as module
from retinue.store.rows import HEADER, MAGIC, RowFile, Rows

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


def head(**fields: object) -> bytes:
    text = json.dumps(fields).encode()
    return (MAGIC + zlib.crc32(text).to_bytes(4, "little") + text).ljust(HEADER, b"\0")


@pytest.mark.parametrize("dtype", module.DTYPES)
def test_rows_are_read_as_they_were_appended(path: Path, dtype: str) -> None:
    given = (np.arange(30).reshape(10, 3) % 200).astype(dtype)
    with closing(RowFile.create(path, dtype, 3)) as file:
        assert (len(file), file.width, file.dtype) == (0, 3, np.dtype(dtype))
        assert file.append(given[:4]) == 0
        assert file.append(given[4:4]) == 4
        assert file.append(given[4:]) == 4
        file.sync()
        assert len(file) == 10
    with closing(RowFile.open(path)) as file:
        assert (len(file), file.width, file.dtype) == (10, 3, np.dtype(dtype))
        assert np.array_equal(file.view(10), given)
        assert np.array_equal(file.view(3), given[:3])
        slots = np.array([9, 0, 0, 5], np.int64)
        assert np.array_equal(file.read(slots), given[slots])
        assert file.read(np.empty(0, np.int64)).shape == (0, 3)
    assert path.stat().st_size == HEADER + given.nbytes


def test_other_dtypes_and_layouts_are_converted(file: RowFile) -> None:
    file.append(np.asfortranarray(some(4).astype(np.float64)))
    file.append(some(8)[4::2])
    assert np.array_equal(file.view(6), np.concatenate([some(4), some(8)[4::2]]))


def test_a_view_cannot_be_written_and_a_read_is_a_copy(file: RowFile) -> None:
    file.append(some(2))
    with pytest.raises(ValueError, match="read-only"):
        file.view(2)[0, 0] = 9
    file.read(np.array([0]))[0, 0] = 9
    assert np.array_equal(file.view(2), some(2))


def test_a_reader_sees_what_a_writer_appends(path: Path, file: RowFile) -> None:
    with closing(RowFile.open(path)) as reader:
        for count in range(1, 400, 57):
            file.append(some(count - len(file), len(file)))
            file.sync()
            assert len(reader) == count
            assert np.array_equal(reader.view(count), some(count))
            assert np.array_equal(reader.read(np.array([count - 1])), some(1, count - 1))


def test_a_reader_in_another_process_sees_what_is_appended_later(path: Path, file: RowFile) -> None:
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from retinue.store.rows import RowFile\n"
        "file = RowFile.open(Path(sys.argv[1]))\n"
        "for line in sys.stdin:\n"
        "    count = int(line)\n"
        "    print(len(file), float(file.view(count).sum(dtype=float)), flush=True)\n"
    )
    file.append(some(1))
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for count in (1, 2, 700, 701):
            file.append(some(count - len(file), len(file)))
            file.sync()
            reader.stdin.write(f"{count}\n")
            reader.stdin.flush()
            assert reader.stdout.readline() == f"{count} {some(count).sum(dtype=float)}\n"
        reader.stdin.close()
        assert reader.wait(30) == 0


def test_threads_may_read_while_one_writes(path: Path, file: RowFile) -> None:
    wrong: list[int] = []
    done = threading.Event()
    with closing(RowFile.open(path)) as reader:

        def read() -> None:
            while not done.is_set():
                count = len(reader)
                if not np.array_equal(reader.view(count), some(count)):
                    wrong.append(count)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for first in range(0, 2000, 20):
            file.append(some(20, first))
        done.set()
        for thread in threads:
            thread.join()
        assert np.array_equal(reader.view(2000), some(2000))
    assert not wrong


def test_views_stay_valid(path: Path, file: RowFile) -> None:
    file.append(some(3))
    first = file.view(3)
    file.append(some(5000, 3))
    second = file.view(5003)
    file.close()
    assert np.array_equal(first, some(3))
    assert np.array_equal(second, some(5003))


def test_a_file_may_be_closed_twice_and_then_says_what_failed(path: Path, file: RowFile) -> None:
    file.append(some(2))
    file.close()
    file.close()
    for use in (lambda: file.append(some(1)), lambda: file.view(2)):
        with pytest.raises(StorageError, match=str(path)):
            use()


@pytest.mark.parametrize("size", [0, 10, HEADER - 1])
def test_a_header_that_is_cut_is_refused(path: Path, file: RowFile, size: int) -> None:
    os.truncate(path, size)
    with pytest.raises(StorageError, match=r"no file of rows.*restore it"):
        RowFile.open(path)


@pytest.mark.parametrize("place", [0, len(MAGIC) + 1, len(MAGIC) + 8, 300])
def test_a_damaged_header_is_refused(path: Path, file: RowFile, place: int) -> None:
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\x7f")
    with pytest.raises(StorageError, match=r"head is damaged; restore it"):
        RowFile.open(path, write=True)


@pytest.mark.parametrize(
    "other",
    [
        {"format": 2, "dtype": "float32", "width": 8},
        {"format": 2, "layout": {"what": "a later release needs"}},
        {"format": 1, "dtype": "bfloat16", "width": 8},
    ],
)
def test_a_header_of_a_newer_release_is_refused(path: Path, other: dict[str, object]) -> None:
    path.write_bytes(head(**other))
    with pytest.raises(StorageError, match="newer release of retinue: upgrade it"):
        RowFile.open(path)


def test_other_files_are_refused(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 1000)
    with pytest.raises(StorageError, match="no file of rows"):
        RowFile.open(path)
    with pytest.raises(StorageError, match=str(path.parent)):
        RowFile.open(path.parent)


def test_a_file_that_is_not_there_is_not_found(path: Path) -> None:
    with pytest.raises(NotFound, match=str(path)):
        RowFile.open(path)


@pytest.mark.parametrize(("dtype", "width"), [("float64", 8), ("object", 8), ("float32", 0)])
def test_rows_that_cannot_be_kept_are_refused(path: Path, dtype: str, width: int) -> None:
    with pytest.raises(InvalidTensor, match="choose of"):
        RowFile.create(path, dtype, width)
    assert not list(path.parent.iterdir())


def test_an_existing_file_is_not_made_anew(path: Path, file: RowFile) -> None:
    file.append(some(3))
    with pytest.raises(NotWritable, match="exists"):
        RowFile.create(path, "float32", WIDTH)
    with closing(RowFile.open(path)) as reader:
        assert np.array_equal(reader.view(3), some(3))
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_in_no_folder_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="making a file of rows"):
        RowFile.create(tmp_path / "none" / "image.rows", "float32", WIDTH)
    (tmp_path / "taken").touch()
    with pytest.raises(NotWritable, match="making a file of rows"):
        RowFile.create(tmp_path / "taken" / "image.rows", "float32", WIDTH)


@pytest.mark.parametrize("wrong", [(3, WIDTH + 1), (3, WIDTH - 1), (WIDTH,), (1, 1, WIDTH)])
def test_rows_of_another_width_are_refused(file: RowFile, wrong: tuple[int, ...]) -> None:
    file.append(some(1))
    with pytest.raises(InvalidTensor, match=rf"must be \(N, {WIDTH}\)"):
        file.append(np.zeros(wrong, np.float32))
    assert len(file) == 1


def test_a_file_opened_for_reading_cannot_be_written(path: Path, file: RowFile) -> None:
    file.append(some(2))
    with closing(RowFile.open(path)) as reader:
        with pytest.raises(StorageError, match="writing rows"):
            reader.append(some(1))
        with pytest.raises(StorageError, match="taking back rows"):
            reader.truncate(1)
        assert np.array_equal(reader.view(2), some(2))


def test_no_file_is_left_open(path: Path, file: RowFile) -> None:
    file.append(some(1))
    before = psutil.Process().num_fds()
    for _ in range(20):
        with closing(RowFile.open(path)) as reader:
            reader.view(1)
        with pytest.raises(StorageError):
            RowFile.open(path.parent)
    assert psutil.Process().num_fds() < before + 10  # what else the process does may open some
