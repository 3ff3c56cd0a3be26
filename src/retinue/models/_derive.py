"""Deriving a card from an ONNX file, where the file leaves no doubt, and a template where it does.

The exporters that are recognised: Ultralytics (https://docs.ultralytics.com/modes/export/), which
writes ``names``, ``stride``, ``imgsz`` and ``task`` into the file, and YOLOX's
``tools/export_onnx.py`` (https://github.com/Megvii-BaseDetection/YOLOX), known by its tensor names
and grid.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retinue.core import plugins
from retinue.core.errors import ConfigError, ModelRunFailed
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.models._onnxfile import Facts
from retinue.models.card import MAX_SIDE, Card, Family, Input, Output, Source

GRIDS = ((8, 16, 32), (8, 16, 32, 64))
POSE_CHANNELS = 56
UNKNOWN_LICENSE = "LicenseRef-Unknown"
FILL_IN = "FILL IN"


class _Doubt(Exception):
    """Why a card cannot be derived; becomes a `ConfigError` with a template."""


@dataclass(frozen=True, slots=True)
class _Reading:
    input: Input
    output: Output
    classes: tuple[str, ...]


def derive_card(facts: Facts, *, name: str, task: str, source: Source) -> Card:
    """Make the card of a user's ONNX file.

    Args:
        facts: What the file says of itself.
        name: The model's name.
        task: "detect", "classify" or "embed".
        source: The file itself.

    Raises:
        ConfigError: the file leaves doubt; the message says which, and shows a template.
    """
    try:
        reading = _read(facts, task)
        family = _family_of(reading.output.layout)
    except _Doubt as doubt:
        raise ConfigError(
            f"cannot tell from the file alone how {name!r} is to be fed and read: {doubt}.\n"
            f"Save the following as card.toml, fill in what is marked {FILL_IN}, and import again "
            "with --card card.toml:\n\n"
            + card_template(facts, name=name, task=task, source=source, doubt=str(doubt))
        ) from None
    return Card(
        name=name,
        task=task,
        family=family,
        summary=facts.metadata.get("description", ""),
        license=_license(facts),
        source=source,
        input=reading.input,
        output=reading.output,
        classes=reading.classes,
    )


def card_template(facts: Facts, *, name: str, task: str, source: Source, doubt: str = "") -> str:
    """Return a card in TOML with what is known filled in and the rest marked "FILL IN".

    What is marked is not valid as it stands, so that nothing is guessed by oversight.
    """
    height, width, layout = _input_size(facts)
    known = {key: family.layouts for key, family in _families().items() if family.layouts}
    layouts = "; ".join(f"{key}: {', '.join(names)}" for key, names in known.items())
    classes = _names(facts) or ()
    lines = [
        *(f"# {spec}" for spec in _describe(facts)),
        *([f"# In doubt: {doubt}"] if doubt else []),
        f"name = {_quote(name)}",
        f"task = {_quote(task)}",
        f'family = ""  # {FILL_IN}: {", ".join(known) or "the family plug-in"}',
        f"license = {_quote(_license(facts))}  # SPDX expression",
        f"classes = [{', '.join(map(_quote, classes))}]  # names, in the order of class ids",
        "",
        "[input]",
        f"height = {height}" + ("" if height else f"  # {FILL_IN}"),
        f"width = {width}" + ("" if width else f"  # {FILL_IN}"),
        f'layout = "{layout}"',
        'resize = "letterbox"  # or "center_crop", "stretch"',
        'anchor = "center"  # where a letterbox puts the picture; or "top_left"',
        "pad = 114  # grey level of a letterbox's border",
        'color = "rgb"  # or "bgr"',
        "mean = [0.0, 0.0, 0.0]  # the tensor is (pixel - mean) / std, pixels from 0 to 255",
        "std = [255.0, 255.0, 255.0]",
        "",
        "[output]",
        f'layout = ""  # {FILL_IN}: {layouts or "a layout that the family knows"}',
        'scores = "probabilities"  # or "logits"',
        "",
        "[source]",
        f"url = {_quote(source.url)}",
        "",
        "[source.files]",
        *(f"{_quote(file)} = {_quote(digest)}" for file, digest in source.files.items()),
    ]
    return "\n".join(lines) + "\n"


def check_card(card: Card, facts: Facts) -> None:
    """Check that a card can belong to an ONNX file.

    Raises:
        ConfigError: unknown family or layout, or an input size or class count that differs.
        UnsupportedModel: the file does not take one float32 picture.
    """
    families = _families()
    family = families.get(card.family)
    if family is None:
        known = ", ".join(families) or "none"
        raise ConfigError(
            f"card of {card.name}: no family is called {card.family!r}; known: {known}"
        )
    if family.layouts and card.output.layout not in family.layouts:
        raise ConfigError(
            f"card of {card.name}: family {card.family} has no output layout "
            f"{card.output.layout!r}; known: {', '.join(family.layouts)}"
        )
    # An output without a shape in the file is one that only an engine can tell.
    if all(spec.shape for spec in (*facts.inputs, *facts.outputs)):
        family.build(card, "", _Declared(facts.inputs, facts.outputs))


@dataclass(frozen=True, slots=True)
class _Declared:
    """The tensors of a file as a `Runtime` that cannot run, for a family to look at."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, tensors: Tensors) -> dict[str, Array]:
        raise ModelRunFailed("a model that is being imported cannot be run yet")

    def close(self) -> None:
        """Do nothing: nothing is held."""


def _families() -> dict[str, Family]:
    return {key: plugins.load(plugins.MODELS, key) for key in plugins.names(plugins.MODELS)}


def _family_of(layout: str) -> str:
    for key, family in _families().items():
        if layout in family.layouts:
            return key
    raise _Doubt(f"no family reads the output layout {layout!r}")


def _read(facts: Facts, task: str) -> _Reading:
    if len(facts.inputs) != 1:
        raise _Doubt(f"it has {len(facts.inputs)} inputs")
    spec = facts.inputs[0]
    if spec.dtype != "float32" or len(spec.shape) != 4 or spec.shape[0] not in (1, -1):
        raise _Doubt(f"its input is not a float32 batch of pictures: {spec.dtype} {spec.shape}")
    if len(facts.outputs) != 1:
        raise _Doubt(f"it has {len(facts.outputs)} outputs")
    if task == "detect":
        return _read_detector(facts)
    if task == "classify":
        return _read_classifier(facts)
    raise _Doubt(f"for the task {task!r} the preprocessing cannot be seen in a file")


def _read_detector(facts: Facts) -> _Reading:
    shape = facts.outputs[0].shape
    if len(shape) != 3 or shape[0] not in (1, -1):
        raise _Doubt(f"its output has the shape {shape}, not (1, 4 + C, N) or (1, N, 5 + C)")
    height, width, layout = _known_size(facts)
    cells = {_cells(height, width, strides): strides for strides in GRIDS}
    names = _names(facts)
    _, rows, columns = shape
    if names and "stride" in facts.metadata:
        return _read_named_detector(facts, shape, tuple(cells))
    if columns in cells and 4 < rows < columns:
        if rows == POSE_CHANNELS:
            raise _Doubt("56 rows are either 52 classes, or 1 class and 17 key points")
        return _yolov8(height, width, layout, names or _numbered(rows - 4))
    if rows in cells and 5 < columns < rows:
        named = (facts.inputs[0].name, facts.outputs[0].name)
        if named != ("images", "output"):
            raise _Doubt("its output may be YOLOX's, YOLOv6's or another's of the same shape")
        output = Output(layout="yolox", strides=cells[rows])
        picture = Input(
            height=height, width=width, anchor="top_left", color="bgr", std=(1.0, 1.0, 1.0)
        )
        return _Reading(picture, output, names or _numbered(columns - 5))
    raise _Doubt(f"its output {shape} fits no grid of {height}x{width} with strides 8, 16, 32")


def _read_named_detector(facts: Facts, shape: tuple[int, ...], cells: tuple[int, ...]) -> _Reading:
    """Read an Ultralytics export, which tells its class names and so its layout."""
    _check_task(facts, "detect")
    height, width, layout = _known_size(facts)
    names = _names(facts)
    _, rows, columns = shape
    if rows == 4 + len(names) and columns in (-1, *cells):
        return _yolov8(height, width, layout, names)
    picture = Input.model_validate({"height": height, "width": width, "layout": layout})
    if columns == 6 and _is_filtered(facts):
        return _Reading(picture, Output(layout="yolov10", max_detections=300), names)
    # Three anchors a cell.
    if columns == 5 + len(names) and rows in (-1, *(3 * n for n in cells)):
        return _Reading(picture, Output(layout="yolov5", nms_iou=0.45), names)
    raise _Doubt(f"its output {shape} fits no known layout for its {len(names)} classes")


def _yolov8(height: int, width: int, layout: str, names: tuple[str, ...]) -> _Reading:
    picture = Input.model_validate({"height": height, "width": width, "layout": layout})
    return _Reading(picture, Output(layout="yolov8", nms_iou=0.7, max_detections=300), names)


def _read_classifier(facts: Facts) -> _Reading:
    shape = facts.outputs[0].shape
    if len(shape) != 2 or shape[0] not in (1, -1) or shape[1] < 2:
        raise _Doubt(f"its output has the shape {shape}, not (1, C)")
    names = _names(facts)
    if not names or "stride" not in facts.metadata:
        raise _Doubt("mean, std, crop and whether scores are logits cannot be seen in the file")
    _check_task(facts, "classify")
    if len(names) != shape[1]:
        raise _Doubt(f"its output {shape} does not fit its {len(names)} class names")
    height, width, layout = _known_size(facts)
    picture = Input.model_validate(
        {"height": height, "width": width, "layout": layout, "resize": "center_crop"}
    )
    return _Reading(picture, Output(layout="classifier"), names)


def _check_task(facts: Facts, task: str) -> None:
    # Exports of the time before there were other tasks do not tell it.
    found = facts.metadata.get("task", "detect")
    if found != task:
        raise _Doubt(f"the file says that its task is {found!r}, not {task!r}")


def _is_filtered(facts: Facts) -> bool:
    arguments = _literal(facts.metadata, "args")
    nms = isinstance(arguments, Mapping) and bool(arguments.get("nms"))
    return nms or facts.metadata.get("end2end", "").lower() == "true"


def _known_size(facts: Facts) -> tuple[int, int, str]:
    height, width, layout = _input_size(facts)
    if not height or not width:
        raise _Doubt("its input's height and width are left open")
    if max(height, width) > MAX_SIDE:
        raise _Doubt(f"its input is {height}x{width}, and a side may have {MAX_SIDE} pixels")
    return height, width, layout


def _input_size(facts: Facts) -> tuple[int, int, str]:
    """Return height, width (0 where open) and layout of the first input."""
    shape = facts.inputs[0].shape
    if len(shape) != 4:
        return 0, 0, "nchw"
    layout = "nhwc" if shape[3] == 3 and shape[1] != 3 else "nchw"
    found = shape[1:3] if layout == "nhwc" else shape[2:4]
    told = _literal(facts.metadata, "imgsz")
    if not isinstance(told, list) or len(told) != 2 or not all(isinstance(n, int) for n in told):
        told = [0, 0]
    height, width = (f if f > 0 else t for f, t in zip(found, told, strict=True))
    return height, width, layout


def _names(facts: Facts) -> tuple[str, ...]:
    names = _literal(facts.metadata, "names")
    if isinstance(names, Mapping) and sorted(names) == list(range(len(names))):
        return tuple(str(names[i]) for i in range(len(names)))
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _literal(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return ast.literal_eval(metadata.get(key, "None"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(count))


def _cells(height: int, width: int, strides: tuple[int, ...]) -> int:
    return sum((height // s) * (width // s) for s in strides)


def _license(facts: Facts) -> str:
    told = facts.metadata.get("license", "")
    return "AGPL-3.0-only" if told.startswith("AGPL-3.0") else UNKNOWN_LICENSE


def _describe(facts: Facts) -> list[str]:
    return [
        f"{kind} {_quote(spec.name)}: {spec.dtype} {list(spec.shape)}"
        for kind, specs in (("input", facts.inputs), ("output", facts.outputs))
        for spec in specs
    ]


def _quote(text: str) -> str:
    # JSON's strings are TOML's, but for the one character that only JSON leaves bare.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
