"""What tests of whole filters share: a plain frame, faces before it, and filters made in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.load import Assets, Filter
from retinue.apps.ar.filters.spec import FilterSpec
from retinue.apps.ar.filters.stage import Stage
from retinue.apps.ar.governor import Quality
from retinue.apps.ar.render.scene import Renderer
from retinue.testing.ar import Head, pose

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 320, 240
CAMERA = Camera.from_fov(WIDTH, HEIGHT)
RED = (255, 0, 0)


def face(number: int = 1, opacity: float = 1.0, **given: Any) -> Face:
    coefficients = given.pop("coefficients", {})
    where = pose(**({"at": (0.0, 0.0, 40.0)} | given))
    return Face(number, 1.0, Head(where).seen(CAMERA), where, coefficients, opacity)


def gray(level: int = 120) -> Pixels:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def changed(frame: Pixels) -> NDArray[np.bool_]:
    return np.asarray((frame != gray()).any(axis=-1))


def worn(*parts: dict[str, Any], occlusion: bool = False, assets: Any = None) -> Filter:
    spec = FilterSpec.model_validate(
        {"format": 1, "name": "x", "title": "X", "occlusion": occlusion, "parts": list(parts)}
    )
    return Filter(spec, Path(), tuple(assets or [Assets() for _ in parts]))


def on(frame: Pixels, faces: list[Face], filter_: Filter, renderer: Renderer, **keys: Any) -> Any:
    return Stage(filter_, renderer).apply(
        frame, faces, CAMERA, keys.pop("seconds", 0.0), Quality(**keys)
    )
