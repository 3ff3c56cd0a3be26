"""What the command prints and draws."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias

import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from retinue.apps.detect.inputs import Item
from retinue.core.errors import NotWritable, storage_errors
from retinue.core.record import Record
from retinue.core.settings import Limits
from retinue.core.types import Detections, Image
from retinue.models.card import Card

Draw: TypeAlias = Callable[[Item, Record, Card], None]


class Printer:
    """Prints answers on standard output, and progress on standard error if that is a terminal."""

    def __init__(self, as_json: bool, files: int) -> None:
        self._json = as_json
        self._out = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("detecting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=files)
        self._seen: set[Path] = set()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.stop()

    def show(self, item: Item, answer: dict[str, Any]) -> None:
        """Print one answer."""
        self._seen.add(item.path)
        self._progress.update(self._task, completed=len(self._seen))
        if item.frame is not None:
            answer = {"path": answer.pop("path"), "frame": item.frame, **answer}
        if self._json:
            sys.stdout.write(orjson.dumps(answer).decode() + "\n")
            sys.stdout.flush()
        else:
            self._out.print(_line(answer))


def _shown(text: str) -> str:
    """Return text from outside for a terminal: control characters are escaped, so is markup."""
    safe = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return escape("".join(safe))


def _line(answer: dict[str, Any]) -> str:
    frame = f" frame {answer['frame']}" if "frame" in answer else ""
    where = f"[bold]{_shown(answer['path'])}[/bold]{frame}"
    if "error" in answer:
        error = answer["error"]
        return f"{where}  [red]{error['code']}[/red]: {_shown(error['message'])}"
    counts = Counter(d["class"] for d in answer["detections"])
    best = {d["class"]: d["score"] for d in reversed(answer["detections"])}
    found = ", ".join(
        f"{_shown(name)}{f' x{n}' if n > 1 else ''} [dim]{best[name]:.2f}[/dim]"
        for name, n in counts.most_common()
    )
    total = answer["timings_ms"].get("total", 0.0)
    return f"{where}  {found or '[dim]nothing found[/dim]'}  [dim]{total:.0f} ms[/dim]"


@contextmanager
def drawer(folder: Path | None, files: list[Path], limits: Limits) -> Iterator[Draw]:
    """Give the function that draws an answer's picture, in order, into a folder.

    A photo ``a.png`` becomes ``a.png.jpg`` (``a.jpg`` keeps its name), a video ``b.mov`` becomes
    ``b.mov.mp4`` (``b.mp4`` keeps its name) with the boxes of every frame. Sub-folders are kept.

    Raises:
        NotWritable: the folder cannot be made, or a picture would replace an original.
        DiskFull: no space is left.
    """
    if folder is None:
        yield lambda item, record, card: None
        return
    with storage_errors(folder, "making the output folder"):
        folder.mkdir(parents=True, exist_ok=True)
    drawing = _Drawing(_plain(folder), files, limits)
    try:
        yield drawing.draw
    finally:
        drawing.close()


def _plain(path: Path) -> Path:
    """Return an absolute path without "..", which would lead out of the output folder.

    Unlike `Path.resolve` it follows no link: a linked photo keeps the name that it was given by.
    """
    return Path(os.path.abspath(path))  # noqa: PTH100


class _Drawing:
    def __init__(self, folder: Path, files: list[Path], limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._root = os.path.commonpath([_plain(f).parent for f in files])
        self._originals = {os.path.realpath(f) for f in files}
        self._video: Any = None
        self._video_path: Path | None = None

    def draw(self, item: Item, record: Record, card: Card) -> None:
        from retinue.media.decode import decode
        from retinue.media.draw import draw_detections

        value, content = record.outcome.value, item.content
        assert isinstance(value, Detections)
        assert isinstance(content, (bytes, Image))
        image = decode(content, limits=self._limits) if isinstance(content, bytes) else content
        pixels = draw_detections(image, value, card.classes)
        target = self._target(item)
        if item.frame is None:
            self._write_photo(target, pixels)
        else:
            self._write_frame(target, pixels, item.fps)

    def _target(self, item: Item) -> Path:
        inside = _plain(item.path).relative_to(self._root)
        keeps, suffix = ((".jpg", ".jpeg"), ".jpg") if item.frame is None else ((".mp4",), ".mp4")
        name = inside.name if inside.suffix.lower() in keeps else f"{inside.name}{suffix}"
        target = self._folder / inside.parent / name
        if os.path.realpath(target) in self._originals:
            message = f"{target} is an original; give another folder with --out"
            raise NotWritable(message)
        with storage_errors(target.parent, "making the output folder"):
            target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _write_photo(self, target: Path, pixels: Any) -> None:
        from retinue.media.encode import encode_jpeg

        with storage_errors(target, "writing the picture"):
            target.write_bytes(encode_jpeg(pixels))

    def _write_frame(self, target: Path, pixels: Any, fps: float) -> None:
        from retinue.media.video import VideoWriter

        if self._video_path != target:
            self.close()
            self._video = VideoWriter(target, pixels.shape[1], pixels.shape[0], fps)
            self._video_path = target
        self._video.write(pixels)

    def close(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None
