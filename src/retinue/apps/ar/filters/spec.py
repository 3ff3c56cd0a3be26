"""What ``filter.toml`` may say; ``docs/ar-filters.md`` describes it for authors and browsers."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

FORMAT: Final = 1
MAX_PARTS: Final = 64
MAX_POINTS: Final = 32
LANDMARKS: Final = 478
"""Landmarks that may be named; the last ten are the irises."""

DEGREES: Final = ("turn_left", "turn_right", "look_up", "look_down", "tilt_left", "tilt_right")
"""Triggers that are measured in degrees."""
EVENTS: Final = ("nod", "shake")
"""Triggers that happen, rather than last; measured in degrees of a swing."""

Trigger = Literal[
    "mouth_open",
    "smile",
    "blink",
    "blink_left",
    "blink_right",
    "brow_raise",
    "turn_left",
    "turn_right",
    "look_up",
    "look_down",
    "tilt_left",
    "tilt_right",
    "nod",
    "shake",
]
Coefficient = Literal[
    "mouth_open", "smile", "blink", "blink_left", "blink_right", "brow_raise"
]  # fmt: skip
Blend = Literal["normal", "multiply", "screen", "overlay", "soft_light"]

USUAL: Final[dict[str, float]] = {
    "mouth_open": 0.35,
    "smile": 0.45,
    "blink": 0.6,
    "blink_left": 0.6,
    "blink_right": 0.6,
    "brow_raise": 0.4,
    **dict.fromkeys(("turn_left", "turn_right"), 20.0),
    **dict.fromkeys(("look_up", "look_down"), 12.0),
    **dict.fromkeys(("tilt_left", "tilt_right"), 15.0),
    "nod": 6.0,
    "shake": 9.0,
}
"""What ``above`` is where it is not said."""
STAY: Final = 0.7
"""``until`` is this share of ``above`` where it is not said."""

Item = TypeVar("Item")
# A TOML array is a list: strictness holds for what is in it.
Listed = Annotated[tuple[Item, ...], Field(strict=False)]
Vector = Annotated[tuple[float, float, float], Field(strict=False)]
Plane = Annotated[tuple[float, float], Field(strict=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Landmark = Annotated[int, Field(ge=0, lt=LANDMARKS)]
At = Annotated[
    tuple[Landmark, ...],
    Field(strict=False, min_length=1, max_length=LANDMARKS),
    BeforeValidator(lambda given: [given] if isinstance(given, int) else given),
]
Color = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$", examples=["#b3122e"])]
File = Annotated[str, Field(min_length=1, max_length=255)]
Line = Annotated[str, Field(max_length=200)]


class Section(BaseModel):
    """A table of the file: unknown keys are errors, and so are numbers that are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Show(Section):
    """When a part is seen, and what starts then.

    Attributes:
        when: What must happen.
        above: From which value it is on; see `USUAL`.
        until: Below which value it is off again: at most ``above``.
        after: Seconds that it must last before it is on.
        hold: Least seconds that it stays on: 0.15, and 1 for an event.
        fade: Seconds in which the part appears and goes.
        hide: Whether the part is hidden then, and seen otherwise.
        play: Animation of the model that starts when it goes on.
    """

    when: Trigger
    above: float | None = Field(None, gt=0, le=90)
    until: float | None = Field(None, ge=0, le=90)
    after: float = Field(0.0, ge=0, le=10)
    hold: float | None = Field(None, ge=0, le=60)
    fade: float = Field(0.1, ge=0, le=5)
    hide: bool = False
    play: Line = ""

    @model_validator(mode="after")
    def _ordered(self) -> Show:
        if self.until is not None and self.until > self.on_above:
            raise ValueError(
                f"until = {self.until:g} is more than above = {self.on_above:g}; it would never "
                "stay on: give a smaller one"
            )
        if self.when not in (*DEGREES, *EVENTS) and self.on_above > 1:
            raise ValueError(
                f"above = {self.on_above:g}: {self.when} goes from 0 to 1; give a smaller one"
            )
        return self

    @property
    def on_above(self) -> float:
        """The value from which it is on."""
        return USUAL[self.when] if self.above is None else self.above

    @property
    def off_below(self) -> float:
        """The value below which it is off."""
        return STAY * self.on_above if self.until is None else self.until

    @property
    def least(self) -> float:
        """Seconds that it stays on at least."""
        if self.hold is not None:
            return self.hold
        return 1.0 if self.when in EVENTS else 0.15


class Shown(Section):
    """What every part has."""

    show: Show | None = None
    opacity: Share = 1.0


class ModelPart(Shown):
    """A glTF 2.0 model that moves with the head.

    Attributes:
        file: ``.glb`` or ``.gltf``.
        simple: One with less in it, for machines that are late.
        anchor: "head", whose coordinates are the canonical face's, or a landmark: its place is
            the origin then, and the axes stay the head's.
        position: Centimetres from the anchor: right in the picture, up, out of the face.
        rotation: Degrees about x, then y, then z.
        scale: Of the file's unit to centimetres; glTF's is the metre.
        animation: The one that is repeated all the time; "" for none.
        morphs: By morph target's name, the coefficient that is its weight.
    """

    kind: Literal["model"]
    file: File
    simple: File | None = None
    anchor: Literal["head"] | Landmark = "head"
    position: Vector = (0.0, 0.0, 0.0)
    rotation: Vector = (0.0, 0.0, 0.0)
    scale: float = Field(100.0, gt=0, le=1e5)
    animation: Line = ""
    morphs: dict[str, Coefficient] = Field(default_factory=dict, max_length=32)

    @field_validator("position")
    @classmethod
    def _near(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if max(map(abs, value)) > 200:
            raise ValueError("a part is within 200 cm of its anchor")
        return value


class PaintPart(Shown):
    """A picture on the skin, by the canonical face's texture coordinates.

    Attributes:
        file: Picture; its transparent parts show the skin.
        blend: How it mixes with the skin.
        shading: How far light and shadow of the skin show on it.
        cover: Openings that it covers too: "eyes", "mouth".
    """

    kind: Literal["paint"]
    file: File
    blend: Blend = "normal"
    shading: Share = 0.6
    cover: Listed[Literal["eyes", "mouth"]] = ()


class StickerPart(Shown):
    """A flat picture that faces the camera.

    Attributes:
        file: Picture.
        at: Landmarks; the place is their middle.
        size: Its width in eye distances (between the outer corners of the eyes).
        offset: Eye distances to the picture's right and up, turned with the head.
        turn: Whether it is turned as the head is tilted.
        angle: Degrees clockwise, added.
        spin: Degrees clockwise a second.
        rise: Eye distances that it rises in each period; it fades at both ends.
        period: Seconds.
        phase: Share of a period that it is ahead.
    """

    kind: Literal["sticker"]
    file: File
    at: At
    size: float = Field(1.0, gt=0, le=20)
    offset: Plane = (0.0, 0.0)
    turn: bool = True
    angle: float = Field(0.0, ge=-360, le=360)
    spin: float = Field(0.0, ge=-3600, le=3600)
    rise: float = Field(0.0, ge=-20, le=20)
    period: float = Field(2.0, gt=0, le=60)
    phase: Share = 0.0


class MakeupPart(Shown):
    """Colour on a region of the face, under which the skin's light and shadow stay.

    Attributes:
        region: Where.
        color: "#rrggbb".
        blend: "normal" gives the skin this colour, as dark or light as it was there.
        finish: "gloss" lets lights shine, and adds one on the lower lip.
        size: Of the line, the cheek's spot or the soft edge, in units of the usual one.
    """

    kind: Literal["makeup"]
    region: Literal["lips", "eyelids", "eyeliner", "brows", "cheeks"]
    color: Color
    blend: Blend = "normal"
    finish: Literal["matte", "gloss"] = "matte"
    size: float = Field(1.0, gt=0, le=4)


class EyesPart(Shown):
    """Other irises, clipped by the eyelids.

    Attributes:
        file: Square picture of an iris that touches its edges; None draws one.
        color: Of the drawn one.
        pupil: Of the drawn one.
        size: In units of the person's iris.
    """

    kind: Literal["eyes"]
    file: File | None = None
    color: Color = "#3f7fbf"
    pupil: Literal["round", "slit"] = "round"
    size: float = Field(1.0, gt=0, le=3)


class BackgroundPart(Shown):
    """What is behind people.

    Attributes:
        mode: Blur it, replace it by a picture, or by a colour.
        file: Picture, for "replace"; it covers the frame and keeps its shape.
        color: For "color".
        strength: Of the blur.
    """

    kind: Literal["background"]
    mode: Literal["blur", "replace", "color"]
    file: File | None = None
    color: Color = "#20242c"
    strength: Share = 0.5

    @model_validator(mode="after")
    def _complete(self) -> BackgroundPart:
        if (self.mode == "replace") != (self.file is not None):
            raise ValueError('mode = "replace" and a file go together; give both or neither')
        return self


class Point(Section):
    """A local warp.

    Attributes:
        at: Landmarks; the place is their middle.
        radius: Eye distances, beyond which nothing moves.
        strength: How much: 0 nothing, 1 the most that does not fold.
        kind: Grow or shrink about the point, or pull it along ``direction``.
        direction: To the picture's right and up, turned with the head; its length is not used.
    """

    at: At
    radius: float = Field(gt=0, le=4)
    strength: Share = 0.5
    kind: Literal["grow", "shrink", "pull"] = "grow"
    direction: Plane = (0.0, 1.0)

    @model_validator(mode="after")
    def _aimed(self) -> Point:
        if self.kind == "pull" and not any(self.direction):
            raise ValueError("direction = [0, 0] points nowhere; give one to pull along")
        return self


class DistortPart(Shown):
    """Another shape of the face: a sum of local warps."""

    kind: Literal["distort"]
    points: Annotated[Listed[Point], Field(min_length=1, max_length=MAX_POINTS)]


Part = Annotated[
    ModelPart | PaintPart | StickerPart | MakeupPart | EyesPart | BackgroundPart | DistortPart,
    Field(discriminator="kind"),
]
KINDS: Final[dict[str, type[Shown]]] = {
    "model": ModelPart,
    "paint": PaintPart,
    "sticker": StickerPart,
    "makeup": MakeupPart,
    "eyes": EyesPart,
    "background": BackgroundPart,
    "distort": DistortPart,
}


class FilterSpec(Section):
    """The whole file.

    Attributes:
        format: Of this file: 1.
        name: Lower-case letters, digits and hyphens.
        title: For people.
        summary: A line about it.
        author: Who made it.
        license: SPDX identifier of its licence.
        occlusion: Whether an invisible head hides what is behind it.
        needs: "iris" asks for the 478 landmarks, whose lips and eyes are finer too.
        parts: What it is made of.
    """

    format: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    title: Line = Field(min_length=1)
    summary: Line = ""
    author: Line = ""
    license: Line = ""
    occlusion: bool = False
    needs: Listed[Literal["iris"]] = ()
    parts: Annotated[Listed[Part], Field(min_length=1, max_length=MAX_PARTS)]

    @model_validator(mode="after")
    def _single(self) -> FilterSpec:
        if sum(part.kind == "background" for part in self.parts) > 1:
            raise ValueError("there is one background; leave out the other parts of that kind")
        return self
