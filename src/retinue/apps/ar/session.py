"""A stream of frames with a filter on it: track, draw, keep to the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.tracker import Tracker
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.load import Filter
from retinue.apps.ar.filters.stage import Stage
from retinue.apps.ar.governor import Governor, Quality
from retinue.apps.ar.networks import Networks
from retinue.apps.ar.render.choose import open_renderer
from retinue.apps.ar.render.scene import Renderer
from retinue.apps.ar.settings import ArSettings
from retinue.apps.ar.timing import Timings
from retinue.core.errors import InvalidRequest
from retinue.core.settings import Settings

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """One frame with the filter on it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        faces: Those that are followed.
        timings_ms: By stage: "detect", "mesh", "pose", those of drawing, and "total".
        quality: What was done for it.
    """

    pixels: Pixels
    faces: tuple[Face, ...]
    timings_ms: Mapping[str, float]
    quality: Quality


class Session:
    """Applies a filter to the frames of one stream. Used by the thread that made it.

    Args:
        worn: The filter; None tracks faces and draws nothing.
        settings: Settings of the house: models' cache, runtime, precision.
        ar: Settings of the app.
        camera: Calibration; None takes the settings' field of view.
        networks: Loaded models to share with another session of the same thread.
        renderer: To share likewise.
        live: Whether frames come as time passes: quality follows the budget then. A file's frames
            are all drawn at full quality, however long they take.

    Raises:
        RetinueError: a model cannot be had, or there is nothing to draw with.
    """

    def __init__(
        self,
        worn: Filter | None,
        *,
        settings: Settings | None = None,
        ar: ArSettings | None = None,
        camera: Camera | None = None,
        networks: Networks | None = None,
        renderer: Renderer | None = None,
        live: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.ar = ar or ArSettings()
        self._own_networks, self._own_renderer = networks is None, renderer is None
        self._networks = networks or Networks(settings or Settings(), self.ar)
        self._clock, self._live, self._calibrated = clock, live, camera is not None
        self._camera = camera
        self._renderer: Renderer | None = None
        self._stage: Stage | None = None
        self._started: float | None = None
        self._last = -1.0
        self.governor = Governor(self.ar.budget_ms)
        self.timings = Timings(self.ar.budget_ms)
        self._tracker = Tracker(
            self._networks.detector,
            self._networks.mesh,
            camera,
            twin=self._networks.twin(self._networks.mesh),
            max_faces=self.ar.max_faces,
            full_range=self._networks.far_detector,
            predict_s=self.ar.predict_ms / 1000,
        )
        try:
            self._renderer = renderer
            self.wear(worn)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    @property
    def renderer(self) -> str:
        """What draws, for people; "" where nothing is drawn."""
        return self._renderer.name if self._renderer else ""

    def wear(self, worn: Filter | None) -> None:
        """Change the filter between two frames; faces keep their ids.

        Raises:
            RetinueError: a model that it needs cannot be had, or there is nothing to draw with.
        """
        if worn is None:
            self.worn, self._stage = None, None
            return
        segmenter = self._networks.segmenter if worn.needs_background else None
        if self._renderer is None:
            self._renderer = open_renderer(self.ar.renderer)
        stage = Stage(worn, self._renderer, segmenter)
        if worn.needs_iris:
            # Loaded now, not in the middle of a stream.
            self._look_with(iris=True)
        self.worn, self._stage = worn, stage

    def apply(self, frame: Pixels, seconds: float | None = None, *, copy: bool = True) -> Applied:
        """Put the filter on a frame.

        Args:
            frame: (H, W, 3) uint8 RGB, upright.
            seconds: Of the frame, never before the last one's; None takes the clock's.
            copy: Whether the frame is left as it is.

        Raises:
            InvalidRequest: it is no such picture, or its time runs backwards.
        """
        start = self._clock()
        seconds = self._time(seconds, start)
        pixels = _checked(frame, copy)
        camera = self._camera_of(pixels)
        quality = self.governor.quality if self._live else Quality()
        self._look_with(self.worn is not None and self.worn.needs_iris and quality.iris)
        faces = self._tracker.update(pixels, seconds)
        stages = dict(self._tracker.timings_ms)
        if self._stage is not None:
            stages |= self._stage.apply(pixels, faces, camera, seconds, quality)
        stages["total"] = 1000 * (self._clock() - start)
        self.timings.note(stages)
        if self._live:
            self.governor.note(stages["total"])
        return Applied(pixels, tuple(faces), stages, quality)

    def _look_with(self, iris: bool) -> None:
        mesh = self._networks.iris_mesh if iris else self._networks.mesh
        self._tracker.mesh, self._tracker.twin = mesh, self._networks.twin(mesh)

    def _time(self, seconds: float | None, now: float) -> float:
        if self._started is None:
            self._started = now
        if seconds is None:
            seconds = now - self._started
        if not seconds >= self._last:
            raise InvalidRequest(
                f"a frame of {seconds} s comes after one of {self._last} s; frames go forward, and "
                "another video needs a session of its own or reset()"
            )
        self._last = seconds
        return seconds

    def reset(self) -> None:
        """Forget all faces and the time: what follows is another video."""
        self._tracker.reset()
        self._started, self._last = None, -1.0

    @property
    def camera(self) -> Camera:
        """That of the last frame.

        Raises:
            InvalidRequest: there was no frame yet, and no calibration was given.
        """
        if self._camera is None:
            raise InvalidRequest("the camera is known once there was a frame")
        return self._camera

    def _camera_of(self, pixels: Pixels) -> Camera:
        height, width = pixels.shape[:2]
        if self._camera is None or (self._camera.width, self._camera.height) != (width, height):
            if self._calibrated:
                assert self._camera is not None
                raise InvalidRequest(
                    f"a frame has {width}x{height} pixels, but the calibration is for "
                    f"{self._camera.width}x{self._camera.height}"
                )
            self._camera = Camera.from_fov(width, height, self.ar.fov)
            self._tracker.camera = self._camera
        return self._camera

    def summary(self) -> dict[str, Any]:
        """Return times by stage, the share of frames in budget, and the quality now."""
        level = self.governor.level
        return {**self.timings.summary(), "renderer": self.renderer, "quality_level": level}

    def close(self) -> None:
        """Give back models and renderer, unless they are another's. May be called twice."""
        if self._own_renderer and self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        if self._own_networks:
            self._networks.close()


def _checked(frame: Pixels, copy: bool) -> Pixels:
    right = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
    if not right or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        found = (
            f"{frame.dtype} {frame.shape}"
            if isinstance(frame, np.ndarray)
            else type(frame).__name__
        )
        raise InvalidRequest(f"a frame must be uint8 (H, W, 3) RGB, not {found}")
    if copy or not frame.flags.c_contiguous or not frame.flags.writeable:
        return np.array(frame, order="C")
    return frame
