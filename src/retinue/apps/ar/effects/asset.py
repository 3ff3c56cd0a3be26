"""3D models on a head: where they stand, how large, and what they do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.effects.live import F32, F64, iris_corners
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.spec import ModelPart
from retinue.apps.ar.filters.triggers import Seen, measure
from retinue.apps.ar.gltf import Model
from retinue.apps.ar.render.scene import Draw


def local_matrix(part: ModelPart) -> F64:
    """Return the (4, 4) matrix from the file's coordinates to the anchor's, in centimetres."""
    x, y, z = np.radians(part.rotation)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    made = np.eye(4)
    made[:3, :3] = about_z @ about_y @ about_x * part.scale
    made[:3, 3] = part.position
    return made


def anchor_matrix(part: ModelPart, face: Face, live: F32) -> F64:
    """Return the (4, 4) matrix from the anchor's to the camera's coordinates.

    A landmark's place is that of the live face; its axes are the head's.
    """
    made: F64 = face.pose.matrix()
    if part.anchor != "head":
        made[:3, 3] = place(live, part.anchor)
    return made


def place(live: F32, landmark: int) -> NDArray[np.float64]:
    """Return a landmark's (3,) place; of an iris that is not known, its eye's middle."""
    if landmark < len(live):
        return np.asarray(live[landmark], np.float64)
    return np.asarray(live[iris_corners(landmark)].mean(axis=0, dtype=np.float64))


def asset(
    part: ModelPart, model: Model, local: F64, face: Face, live: F32, seen: Seen, seconds: float
) -> list[Draw]:
    """Return a model's draws on a face.

    Args:
        part: Where, how large, what it does.
        model: Its file.
        local: Of `local_matrix`.
        face: Whose.
        live: (N, 3) its landmarks in camera space.
        seen: How the part is seen.
        seconds: Of the frame.
    """
    opacity = seen.strength * part.opacity * face.opacity
    if opacity <= 0:
        return []
    play, elapsed = part.show.play if part.show else "", seen.elapsed
    if not play and part.animation:
        length = model.length(part.animation)
        elapsed = seconds % length if length > 0 else 0.0
    draws = model.draws(
        anchor_matrix(part, face, live) @ local,
        elapsed,
        weights={name: measure(face, source) for name, source in part.morphs.items()},
        animation=play or part.animation or None,
    )
    if opacity < 1:
        draws = [replace(draw, opacity=draw.opacity * opacity) for draw in draws]
    return draws
