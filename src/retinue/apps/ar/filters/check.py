"""``retinue ar check``: all that is wrong with a filter, and what is not good about it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from retinue.apps.ar.filters.load import Filter, examine, folder, part_files, read_spec
from retinue.apps.ar.filters.problems import FILE, Problem
from retinue.apps.ar.filters.spec import ModelPart

HEAVY_TRIANGLES: Final = 20_000
HEAVY_SIDE: Final = 1024
OTHERS: Final = (FILE, "preview.png", "guide.png", "readme.md", "license", "license.txt")
"""Files that belong to a filter though no part names them."""


def check(path: Path | str) -> list[Problem]:
    """Examine a filter.

    Args:
        path: Its folder, or the name of one that comes with Retinue.

    Returns:
        Errors, with which it cannot be used, then warnings; nothing where all is well.

    Raises:
        InputNotFound: there is no such filter.
        MissingExtra: what reads 3D models is not installed.
    """
    where = folder(path)
    found, problems = examine(where)
    if found is None:
        return problems
    return [*_words(found), *_weights(found), *_unused(found)]


def _words(found: Filter) -> list[Problem]:
    spec = found.spec
    _, lines, _ = read_spec(found.folder / FILE)
    said = []
    if not spec.license:
        message = "no licence is given; name one, so that others know what they may do"
        said.append(Problem("warning", FILE, message, "license"))
    if not spec.author:
        said.append(Problem("warning", FILE, "no author is given; say who made it", "author"))
    real = found.folder.resolve().name
    if spec.name != real:
        message = f"the name {spec.name!r} is not the folder's, {real!r}; use one for both"
        said.append(Problem("warning", FILE, message, "name", lines.of(("name",))))
    models = [part for part in spec.parts if part.kind == "model"]
    if spec.occlusion and not models:
        message = "occlusion hides 3D models, and there is none; leave it out"
        said.append(Problem("warning", FILE, message, "occlusion", lines.of(("occlusion",))))
    return said


def _weights(found: Filter) -> list[Problem]:
    heavy: dict[str, str] = {}
    for part, assets in zip(found.spec.parts, found.assets, strict=True):
        if isinstance(part, ModelPart) and assets.model is not None:
            triangles = assets.model.triangles
            if triangles > HEAVY_TRIANGLES:
                heavy[part.file] = f"{triangles:,} triangles; {HEAVY_TRIANGLES:,} are plenty"
        elif assets.texture is not None and part.kind != "background":
            name = dict(part_files(part))["file"]
            height, width = assets.texture.pixels.shape[:2]
            if max(height, width) > HEAVY_SIDE:
                heavy[name] = f"{width} x {height} pixels; {HEAVY_SIDE} a side are plenty"
    return [
        Problem("warning", name, f"it may be slow: it has {reason}; make it simpler")
        for name, reason in heavy.items()
    ]


def _unused(found: Filter) -> list[Problem]:
    if any(path.suffix.lower() == ".gltf" for path in found.files):
        # Such a model names files of its own.
        return []
    used = {path.resolve() for path in found.files}
    return [
        Problem("warning", path.name, "no part uses it; remove it, or name it in a part")
        for path in sorted(found.folder.iterdir())
        if path.is_file()
        and path.resolve() not in used
        and path.name.lower() not in OTHERS
        and not path.name.startswith(".")
    ]
