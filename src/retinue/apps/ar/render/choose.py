"""Which renderer there is on this machine."""

from __future__ import annotations

import importlib.util
from typing import Literal

from retinue.apps.ar.render.cpu import CpuRenderer
from retinue.apps.ar.render.gl import INSTALL, GlRenderer
from retinue.apps.ar.render.scene import Renderer
from retinue.core.apps import Fact
from retinue.core.errors import ConfigError, MissingExtra, RetinueError

Kind = Literal["auto", "gl", "cpu"]


def open_renderer(kind: Kind = "auto") -> Renderer:
    """Return a renderer.

    Args:
        kind: "gl", "cpu", or "auto": OpenGL on a graphics card; where a driver only imitates one,
            the CPU renderer, which is faster than that, if it is installed; else what there is.

    Raises:
        MissingExtra: the extra of the one that was asked for, or of both, is not installed.
        ConfigError: there is no OpenGL, and the CPU renderer was not asked for or is not installed.
    """
    if kind == "cpu":
        return CpuRenderer()
    try:
        drawn = GlRenderer()
    except ConfigError as error:
        if kind == "gl":
            raise
        try:
            return CpuRenderer()
        except MissingExtra as other:
            raise type(error)(f"nothing to draw with: {error.message}; {other.message}") from error
    if kind == "gl" or not drawn.software or not _has("numba"):
        return drawn
    drawn.close()
    return CpuRenderer()


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def facts() -> list[Fact]:
    """Return what ``retinue doctor`` tells: both renderers, which one is taken, and video."""
    found = []
    software = True
    try:
        renderer = GlRenderer()
    except RetinueError as error:
        advice = "pip install 'retinue[ar]'" if isinstance(error, MissingExtra) else INSTALL
        found.append(Fact("OpenGL", error.message, ok=False, advice=advice))
    else:
        software = renderer.software
        kind = "software" if software else "graphics card"
        found.append(Fact("OpenGL", f"{renderer.name}, {kind}"))
        renderer.close()
    numba = _has("numba")
    words = "Numba" if numba else "not installed"
    advice = "" if numba else "pip install 'retinue[ar-cpu]'"
    found.append(Fact("CPU renderer", words, numba, advice))
    if found[0].ok or numba:
        taken = "CPU" if numba and software else "OpenGL"
        found.append(Fact("renderer", f"{taken} is taken; ar.renderer chooses another"))
    else:
        found.append(Fact("renderer", "none: no filter can be drawn", False, INSTALL))
    video = _has("av")
    words = "PyAV" if video else "not installed"
    found.append(Fact("video", words, video, "" if video else "pip install 'retinue[ar]'"))
    return found
