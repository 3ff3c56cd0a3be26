"""Settings of the app."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DetectSettings(BaseModel):
    """Settings of the app, the table ``[apps.detect]``.

    Attributes:
        model: The model that answers when a request names none.
        conf: Detections below this score are left out when a request gives no bound.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "nanodet-g-416"
    conf: float = Field(0.25, ge=0, le=1)
