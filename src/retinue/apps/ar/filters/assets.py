"""The files of a filter: found inside its folder alone, and checked before they are decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from retinue.apps.ar import gltf
from retinue.apps.ar.gltf import Model
from retinue.apps.ar.render.scene import Texture
from retinue.core.errors import FilterInvalid, InputError, RetinueError
from retinue.core.settings import Limits
from retinue.media.decode import probe

MODELS: Final = (".glb", ".gltf")
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")
LIMITS: Final = Limits(max_bytes=16 * 2**20, max_pixels=4096 * 4096, max_frames=1)
"""Of one file."""
MAX_PIXELS: Final = 32 * 2**20
"""Of all pictures of a filter."""
MAX_SIDE: Final = 2048
"""A larger picture is made smaller when it is read: more cannot be seen."""


def locate(folder: Path, name: str, suffixes: tuple[str, ...]) -> Path:
    """Return a filter's file, if it is one and lies inside the folder.

    Raises:
        FilterInvalid: the name leads out of the folder, be it through a link; there is no such
            file; or its suffix is another.
    """
    steps = PurePosixPath(name)
    if steps.is_absolute() or ".." in steps.parts or "\\" in name or ":" in name or "\0" in name:
        raise FilterInvalid(
            f"{name!r} leads out of the filter's folder; name a file inside it, with '/' between "
            "folders"
        )
    path = folder / steps
    try:
        real = path.resolve()
        inside = real.is_relative_to(folder.resolve())
        exists = real.is_file()
    except (OSError, RuntimeError) as error:
        raise FilterInvalid(f"{name!r} cannot be found: {error}; check its name") from error
    if not inside:
        raise FilterInvalid(f"{name!r} is a link out of the filter's folder; copy the file there")
    if not exists:
        raise FilterInvalid(f"there is no file {name!r}{_instead(folder, suffixes)}")
    if path.suffix.lower() not in suffixes:
        raise FilterInvalid(f"{name!r} is of the wrong type; {', '.join(suffixes)} are read")
    return real


def _instead(folder: Path, suffixes: tuple[str, ...]) -> str:
    there = [path.name for path in sorted(folder.glob("*")) if path.suffix.lower() in suffixes]
    return f"; the folder has: {', '.join(there[:8])}" if there else "; add it to the folder"


def read_picture(path: Path, limits: Limits = LIMITS) -> NDArray[np.uint8]:
    """Return a picture as (H, W, 4) uint8 sRGB with straight alpha, at most `MAX_SIDE` a side.

    Its header is checked first: a picture beyond the limits is never decoded.

    Raises:
        FilterInvalid: it is too large, no picture, or damaged.
    """
    try:
        if path.stat().st_size > limits.max_bytes:
            raise FilterInvalid(
                f"{path.name} has {path.stat().st_size:,} bytes; the limit is {limits.max_bytes:,}"
            )
        data = path.read_bytes()
        probe(data, limits)
        with Image.open(io.BytesIO(data)) as opened:
            pixels = np.array(ImageOps.exif_transpose(opened).convert("RGBA"))
    except FilterInvalid:
        raise
    except InputError as error:
        raise FilterInvalid(f"{path.name}: {error.message}") from error
    # What Pillow raises on damaged files: it documents OSError alone.
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, OverflowError) as error:
        raise FilterInvalid(f"{path.name} cannot be read ({error}); save it again") from error
    longest = max(pixels.shape[:2])
    if longest > MAX_SIDE:
        size = [max(1, round(side * MAX_SIDE / longest)) for side in pixels.shape[1::-1]]
        pixels = _smaller(pixels, (size[0], size[1]))
    return pixels


def _smaller(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    # Averaged as seen: colours of transparent pixels do not count.
    whole = premultiply(pixels).astype(np.float32)
    seen = np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.float32)
    alpha = seen[..., 3:]
    seen[..., :3] *= 255 / np.maximum(alpha, 1)
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


def premultiply(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (H, W, 4) with colours multiplied by alpha, in sRGB, as it is composited."""
    seen = pixels.astype(np.uint16)
    seen[..., :3] = (seen[..., :3] * seen[..., 3:] + 127) // 255
    return seen.astype(np.uint8)


@dataclass(slots=True)
class Reader:
    """Reads a filter's files, each once.

    Attributes:
        folder: The filter's.
    """

    folder: Path
    _pixels: int = 0
    _textures: dict[Path, Texture] = field(default_factory=dict)
    _models: dict[Path, Model] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """What was read."""
        return (*self._textures, *self._models)

    def texture(self, name: str) -> Texture:
        """Return a picture.

        Raises:
            FilterInvalid: as `locate` and `read_picture`, or all are too much.
        """
        path = locate(self.folder, name, PICTURES)
        if path not in self._textures:
            pixels = read_picture(path)
            self._pixels += pixels.shape[0] * pixels.shape[1]
            if self._pixels > MAX_PIXELS:
                raise FilterInvalid(
                    f"with {name!r} the filter's pictures have more than {MAX_PIXELS:,} pixels "
                    "together; make them smaller"
                )
            self._textures[path] = Texture(pixels, "clamp")
        return self._textures[path]

    def model(self, name: str) -> Model:
        """Return a glTF model.

        Raises:
            FilterInvalid: as `locate`, or the model is damaged or too large.
            MissingExtra: what reads models is not installed.
        """
        path = locate(self.folder, name, MODELS)
        if path not in self._models:
            try:
                self._models[path] = gltf.load(path, LIMITS)
            except FilterInvalid as error:
                raise _named(error, name) from error
        return self._models[path]


def _named(error: RetinueError, name: str) -> FilterInvalid:
    known = error.message.startswith(name)
    return FilterInvalid(error.message if known else f"{name}: {error.message}")
