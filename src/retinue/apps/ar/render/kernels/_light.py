"""The formula of `environment`, for one point.

It has no branches and all of its numbers are float32, so that a loop over float32 becomes vector
instructions; what is computed of float64 is float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retinue.apps.ar.render.kernels._compile import inner
from retinue.apps.ar.render.kernels._types import F32, Six, Three

F: Any = np.float32
ZERO, ONE, TWO, HALF = F(0.0), F(1.0), F(2.0), F(0.5)


@inner
def _step(half: float, share: float, x: float) -> Any:
    """Return a smooth step from -half to half; share is 1 / (2 half)."""
    t = min(ONE, max(ZERO, (x + half) * share))
    return t * t * (F(3.0) - TWO * t)


@inner
def _lamp(studio: F32, at: int, d: Three, half: float, share: float) -> Any:
    towards = d[0] * studio[at] + d[1] * studio[at + 1] + d[2] * studio[at + 2]
    x = abs(d[0] * studio[at + 3] + d[1] * studio[at + 4] + d[2] * studio[at + 5])
    y = abs(d[0] * studio[at + 6] + d[1] * studio[at + 7] + d[2] * studio[at + 8])
    near = ONE / max(towards, F(1e-4))
    across = ONE - _step(half, share, x * near - studio[at + 9])
    along = ONE - _step(half, share, y * near - studio[at + 10])
    return across * along if towards > F(1e-4) else ZERO


@inner
def light(studio: F32, surface: F32, n: Three, v: Three) -> Six:
    """Return gain and shine, as the formula of `environment` has them."""
    metallic, rough, w, across = surface[4], surface[5], surface[14], surface[15]
    facing = max(n[0] * v[0] + n[1] * v[1] + n[2] * v[2], F(1e-3))
    double = TWO * facing
    d = (double * n[0] - v[0], double * n[1] - v[1], double * n[2] - v[2])
    lamps = surface[16] * _lamp(studio, 23, d, w, across)
    lamps += surface[17] * _lamp(studio, 35, d, w, across)
    wall = _step(w, across, d[1])
    r0 = ONE - rough
    power = ONE - F(0.201) * facing
    for _ in range(5):
        power *= power
    edge = min(r0 * r0, power) * r0 + F(0.0425) - F(0.0275) * rough
    first = F(1.04) - F(0.572) * rough - F(1.04) * edge
    second = F(0.022) * rough - F(0.04) + F(1.04) * edge
    turned = n[0] * studio[15] + n[1] * studio[16] + n[2] * studio[17]
    key = max(ZERO, (turned + studio[20]) * studio[53])
    sky = HALF + HALF * n[1]
    plain, mirror = ONE - metallic, metallic * first
    share = plain * studio[21] * first + second
    la = studio[0] + (studio[3] - studio[0]) * wall + lamps
    lb = studio[1] + (studio[4] - studio[1]) * wall + lamps
    lc = studio[2] + (studio[5] - studio[2]) * wall + lamps
    da = studio[6] + (studio[9] - studio[6]) * sky + key * studio[12]
    db = studio[7] + (studio[10] - studio[7]) * sky + key * studio[13]
    dc = studio[8] + (studio[11] - studio[8]) * sky + key * studio[14]
    gain = plain * da + mirror * la, plain * db + mirror * lb, plain * dc + mirror * lc
    return gain[0], gain[1], gain[2], share * la, share * lb, share * lc


@inner
def unit(x: float, y: float, z: float) -> Three:
    """Return a vector of length 1."""
    share = ONE / max(np.sqrt(x * x + y * y + z * z), F(1e-30))
    return x * share, y * share, z * share
