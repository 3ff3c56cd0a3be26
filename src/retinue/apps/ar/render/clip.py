"""Cuts triangles at the near plane, where the camera would see behind itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]


def clipped(triangles: I32, placed: F64, carried: F32, near: float) -> tuple[I32, F64, F32]:
    """Return the part of a mesh that is beyond the near plane.

    Args:
        triangles: (M, 3).
        placed: (N, 3) in camera space.
        carried: (N, C) what is mixed along the edges.
        near: Depth of the plane.

    Returns:
        Triangles, and the vertices with new ones after them. Those with a vertex that is not
        finite are left out.
    """
    sane = np.asarray(np.isfinite(placed).all(axis=1))
    beyond = np.asarray(sane & (placed[:, 2] >= near))
    triangles = triangles[sane[triangles].all(axis=1)]
    count = beyond[triangles].sum(axis=1)
    whole = np.concatenate([placed, carried], axis=1)
    kept, vertices, total = [triangles[count == 3]], [whole], len(whole)
    for inside in (1, 2):
        cut = triangles[count == inside]
        if not len(cut):
            continue
        # Turn each so that the vertex that is alone on its side comes first.
        alone = beyond[cut] if inside == 1 else ~beyond[cut]
        first = alone.argmax(axis=1)
        rows = np.arange(len(cut))
        a, b, c = (cut[rows, (first + step) % 3] for step in range(3))
        ab, ac = _between(whole, a, b, near), _between(whole, a, c, near)
        new = total + np.arange(2 * len(cut)).reshape(2, -1)
        vertices += [ab, ac]
        total += 2 * len(cut)
        if inside == 1:
            kept.append(np.stack([a, new[0], new[1]], axis=1))
        else:
            kept.append(np.stack([new[0], b, c], axis=1))
            kept.append(np.stack([new[0], c, new[1]], axis=1))
    joined = np.concatenate(vertices)
    return (
        np.concatenate(kept).astype(np.int32),
        np.ascontiguousarray(joined[:, :3]),
        joined[:, 3:].astype(np.float32, order="C"),
    )


def _between(whole: F64, a: NDArray[np.intp], b: NDArray[np.intp], near: float) -> F64:
    """Return the vertices at which edges meet the plane."""
    share = (near - whole[a, 2]) / (whole[b, 2] - whole[a, 2])
    met = whole[a] + share[:, None] * (whole[b] - whole[a])
    met[:, 2] = near
    return np.asarray(met)
