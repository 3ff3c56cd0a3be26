"""Types and flags of the loops; compiled code knows no enumerations."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
Pixels = NDArray[np.uint8]
Three = tuple[float, float, float]
Four = tuple[float, float, float, float]
Six = tuple[float, float, float, float, float, float]
Mesh = tuple[I32, I64, F64, F32]
"""Triangles (M, 3); `project`'s corners (N, 2) and nearness (N,); what vertices carry, of `carry`,
(N, `COLUMNS`)."""
Look = tuple[F64, F64, U32, I64, I64]
"""Numbers of the environment and of the surface, of `cpu`; texels of all levels, four bytes each;
levels (L, 3): start, width, height; and flags: lighting, alpha mode, wrap, the sign of the area of
triangles that are drawn, 0 for both, and whether vertices have colours. Without a texture, texels
and levels are empty."""

UNLIT: Final = 0
AT_VERTICES: Final = 1
AT_PIXELS: Final = 2
OPAQUE: Final = 0
MASK: Final = 1
BLEND: Final = 2
REPEAT: Final = 0
CLAMP: Final = 1
MIRROR: Final = 2
HIDES: Final = -1
AT_ONCE: Final = -2
SUBPIXELS: Final = 256
"""Steps of a pixel to which corners are rounded, as graphics cards do."""
COLUMNS: Final = 13
"""Of what vertices carry: gain or normal, shine or view, factor, texture place, level."""
