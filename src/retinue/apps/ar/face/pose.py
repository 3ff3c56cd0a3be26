"""Where a head is, from its landmarks and the camera: perspective-n-point and its refinement.

The first guess is SQPNP's (Terzakis and Lourakis, "A Consistently Fast and Globally Optimal
Solution to the Perspective-n-Point Problem", ECCV 2020), or the last frame's pose. It is refined by
Levenberg and Marquardt's method on the weighted reprojection of 33 vertices. Two heads that are
mirror images in depth look almost alike; the network's own depth says which of the two it is, and
therefore takes part with a small weight, along the ray through the face, as the network sees it.
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.canonical import BASIS, BASIS_WEIGHTS, VERTICES
from retinue.apps.ar.face.values import Pose
from retinue.core.errors import InvalidRequest

F64 = NDArray[np.float64]

_POINTS: Final[F64] = VERTICES[BASIS].astype(np.float64)
_WEIGHTS: Final[F64] = (BASIS_WEIGHTS / BASIS_WEIGHTS.sum()).astype(np.float64)
_CENTRE: Final[F64] = _WEIGHTS @ _POINTS
_CENTRED: Final[F64] = _POINTS - _CENTRE

DEPTH_WEIGHT: Final = 0.2
"""Of a pixel's error in depth against one in the picture, in squares."""
_MAX_ITERATIONS: Final = 12
_SMALL_STEP: Final = 2e-3
"""Radians, and shares of the distance: the error left after such a step is a hundredth of it."""
_JUMP: Final = 0.35
"""A cost above the square of this share of the head's size says that the last pose is of no use."""
_MIN_DEPTH: Final = 1.0
_NEXT, _LAST = [1, 2, 0], [2, 0, 1]
_MIN_SIZE: Final = 1e-6
_ALL_ROOTS: Final[F64] = np.sqrt(_WEIGHTS) * np.sqrt([[1.0], [1.0], [DEPTH_WEIGHT]])
"""(3, 33): of the residuals of both slopes and the depth."""


def solve(landmarks: NDArray[np.floating], camera: Camera, guess: Pose | None = None) -> Pose:
    """Find the pose of the canonical face that explains the landmarks.

    Args:
        landmarks: (N, 3), N >= 468: x and y in the camera's pixels, z in the same unit, smaller is
            nearer.
        camera: That took the frame.
        guess: The last frame's pose, if the face was there: faster, and continuous.

    Returns:
        The pose, whose `error` is the weighted root mean square reprojection error in pixels.

    Raises:
        InvalidRequest: the landmarks' shape is another, they are not finite, or all in one place.
    """
    if landmarks.ndim != 2 or len(landmarks) < len(VERTICES) or landmarks.shape[1] != 3:
        raise InvalidRequest(f"landmarks must be (468 or more, 3), not {landmarks.shape}")
    problem = _Problem(landmarks[BASIS].astype(np.float64), camera)
    if guess is not None:
        found = _refine(problem, guess.rotation, guess.translation)
        if found[0] < (_JUMP * problem.size) ** 2 and problem.agrees(found[1]):
            return problem.pose(*found[1:])
    starts = (problem.squared_pnp(), problem.procrustes())
    found = min((_refine(problem, *start) for start in starts if start), key=itemgetter(0))
    return problem.pose(*found[1:])


class _Problem:
    """What is seen of one face.

    Attributes:
        slopes: (2, 33), of the rays through the points: x / z and y / z.
        ray: (3,), unit, through their middle.
        depths: (33,), along that ray from the middle, in units of the face's depth.
        size: Root mean square distance of the slopes from their middle.
    """

    def __init__(self, seen: F64, camera: Camera) -> None:
        if not np.isfinite(seen).all():
            raise InvalidRequest("landmarks are not finite; the face network failed on this crop")
        self.slopes = np.ascontiguousarray(camera.rays(seen[:, :2]).T)
        self._focal = math.sqrt(camera.matrix[0, 0] * camera.matrix[1, 1])
        x, y = (self.slopes @ _WEIGHTS).tolist()
        self.ray = np.array([x, y, 1.0]) / math.sqrt(1 + x * x + y * y)
        self.depths = (seen[:, 2] - seen[:, 2] @ _WEIGHTS) / self._focal
        squares = float((self.slopes * self.slopes @ _WEIGHTS).sum())
        self.size = math.sqrt(max(squares - x * x - y * y, 0.0))
        if self.size < _MIN_SIZE:
            raise InvalidRequest("landmarks lie all in one place; the face network failed")

    def squared_pnp(self) -> tuple[F64, F64] | None:
        try:
            found, turn, shift = cv2.solvePnP(
                _POINTS, self.slopes.T.copy(), np.eye(3), None, flags=cv2.SOLVEPNP_SQPNP
            )
        except cv2.error:
            # It refuses faces that are too small in the picture for its numbers.
            return None
        translation = np.asarray(shift, np.float64).ravel()
        if not found or not np.isfinite(translation).all() or translation[2] < _MIN_DEPTH:
            return None
        return np.asarray(cv2.Rodrigues(turn)[0], np.float64), translation

    def procrustes(self) -> tuple[F64, F64]:
        """Return the pose of the points and depths taken for a picture without perspective."""
        turn = _towards(self.ray)
        rays = np.column_stack([*self.slopes, np.ones(len(_POINTS))]) @ turn
        target = np.column_stack([rays[:, :2] / rays[:, 2:], self.depths * self.ray[2]])
        target -= _WEIGHTS @ target
        u, _, vt = np.linalg.svd((target * _WEIGHTS[:, None]).T @ _CENTRED)
        u[:, 2] *= np.sign(np.linalg.det(u @ vt))
        local = u @ vt
        size = math.sqrt(float(_WEIGHTS @ (target[:, :2] ** 2).sum(axis=1)))
        wide = _CENTRED @ local[:2].T
        distance = math.sqrt(float(_WEIGHTS @ (wide * wide).sum(axis=1))) / max(size, _MIN_SIZE)
        rotation = turn @ local
        return rotation, self.ray * max(distance, _MIN_DEPTH) - rotation @ _CENTRE

    def agrees(self, rotation: F64) -> bool:
        """Return whether the points' depths grow as the network says, and not against it."""
        depths = _CENTRED @ (self.ray @ rotation)
        return float((_WEIGHTS * depths) @ self.depths) >= 0

    def pose(self, rotation: F64, translation: F64) -> Pose:
        points = rotation @ _POINTS.T + translation[:, None]
        off = points[:2] / points[2] - self.slopes
        error = math.sqrt(float((off * off).sum(axis=0) @ _WEIGHTS)) * self._focal
        return Pose(rotation, translation, error)


def _towards(ray: F64) -> F64:
    """Return the smallest rotation that takes the camera's axis to the ray, both unit."""
    x, y, z = ray
    a = 1.0 / (1.0 + z)
    return np.array([[1 - a * x * x, -a * x * y, x], [-a * x * y, 1 - a * y * y, y], [-x, -y, z]])


def _refine(problem: _Problem, rotation: F64, translation: F64) -> tuple[float, F64, F64]:
    """Return (cost, rotation, translation) at the nearest minimum."""
    damping = 1e-6
    cost, residuals, jacobian = _linearise(problem, rotation, translation)
    for _ in range(_MAX_ITERATIONS):
        normal = jacobian @ jacobian.T
        normal.flat[::7] *= 1.0 + damping
        step = np.linalg.solve(normal, jacobian @ residuals)
        x, y, z = (-step[:3]).tolist()
        turned = _turn(x, y, z) @ rotation
        # Rotations are about the points' middle, which hardly moves then: faster convergence.
        moved = translation - step[3:] * translation[2] + (rotation - turned) @ _CENTRE
        if moved[2] < _MIN_DEPTH:
            damping = max(damping * 100, 1e-2)
            continue
        if np.abs(step).max() < _SMALL_STEP:
            return cost, turned, moved
        new = _linearise(problem, turned, moved)
        if new[0] <= cost:
            rotation, translation = turned, moved
            cost, residuals, jacobian = new
            damping *= 0.1
        else:
            damping = max(damping * 100, 1e-2)
    return cost, rotation, translation


def _linearise(problem: _Problem, rotation: F64, translation: F64) -> tuple[float, F64, F64]:
    """Return the cost, the (99,) weighted residuals and their (6, 99) derivatives.

    The parameters are a small rotation about the points' middle, and the translation in units of
    its depth.
    """
    turned = rotation @ _CENTRED.T
    middle = rotation @ _CENTRE + translation
    unit, distance = float(translation[2]), float(middle[2])
    near = 1.0 / np.maximum(turned[2] + distance, _MIN_DEPTH)
    slopes = (turned[:2] + middle[:2, None]) * near
    depths = (problem.ray @ turned) * (1.0 / distance)
    jacobian = np.empty((6, 3, len(_POINTS)))
    moved, residuals = jacobian[3:], np.empty((3, len(_POINTS)))
    np.subtract(slopes, problem.slopes, out=residuals[:2])
    np.subtract(depths, problem.depths, out=residuals[2])
    residuals *= _ALL_ROOTS
    # How slopes and depths change when a point moves along each axis ...
    moved[0, 0] = moved[1, 1] = near
    moved[0, 1] = moved[1, 0] = 0.0
    np.multiply(slopes, -near, out=moved[2, :2])
    moved[:, 2] = problem.ray[:, None] * (1.0 / distance)
    moved *= _ALL_ROOTS
    # ... which it does, when the head turns, across itself.
    along = turned[:, None]
    jacobian[:3] = along[_NEXT] * moved[_LAST] - along[_LAST] * moved[_NEXT]
    moved[:, :2] *= unit
    # Depths count from the middle: they do not change with it, but shrink with its distance.
    moved[:2, 2] = 0.0
    np.multiply(depths, _ALL_ROOTS[2] * (-unit / distance), out=moved[2, 2])
    flat = residuals.ravel()
    return float(flat @ flat), flat, jacobian.reshape(6, -1)


def _turn(x: float, y: float, z: float) -> F64:
    """Return the rotation by a vector of radians (Rodrigues' formula)."""
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < 1e-12:
        sine, cosine = 1.0, 0.5
    else:
        sine, cosine = math.sin(angle) / angle, (1 - math.cos(angle)) / (angle * angle)
    xx, yy, zz = x * x * cosine, y * y * cosine, z * z * cosine
    xy, xz, yz = x * y * cosine, x * z * cosine, y * z * cosine
    sx, sy, sz = x * sine, y * sine, z * sine
    return np.array(
        [
            [1 - yy - zz, xy - sz, xz + sy],
            [xy + sz, 1 - xx - zz, yz - sx],
            [xz - sy, yz + sx, 1 - xx - yy],
        ]
    )
