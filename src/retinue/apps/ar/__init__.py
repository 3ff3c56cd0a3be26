"""AR filters: masks that sit on faces, in photos, in video and before a camera, on this machine."""

from __future__ import annotations

from retinue.core.apps import App, Command

APP = App(
    name="ar",
    title="AR filters",
    summary="Put a filter on the faces of a photo, a video or a camera",
    settings="retinue.apps.ar.settings:ArSettings",
    pipelines=(),
    commands=(Command("ar", "retinue.apps.ar.command:ar_cli"),),
)
