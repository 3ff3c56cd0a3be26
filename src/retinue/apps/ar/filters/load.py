"""From a folder with a ``filter.toml`` to a filter that can be worn."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from retinue.apps.ar.filters.assets import Reader
from retinue.apps.ar.filters.problems import FILE, Lines, Problem, problems_of, spell
from retinue.apps.ar.filters.spec import FilterSpec, ModelPart, Part
from retinue.apps.ar.gltf import Model
from retinue.apps.ar.render.scene import Texture
from retinue.core.errors import FilterInvalid, InputNotFound

BUILTIN: Final = Path(str(resources.files("retinue.apps.ar") / "builtin"))
MAX_BYTES: Final = 256 * 1024
"""Of ``filter.toml``."""
_TOLD: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Assets:
    """What a part needs of its files.

    Attributes:
        texture: Of its picture.
        model: Its 3D model.
        simple: That with less in it.
    """

    texture: Texture | None = None
    model: Model | None = None
    simple: Model | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """A filter with all that it needs in memory.

    Attributes:
        spec: What its file says.
        folder: Where it was read.
        assets: One a part, in their order.
        files: All that were read, ``filter.toml`` first.
    """

    spec: FilterSpec
    folder: Path
    assets: tuple[Assets, ...]
    files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """As its file says."""
        return self.spec.name

    @property
    def needs_iris(self) -> bool:
        """Whether it is to be given 478 landmarks."""
        return "iris" in self.spec.needs or any(part.kind == "eyes" for part in self.spec.parts)

    @property
    def needs_background(self) -> bool:
        """Whether people must be told from what is behind them."""
        return any(part.kind == "background" for part in self.spec.parts)

    def apply(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Put it on one picture, which has nothing to do with the last one.

        What it takes is loaded by a thread's first call and kept until the thread ends. For a
        stream use a `Session`: it follows faces from frame to frame, which is faster and steadier.

        Args:
            frame: (H, W, 3) uint8 RGB, upright; it is left as it is.

        Raises:
            InvalidRequest: it is no such picture.
            RetinueError: a model cannot be had, or there is nothing to draw with.
        """
        from retinue.apps.ar.filters.pictures import put

        return put(self, frame)


def names() -> tuple[str, ...]:
    """Return the names of the filters that come with Retinue, in alphabetical order."""
    return tuple(sorted(path.parent.name for path in BUILTIN.glob(f"*/{FILE}")))


def folder(name_or_path: str | Path) -> Path:
    """Return a filter's folder.

    Args:
        name_or_path: The name of one that comes with Retinue, or the path of a folder or of the
            ``filter.toml`` in it. A name goes first: write ``./dog`` for a folder of your own.

    Raises:
        InputNotFound: there is no such filter.
    """
    known = names()
    if isinstance(name_or_path, str) and name_or_path in known:
        return BUILTIN / name_or_path
    path = Path(name_or_path)
    if path.name == FILE and path.is_file():
        return path.parent
    if path.is_dir():
        if (path / FILE).is_file():
            return path
        raise InputNotFound(f"{path} has no {FILE}; give a filter's folder")
    near = difflib.get_close_matches(str(name_or_path), known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    raise InputNotFound(f"there is no filter {str(name_or_path)!r}, and no such folder; {hint}")


def load(name_or_path: str | Path) -> Filter:
    """Read a filter.

    Args:
        name_or_path: As `folder` takes it.

    Raises:
        InputNotFound: there is no such filter.
        FilterInvalid: its file or one of its assets is wrong; the message names each problem.
        MissingExtra: what reads 3D models is not installed.
    """
    return load_folder(folder(name_or_path))


def load_folder(where: Path) -> Filter:
    """Read the filter of a folder; see `load`."""
    found, problems = examine(where)
    if found is None:
        told = [str(problem).removeprefix("error: ") for problem in problems[:_TOLD]]
        more = len(problems) - len(told)
        rest = f"; and {more} more" if more else ""
        raise FilterInvalid(f"the filter in {where} cannot be used: {'; '.join(told)}{rest}")
    return found


def examine(where: Path) -> tuple[Filter | None, list[Problem]]:
    """Read all of a filter, and go on after a problem so that all are told.

    Returns:
        The filter, None where it cannot be used; and its errors.
    """
    path = where / FILE
    spec, lines, problems = read_spec(path)
    if spec is None:
        return None, problems
    reader = Reader(where)
    assets = []
    for number, part in enumerate(spec.parts):
        read: dict[str, Any] = {}
        for key, name in part_files(part):
            try:
                read[key] = reader.model(name) if part.kind == "model" else reader.texture(name)
            except FilterInvalid as error:
                place = ("parts", number, key)
                line = lines.of(place)
                spelt = f"parts[{number}].{key}"
                problems.append(Problem("error", FILE, error.message, spelt, line))
        if part.kind == "model":
            assets.append(Assets(model=read.get("file"), simple=read.get("simple")))
            problems += _names(part, number, read.get("file"), lines)
        else:
            assets.append(Assets(texture=read.get("file")))
    if problems:
        return None, problems
    return Filter(spec, where, tuple(assets), (path, *reader.files)), []


def part_files(part: Part) -> list[tuple[str, str]]:
    """Return the keys of a part that name files, with the names."""
    values = ((key, getattr(part, key, None)) for key in ("file", "simple"))
    return [(key, value) for key, value in values if value is not None]


def _names(part: ModelPart, number: int, model: Model | None, lines: Lines) -> list[Problem]:
    """Return where a part names an animation or a morph target that its model does not have."""
    if model is None:
        return []
    play = part.show.play if part.show else ""
    wanted: list[tuple[tuple[str, ...], str, str]] = [
        (("animation",), "animation", part.animation),
        (("show", "play"), "animation", play),
        *((("morphs", name), "morph target", name) for name in part.morphs),
    ]
    found = []
    for place, kind, name in wanted:
        known = model.animations if kind == "animation" else model.morphs
        if name in known or (kind == "animation" and not name):
            continue
        message = f"{part.file} has no {kind} {name!r}; it has: {', '.join(known) or 'none'}"
        where: tuple[str | int, ...] = ("parts", number, *place)
        found.append(Problem("error", FILE, message, spell(where), lines.of(where)))
    return found


def read_spec(path: Path) -> tuple[FilterSpec | None, Lines, list[Problem]]:
    """Read a ``filter.toml`` alone: what it says, where, and what is wrong with it."""
    nothing = Lines("")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            message = f"it has {size:,} bytes; the limit is {MAX_BYTES:,}"
            return None, nothing, [Problem("error", FILE, message)]
        text = path.read_text("utf-8")
        said = tomllib.loads(text)
    except UnicodeDecodeError:
        return None, nothing, [Problem("error", FILE, "it is not UTF-8; save it as such")]
    except ValueError as error:
        # Also what Python says of a number of thousands of digits.
        return None, nothing, [Problem("error", FILE, f"it is not TOML: {error}")]
    except RecursionError:
        message = "its values are nested too deeply; make them flat"
        return None, nothing, [Problem("error", FILE, message)]
    except OSError as error:
        reason = error.strerror or str(error)
        return None, nothing, [Problem("error", FILE, f"it cannot be read: {reason}")]
    lines = Lines(text)
    try:
        return FilterSpec.model_validate(said), lines, []
    except ValidationError as error:
        return None, lines, problems_of(error, said, lines)
