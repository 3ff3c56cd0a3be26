"""From the paths on a command line to a stream of pictures and frames, in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from retinue.core.errors import (
    InputNotFound,
    RetinueError,
    TooManyBytes,
    UnsupportedMedia,
    storage_errors,
)
from retinue.core.settings import Limits
from retinue.core.types import Image

SUFFIXES = frozenset(
    ".jpg .jpeg .png .webp .bmp .gif .mp4 .mov .avi .mkv .webm .m4v".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to detect on.

    Attributes:
        path: The file, as the user would name it.
        content: The encoded file, a decoded video frame, or why neither could be had.
        frame: Index of the frame in a video, from 0; None for a photo.
        fps: Frames a second of the video.
    """

    path: Path
    content: bytes | Image | RetinueError
    frame: int | None = None
    fps: float = 0.0

    @property
    def name(self) -> str:
        """The path as text; bytes of it that are not UTF-8 become U+FFFD."""
        return os.fsencode(self.path).decode("utf-8", "replace")


def expand(paths: list[Path]) -> list[Path]:
    """Return the files to read: those named, and the pictures and videos of folders by suffix.

    A path that cannot be read, or a folder that holds nothing of the kind, is kept as it is:
    `read` says so in its place.
    """
    files: list[Path] = []
    for path in paths:
        try:
            inside = sorted(path.rglob("*")) if path.is_dir() else []
            found = [p for p in inside if p.suffix.lower() in SUFFIXES and p.is_file()]
        except OSError:
            found = []
        files += found or [path]
    return files


def read(files: list[Path], limits: Limits) -> Iterator[Item]:
    """Read files one by one; a file that cannot be read is an item with its error."""
    from retinue.media.video import is_video

    for path in files:
        try:
            with storage_errors(path, "reading"):
                _check(path)
            if is_video(path):
                yield from _frames(path, limits)
            else:
                yield Item(path, _bytes(path, limits))
        except RetinueError as error:
            yield Item(path, error)


def _check(path: Path) -> None:
    if path.is_dir():
        raise InputNotFound(f"no photo or video in folder {path}; name another one")
    if path.exists() and not path.is_file():
        raise UnsupportedMedia(f"{path} is a device or a pipe; save its content to a file first")


def _bytes(path: Path, limits: Limits) -> bytes:
    with storage_errors(path, "reading"):
        size = path.stat().st_size
        if size > limits.max_bytes:
            message = f"{path} has {size:,} bytes; the limit is {limits.max_bytes:,}"
            raise TooManyBytes(f"{message} (setting limits.max_bytes)")
        return path.read_bytes()


def _frames(path: Path, limits: Limits) -> Iterator[Item]:
    from retinue.media.video import frames, probe_video

    fps = probe_video(path, limits).fps
    for index, _, image in frames(path, limits):
        yield Item(path, image, index, fps)
