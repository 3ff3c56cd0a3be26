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
Pixels = NDArray[np.uint8]
Three = tuple[float, float, float]
Four = tuple[float, float, float, float]
Six = tuple[float, float, float, float, float, float]
Corner = tuple[int, int, int]
Mesh = tuple[I32, I64, F64, F32]
"""Triangles (M, 3); `project`'s corners (N, 2) and nearness (N,); what vertices carry, of `carry`,
(N, `COLUMNS`)."""
Look = tuple[F32, F32, I32, I32, I64]
"""Numbers of the environment and of the surface, of `cpu`; texels of all levels, four bytes each;
levels (3, L): starts, widths, heights; and flags: lighting, alpha mode, wrap, and whether vertices
have colours. Without a texture, texels and levels are empty."""
Layers = tuple[F32, I32, I32, F32, I32, Pixels]
"""What is drawn on: 1 / depth (H, W); the number of the triangle that is seen (H, W), -1 for none;
room for pixels that are to be shaded (3, F), for a tile (`ROWS` * `TILE`,) and for its places
(`PLACES` * `TILE`,); the image (H, W, 4)."""

UNLIT: Final = 0
AT_VERTICES: Final = 1
AT_PIXELS: Final = 2
OPAQUE: Final = 0
MASK: Final = 1
BLEND: Final = 2
REPEAT: Final = 0
CLAMP: Final = 1
MIRROR: Final = 2
HIDES: Final = 0
OWNS: Final = 1
SHADES: Final = 2
SHADES_NEARER: Final = 3
SUBPIXELS: Final = 256
"""Steps of a pixel to which corners are rounded, as graphics cards do."""
COLUMNS: Final = 13
"""Of what vertices carry: gain or normal, shine or view, factor, texture place, level."""
TILE: Final = 256
"""Pixels that are shaded at once."""
LIGHT, FACTOR, TEXEL, X, Y, DEPTH, SEEN, ROWS = 0, 6, 10, 13, 14, 15, 16, 20
"""Values that each of them has meanwhile, first those of `COLUMNS`; of the texture's four, alpha is
the last."""
PLACES: Final = 10
"""Whole numbers likewise, of `_texture`."""
