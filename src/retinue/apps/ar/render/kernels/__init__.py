"""The compiled inner loops of the CPU rasteriser, and of what all renderers share.

Importing this needs Numba; see `compiled.loops`.
"""

from retinue.apps.ar.render.kernels._types import (
    AT_ONCE,
    AT_PIXELS,
    AT_VERTICES,
    COLUMNS,
    HIDES,
    UNLIT,
)
from retinue.apps.ar.render.kernels.picture import lay, smooth
from retinue.apps.ar.render.kernels.raster import collect, cover
from retinue.apps.ar.render.kernels.shading import shade
from retinue.apps.ar.render.kernels.vertices import carry, place, project

__all__ = [
    "AT_ONCE",
    "AT_PIXELS",
    "AT_VERTICES",
    "COLUMNS",
    "HIDES",
    "UNLIT",
    "carry",
    "collect",
    "cover",
    "lay",
    "place",
    "project",
    "shade",
    "smooth",
]
