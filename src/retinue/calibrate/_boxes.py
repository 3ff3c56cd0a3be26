"""Labelled boxes of pictures: YOLO's text files and COCO's JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from retinue.calibrate._containers import Read
from retinue.core.errors import InputError
from retinue.measure.detection import Truth

_SLACK = 0.05
"""How far a relative box may reach beyond the picture before it is taken for a mistake."""
_FEW = 20


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """What a person marked in one picture.

    Attributes:
        xyxy: (N, 4) float64, x1 y1 x2 y2.
        class_ids: (N,) int64, indices into the card's classes.
        relative: Whether ``xyxy`` are shares of the upright picture's size, or else pixels of it.
        crowd: (N,) bool: boxes around many objects.
    """

    xyxy: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    relative: bool
    crowd: NDArray[np.bool_]

    def truth(self, width: int, height: int) -> Truth:
        """Return the boxes in pixels of the upright original, clipped to it.

        Args:
            width: Of the upright original, in pixels.
            height: Of the upright original, in pixels.

        Raises:
            InputError: a box lies outside the picture: the labels are of another one.
        """
        size = np.array([width, height] * 2, np.float64)
        boxes = self.xyxy * size if self.relative else self.xyxy
        clipped = boxes.clip(0, size)
        if np.any(clipped[:, 2:] <= clipped[:, :2]):
            raise InputError(
                f"a labelled box lies outside the picture of {width} x {height} pixels; "
                "the labels seem to be of another picture"
            )
        return Truth(clipped, self.class_ids, width, height, self.crowd)


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """Boxes by the picture's name, and how they were told.

    Attributes:
        boxes: For every picture that is labelled; one without objects has no rows.
        how: For messages, for example "YOLO boxes".
    """

    boxes: Mapping[str, Boxes]
    how: str


def plain(name: str) -> str:
    """Return a class name as it is compared: without case, "_" and "-" as spaces."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def read_text(name: str, read: Read) -> str:
    """Return a text file's content.

    Raises:
        InputError: it is not UTF-8, or cannot be read.
    """
    try:
        return read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not text in UTF-8: {error.reason}") from error


def read_json(name: str, read: Read) -> Any:
    """Return a JSON file's content.

    Raises:
        InputError: it is not JSON, or cannot be read.
    """
    try:
        return orjson.loads(read())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{name} is not JSON: {error}; correct it or take it away") from error


def yolo(pictures: Sequence[str], texts: Mapping[str, Read], classes: int) -> Marked | None:
    """Read YOLO's labels: ``class cx cy width height`` a line, in shares of the picture's size.

    Of ``images/a.jpg`` they are in ``labels/a.txt``, beside the folder ``images``, or in ``a.txt``
    beside the picture. A line may also be a polygon, ``class x y x y x y ...``, which becomes the
    box around it. Pictures without a file are pictures without objects.

    Returns:
        None when no picture has such a file.

    Raises:
        InputError: a line is wrong; it is named.
    """
    places = {name: _text_of(name, texts) for name in pictures}
    if not any(places.values()):
        return None
    boxes = {
        name: _yolo_file(place, texts[place], classes) if place else _boxes([], relative=True)
        for name, place in places.items()
    }
    return Marked(boxes, "YOLO boxes")


def _text_of(picture: str, texts: Mapping[str, Read]) -> str:
    path = PurePosixPath(picture).with_suffix(".txt")
    parts = list(path.parts)
    places = [str(path), f"labels/{path.name}"]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
        places.insert(0, "/".join(parts))
    return next((place for place in places if place in texts), "")


def _yolo_file(name: str, read: Read, classes: int) -> Boxes:
    rows = []
    for number, line in enumerate(read_text(name, read).splitlines(), start=1):
        if line.strip():
            try:
                rows.append(_yolo_line(line, classes))
            except ValueError as error:
                raise InputError(f"{name}, line {number}: {error}") from error
    return _boxes([row for row in rows if row is not None], relative=True)


Row = tuple[Sequence[float], int, bool]


def _yolo_line(line: str, classes: int) -> Row | None:
    words = line.split()
    try:
        class_id, *values = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"{line[:80]!r} is not numbers; need: class cx cy width height") from None
    _check_class(class_id, classes)
    if len(values) in (4, 5):
        x, y, w, h = values[:4]
        if w < 0 or h < 0:
            raise ValueError(f"width {w} and height {h} must not be negative")
        box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    elif len(values) >= 6 and len(values) % 2 == 0:
        xs, ys = values[::2], values[1::2]
        box = [min(xs), min(ys), max(xs), max(ys)]
    else:
        raise ValueError(f"{len(words)} numbers; need 5: class cx cy width height")
    if not all(-_SLACK <= v <= 1 + _SLACK for v in box):
        raise ValueError(
            f"the box {' '.join(words[1:5])} reaches outside the picture; "
            "numbers must be shares of its size, in [0, 1]"
        )
    box = [min(max(v, 0.0), 1.0) for v in box]
    return (box, int(class_id), False) if _solid(box) else None


def _check_class(class_id: float, classes: int) -> None:
    if not class_id.is_integer():
        raise ValueError(f"class {class_id} is no whole number")
    if not 0 <= class_id < classes:
        raise ValueError(f"class {class_id:.0f} does not exist: the model has 0 to {classes - 1}")


def _solid(box: Sequence[float]) -> bool:
    """Whether a box has an area; people's tools leave some that have none."""
    return box[2] > box[0] and box[3] > box[1]


def _boxes(rows: Sequence[Row], *, relative: bool) -> Boxes:
    return Boxes(
        np.array([row[0] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[1] for row in rows], np.int64),
        relative,
        np.array([row[2] for row in rows], bool),
    )


def coco(
    pictures: Sequence[str], texts: Mapping[str, Read], classes: Sequence[str]
) -> Marked | None:
    """Read COCO's JSON of object instances.

    Categories are matched to the model's classes by name; when no name fits, their ids are taken
    for the classes' own. Boxes of categories that the model does not know are left out, and so are
    pictures that the JSON does not list.

    Returns:
        None when there is no such JSON.

    Raises:
        InputError: a JSON is damaged, what it says is wrong, or it is of other pictures alone; it
            is named.
    """
    marked: dict[str, Boxes] = {}
    strange: list[str] = []
    owner: dict[str, str] = {}
    notes: list[str] = []
    for name in _json_files(texts):
        content = read_json(name, texts[name])
        if not _is_coco(content):
            continue
        of_file = _coco_file(name, content, pictures, classes, notes)
        if not of_file and content["images"]:
            strange.append(name)
        for picture, boxes in of_file.items():
            if picture in marked:
                raise InputError(f"{owner[picture]} and {name} both label {picture}; keep one")
            marked[picture], owner[picture] = boxes, name
    if not marked and strange:
        raise InputError(
            f"{strange[0]} lists none of the pictures by its name; give the folder or archive that "
            "holds both, or take it away"
        )
    if not marked:
        return None
    return Marked(marked, "; ".join(["COCO boxes", *notes]))


def _json_files(texts: Mapping[str, Read]) -> list[str]:
    """Return the JSON files that may be COCO's; of a person's key points, the instances only."""
    found = [name for name in texts if name.lower().endswith(".json")]
    if len(found) > _FEW:
        found = [n for n in found if "annotations" in PurePosixPath(n).parts or "coco" in n]
    instances = [name for name in found if "instances" in PurePosixPath(name).name]
    return sorted(instances or found)


def _is_coco(content: Any) -> bool:
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        return False
    annotations = content["annotations"]
    return isinstance(annotations, list) and (
        not annotations or (isinstance(annotations[0], dict) and "bbox" in annotations[0])
    )


def _coco_file(
    name: str, content: Any, pictures: Sequence[str], classes: Sequence[str], notes: list[str]
) -> dict[str, Boxes]:
    try:
        places = _coco_pictures(name, content["images"], pictures)
        ids = _coco_classes(content, classes, notes)
        rows: dict[str, list[Row]] = {picture: [] for picture in places.values()}
        for number, item in enumerate(content["annotations"]):
            picture = places.get(item["image_id"])
            class_id = ids.get(item["category_id"])
            if picture is None or class_id is None:
                continue
            box = _coco_box(number, item["bbox"])
            if _solid(box):
                rows[picture].append((box, class_id, bool(item.get("iscrowd", 0))))
    except KeyError as error:
        raise InputError(f"{name}: an entry lacks {error}; it must be COCO's instances") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{name}: {error}; it must be COCO's instances") from error
    return {picture: _boxes(found, relative=False) for picture, found in rows.items()}


def _coco_pictures(name: str, images: Any, pictures: Sequence[str]) -> dict[Any, str]:
    """Return the pictures by COCO's image id."""
    by_base: dict[str, list[str]] = {}
    for picture in pictures:
        by_base.setdefault(PurePosixPath(picture).name, []).append(picture)
    beside = PurePosixPath(name).parent
    places = {}
    for image in images:
        file = str(image["file_name"]).replace("\\", "/")
        base = by_base.get(PurePosixPath(file).name, [])
        exact = [p for p in base if p in (file, str(beside / file))]
        found = exact or [p for p in base if p.endswith(f"/{file}")] or base
        if len(found) > 1:
            raise ValueError(f"{file!r} may be {found[0]} or {found[1]}")
        if found:
            places[image["id"]] = found[0]
    return places


def _coco_classes(content: Any, classes: Sequence[str], notes: list[str]) -> dict[Any, int]:
    """Return the model's classes by category id."""
    categories = content.get("categories") or []
    known = {plain(name): index for index, name in enumerate(classes)}
    named = {c["id"]: known.get(plain(str(c["name"]))) for c in categories}
    ids = {key: index for key, index in named.items() if index is not None}
    if ids:
        missing = [str(c["name"]) for c in categories if named[c["id"]] is None]
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            notes.append(f"without the {len(missing)} categories that the card lacks: {shown}")
        return ids
    used: Iterable[Any] = {item["category_id"] for item in content["annotations"]}
    for category in used:
        _check_class(float(category), len(classes))
    return {category: int(category) for category in used}


def _coco_box(number: int, box: Any) -> list[float]:
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"annotation {number} has bbox {str(box)[:80]}, not [x, y, width, height]")
    x, y, w, h = (float(v) for v in box)
    if not (isfinite(x + y + w + h) and w >= 0 and h >= 0):
        raise ValueError(f"annotation {number} has bbox {box}")
    return [x, y, x + w, y + h]
