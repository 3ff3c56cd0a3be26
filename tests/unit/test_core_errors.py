"""The error tree: complete, documented, and stable."""

import errno

import pytest

from retinue.core import errors
from retinue.core.errors import DiskFull, NotWritable, RetinueError, StorageError, storage_errors


def _tree(cls: type[RetinueError]) -> list[type[RetinueError]]:
    return [cls] + [c for sub in cls.__subclasses__() for c in _tree(sub)]


CLASSES = [cls for cls in _tree(RetinueError) if cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_is_drawn_in_the_docstring_with_its_own_figures(
    cls: type[RetinueError],
) -> None:
    rows = [line.replace("├──", "").replace("└──", "").replace("│", "").split()
            for line in (errors.__doc__ or "").splitlines()]  # fmt: skip
    row = [cls.__name__, cls.code, str(cls.http_status), cls.grpc_status, str(cls.exit_code)]
    assert row in rows


def test_codes_are_unique() -> None:
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_statuses_are_real(cls: type[RetinueError]) -> None:
    assert 400 <= cls.http_status < 600
    assert 64 <= cls.exit_code <= 78
    assert cls("why").message == "why"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EACCES, NotWritable),
        (errno.EROFS, NotWritable),
        (errno.ENOTDIR, NotWritable),
        (errno.EIO, StorageError),
    ],
)
def test_os_errors_become_storage_errors(number: int, expected: type[StorageError]) -> None:
    named = pytest.raises(StorageError, match=r"writing it: /somewhere")
    with named as caught, storage_errors("/somewhere", "writing it"):
        raise OSError(number, "why")
    assert type(caught.value) is expected
