"""Labels of a data set's pictures: found by its layout, whichever of the known ones it has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from retinue.calibrate._boxes import Boxes, coco, plain, read_json, yolo
from retinue.calibrate._containers import Read
from retinue.core.errors import InputError
from retinue.models.card import Card

Kind = Literal["boxes", "classes", ""]

CLASS_FILES = ("classes.json", "imagenet_class_index.json")
_WNID = re.compile(r"(n\d{8})(?:[_.-]|$)")


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of the pictures, by their names.

    Attributes:
        kind: What there is; "" for none.
        how: For messages.
        boxes: Pictures' boxes, of kind "boxes".
        classes: Pictures' classes, of kind "classes".
    """

    kind: Kind = ""
    how: str = "no labels"
    boxes: Mapping[str, Boxes] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)


def find_labels(pictures: Sequence[str], texts: Mapping[str, Read], card: Card) -> Labels:
    """Find the labels that a model of this card can be measured by.

    A detector's are boxes (COCO's JSON, else YOLO's text files), a classifier's are classes
    (folders or file names).

    Args:
        pictures: Names of the data set's pictures.
        texts: Its text and JSON files.
        card: The model's.

    Raises:
        InputError: there are labels, and they are wrong.
    """
    if card.task == "detect":
        marked = coco(pictures, texts, card.classes) or yolo(pictures, texts, len(card.classes))
        return Labels("boxes", marked.how, boxes=marked.boxes) if marked else Labels()
    if card.task == "classify":
        return _class_labels(pictures, texts, card.classes)
    return Labels()


def _class_labels(
    pictures: Sequence[str], texts: Mapping[str, Read], classes: Sequence[str]
) -> Labels:
    """Read classes from folders, else from file names that begin with a WordNet id."""
    known, told = _vocabulary(texts, classes)
    for names, how in (
        ({p: PurePosixPath(p).parent.name for p in pictures}, "class folders"),
        ({p: _wnid(PurePosixPath(p).name) for p in pictures}, "WordNet ids in file names"),
    ):
        used = {name for name in names.values() if name}
        numbered = bool(used) and all(_is_index(name, len(classes)) for name in used)
        ids = {n: int(n) if numbered else known.get(plain(n)) for n in used}
        found = {p: i for p, n in names.items() if (i := ids.get(n)) is not None}
        if 2 * len(found) < max(len(pictures), 1):
            continue
        if len(found) < len(pictures):
            odd = next(p for p in pictures if p not in found)
            raise InputError(
                f"{len(found)} of {len(pictures)} pictures have a class by {how}, but {odd} has "
                f"none: {names[odd]!r} is no class of the model; rename it or take it away"
            )
        return Labels("classes", how, classes=found)
    if not told and any(_wnid(part) for p in pictures for part in PurePosixPath(p).parts):
        return Labels(how="no labels, as no classes.json tells what the WordNet ids mean")
    if len({PurePosixPath(p).parent for p in pictures}) > 1:
        return Labels(how="no labels, as the folders are not called as the model's classes")
    return Labels()


def _wnid(name: str) -> str:
    found = _WNID.match(name)
    return found[1] if found else ""


def _is_index(name: str, classes: int) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 9 and int(name) < classes


def _vocabulary(texts: Mapping[str, Read], classes: Sequence[str]) -> tuple[dict[str, int], bool]:
    """Return the classes by what they may be called, and whether a file of classes said more."""
    known: dict[str, int] = {}
    twice: set[str] = set()

    def learn(name: str, index: int) -> None:
        # ImageNet has two cranes: such a name tells nothing.
        if known.setdefault(plain(name), index) != index:
            twice.add(plain(name))

    for index, name in enumerate(classes):
        learn(name, index)
    files = [n for n in sorted(texts) if PurePosixPath(n).name in CLASS_FILES]
    for file in files[:1]:
        for index, names in _class_file(file, read_json(file, texts[file])):
            if not 0 <= index < len(classes):
                message = f"{file}: class {index} does not exist: the model has 0 to"
                raise InputError(f"{message} {len(classes) - 1}")
            for name in names:
                learn(name, index)
    return {name: index for name, index in known.items() if name not in twice}, bool(files)


def _class_file(file: str, content: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield (index, names) of a file of classes, in the forms that are about.

    ``[{"index": 0, "wnid": "n01440764", "name": "tench"}]``, ``{"0": ["n01440764", "tench"]}``,
    ``{"0": "tench"}``, ``{"tench": 0}`` or ``["tench", ...]``.
    """
    if not isinstance(content, list | dict):
        raise InputError(f"{file} must be a JSON list or object of the classes")
    pairs = enumerate(content) if isinstance(content, list) else content.items()
    for key, value in pairs:
        try:
            if isinstance(value, Mapping):
                names = [value[k] for k in ("wnid", "name") if k in value]
                yield int(value.get("index", key)), [str(name) for name in names]
            elif isinstance(value, int):
                yield value, [str(key)]
            elif isinstance(value, list):
                yield int(key), [str(name) for name in value]
            else:
                yield int(key), [str(value)]
        except (TypeError, ValueError):
            raise InputError(f"{file}: entry {key!r} has no index of a class") from None
