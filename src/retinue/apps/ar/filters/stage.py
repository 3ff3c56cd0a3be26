"""Puts a filter on a frame: its parts, on every face, in place.

First what is behind people, then the shape of faces, then what is on the skin in the file's order,
then all that is drawn in space at once, and last the stickers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from retinue.apps.ar.effects.asset import asset, local_matrix
from retinue.apps.ar.effects.background import Background, Segmenter
from retinue.apps.ar.effects.blend import over
from retinue.apps.ar.effects.distort import distort, moved, warps
from retinue.apps.ar.effects.eyes import draw_iris, eyes
from retinue.apps.ar.effects.live import F32, F64, Pixels, in_space, usable
from retinue.apps.ar.effects.makeup import makeup
from retinue.apps.ar.effects.occluder import occluder
from retinue.apps.ar.effects.paint import Paint, skin_light
from retinue.apps.ar.effects.region import Boxes, Scene, scenes
from retinue.apps.ar.effects.sticker import Pyramid, sticker
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.values import Face
from retinue.apps.ar.filters.load import Assets, Filter
from retinue.apps.ar.filters.spec import EyesPart, MakeupPart, ModelPart, PaintPart, Part
from retinue.apps.ar.filters.triggers import Seen, Triggers
from retinue.apps.ar.governor import Quality
from retinue.apps.ar.render.composite import composite
from retinue.apps.ar.render.scene import Draw, Renderer, View
from retinue.core.errors import InvalidRequest

Times = dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A part with what was made of its files once.

    Attributes:
        part: What the file says.
        assets: Its files.
        paint: Of face paint.
        picture: (h, w, 4) of irises, straight alpha.
        pyramid: Of a sticker.
        matrix: Of a model.
        in_space: Whether paint is drawn together with the models.
    """

    part: Part
    assets: Assets
    paint: Paint | None = None
    picture: Pixels | None = None
    pyramid: Pyramid | None = None
    matrix: F64 | None = None
    in_space: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Worn:
    """A face in a frame with how the parts are seen on it.

    Attributes:
        face: Its landmarks are where the frame shows them, after distortion.
        live: (N, 3) in camera space; (0, 3) where nothing is drawn there.
        seen: One a part.
    """

    face: Face
    live: F32
    seen: Sequence[Seen]


class Stage:
    """A filter on one stream of frames. Used by the thread that made it.

    Args:
        worn: The filter.
        renderer: Draws what is in space.
        segmenter: Tells people from the background, for filters that change it.

    Raises:
        InvalidRequest: the filter changes the background, and there is no segmenter.
    """

    def __init__(
        self, worn: Filter, renderer: Renderer, segmenter: Segmenter | None = None
    ) -> None:
        if worn.needs_background and segmenter is None:
            raise InvalidRequest(
                f"the filter {worn.name!r} changes the background; give a segmenter to tell people "
                "from it"
            )
        self._worn, self._renderer, self._segmenter = worn, renderer, segmenter
        self._parts = _prepare(worn)
        self._triggers = Triggers(worn.spec.parts)
        self._boxes = Boxes()
        self._spatial = any(part.kind in ("model", "paint") for part in worn.spec.parts)
        self._background = next(
            (
                (index, Background(part, assets.texture.pixels if assets.texture else None))
                for index, (part, assets) in enumerate(
                    zip(worn.spec.parts, worn.assets, strict=True)
                )
                if part.kind == "background"
            ),
            None,
        )

    def apply(
        self,
        frame: Pixels,
        faces: Sequence[Face],
        camera: Camera,
        seconds: float,
        quality: Quality | None = None,
    ) -> Times:
        """Put the filter on a frame, in place.

        Args:
            frame: (H, W, 3) uint8 RGB, C-contiguous and writable.
            faces: Of the frame.
            camera: That their poses belong to; of the frame's size.
            seconds: Of the frame; never before the last one's.
            quality: How much may be done; all by default.

        Returns:
            Milliseconds by stage, of those that the filter has: "segment", "background",
            "distort", "skin", "render", "composite", "stickers".
        """
        quality = quality or Quality()
        times: Times = {}
        known = [face for face in faces if usable(face)]
        seen = self._triggers.update(known, seconds)
        self._behind(frame, seen, seconds, quality, times)
        bent = [self._bend(frame, face, seen[face.id], times) for face in known]
        worn = [Worn(face, self._live(face, camera), seen[face.id]) for face in bent]
        for one in worn:
            self._skin(frame, one, camera, quality, times)
        self._space(frame, worn, camera, seconds, quality, times)
        for one in worn:
            self._stickers(frame, one, times)
        return times

    def _live(self, face: Face, camera: Camera) -> F32:
        return in_space(face, camera) if self._spatial else np.empty((0, 3), np.float32)

    def _behind(
        self,
        frame: Pixels,
        seen: dict[int, list[Seen]],
        seconds: float,
        quality: Quality,
        times: Times,
    ) -> None:
        if self._background is None or self._segmenter is None:
            return
        index, background = self._background
        strength = 1.0
        if self._parts[index].part.show is not None:
            strength = max((each[index].strength for each in seen.values()), default=0.0)
        with _timed(times, "segment"):
            background.look(frame, self._segmenter, seconds, fine=quality.effects)
        with _timed(times, "background"):
            background.apply(frame, strength, fine=quality.effects)

    def _bend(self, frame: Pixels, face: Face, seen: list[Seen], times: Times) -> Face:
        """Distort a face; return it with its landmarks where they are seen now."""
        for ready, how in zip(self._parts, seen, strict=True):
            if ready.part.kind == "distort" and how.strength > 0:
                with _timed(times, "distort"):
                    local = warps(face, ready.part.points, how.strength * ready.part.opacity)
                    distort(frame, local)
                    face = moved(face, local)
        return face

    def _skin(
        self, frame: Pixels, worn: Worn, camera: Camera, quality: Quality, times: Times
    ) -> None:
        for ready, how in zip(self._parts, worn.seen, strict=True):
            part = ready.part
            if how.strength <= 0:
                continue
            if isinstance(part, MakeupPart):
                with _timed(times, "skin"):
                    makeup(frame, worn.face, part, how.strength, quality.effects)
            elif isinstance(part, EyesPart) and ready.picture is not None:
                with _timed(times, "skin"):
                    eyes(frame, worn.face, part, ready.picture, how.strength)
            elif ready.paint is not None and not ready.in_space:
                self._paint(frame, ready.paint, worn, how.strength, camera, quality, times)

    def _paint(
        self,
        frame: Pixels,
        paint: Paint,
        worn: Worn,
        strength: float,
        camera: Camera,
        quality: Quality,
        times: Times,
    ) -> None:
        """Draw paint alone, and mix it with the skin."""
        with _timed(times, "render"):
            draw = self._painted(frame, paint, worn, strength)
            box = self._boxes.of([draw], camera) if draw else None
            if draw is None or box is None:
                return
            hidden = occluder(worn.face, worn.live, whole=False)
            view = _view(box, camera, quality)
            drawn = self._renderer.render([*hidden, draw], view)
        with _timed(times, "composite"):
            x1, y1, x2, y2 = box
            if drawn.shape[:2] != (y2 - y1, x2 - x1):
                drawn = np.asarray(cv2.resize(drawn, (x2 - x1, y2 - y1)), np.uint8)
            over(frame[y1:y2, x1:x2], drawn, paint.part.blend)

    def _painted(self, frame: Pixels, paint: Paint, worn: Worn, strength: float) -> Draw | None:
        # Other modes than "normal" keep the skin's light by themselves.
        lit = paint.part.blend == "normal" and paint.part.shading > 0
        light = skin_light(frame, worn.face) if lit else None
        return paint.draw(worn.face, worn.live, light, strength)

    def _space(
        self,
        frame: Pixels,
        faces: Sequence[Worn],
        camera: Camera,
        seconds: float,
        quality: Quality,
        times: Times,
    ) -> None:
        """Draw models, and paint that lies under nothing else, in one pass where faces meet."""
        if not any(ready.matrix is not None or ready.in_space for ready in self._parts):
            return
        boxed = []
        with _timed(times, "render"):
            for worn in faces:
                draws = self._draws(frame, worn, seconds, quality)
                box = self._boxes.of(draws, camera)
                if box is not None:
                    boxed.append((draws, box))
        for scene in scenes(boxed):
            self._draw(frame, scene, camera, quality, times)

    def _draws(self, frame: Pixels, worn: Worn, seconds: float, quality: Quality) -> list[Draw]:
        draws: list[Draw] = []
        painted = False
        for ready, how in zip(self._parts, worn.seen, strict=True):
            part = ready.part
            if how.strength <= 0:
                continue
            if ready.paint is not None and ready.in_space:
                draw = self._painted(frame, ready.paint, worn, how.strength)
                if draw is not None:
                    draws.append(draw)
                    painted = True
            elif isinstance(part, ModelPart) and ready.matrix is not None:
                simple = ready.assets.simple if quality.assets == "simple" else None
                model = simple or ready.assets.model
                if model is not None:
                    draws += asset(part, model, ready.matrix, worn.face, worn.live, how, seconds)
        if draws and (self._worn.spec.occlusion or painted):
            whole = self._worn.spec.occlusion
            draws = [*occluder(worn.face, worn.live, whole=whole), *draws]
        return draws

    def _draw(
        self, frame: Pixels, scene: Scene, camera: Camera, quality: Quality, times: Times
    ) -> None:
        view = _view(scene.box, camera, quality)
        with _timed(times, "render"):
            drawn = self._renderer.render(scene.draws, view)
        with _timed(times, "composite"):
            composite(frame, drawn, view)

    def _stickers(self, frame: Pixels, worn: Worn, times: Times) -> None:
        for ready, how in zip(self._parts, worn.seen, strict=True):
            if ready.part.kind == "sticker" and ready.pyramid is not None and how.strength > 0:
                with _timed(times, "stickers"):
                    sticker(frame, worn.face, ready.part, ready.pyramid, how.strength, how.elapsed)


def _prepare(worn: Filter) -> list[Ready]:
    """Make once what does not change from frame to frame."""
    parts = worn.spec.parts
    # Paint can be drawn with the models if nothing mixes with the skin after it.
    mixing = [
        index
        for index, part in enumerate(parts)
        if isinstance(part, MakeupPart | EyesPart)
        or (isinstance(part, PaintPart) and part.blend != "normal")
    ]
    last = max(mixing, default=-1)
    made = []
    for index, (part, assets) in enumerate(zip(parts, worn.assets, strict=True)):
        texture = assets.texture
        if isinstance(part, PaintPart) and texture is not None:
            made.append(Ready(part, assets, paint=Paint(part, texture), in_space=index > last))
        elif isinstance(part, EyesPart):
            made.append(Ready(part, assets, picture=texture.pixels if texture else draw_iris(part)))
        elif part.kind == "sticker" and texture is not None:
            made.append(Ready(part, assets, pyramid=Pyramid.of(texture.pixels)))
        elif isinstance(part, ModelPart):
            made.append(Ready(part, assets, matrix=local_matrix(part)))
        else:
            made.append(Ready(part, assets))
    return made


def _view(box: tuple[int, int, int, int], camera: Camera, quality: Quality) -> View:
    x1, y1, x2, y2 = box
    return View(camera.matrix, x1, y1, x2 - x1, y2 - y1, quality.scale)


@contextmanager
def _timed(times: Times, stage: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        times[stage] = times.get(stage, 0.0) + 1000 * (time.perf_counter() - start)
