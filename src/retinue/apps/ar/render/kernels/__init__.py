"""The compiled inner loops of the CPU rasteriser, and of what all renderers share.

Importing this needs Numba; see `compiled.loops`.
"""

from retinue.apps.ar.render.kernels._types import (
    AT_PIXELS,
    AT_VERTICES,
    COLUMNS,
    HIDES,
    OWNS,
    PLACES,
    ROWS,
    SHADES,
    SHADES_NEARER,
    TILE,
    UNLIT,
)
from retinue.apps.ar.render.kernels.picture import lay, put, smooth
from retinue.apps.ar.render.kernels.raster import cover
from retinue.apps.ar.render.kernels.shading import shade
from retinue.apps.ar.render.kernels.vertices import carry, place, project

__all__ = [
    "AT_PIXELS",
    "AT_VERTICES",
    "COLUMNS",
    "HIDES",
    "OWNS",
    "PLACES",
    "ROWS",
    "SHADES",
    "SHADES_NEARER",
    "TILE",
    "UNLIT",
    "carry",
    "cover",
    "lay",
    "place",
    "project",
    "put",
    "shade",
    "smooth",
]
