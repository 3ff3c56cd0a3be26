"""Data sets to calibrate and to measure with: pictures, and labels where there are some.

A data set is a folder, a tar (plain or compressed) or a zip, in any of these layouts, which are
told from one another by themselves:

- pictures anywhere, without labels;
- YOLO: ``images/a.jpg`` and ``labels/a.txt``, or both in one folder;
- COCO: pictures and a JSON of instances;
- classes: a folder a class, called by its name, index or WordNet id (with a ``classes.json``), or
  files whose names begin with ``WNID_``.

Where there is a folder ``images``, pictures elsewhere (masks, for example) do not count. The word
``records`` stands for the inputs that the server has kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from retinue.calibrate._boxes import Boxes
from retinue.calibrate._containers import File, Read, files, printable
from retinue.calibrate._labels import Kind, find_labels
from retinue.core.errors import InputNotFound
from retinue.core.settings import Settings
from retinue.models.card import Card
from retinue.store.blobs import open_blobs
from retinue.store.interface import MAX_PAGE, Filter
from retinue.store.records import open_records

__all__ = ["Boxes", "Sample", "Samples", "open_samples"]

RECORDS = "records"
PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"))
TEXTS = {".txt": 4 * 2**20, ".json": 512 * 2**20}
"""Files that may hold labels, and the most bytes that they may have."""
MAX_RECORDS = 20_000
"""Kept inputs that are taken; the newest ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture of a data set.

    Attributes:
        name: Its path inside the data set, or its key among the kept inputs.
        read: Returns the encoded file. Raises a `RetinueError` when that cannot be had.
        boxes: What a person marked in it; None where it is not labelled so.
        class_id: Its class, an index into the card's classes; None where it is not labelled so.
    """

    name: str
    read: Read
    boxes: Boxes | None = None
    class_id: int | None = None


@dataclass(frozen=True, slots=True)
class Samples:
    """A data set.

    Attributes:
        items: Its pictures, by name.
        labelled: What they are labelled with; "" for nothing.
        source: What it is and how its labels were told, for messages and reports.
    """

    items: tuple[Sample, ...]
    labelled: Kind
    source: str

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.items)

    def some(self, number: int, seed: int = 0) -> Samples:
        """Return at most so many pictures, drawn at random, in order; the same ones each time."""
        if len(self.items) <= number:
            return self
        chosen = np.random.default_rng(seed).choice(len(self.items), number, replace=False)
        items = tuple(self.items[i] for i in sorted(chosen))
        return replace(self, items=items, source=f"{number:,} of {self.source}")


def open_samples(data: str | Path, card: Card, *, settings: Settings) -> Samples:
    """Open a data set; its pictures are read later, one by one.

    Args:
        data: A folder, a tar or a zip; or the word "records" for the kept inputs of the card's
            model (``./records`` is a folder of that name).
        card: The model's card, whose classes the labels are matched to.
        settings: Limits of a file, and where the records are.

    Raises:
        InputNotFound: there is no such data set, or no picture in it.
        InputError: it cannot be read, or its labels are wrong; the file and line are named.
        StorageError: the disk, or the store of records, fails.
    """
    if data == RECORDS:
        return _from_records(card, settings)

    def wanted(name: str) -> int:
        return settings.limits.max_bytes if _is_picture(name) else TEXTS.get(_suffix(name), 0)

    shown = printable(str(data))
    found = files(Path(data), wanted)
    texts = {f.name: f.read for f in (*_beside(Path(data)), *found) if not _is_picture(f.name)}
    pictures = [f for f in found if _is_picture(f.name)]
    inside = [f for f in pictures if "images" in PurePosixPath(f.name).parts[:-1]]
    pictures = inside or pictures
    if not pictures:
        raise InputNotFound(
            f"no picture in {shown}; JPEG, PNG, WebP, BMP and GIF are read, and no archive "
            "inside of it"
        )
    labels = find_labels([f.name for f in pictures], texts, card)
    items = tuple(
        Sample(f.name, f.read, labels.boxes.get(f.name), labels.classes.get(f.name))
        for f in pictures
        if labels.kind != "boxes" or f.name in labels.boxes
    )
    source = f"{counted(len(items), 'picture')} of {shown} ({labels.how})"
    return Samples(items, labels.kind, source)


def counted(number: int, what: str) -> str:
    """Return "1 picture", "2,000 pictures"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _beside(data: Path) -> list[File]:
    """Return YOLO's labels of a folder ``images``, or of one inside: they lie beside it."""
    parts = list(data.absolute().parts)
    if not data.is_dir() or "images" not in parts:
        return []
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    labels = Path(*parts)

    def wanted(name: str) -> int:
        return TEXTS[".txt"] if _suffix(name) == ".txt" else 0

    return files(labels, wanted) if labels.is_dir() else []


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _is_picture(name: str) -> bool:
    return _suffix(name) in PICTURES


def _from_records(card: Card, settings: Settings) -> Samples:
    """Return the kept inputs of the model's successful requests, each once."""
    keys: set[str] = set()
    store = open_records(settings.records_url)
    try:
        where, cursor = Filter(model=card.name, failed=False), ""
        while len(keys) < MAX_RECORDS:
            page = store.query(where, limit=MAX_PAGE, cursor=cursor)
            keys.update(stored.blob for stored in page.records if stored.blob)
            if not (cursor := page.cursor):
                break
    finally:
        store.close()
    if not keys:
        raise InputNotFound(
            f"no input of model {card.name} was kept beside its records; set blobs.sample above 0 "
            "and serve for a while, or give a folder of pictures"
        )
    blobs = open_blobs(settings.blobs_url)
    items = tuple(Sample(key, partial(blobs.get, key)) for key in sorted(keys))
    return Samples(items, "", f"{counted(len(items), 'kept input')} of {card.name} (no labels)")
