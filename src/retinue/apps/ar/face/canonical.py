"""The canonical face: 468 vertices in centimetres, the mesh that all landmarks are compared with.

From MediaPipe's face geometry (https://github.com/google-ai-edge/mediapipe, Apache-2.0). The origin
lies inside the head between the ears; x goes to the face's left side, which is the picture's right
in a photo, y up, z out of the face.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray


def _arrays() -> dict[str, NDArray[np.generic]]:
    file = resources.files("retinue.apps.ar.face") / "data" / "canonical.npz"
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as read:
        arrays = {name: read[name] for name in read.files}
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


_READ = _arrays()

VERTICES: Final = _READ["vertices"].astype(np.float32, copy=False)
"""(468, 3) float32, centimetres."""
UV: Final = _READ["uv"].astype(np.float32, copy=False)
"""(468, 2) float32 in [0, 1], origin at the texture's top left."""
TRIANGLES: Final = _READ["triangles"].astype(np.int32, copy=False)
"""(898, 3) int32, counter-clockwise seen from the front."""
BASIS: Final = _READ["basis"].astype(np.int32, copy=False)
"""(33,) int32: the vertices that a head's pose is found by: they move little with expressions."""
BASIS_WEIGHTS: Final = _READ["weights"].astype(np.float32, copy=False)
"""(33,) float32: how much each of `BASIS` counts."""
EYE_DISTANCE_CM: Final = float(np.linalg.norm(VERTICES[33] - VERTICES[263]))
"""Centimetres between the outer corners of the eyes."""
