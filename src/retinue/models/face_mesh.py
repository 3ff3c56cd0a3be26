"""Face Mesh: 468 landmarks of a face in three dimensions, or 478 with the irises.

Y. Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs"
(arXiv:1907.06724); with attention, which looks at lips and eyes again, I. Grishchenko et al. 2020
(arXiv:2006.10962). The picture is a face alone, upright, with a quarter of its size around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from retinue.core.errors import InvalidTensor
from retinue.core.protocols import Runtime
from retinue.core.types import Landmarks, Outcome, Prepared, Tensors
from retinue.media.letterbox import Letterbox, Pixels
from retinue.models._face_parts import (
    LEFT_CONTOUR,
    LEFT_EYE,
    LIPS,
    RIGHT_CONTOUR,
    RIGHT_EYE,
)
from retinue.models.base import Floats, Ints, VisionModel, find_output
from retinue.models.card import Card, Family, Input, Output, Source
from retinue.models.nms import sigmoid

LAYOUT: Final = "face-mesh"
ATTENTION: Final = "face-mesh-attention"
MESH_POINTS: Final = 468
IRIS_POINTS: Final = 5
"""Of each iris: its centre, then its right, top, left and bottom edge."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Landmarks that an output of their own gives again, in x and y.

    Attributes:
        output: The network's output, (N, ..., 2 x landmarks).
        places: (L,) of the landmarks in the answer.
        depth: (D,) of the mesh's landmarks whose mean z they get; None for those that keep theirs.
    """

    output: str
    places: Ints
    depth: Ints | None = None


def _part(output: str, places: tuple[int, ...], depth: tuple[int, ...] = ()) -> _Part:
    around = np.array(depth, np.int64) if depth else None
    return _Part(output, np.array(places, np.int64), around)


_LEFT_IRIS = tuple(range(MESH_POINTS, MESH_POINTS + IRIS_POINTS))
_RIGHT_IRIS = tuple(range(MESH_POINTS + IRIS_POINTS, MESH_POINTS + 2 * IRIS_POINTS))
_PARTS: Final = (
    _part("output_lips", LIPS),
    _part("output_left_eye", LEFT_EYE),
    _part("output_right_eye", RIGHT_EYE),
    _part("output_left_iris", _LEFT_IRIS, LEFT_CONTOUR),
    _part("output_right_iris", _RIGHT_IRIS, RIGHT_CONTOUR),
)


class FaceMesh(VisionModel):
    """Outputs: 3 x 468 numbers, a face's presence, and with attention the parts found again."""

    def __init__(self, card: Card, version: str, runtime: Runtime) -> None:
        """Bind a card to its loaded weights.

        Raises:
            ConfigError: the outputs are not those of this card's layout.
        """
        super().__init__(card, version, runtime)
        sizes = {spec.name: int(np.prod(spec.shape[1:])) for spec in runtime.outputs}

        def named(count: int, wanted: str, fits: Callable[[str], bool] = lambda name: True) -> str:
            specs = (s for s in runtime.outputs if sizes[s.name] == count and fits(s.name))
            return find_output(card, runtime, f"{count} float32 numbers, {wanted}", specs).name

        self._mesh = named(3 * MESH_POINTS, "the landmarks")
        self._presence = named(1, "the face's presence")
        self._parts = _PARTS if card.output.layout == ATTENTION else ()
        for part in self._parts:
            named(2 * len(part.places), repr(part.output), part.output.__eq__)
        self._points = MESH_POINTS + (2 * IRIS_POINTS if self._parts else 0)
        self._logits = card.output.scores == "logits"

    @property
    def points(self) -> int:
        """Number of landmarks: 468, or 478 with the irises."""
        return self._points

    @property
    def size(self) -> int:
        """Width and height of the picture that `read` takes, in pixels."""
        return self.card.input.width

    def read(self, crop: Pixels) -> tuple[Floats, float]:
        """Find the landmarks of one face: what `predict` does, with less around it.

        Args:
            crop: (H, W, 3) uint8 RGB of the network's size: the face, its eyes level, in the
                middle of a square 1.5 times as large as its box.

        Returns:
            (468, 3) or (478, 3) float32 in pixels of the crop, origin at the corner, z in the same
            unit and smaller where nearer; and whether it is a face, in [0, 1].

        Raises:
            InvalidTensor: the crop is of another size.
            ModelRunFailed: the engine failed.
        """
        spec = self.card.input
        if crop.shape != (spec.height, spec.width, 3):
            wanted = (spec.height, spec.width, 3)
            raise InvalidTensor(f"{self.name} reads crops of {wanted}, not {crop.shape}")
        (outputs,) = self.run([{self._input.name: self._normalize(crop)}])
        return self._read(outputs)

    def decode(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Return the landmarks in pixels of the original."""
        points, score = self._read(outputs)
        if isinstance(prepared.context, Letterbox):
            box = prepared.context
            pairs = np.ascontiguousarray(points[:, :2]).reshape(-1, 4)
            points[:, :2] = box.to_original(pairs).reshape(-1, 2)
            points[:, 2] *= box.width / box.content_width
        else:
            spec = self.card.input
            across = prepared.width / spec.width
            points *= np.array([across, prepared.height / spec.height, across], np.float32)
        return Outcome(Landmarks(points, score))

    def _read(self, outputs: Tensors) -> tuple[Floats, float]:
        mesh = outputs[self._mesh].reshape(MESH_POINTS, 3)
        points = np.empty((self._points, 3), np.float32)
        points[:MESH_POINTS] = mesh
        for part in self._parts:
            points[part.places, :2] = outputs[part.output].reshape(-1, 2)
            if part.depth is not None:
                points[part.places, 2] = mesh[part.depth, 2].mean()
        score = outputs[self._presence].reshape(1)
        return points, float((sigmoid(score) if self._logits else score)[0])


_PACKAGE: Final = "npm:@mediapipe/face_mesh@0.4.1633559619"
_PACKED: Final = "face_mesh_solution_packed_assets.data"
_FILES: Final = {_PACKED: "dbe5905c582c0462cdaea17e7e6ecea92edaa8cccc515c5e2e7291f2cbb5fb99"}
_HOMEPAGE: Final = "https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker"
_INPUT: Final = Input(height=192, width=192, resize="letterbox", pad=0)

FACE_MESH: Final = Card(
    name="face-mesh",
    task="landmarks",
    family="face_mesh",
    summary="468 landmarks of one face, in 3D, from a picture of the face alone",
    license="Apache-2.0",
    homepage=_HOMEPAGE,
    source=Source(
        url=_PACKAGE, files=_FILES, importer="tflite", parts={_PACKED: (2495952, 3737848)}
    ),
    input=_INPUT,
    output=Output(layout=LAYOUT, scores="logits"),
    examples=("retinue models pull face-mesh",),
)

FACE_MESH_ATTENTION: Final = Card(
    name="face-mesh-attention",
    task="landmarks",
    family="face_mesh",
    summary="478 landmarks of one face, in 3D: irises too, and lips and eyes in finer detail",
    license="Apache-2.0",
    homepage=_HOMEPAGE,
    source=Source(url=_PACKAGE, files=_FILES, importer="tflite", parts={_PACKED: (0, 2495952)}),
    input=_INPUT,
    output=Output(layout=ATTENTION, scores="logits"),
    examples=("retinue models pull face-mesh-attention",),
)

MODEL: Final = Family(
    build=FaceMesh, cards=(FACE_MESH, FACE_MESH_ATTENTION), layouts=(LAYOUT, ATTENTION)
)
