"""Writes what the page shares with the program: ``python web/ar/make_shared.py``.

``src/shared.json`` has the schema of ``filter.toml``, the canonical face, the invisible head, the
rings of make-up, the studio's lights and the settings of smoothing: each is written once.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from retinue.apps.ar.effects import background, distort, eyes, makeup, occluder, paint
from retinue.apps.ar.face import _follow, canonical, coefficients, pose, roi, smoothing, tracker
from retinue.apps.ar.filters import assets, spec, triggers
from retinue.apps.ar.filters.load import MAX_BYTES
from retinue.apps.ar.render import environment
from retinue.models import _face_parts, blazeface

TARGET = Path(__file__).parent / "src" / "shared.json"


def _flat(values: ArrayLike, digits: int = 6) -> list[float]:
    array = np.asarray(values)
    if array.dtype.kind in "iu":
        return [int(value) for value in array.ravel()]
    return [float(f"{value:.{digits}g}") for value in array.ravel()]


def _constants(module: Any) -> dict[str, Any]:
    """Return a module's own numbers and tuples of numbers, by their names."""
    found = {}
    for name, value in vars(module).items():
        if not name.strip("_").isupper() or isinstance(value, bool):
            continue
        plain = isinstance(value, int | float) or (
            isinstance(value, tuple) and value and np.asarray(value).dtype.kind in "if"
        )
        if plain:
            found[name.strip("_")] = value
    return found


def _head() -> dict[str, Any]:
    geometry, follows, weights = occluder.head()
    return {
        "positions": _flat(geometry.positions),
        "triangles": _flat(geometry.triangles),
        "follows": _flat(follows),
        "weights": _flat(weights),
    }


def shared() -> dict[str, Any]:
    """Return all of it."""
    random = np.random.default_rng(7)
    constants = {
        "background": background,
        "coefficients": coefficients,
        "distort": distort,
        "eyes": eyes,
        "follow": _follow,
        "makeup": makeup,
        "occluder": occluder,
        "paint": paint,
        "pose": pose,
        "roi": roi,
        "smoothing": smoothing,
        "studio": environment,
        "tracker": tracker,
        "triggers": triggers,
        "detector": blazeface,
        "parts": _face_parts,
    }
    return {
        "schema": spec.FilterSpec.model_json_schema(),
        "spec": {
            "usual": spec.USUAL,
            "stay": spec.STAY,
            "degrees": spec.DEGREES,
            "events": spec.EVENTS,
        },
        "limits": {
            "toml": MAX_BYTES,
            "bytes": assets.LIMITS.max_bytes,
            "pixels": assets.LIMITS.max_pixels,
            "all_pixels": assets.MAX_PIXELS,
            "side": assets.MAX_SIDE,
            "models": assets.MODELS,
            "pictures": assets.PICTURES,
        },
        "canonical": {
            "vertices": _flat(canonical.VERTICES),
            "uv": _flat(canonical.UV),
            "triangles": _flat(canonical.TRIANGLES),
            "basis": _flat(canonical.BASIS),
            "weights": _flat(canonical.BASIS_WEIGHTS),
        },
        "head": _head(),
        "most": distort._MOST,
        "signs": triggers._SIGNS,
        "lamps": [dataclasses.asdict(lamp) for lamp in environment.LAMPS],
        "iris_phases": [_flat(random.uniform(0, 2 * np.pi, 2), 9) for _ in range(3)],
        **{name: _constants(module) for name, module in constants.items()},
    }


def text() -> str:
    """Return the file's text."""
    return json.dumps(shared(), separators=(",", ":")) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
