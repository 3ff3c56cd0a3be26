"""AR filters on 720p video: time by stage, faces, filters, and MediaPipe beside the part it does.

    python benchmarks/ar.py [--frames 150] [--rounds 6] [--filter dog] [--runtime openvino]
                            [--threads 2]

The video is scikit-image's photo of an astronaut, moved, turned and scaled from frame to frame.
MediaPipe 0.10.21 runs in an environment of its own under build/peers/. Decoding and encoding are
not part of any time here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data

from common import peer_python, show
from retinue.apps.ar import filters
from retinue.apps.ar.face.roi import Roi
from retinue.apps.ar.face.tracker import Tracker
from retinue.apps.ar.networks import Networks
from retinue.apps.ar.render.choose import open_renderer
from retinue.apps.ar.session import Session
from retinue.apps.ar.settings import ArSettings
from retinue.core.settings import Settings

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("RETINUE_CACHE", HERE.parent / ".cache" / "models"))
WIDTH, HEIGHT, FPS = 1280, 720, 30.0
FACE = (222.0, 122.0)
"""The middle of the face in the photo, whose width is about 100 of its pixels."""
WARM_UP = 30


def video(count: int, faces: int = 1) -> np.ndarray:
    """Return (count, 720, 1280, 3) uint8: so many copies of the face, each on its way."""
    photo = skimage.data.astronaut()
    frames = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    strip = WIDTH // faces
    scale = 2.6 if faces == 1 else min(2.0, strip / 260)
    for number in range(count):
        for face in range(faces):
            t = 2 * np.pi * (number / 120 + face / 7)
            zoom = scale * (1 + 0.08 * np.sin(0.7 * t))
            turn = cv2.getRotationMatrix2D(FACE, 10 * np.sin(t), zoom)
            sway = min(120.0, strip / 8) * np.sin(1.3 * t), 40 * np.sin(1.7 * t)
            turn[:, 2] += (strip / 2 + sway[0] - FACE[0], HEIGHT / 2 + sway[1] - FACE[1])
            part = cv2.warpAffine(photo, turn, (strip, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
            frames[number, :, face * strip : (face + 1) * strip] = part
    return frames


class Ours:
    """Sessions that share models and a renderer."""

    def __init__(self, runtime: str, threads: int, renderer: str) -> None:
        settings = Settings(cache=CACHE, execution={"runtime": runtime, "threads": threads})
        self.ar = ArSettings(renderer=renderer)
        self.settings, self.networks = settings, Networks(settings, self.ar)
        self.renderer = open_renderer(self.ar.renderer)

    def run(self, frames: np.ndarray, worn: str, *, live: bool = False) -> dict[str, Any]:
        """Apply a filter; return times by stage, and the quality that the governor came to."""
        with Session(
            filters.load(worn),
            ar=self.ar,
            networks=self.networks,
            renderer=self.renderer,
            live=live,
        ) as session:
            taken: dict[str, list[float]] = {}
            for number, frame in enumerate(frames):
                done = session.apply(frame.copy(), number / FPS, copy=False)
                for stage, ms in done.timings_ms.items():
                    taken.setdefault(stage, []).append(ms)
            return {"ms": taken, "level": session.governor.level}

    def track(
        self, frames: np.ndarray, *, iris: bool = False, smoothing: bool = True
    ) -> dict[str, Any]:
        """Follow one face; return times and its landmarks."""
        mesh = self.networks.iris_mesh if iris else self.networks.mesh
        tracker = Tracker(self.networks.detector, mesh, max_faces=1, smoothing=smoothing)
        taken, alone, marks = [], [], []
        for number, frame in enumerate(frames):
            frame = frame.copy()
            start = time.perf_counter()
            faces = tracker.update(frame, number / FPS)
            taken.append(1000 * (time.perf_counter() - start))
            alone.append(tracker.timings_ms["detect"] + tracker.timings_ms["mesh"])
            marks.append(faces[0].landmarks[:468] if faces else np.full((468, 3), np.nan))
        return {"ms": {"total": taken, "landmarks": alone}, "landmarks": np.array(marks)}


def mediapipe(frames: np.ndarray, faces: int, *, refine: bool) -> dict[str, Any]:
    """Run MediaPipe's FaceMesh on the same frames."""
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name, "frames.npy"), Path(name, "out.npz")
        np.save(source, frames)
        program = [peer_python("mediapipe", shared=False), HERE / "peers" / "mediapipe_face.py"]
        quiet = {**os.environ, "GLOG_minloglevel": "3", "MEDIAPIPE_DISABLE_GPU": "1"}
        subprocess.run(
            [*program, source, out, str(faces), str(int(refine))],
            check=True,
            env=quiet,
            stderr=subprocess.DEVNULL,
        )
        with np.load(out) as read:
            return {"ms": {"total": read["ms"].tolist()}, "landmarks": read["landmarks"][:, :468]}


def centred(theirs: np.ndarray) -> np.ndarray:
    """Return MediaPipe's landmarks without the shift of its crops on the CPU.

    There a crop's pixel shows the frame at its corner in place of its middle, so that what is seen
    lies (s - 1) / 2 pixels too far to the right and down, s being the frame's pixels for one of
    the crop. Its path on the GPU has no such shift.
    """
    moved = theirs.copy()
    for points in moved:
        if np.isfinite(points).all():
            roi = Roi.of_landmarks(points)
            shift = (roi.size / 192 - 1) / 2
            cosine, sine = np.cos(roi.angle), np.sin(roi.angle)
            points[:, :2] -= shift * cosine - shift * sine, shift * sine + shift * cosine
    return moved


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the mean distance of landmarks in the picture, in per cent of the eye distance."""
    eyes = np.linalg.norm(theirs[:, 33, :2] - theirs[:, 263, :2], axis=1)
    away = np.linalg.norm(ours[..., :2] - theirs[..., :2], axis=2).mean(axis=1)
    return float(100 * np.nanmean(away[WARM_UP:] / eyes[WARM_UP:]))


def cells(runs: list[dict[str, Any]], stage: str = "total") -> tuple[str, str]:
    """Return p50 and p95 over all rounds, without the first frames of each."""
    taken = np.concatenate([run["ms"].get(stage, [0.0] * 60)[WARM_UP:] for run in runs])
    p50, p95 = np.percentile(taken, [50, 95])
    return f"{p50:.2f}", f"{p95:.2f}"


def in_peers(times: tuple[str, str], base: float) -> tuple[str, str, str]:
    """Return p50 and p95, and p50 in units of the peer's."""
    return *times, f"{float(times[0]) / base:.2f}"


def in_budget(runs: list[dict[str, Any]], budget: float) -> str:
    """Return the share of frames that kept to the budget."""
    taken = np.concatenate([run["ms"]["total"][WARM_UP:] for run in runs])
    return f"{np.mean(taken <= budget):.1%}"


def tables(ours: Ours, options: argparse.Namespace) -> Iterator[tuple[str, tuple, list, tuple]]:
    """Yield title, columns, rows and notes of each table."""
    frames = video(options.frames)
    tracked, theirs, worn, refined, fine = [], [], [], [], []
    for _ in range(options.rounds):
        tracked.append(ours.track(frames))
        theirs.append(mediapipe(frames, 1, refine=False))
        worn.append(ours.run(frames, options.filter))
        fine.append(ours.track(frames, iris=True))
        refined.append(mediapipe(frames, 1, refine=True))
    raw = [ours.track(frames, iris=iris, smoothing=False) for iris in (False, True)]
    rows = []
    for points, mine, peer, plain in ((468, tracked, theirs, raw[0]), (478, fine, refined, raw[1])):
        known = peer[0]["landmarks"]
        apart = [
            f"{difference(run['landmarks'], other):.2f}"
            for run, other in ((plain, known), (plain, centred(known)), (mine[0], known))
        ]
        base = float(cells(peer)[0])
        for what, stage in (("landmarks", "landmarks"), ("smoothed, with poses", "total")):
            times = cells(mine, stage)
            speed = f"{base / float(times[0]):.2f}"
            rows.append((f"Retinue, {points}, {what}", *times, speed, *apart))
            apart = ["", "", ""]
        rows.append((f"MediaPipe FaceMesh, {points}", *cells(peer), "1", "", "", ""))
    columns = ("tracking, one face", "p50 ms", "p95 ms", "speed", "apart", "centred", "smoothed")
    notes = (
        "apart: mean distance in the picture in per cent of the eye distance, ours not smoothed",
        "centred: the same without the half pixel by which MediaPipe's crops are off on the CPU",
        "smoothed: ours as they are used, in motion",
    )
    yield "720p video, tracking alone", columns, rows, notes
    base = float(cells(theirs)[0])
    stages = [stage for stage in worn[0]["ms"] if stage != "total"]
    rows = [(stage, *in_peers(cells(worn, stage), base), "") for stage in stages]
    share = in_budget(worn, ours.ar.budget_ms)
    rows.append(("total", *in_peers(cells(worn), base), share))
    yield (
        f"720p video, one face, {options.filter}, always in full quality",
        ("stage", "p50 ms", "p95 ms", "p50 in FaceMeshes", f"within {ours.ar.budget_ms} ms"),
        rows,
        (
            f"renderer: {ours.renderer.name}; a stage that a frame did not need counts as 0",
            "in FaceMeshes: in units of MediaPipe's p50 for 468 landmarks in this run",
        ),
    )
    rows, before = [], 0.0
    for faces in (1, 2, 3, 4):
        runs = [ours.run(video(options.frames, faces), options.filter)]
        median = float(cells(runs)[0])
        rows.append((faces, *cells(runs), f"{median - before:+.2f}" if before else ""))
        before = median
    yield f"faces, {options.filter}", ("faces", "p50 ms", "p95 ms", "one more"), rows, ()
    rows = []
    for name in filters.names():
        runs = [ours.run(frames[:150], name, live=True)]
        rows.append((name, *cells(runs), in_budget(runs, ours.ar.budget_ms), runs[0]["level"]))
    columns = ("filter", "p50 ms", "p95 ms", "in budget", "governor's level")
    yield "all filters, one face, the governor at work", columns, rows, ()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--filter", default="dog")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--renderer", default="auto")
    options = parser.parse_args()
    ours = Ours(options.runtime, options.threads, options.renderer)
    for title, columns, rows, notes in tables(ours, options):
        show(title, columns, rows, notes=notes)


if __name__ == "__main__":
    main()
