"""A scripted scene with a tracker before it."""

from __future__ import annotations

import numpy as np

from retinue.apps.ar.face.tracker import Tracker
from retinue.apps.ar.face.values import Face
from retinue.testing.ar import Actor, Head, Scene, SceneDetector, SceneMesh, pose

FPS = 30


class Stage:
    """A scene with a tracker before it."""

    def __init__(
        self, *actors: Actor, cuts: tuple[float, ...] = (), noise: float = 0.0, **options: object
    ) -> None:
        self.scene = Scene(actors, 320, 240, cuts=cuts, noise=noise)
        self.near, self.far = SceneDetector(self.scene), SceneDetector(self.scene, "far")
        self.mesh = SceneMesh(self.scene)
        self.tracker = Tracker(self.near, self.mesh, **options)  # type: ignore[arg-type]

    def at(self, seconds: float) -> list[Face]:
        return self.tracker.update(self.scene.frame(seconds), seconds)

    def play(self, start: float, stop: float, fps: float = FPS) -> list[list[Face]]:
        return [self.at(i / fps) for i in range(round(start * fps), round(stop * fps))]

    def truth(self, face: int = 0) -> np.ndarray:
        return self.scene.heads()[face].seen(self.scene.camera)


def still(**where: float | tuple[float, float, float]) -> Actor:
    head = Head(pose(**where))  # type: ignore[arg-type]
    return lambda seconds: head


def between(start: float, stop: float, actor: Actor) -> Actor:
    return lambda seconds: actor(seconds) if start <= seconds < stop else None


def ids(faces: list[Face]) -> list[int]:
    return [face.id for face in faces]
