"""A head's pose against the truth: SQPNP and its refinement, and MediaPipe's Procrustes analysis.

The canonical face is projected from known poses: yaw, pitch and roll on a grid, on the camera's
axis and up to 24 cm beside it at 40 cm, with noise of 0.5 % of the eye distance (thrice that in
depth). Depth is as networks give it: along the ray to the head, without perspective. Errors of the
rotation are in degrees, those of where the mesh is drawn in percent of the eye distance.

Drift is how far a head's rotation off the axis is from what it is on the axis, with the same head,
without noise: the most of nine poses. It is of another person than the canonical one, narrower and
with a longer nose, whose shape every solver takes for something else.

MediaPipe's solver is written anew from its description: the landmarks are unprojected twice with
an estimated scale, then the best similarity is found (geometry pipeline,
https://github.com/google-ai-edge/mediapipe).

With ``--photo`` the last rows are the real mesh network: scikit-image's astronaut as a camera sees
her that is turned by so many degrees (a homography); the head's pose must turn alike.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterable

import cv2
import numpy as np

from common import ms, show
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.canonical import BASIS, BASIS_WEIGHTS, VERTICES
from retinue.apps.ar.face.pose import solve
from retinue.apps.ar.face.roi import Roi
from retinue.apps.ar.face.values import FRONTAL, Pose
from retinue.core.errors import RetinueError
from retinue.testing.ar import Head, pose

CAMERA = Camera.from_fov(1280, 720)
YAWS, PITCHES, ROLLS = (-60, -40, -20, 0, 20, 40, 60), (-30, 0, 30), (-30, 0, 30)
PLACES = {
    "on the axis, 40 cm": (0.0, 0.0, 40.0),
    "12 cm off, 40 cm": (12.0, 0.0, 40.0),
    "24 cm off, 40 cm": (24.0, 0.0, 40.0),
    "24 cm off, the other side": (-24.0, 0.0, 40.0),
    "15 cm off and 12 up, 40 cm": (15.0, -12.0, 40.0),
    "on the axis, 80 cm": (0.0, 0.0, 80.0),
    "45 cm off, 80 cm": (45.0, 0.0, 80.0),
}
NOISE = 0.005
PERSON = VERTICES * np.float32([0.94, 1.03, 1.0])
PERSON[:, 2] += (0.8 * np.exp(-((VERTICES[:, 0] / 1.5) ** 2) - (VERTICES[:, 1] / 2.5) ** 2)).astype(
    np.float32
)
Solver = Callable[[np.ndarray], Pose]


def ours(landmarks: np.ndarray) -> Pose:
    return solve(landmarks, CAMERA)


def squared(landmarks: np.ndarray) -> Pose:
    """SQPNP alone, with the same weight for all 33 points."""
    _, turn, shift = cv2.solvePnP(
        VERTICES[BASIS].astype(np.float64),
        landmarks[BASIS, :2].astype(np.float64),
        CAMERA.matrix,
        None,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    return Pose(cv2.Rodrigues(turn)[0], shift.ravel())


def mediapipe(landmarks: np.ndarray) -> Pose:
    height = 2 * math.tan(math.radians(63) / 2)
    width = height * CAMERA.width / CAMERA.height
    seen = landmarks[:468].astype(np.float64) / [CAMERA.width, CAMERA.height, CAMERA.width]
    screen = np.empty_like(seen)
    screen[:, 0] = (seen[:, 0] - 0.5) * width
    screen[:, 1] = (0.5 - seen[:, 1]) * height
    screen[:, 2] = seen[:, 2] * width
    middle = screen[:, 2].mean()
    first = similarity(screen * [1, 1, -1])[0]

    def metric(scale: float) -> np.ndarray:
        points = screen.copy()
        points[:, 2] = (points[:, 2] - middle + 1) / scale
        points[:, :2] *= points[:, 2:]
        return points * [1, 1, -1]

    total = first * similarity(metric(first))[0]
    scale, rotation, shift = similarity(metric(total))
    return Pose(FRONTAL @ rotation, FRONTAL @ shift / scale)


def similarity(target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return scale, rotation and translation that take the canonical face's points there."""
    weights = BASIS_WEIGHTS / BASIS_WEIGHTS.sum()
    source, goal = VERTICES[BASIS].astype(np.float64), target[BASIS]
    from_middle, to_middle = weights @ source, weights @ goal
    near, far = source - from_middle, goal - to_middle
    u, _, vt = np.linalg.svd((far * weights[:, None]).T @ near)
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    turned = near @ rotation.T
    scale = float((weights[:, None] * far * turned).sum() / (weights[:, None] * near**2).sum())
    return scale, rotation, to_middle - scale * rotation @ from_middle


SOLVERS: dict[str, Solver] = {"ours": ours, "SQPNP": squared, "MediaPipe": mediapipe}


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return math.degrees(math.acos(min(max((np.trace(one @ other.T) - 1) / 2, -1.0), 1.0)))


def drawn_off(found: Pose, truth: Pose) -> float:
    """Return how far off the mesh is drawn, in percent of the eye distance."""
    places = [CAMERA.project(VERTICES @ p.rotation.T + p.translation) for p in (found, truth)]
    eyes = np.linalg.norm(Head(truth).seen(CAMERA)[33] - Head(truth).seen(CAMERA)[263])
    return float(np.linalg.norm(places[0] - places[1], axis=1).mean() / eyes * 100)


def errors(poses: Iterable[Pose], solver: Solver) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    turned, off = [], []
    for truth in poses:
        landmarks = Head(truth).seen(CAMERA)
        eyes = np.linalg.norm(landmarks[33] - landmarks[263])
        landmarks = landmarks + random.normal(size=landmarks.shape) * NOISE * eyes * [1, 1, 3]
        found = solver(landmarks)
        turned.append(apart(found.rotation, truth.rotation))
        off.append(drawn_off(found, truth))
    return np.array(turned), np.array(off)


def drift(solver: Solver, place: tuple[float, float, float]) -> float:
    """Return the largest change of a head's error between a place and the axis, in degrees."""
    worst = 0.0
    for yaw, pitch in itertools.product((-30, 0, 30), (-20, 0, 20)):
        faults = []
        for at in (place, (0.0, 0.0, place[2])):
            truth = pose(yaw, pitch, 0, at)
            faults.append(solver(Head(truth, PERSON).seen(CAMERA)).rotation @ truth.rotation.T)
        worst = max(worst, apart(*faults))
    return worst


def row(name: str, poses: list[Pose], place: tuple[float, float, float] | None) -> list[str]:
    cells = [name]
    for solver in SOLVERS.values():
        turned, off = errors(poses, solver)
        moved = "" if place is None else f"{drift(solver, place):.1f}"
        cells += [f"{turned.mean():.1f}", f"{turned.max():.1f}", f"{off.mean():.1f}", moved]
    return cells


def grid() -> list[list[str]]:
    every = {
        name: [pose(*angles, at) for angles in itertools.product(YAWS, PITCHES, ROLLS)]
        for name, at in PLACES.items()
    }
    rows = [row(name, poses, PLACES[name]) for name, poses in every.items()]
    for low, high in ((0, 20), (40, 40), (60, 60)):
        angles = itertools.product(YAWS, PITCHES, ROLLS)
        chosen = [a for a in angles if low <= abs(a[0]) <= high]
        poses = [pose(*a, at) for a in chosen for at in PLACES.values()]
        name = f"yaw of {low} to {high}" if low < high else f"yaw of {low}"
        rows.append(row(f"{name}, all places", poses, None))
    return rows


def photo() -> list[list[str]]:
    """Return the rows of the real network; raises `RetinueError` where it cannot be had."""
    import skimage.data

    from retinue.apps.ar.networks import Networks
    from retinue.apps.ar.settings import ArSettings
    from retinue.core.settings import Settings

    mesh = Networks(Settings(), ArSettings()).mesh
    still = skimage.data.astronaut()

    def look(frame: np.ndarray, roi: Roi) -> np.ndarray:
        for _ in range(4):
            crop = roi.crop(frame, mesh.size)
            landmarks = roi.landmarks_to_frame(mesh.read(crop)[0], mesh.size)
            roi = Roi.of_landmarks(landmarks)
        return landmarks

    start = look(still, Roi(225, 123, 163))
    x, y = start[:, :2].mean(axis=0)
    before = np.array([[600.0, 0, x], [0, 600.0, y], [0, 0, 1]])
    rows, first = [], {}
    for yaw, pitch in ((0, 0), (10, 0), (20, 0), (31, 0), (-31, 0), (25, 15), (0, 20)):
        turn = pose(-yaw, -pitch).rotation @ FRONTAL
        matrix = CAMERA.matrix @ turn @ np.linalg.inv(before)
        frame = cv2.warpPerspective(still, matrix, (CAMERA.width, CAMERA.height))
        there = np.column_stack([start[:, :2], np.ones(468)]) @ matrix.T
        landmarks = look(frame, Roi.of_landmarks(there[:, :2] / there[:, 2:]))
        cells = [f"photo, camera turned {yaw}, {pitch}"]
        for name, solver in SOLVERS.items():
            found = solver(landmarks).rotation
            first.setdefault(name, found)
            cells += ["", "", "", f"{apart(found, turn @ first[name]):.1f}"]
        rows.append(cells)
    return rows


def times() -> list[str]:
    """Return milliseconds of each solver, and of ours from the last frame's pose."""
    landmarks = [Head(pose(10 + i, 5, 0, (5 + i / 4, 2, 45))).seen(CAMERA) for i in range(8)]
    last = ours(landmarks[0])

    def following() -> None:
        found = last
        for seen in landmarks:
            found = solve(seen, CAMERA, found)

    calls: dict[str, Callable[[], object]] = {"ours, following": following}
    for name, solver in SOLVERS.items():
        calls[name] = lambda solver=solver: [solver(seen) for seen in landmarks]
    lines = []
    for name, call in calls.items():
        spent = []
        for _ in range(20):
            began = time.perf_counter()
            call()
            spent.append((time.perf_counter() - began) / len(landmarks))
        lines.append(f"{name} {ms(float(np.median(spent)))} ms")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", action="store_true", help="also the real network on a photo")
    rows, notes = grid(), []
    if parser.parse_args().photo:
        try:
            rows += photo()
        except (ImportError, RetinueError) as error:
            notes.append(f"no photo: {error}")
    columns = ["heads"]
    for name in SOLVERS:
        columns += [f"{name} mean", "max", "drawn %", "drift"]
    show(
        "errors of a head's pose, degrees",
        columns,
        rows,
        notes=[*notes, "; ".join(times()), f"noise {NOISE:.1%} of the eye distance"],
    )


if __name__ == "__main__":
    main()
