"""Places vertices, and computes what they carry."""

from __future__ import annotations

import numpy as np

from retinue.apps.ar.render.kernels._compile import compiled, inner
from retinue.apps.ar.render.kernels._light import light, unit
from retinue.apps.ar.render.kernels._types import (
    AT_VERTICES,
    F32,
    F64,
    I64,
    SUBPIXELS,
    UNLIT,
    Three,
)


@compiled
def place(positions: F32, matrix: F64, placed: F64) -> None:
    """Put (N, 3) vertices into camera space."""
    for i in range(positions.shape[0]):
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        for k in range(3):
            placed[i, k] = matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] * z + matrix[k, 3]


@inner
def _lit(
    studio: F32, surface: F32, n: Three, v: Three, lighting: int, carried: F32, i: int
) -> float:
    """Fill in a vertex' light, or what a pixel needs for it; return how much it leans away."""
    facing = n[0] * v[0] + n[1] * v[1] + n[2] * v[2]
    if surface[13] * facing < 0.0:
        n, facing = (-n[0], -n[1], -n[2]), -facing
    found = (n[0], n[1], n[2], v[0], v[1], v[2])
    if lighting == AT_VERTICES:
        found = light(studio, surface, n, v)
    carried[i, 0], carried[i, 1], carried[i, 2] = found[0], found[1], found[2]
    carried[i, 3], carried[i, 4], carried[i, 5] = found[3], found[4], found[5]
    return float(min(1.0, max(studio[22], facing)))


@compiled
def carry(
    placed: F64,
    normals: F32,
    turn: F64,
    uv: F32,
    density: F32,
    colors: F32,
    surface: F32,
    lighting: int,
    studio: F32,
    carried: F32,
) -> None:
    """Fill in what vertices carry; empty arrays stand for what there is not.

    Args:
        placed: (N, 3) in camera space.
        normals: (N, 3).
        turn: (3, 3) to light space.
        uv: (N, 2).
        density: (N,).
        colors: (N, 4).
        surface: Of `cpu`.
        lighting: Where light is computed.
        studio: Of `cpu`.
        carried: (N, `COLUMNS`), the answer.
    """
    for i in range(placed.shape[0]):
        x, y, z = placed[i, 0], placed[i, 1], placed[i, 2]
        lean = 1.0
        if lighting != UNLIT:
            a, b, c = normals[i, 0], normals[i, 1], normals[i, 2]
            n = unit(
                turn[0, 0] * a + turn[0, 1] * b + turn[0, 2] * c,
                turn[1, 0] * a + turn[1, 1] * b + turn[1, 2] * c,
                turn[2, 0] * a + turn[2, 1] * b + turn[2, 2] * c,
            )
            lean = _lit(studio, surface, n, unit(-x, y, z), lighting, carried, i)
        for k in range(4):
            carried[i, 6 + k] = surface[k] * (colors[i, k] if colors.shape[0] else 1.0)
        if density.shape[0]:
            level = surface[11] + np.log2(max(density[i] * z, 1e-9)) - 0.5 * np.log2(lean)
            carried[i, 10], carried[i, 11] = uv[i, 0], uv[i, 1]
            carried[i, 12] = min(surface[12], max(0.0, level))


@compiled
def project(placed: F64, seen: F64, corners: I64, nearness: F64) -> None:
    """Fill in pixels in steps of 1 / `SUBPIXELS`, (N, 2), and 1 / depth, (N,), or 0."""
    for i in range(placed.shape[0]):
        x, y, z = placed[i, 0], placed[i, 1], placed[i, 2]
        nearness[i] = 0.0
        if z > 1e-6:
            u = (seen[0, 0] * x + seen[0, 1] * y) / z + seen[0, 2]
            v = (seen[1, 0] * x + seen[1, 1] * y) / z + seen[1, 2]
            # Beyond this, products of corners would not fit into 64 bits.
            if abs(u) < 2e6 and abs(v) < 2e6:
                corners[i, 0] = np.int64(np.floor(u * SUBPIXELS + 0.5))
                corners[i, 1] = np.int64(np.floor(v * SUBPIXELS + 0.5))
                nearness[i] = 1.0 / z
