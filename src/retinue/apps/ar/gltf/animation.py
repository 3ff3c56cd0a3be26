"""Animations of glTF: a node's translation, rotation, scale or morph weights over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.gltf.container import Container, item
from retinue.apps.ar.gltf.document import Animation
from retinue.core.errors import FilterInvalid

Floats = NDArray[np.float64]
PATHS: Final = {"translation": 3, "rotation": 4, "scale": 3, "weights": 0}


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One channel.

    Attributes:
        node: Whose.
        path: "translation", "rotation", "scale" or "weights".
        times: (K,) seconds, ascending.
        values: (K, P), or (K, 3, P) of in-tangent, value, out-tangent for cubic splines.
        interpolation: As glTF has it.
    """

    node: int
    path: str
    times: Floats
    values: Floats
    interpolation: Literal["LINEAR", "STEP", "CUBICSPLINE"]

    def at(self, seconds: float) -> Floats:
        """Return the value (P,) at a time; before the first and after the last it stands still."""
        times = self.times
        after = int(np.searchsorted(times, seconds, side="right"))
        cubic = self.interpolation == "CUBICSPLINE"
        if after == 0 or after == len(times):
            end = self.values[min(after, len(times) - 1)]
            return self._unit(end[1] if cubic else end)
        before, width = after - 1, times[after] - times[after - 1]
        t = (seconds - times[before]) / width if width > 0 else 0.0
        if self.interpolation == "STEP":
            return self._unit(self.values[before])
        if cubic:
            (_, start, out), (into, end, _) = self.values[before], self.values[after]
            t2, t3 = t * t, t * t * t
            spline = (2 * t3 - 3 * t2 + 1) * start + (t3 - 2 * t2 + t) * width * out
            return self._unit(spline + (3 * t2 - 2 * t3) * end + (t3 - t2) * width * into)
        start, end = self.values[before], self.values[after]
        if self.path == "rotation":
            return slerp(start, end, t)
        return np.asarray(start + t * (end - start))

    def _unit(self, value: Floats) -> Floats:
        return (
            value / max(float(np.linalg.norm(value)), 1e-12) if self.path == "rotation" else value
        )


def slerp(start: Floats, end: Floats, t: float) -> Floats:
    """Return the rotation between two unit quaternions (4,), on the shorter way."""
    cosine = float(start @ end)
    if cosine < 0:
        end, cosine = -end, -cosine
    if cosine > 0.9995:
        mixed = start + t * (end - start)
    else:
        angle = np.arccos(cosine)
        mixed = (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)
    return np.asarray(mixed / np.linalg.norm(mixed))


def tracks(container: Container, animation: Animation) -> list[Track]:
    """Read an animation.

    Raises:
        FilterInvalid: times do not ascend, or values do not fit to them.
    """
    found = []
    for channel in animation.channels:
        path, node = channel.target.path, channel.target.node
        if node is None or path not in PATHS:
            continue
        item(container.document.nodes, node, "node")
        sampler = item(animation.samplers, channel.sampler, "animation sampler")
        times = container.array(sampler.input, ("SCALAR",))[:, 0].astype(np.float64)
        values: NDArray[Any] = container.array(sampler.output, ("SCALAR", "VEC3", "VEC4"))
        if len(times) > 1 and (np.diff(times) < 0).any():
            raise FilterInvalid(f"animation {animation.name!r}: its times do not ascend")
        each = 3 if sampler.interpolation == "CUBICSPLINE" else 1
        parts = values.size // (each * len(times))
        if parts * each * len(times) != values.size or parts < 1 or PATHS[path] not in (0, parts):
            raise FilterInvalid(
                f"animation {animation.name!r}: {values.size} numbers do not fit to {len(times)} "
                f"times of {path}"
            )
        shape = (len(times), 3, parts) if each == 3 else (len(times), parts)
        kept = values.astype(np.float64).reshape(shape)
        found.append(Track(node, path, times, kept, sampler.interpolation))
    return found
