"""The formula of `environment`, for one point."""

from __future__ import annotations

import numpy as np

from retinue.apps.ar.render.kernels._compile import inner
from retinue.apps.ar.render.kernels._types import F64, Six, Three


@inner
def _step(half: float, share: float, x: float) -> float:
    """Return a smooth step from -half to half; share is 1 / (2 half)."""
    t = min(1.0, max(0.0, (x + half) * share))
    return t * t * (3.0 - 2.0 * t)


@inner
def _lamp(studio: F64, at: int, d: Three, half: float, share: float) -> float:
    towards = d[0] * studio[at] + d[1] * studio[at + 1] + d[2] * studio[at + 2]
    if towards <= 1e-4:
        return 0.0
    a, b = studio[at + 9], studio[at + 10]
    x = abs(d[0] * studio[at + 3] + d[1] * studio[at + 4] + d[2] * studio[at + 5])
    y = abs(d[0] * studio[at + 6] + d[1] * studio[at + 7] + d[2] * studio[at + 8])
    if x >= (a + half) * towards or y >= (b + half) * towards:
        return 0.0
    near = 1.0 / towards
    return (1.0 - _step(half, share, x * near - a)) * (1.0 - _step(half, share, y * near - b))


@inner
def light(studio: F64, surface: F64, n: Three, v: Three) -> Six:
    """Return gain and shine, as the formula of `environment` has them."""
    metallic, rough, w, across = surface[4], surface[5], surface[14], surface[15]
    facing = max(n[0] * v[0] + n[1] * v[1] + n[2] * v[2], 1e-3)
    double = 2.0 * facing
    d = (double * n[0] - v[0], double * n[1] - v[1], double * n[2] - v[2])
    lamps = surface[16] * _lamp(studio, 23, d, w, across)
    lamps += surface[17] * _lamp(studio, 35, d, w, across)
    wall = _step(w, across, d[1])
    r0 = 1.0 - rough
    power = 1.0 - 0.201 * facing
    for _ in range(5):
        power *= power
    edge = min(r0 * r0, power) * r0 + 0.0425 - 0.0275 * rough
    first = 1.04 - 0.572 * rough - 1.04 * edge
    second = 0.022 * rough - 0.04 + 1.04 * edge
    turned = n[0] * studio[15] + n[1] * studio[16] + n[2] * studio[17]
    key = max(0.0, (turned + studio[20]) * studio[53])
    sky = 0.5 + 0.5 * n[1]
    plain, mirror = 1.0 - metallic, metallic * first
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
    share = 1.0 / max(np.sqrt(x * x + y * y + z * z), 1e-30)
    return x * share, y * share, z * share
