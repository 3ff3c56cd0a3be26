"""From a source through a session into files, windows and devices, one frame after another."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar import debug
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.media.frames import Frame
from retinue.apps.ar.session import Applied, Session

ANGLES = ("yaw", "pitch", "roll")


class Taker(Protocol):
    """Takes finished frames: a file, a window, a virtual camera."""

    def write(self, pixels: NDArray[np.uint8], frame: Frame) -> bool:
        """Take one; False ends the stream, as a closed window does."""
        ...


def stream(
    frames: Iterable[Frame],
    session: Session,
    takers: Sequence[Taker],
    *,
    show_debug: bool = False,
    paced: bool = False,
) -> Iterator[tuple[Frame, Applied]]:
    """Apply a session to frames and give the results away, in order.

    Args:
        frames: A source, or some of its frames.
        session: It draws on the frames themselves.
        takers: What the results are given to.
        show_debug: Whether landmarks, axes, measures and times are drawn too.
        paced: Whether a frame is given no earlier than its time comes, as a player does.

    Yields:
        Each frame with what was made of it, after all takers have it.
    """
    begin: float | None = None
    for frame in frames:
        done = session.apply(frame.pixels, frame.seconds, copy=False)
        if show_debug:
            debug.draw(done.pixels, done.faces, session.camera, done.timings_ms)
        if begin is None:
            begin = time.monotonic() - frame.seconds
        if paced:
            time.sleep(max(0.0, begin + frame.seconds - time.monotonic()))
        going = [taker.write(done.pixels, frame) for taker in takers]
        yield frame, done
        if not all(going):
            return


def as_json(frame: Frame, done: Applied) -> dict[str, Any]:
    """Return one frame's line: its number, faces and times."""
    line: dict[str, Any] = {
        "frame": frame.index,
        "seconds": round(frame.seconds, 6),
        "faces": [_face(face) for face in done.faces],
        "timings_ms": {stage: round(taken, 3) for stage, taken in done.timings_ms.items()},
    }
    if frame.damaged:
        line["damaged"] = True
    return line


def _face(face: Face) -> dict[str, Any]:
    return {
        "id": face.id,
        "score": round(face.score, 4),
        "landmarks": np.round(face.landmarks.astype(float), 2).tolist(),
        "pose": dict(zip(ANGLES, (round(angle, 2) for angle in face.pose.angles()), strict=True)),
        "triggers": {
            name: round(value, 4) for name, value in face.coefficients.items() if name not in ANGLES
        },
    }
