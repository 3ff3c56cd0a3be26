"""Settings of the app."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_FACES: Final = 20
"""Faces that can be followed at once. A photo, which has no budget, is given all of them."""


class ArSettings(BaseModel):
    """Settings of the app, the table ``[apps.ar]``.

    Attributes:
        detector: Model that finds faces near the camera.
        far_detector: Model that also finds small faces; "" for none.
        mesh: Model of 468 landmarks.
        iris_mesh: Model of 478 landmarks, for filters that need irises or fine lips.
        segmenter: Model that tells people from the background.
        max_faces: Faces that are followed at once; in a photo 20, unless this is set.
        fov: Vertical field of view in degrees, where there is no calibration.
        budget_ms: What one frame may take, without decoding and encoding; quality is lowered
            while frames take longer.
        renderer: What draws; "auto" takes OpenGL on a graphics card, else the CPU renderer if it is
            installed, else OpenGL as a driver imitates it.
        predict_ms: How far ahead of the frame faces are drawn, against the lag of a live screen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str = "blazeface-short-range"
    far_detector: str = "blazeface-full-range"
    mesh: str = "face-mesh"
    iris_mesh: str = "face-mesh-attention"
    segmenter: str = "selfie-segmentation"
    max_faces: int = Field(4, ge=1, le=MOST_FACES)
    fov: float = Field(63.0, gt=10, lt=150)
    budget_ms: float = Field(16.6, gt=0)
    renderer: Literal["auto", "gl", "cpu"] = "auto"
    predict_ms: float = Field(0.0, ge=0, le=100)
