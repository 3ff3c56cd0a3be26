"""Follows faces from frame to frame.

The mesh network finds a face where its landmarks were in the last frame; the detector runs only
when a face was lost, when there is none, and twice a second while more may come.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face._follow import (
    REMEMBERED_S,
    CutDetector,
    Seen,
    Track,
    came_back,
    doubles,
    same,
)
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.coefficients import coefficients
from retinue.apps.ar.face.pose import solve
from retinue.apps.ar.face.roi import MARGIN, Roi
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.pair import Pair
from retinue.core.errors import InvalidRequest
from retinue.core.types import Detections

Frame = NDArray[np.uint8]

MIN_SCORE: Final = 0.5
"""Of the mesh network, below which there is no face."""
MIN_FACE: Final = 8.0
"""Pixels of a face's longer side below which its landmarks say nothing."""
MAX_GAP_S: Final = 1.0
"""Seconds without a frame after which faces are looked for anew."""
_MAX_MISFIT: Final = 0.3
"""Reprojection error in eye distances at which the landmarks are no face's."""
_EAGER: Final = 10
_REST_S: Final = 0.1
"""Without a face, the detector runs on so many frames, and then after so many seconds."""


class FaceDetector(Protocol):
    """Finds faces in a whole frame."""

    def find(self, frame: Frame) -> Detections:
        """Return boxes and keypoints in pixels of an (H, W, 3) uint8 RGB frame.

        The first two keypoints are the eyes, the one on the picture's left first.
        """
        ...


class MeshNetwork(Protocol):
    """Finds the landmarks of the face that fills a crop."""

    @property
    def size(self) -> int:
        """Pixels of the crop's side."""
        ...

    def read(self, crop: Frame) -> tuple[NDArray[np.float32], float]:
        """Return (468 or 478, 3) landmarks in the crop's pixels, and that it is a face at all."""
        ...


class Tracker:
    """Follows the faces of one stream; used by one thread.

    Args:
        detector: For faces near the camera.
        mesh: The landmark network. The attribute may be set to another between two frames.
        camera: That takes the frames. None takes one with the usual field of view, and a new one
            when the frames' size changes. The attribute may be set between two frames.
        twin: Another instance of the landmark network, for a second thread, so that two faces are
            looked at at once. To be set together with `mesh`.
        max_faces: That are followed at once; of more, the largest are.
        full_range: A detector for small faces, asked where the first finds nothing new.
        detect_every: Seconds between looks for more faces.
        smoothing: Whether landmarks are smoothed; without it they are the network's own.
        predict_s: Seconds that are added to a frame's time to say where faces are: what passes
            until the picture is seen.
        mirrored: Whether frames are a mirror's: what is the subject's left is then exchanged.

    Raises:
        InvalidRequest: an argument is out of its range.
    """

    def __init__(
        self,
        detector: FaceDetector,
        mesh: MeshNetwork,
        camera: Camera | None = None,
        *,
        twin: MeshNetwork | None = None,
        max_faces: int = 4,
        full_range: FaceDetector | None = None,
        detect_every: float = 0.5,
        smoothing: bool = True,
        predict_s: float = 0.0,
        mirrored: bool = False,
    ) -> None:
        if max_faces < 1 or not detect_every >= 0 or not 0 <= predict_s <= 1:
            raise InvalidRequest(
                f"max_faces={max_faces} must be >= 1, detect_every={detect_every} >= 0 and "
                f"predict_s={predict_s} between 0 and 1 second"
            )
        self.mesh, self.twin = mesh, twin
        self.camera = camera
        self.timings_ms: dict[str, float] = {"detect": 0.0, "mesh": 0.0, "pose": 0.0}
        self._near, self._far = detector, full_range
        self._own_camera = camera is None
        self._max, self._every, self._predict = max_faces, detect_every, predict_s
        self._smoothing, self._mirrored = smoothing, mirrored
        self._cuts = CutDetector()
        self._pair = Pair()
        self._ids = 0
        self.reset()

    def reset(self) -> None:
        """Forget all faces and the time; ids go on."""
        self._tracks: list[Track] = []
        self._seconds: float | None = None
        self._shape: tuple[int, ...] = ()
        self._forget()

    def _forget(self) -> None:
        """Start a new scene: what is found in its first frame is shown at once."""
        self._tracks.clear()
        self._cuts.reset()
        self._opening = True
        self._detected, self._empty, self._far_next = -math.inf, 0, False

    def update(self, frame: Frame, seconds: float) -> list[Face]:
        """Find the faces of the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB, upright.
            seconds: Its time. Frames may come at any pace; one that is before the last starts
                anew, as another video does.

        Returns:
            The faces, oldest first, those that fade out among them; at most `max_faces`.

        Raises:
            InvalidRequest: it is no such picture, its time is not a number, or the camera is for
                frames of another size.
            ModelRunFailed: a network failed.
        """
        frame = _checked(frame)
        if not math.isfinite(seconds):
            raise InvalidRequest(f"a frame's time must be a number of seconds, not {seconds}")
        camera = self._camera_for(frame)
        gap = 0.0 if self._seconds is None else seconds - self._seconds
        if gap < 0 or frame.shape != self._shape:
            self._forget()
            gap = 0.0
        if self._cuts.update(frame):
            self._forget()
            self._cuts.update(frame)
        self._seconds, self._shape = seconds, frame.shape
        self.timings_ms = {"detect": 0.0, "mesh": 0.0, "pose": 0.0}
        if gap > MAX_GAP_S:
            for track in self._tracks:
                track.lost = True
        self._follow(frame, seconds)
        if self._must_detect(seconds):
            self._detect(frame, seconds)
        start = time.perf_counter()
        faces = self._answer(camera, seconds, gap)
        self.timings_ms["pose"] += 1000 * (time.perf_counter() - start)
        self._opening = False
        return faces

    def _camera_for(self, frame: Frame) -> Camera:
        height, width = frame.shape[:2]
        camera = self.camera
        if camera is None or (camera.width, camera.height) != (width, height):
            if camera is not None and not self._own_camera:
                raise InvalidRequest(
                    f"a frame has {width}x{height} pixels, but the camera is for "
                    f"{camera.width}x{camera.height}; give one for these frames"
                )
            camera = self.camera = Camera.from_fov(width, height)
        return camera

    # -- following ---------------------------------------------------------------------------

    def _follow(self, frame: Frame, seconds: float) -> None:
        followed = [track for track in self._tracks if not track.lost]
        read = self._read(frame, [track.roi for track in followed])
        for track, found in zip(followed, read, strict=True):
            self._see(track, found, seconds)
        seen = [track for track in self._tracks if not track.lost]
        for track in doubles(seen):
            track.unsee()

    def _see(self, track: Track, read: Seen | None, seconds: float) -> None:
        """Let a face be where the network saw it; it is lost where it did not."""
        if read is None:
            track.lost = True
            return
        start = time.perf_counter()
        if not self._smoothing:
            track.smooth.reset()
        track.see(read, seconds)
        self.timings_ms["pose"] += 1000 * (time.perf_counter() - start)

    def _read(self, frame: Frame, rois: Sequence[Roi]) -> list[Seen | None]:
        """Return what the network sees in squares, None where there is no face."""
        start = time.perf_counter()
        read: list[Seen | None] = [None] * len(rois)
        networks = [self.mesh] if self.twin is None else [self.mesh, self.twin]

        def look(own: int) -> None:
            for number in range(own, len(rois), len(networks)):
                read[number] = _read(networks[own], frame, rois[number])

        tasks = [partial(look, own) for own in range(min(len(networks), len(rois)))]
        self._pair.share(tasks)
        self.timings_ms["mesh"] += 1000 * (time.perf_counter() - start)
        return read

    # -- looking for faces -------------------------------------------------------------------

    def _must_detect(self, seconds: float) -> bool:
        if self._room() <= 0:
            return False
        if any(track.lost for track in self._tracks):
            return True
        since = seconds - self._detected
        if not self._tracks:
            return self._empty < _EAGER or since >= _REST_S
        return since >= self._every

    def _room(self) -> int:
        return self._max - sum(not track.lost for track in self._tracks)

    def _detect(self, frame: Frame, seconds: float) -> None:
        self._detected = seconds
        # With a face in sight, detectors take turns: both in one frame would make it late.
        turns = self._room() < self._max
        fresh: list[Roi] = []
        if not (turns and self._far_next and self._far):
            fresh = self._find(self._near, frame)
        if self._far and not fresh and (self._far_next or not turns):
            fresh = self._find(self._far, frame)
        self._far_next = turns and not self._far_next
        for place in self._recognise(fresh, frame, seconds):
            if self._room() <= 0:
                break
            self._add(place, frame, seconds)
        self._empty = 0 if self._tracks else self._empty + 1

    def _find(self, detector: FaceDetector, frame: Frame) -> list[Roi]:
        """Return the squares of faces that are not followed, the largest first."""
        start = time.perf_counter()
        found = detector.find(frame)
        self.timings_ms["detect"] += 1000 * (time.perf_counter() - start)
        known = [track.place for track in self._tracks if not track.lost]
        fresh = []
        for i, box in enumerate(found.boxes):
            if not np.isfinite(box).all() or (box[2:] - box[:2]).min() <= 0:
                continue
            eyes = _LEVEL if found.keypoints is None else found.keypoints[i]
            place = Roi.of_detection(box, eyes)
            if not any(same(place, other) for other in known):
                fresh.append(place)
        return sorted(fresh, key=lambda place: -place.size)

    def _recognise(self, fresh: list[Roi], frame: Frame, seconds: float) -> list[Roi]:
        """Take up lost faces where they are found again; return the squares of the others."""
        pairs = []
        for track in self._tracks:
            for place in fresh if track.lost else ():
                apart = came_back(track, place, seconds)
                if apart is not None:
                    pairs.append((apart, track, place))
        left = list(fresh)
        for _, track, place in sorted(pairs, key=lambda pair: pair[0]):
            if track.lost and place in left and self._room() > 0:
                left.remove(place)
                track.roi = track.place = place
                self._see(track, self._read(frame, [place])[0], seconds)
        return left

    def _add(self, place: Roi, frame: Frame, seconds: float) -> None:
        (first,) = self._read(frame, [place])
        if first is None:
            return
        # A detector's square is rough; the landmarks' own is what the network was trained on.
        (second,) = self._read(frame, [first.place])
        if second is None or any(
            same(second.place, track.place) for track in self._tracks if not track.lost
        ):
            return
        self._ids += 1
        track = Track(self._ids, second.place, second.landmarks, second.score, seconds)
        track.see(second, seconds)
        self._tracks.append(track)

    # -- answering ---------------------------------------------------------------------------

    def _answer(self, camera: Camera, seconds: float, gap: float) -> list[Face]:
        kept, faces = [], []
        room = self._max
        for track in sorted(self._tracks, key=lambda track: (track.lost, track.id)):
            if not track.lost:
                self._measure(track, camera)
            track.fade(gap, self._opening)
            if track.lost and (seconds - track.seen > REMEMBERED_S or self._opening):
                continue
            kept.append(track)
            shown = not track.lost or track.opacity > 0
            if track.pose is not None and shown and room > 0:
                room -= 1
                faces.append(
                    Face(
                        track.id,
                        track.score,
                        track.landmarks,
                        track.pose,
                        track.coefficients,
                        track.opacity,
                        seconds,
                    )
                )
        self._tracks = sorted(kept, key=lambda track: track.id)
        return sorted(faces, key=lambda face: face.id)

    def _measure(self, track: Track, camera: Camera) -> None:
        try:
            if self._predict:
                track.landmarks = track.smooth.predict(self._predict)
            pose = solve(track.landmarks, camera, track.pose)
        except InvalidRequest:
            track.lost = True
            return
        eyes = float(np.linalg.norm(track.landmarks[33] - track.landmarks[263]))
        if pose.error > _MAX_MISFIT * eyes:
            track.lost = True
            return
        track.pose = pose
        track.coefficients = coefficients(track.landmarks, pose, mirrored=self._mirrored)


def _read(mesh: MeshNetwork, frame: Frame, roi: Roi) -> Seen | None:
    size = mesh.size
    found, score = mesh.read(roi.crop(frame, size))
    if not score >= MIN_SCORE or not np.isfinite(found).all():
        return None
    landmarks = roi.landmarks_to_frame(np.asarray(found, np.float32), size)
    try:
        place = Roi.of_landmarks(landmarks)
    except InvalidRequest:
        return None
    height, width = frame.shape[:2]
    inside = 0 <= place.x <= width and 0 <= place.y <= height
    large = place.size >= MIN_FACE * MARGIN
    return Seen(landmarks, score, place) if inside and large else None


_LEVEL: Final = np.array([[0.0, 0.0], [1.0, 0.0]], np.float32)


def _checked(frame: Frame) -> Frame:
    right = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
    if not right or frame.shape[2] != 3 or not frame.size:
        found = getattr(frame, "shape", type(frame).__name__)
        raise InvalidRequest(f"a frame must be uint8 (H, W, 3) RGB, not {found}")
    return np.ascontiguousarray(frame)
