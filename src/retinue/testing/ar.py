"""A scripted scene of canonical heads, and networks that see it without weights.

A `Scene` draws frames whose colours say where in the frame a pixel is. `SceneDetector` and
`SceneMesh` answer as the real networks do, for the heads that are there at the time of the frame
that was drawn last. The mesh is given nothing but a crop, as the real one is: it reads from the
colours where that was cut out, so what cuts it and what takes the landmarks back are tested too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.canonical import VERTICES
from retinue.apps.ar.face.roi import Roi
from retinue.apps.ar.face.values import FRONTAL, Pose
from retinue.core.types import Detections

F64 = NDArray[np.float64]

_MARKS: Final = (100, 200)
"""Blue of a frame, by scene; that of what is beyond it is 0."""
_KEYPOINTS: Final = ((33, 133), (263, 362), (1,), (13, 14), (234,), (454,))
_IRISES: Final = ((33, 133), (263, 362))
_DETECTED_SHARE: Final = {"near": 1 / 14, "far": 1 / 70}
"""Smallest face of each kind of detector, of the frame's longer side."""
_HIDDEN: Final = 0.4
"""A head is hidden where a nearer one's middle is closer than this share of that one's size."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """One head at one time.

    Attributes:
        pose: Where it is.
        vertices: (468, 3), canonical space, of another expression than the canonical face's.
        score: What the mesh network says of it at best.
    """

    pose: Pose
    vertices: NDArray[np.floating] | None = None
    score: float = 1.0

    def seen(self, camera: Camera, points: int = 468) -> NDArray[np.float32]:
        """Return (points, 3) landmarks as the networks give them, in the frame's pixels.

        Depth is along the ray through the head, from the head's middle, in pixels there.
        """
        shape = np.asarray(VERTICES if self.vertices is None else self.vertices, np.float64)
        if points > len(shape):
            eyes = [shape[[*corners]].mean(axis=0) for corners in _IRISES for _ in range(5)]
            shape = np.vstack([shape, eyes])
        turned = shape @ self.pose.rotation.T
        middle = turned[: len(VERTICES)].mean(axis=0)
        place = middle + self.pose.translation
        ray = place / np.linalg.norm(place)
        depth = (turned - middle) @ ray * (camera.matrix[0, 0] / place[2])
        pixels = camera.project(turned + self.pose.translation)
        return np.column_stack([pixels, depth]).astype(np.float32)


def pose(
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    at: tuple[float, float, float] = (0.0, 0.0, 50.0),
) -> Pose:
    """Return the pose with these angles in degrees, whose origin is at a place in centimetres.

    It is `Pose.angles` the other way round.
    """
    y, p, r = np.radians([-yaw, -pitch, roll])
    about_y = [[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]]
    about_x = [[1, 0, 0], [0, math.cos(p), -math.sin(p)], [0, math.sin(p), math.cos(p)]]
    about_z = [[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]]
    rotation = np.array(about_z) @ np.array(about_y) @ np.array(about_x) @ FRONTAL
    return Pose(rotation, np.array(at, np.float64))


Actor = Callable[[float], Head | None]
"""From seconds to a head, None while it is away."""


class Scene:
    """Heads that move before a camera.

    Args:
        actors: The heads.
        width: Of the frames in pixels.
        height: Of the frames in pixels.
        camera: None takes one with the usual field of view.
        cuts: Seconds at which the background becomes another one.
        noise: Standard deviation of landmarks, in eye distances.
        seed: Of the noise.

    Attributes:
        seconds: Of the frame that was drawn last.
    """

    def __init__(
        self,
        actors: Sequence[Actor],
        width: int = 640,
        height: int = 480,
        *,
        camera: Camera | None = None,
        cuts: Sequence[float] = (),
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.camera = camera or Camera.from_fov(width, height)
        self.seconds = 0.0
        self.noise = noise
        self._actors, self._cuts = tuple(actors), tuple(cuts)
        self.random = np.random.default_rng(seed)
        # Rounding up or down at random keeps the mean of many pixels exact.
        dither = self.random.random((height, width))
        across = np.floor((np.arange(width) + 0.5) / width * 255 + dither)
        down = np.floor((np.arange(height)[:, None] + 0.5) / height * 255 + dither)
        frames = []
        for mark, flip in zip(_MARKS, (False, True), strict=True):
            frame = np.empty((height, width, 3), np.uint8)
            frame[..., 0] = 255 - across if flip else across
            frame[..., 1] = 255 - down if flip else down
            frame[..., 2] = mark
            frames.append(frame)
        self._frames = tuple(frames)

    def frame(self, seconds: float) -> NDArray[np.uint8]:
        """Draw the frame of a time; the networks answer for it until the next is drawn."""
        self.seconds = seconds
        scene = sum(seconds >= cut for cut in self._cuts) % 2
        return self._frames[scene].copy()

    def heads(self) -> list[Head]:
        """Return the heads that are there and can be seen, the nearest first."""
        there = [head for actor in self._actors if (head := actor(self.seconds)) is not None]
        there.sort(key=lambda head: float(head.pose.translation[2]))
        visible: list[tuple[Head, Roi]] = []
        for head in there:
            place = Roi.of_landmarks(head.seen(self.camera))
            if not any(_covers(nearer, place) for _, nearer in visible):
                visible.append((head, place))
        return [head for head, _ in visible]

    def inside(self, landmarks: NDArray[np.float32]) -> float:
        """Return which share of a face lies in the frame."""
        x, y = landmarks[:, 0], landmarks[:, 1]
        within = (x >= 0) & (y >= 0) & (x <= self.camera.width) & (y <= self.camera.height)
        return float(within.mean())


class SceneDetector:
    """What BlazeFace would find.

    Args:
        scene: That it looks at.
        kind: "near", or "far" for small faces too.

    Attributes:
        calls: How often it was asked.
    """

    def __init__(self, scene: Scene, kind: str = "near") -> None:
        self._scene, self._share = scene, _DETECTED_SHARE[kind]
        self.calls = 0

    def find(self, frame: NDArray[np.uint8]) -> Detections:
        """Return boxes and six keypoints of an (H, W, 3) frame of the scene, best first."""
        self.calls += 1
        boxes, points = [], []
        for head in self._scene.heads():
            seen = head.seen(self._scene.camera)
            # Its boxes go from the brows to the chin.
            face = seen[seen[:, 1] > seen[:, 1].min() + 0.15 * np.ptp(seen[:, 1]), :2]
            low, high = face.min(axis=0), face.max(axis=0)
            small = (high - low).max() < self._share * max(frame.shape[:2])
            if small or self._scene.inside(seen) < 0.5 or abs(camera_yaw(head.pose)) > 75:
                continue
            boxes.append(np.concatenate([low, high]))
            points.append([seen[[*group], :2].mean(axis=0) for group in _KEYPOINTS])
        count = len(boxes)
        return Detections(
            np.array(boxes, np.float32).reshape(count, 4),
            np.full(count, 0.9, np.float32),
            np.zeros(count, np.int64),
            np.array(points, np.float32).reshape(count, len(_KEYPOINTS), 2),
        )


class SceneMesh:
    """What Face Mesh would find.

    Args:
        scene: That the crops are from.
        points: 468, or 478 with irises.

    Attributes:
        size: Pixels of a crop's side.
        calls: How often it was asked.
    """

    def __init__(self, scene: Scene, points: int = 468) -> None:
        self._scene, self.points = scene, points
        self.size = 192
        self.calls = 0

    def read(self, crop: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """Return (points, 3) landmarks in a crop's pixels, and a score; junk without a face."""
        self.calls += 1
        nothing = np.full((self.points, 3), self.size / 2, np.float32), 0.0
        matrix = self._where(crop)
        if matrix is None:
            return nothing
        place = _square(matrix, self.size)
        for head in self._scene.heads():
            seen = head.seen(self._scene.camera, self.points)
            score = head.score * self._fit(head, seen, place)
            if score <= 0:
                continue
            eyes = float(np.linalg.norm(seen[33] - seen[263]))
            seen += (self._scene.random.normal(size=seen.shape) * self._scene.noise * eyes).astype(
                np.float32
            )
            scale = self.size / place.size
            pixels = (seen[:, :2] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
            return np.column_stack([pixels, seen[:, 2] * scale]).astype(np.float32), score
        return nothing

    def _fit(self, head: Head, seen: NDArray[np.float32], place: Roi) -> float:
        """Return the share of a head's score that is left in a crop of this square."""
        own = Roi.of_landmarks(seen)
        ratio = own.size / place.size
        apart = math.hypot(own.x - place.x, own.y - place.y) / own.size
        turn = abs(math.remainder(own.angle - place.angle, math.tau))
        if apart > 0.35 or not 0.4 < ratio < 2.5 or turn > math.pi / 3:
            return 0.0
        if self._scene.inside(seen) < 0.35:
            return 0.2
        return min(1.0, max(0.0, (95 - abs(camera_yaw(head.pose))) / 20))

    def _where(self, crop: NDArray[np.uint8]) -> F64 | None:
        """Return the (2, 3) matrix from the crop's to the frame's pixels, None if all is black."""
        blue = crop[..., 2]
        mark = next((mark for mark in _MARKS if (blue == mark).any()), None)
        if mark is None:
            return None
        rows, columns = np.nonzero(blue == mark)
        if len(rows) < 100:
            return None
        colours = crop[rows, columns, :2].astype(np.float64)
        if mark == _MARKS[1]:
            colours = 255 - colours
        known = np.column_stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
        camera = self._scene.camera
        found, *_ = np.linalg.lstsq(known, colours * [camera.width / 255, camera.height / 255])
        return np.asarray(found.T, np.float64)


def camera_yaw(pose: Pose) -> float:
    """Return the yaw in degrees that the camera sees: against the ray to the head."""
    towards = -pose.translation @ pose.rotation
    return math.degrees(math.atan2(float(towards[0]), float(towards[2])))


def _covers(nearer: Roi, other: Roi) -> bool:
    return math.hypot(nearer.x - other.x, nearer.y - other.y) < _HIDDEN * nearer.size / 1.5


def _square(matrix: F64, pixels: int) -> Roi:
    x, y = matrix @ [pixels / 2, pixels / 2, 1.0]
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    angle = math.atan2(float(matrix[1, 0]), float(matrix[0, 0]))
    return Roi(float(x), float(y), max(scale * pixels, 1e-6), angle)
