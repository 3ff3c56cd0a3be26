"""Which renderer there is on this machine."""

from __future__ import annotations

import importlib.util
from typing import Literal

from retinue.apps.ar.render.gl import ADVICE, GlRenderer
from retinue.apps.ar.render.scene import Renderer
from retinue.core.apps import Fact
from retinue.core.errors import MissingExtra, RetinueError, Unavailable

Kind = Literal["auto", "gl", "cpu"]


def open_renderer(kind: Kind = "auto") -> Renderer:
    """Return a renderer: "gl", "cpu", or by "auto" OpenGL where it is and the CPU where not.

    Raises:
        MissingExtra: the extra of the one that was asked for, or of both, is not installed.
        Unavailable: there is no OpenGL, and the CPU was not asked for or cannot draw.
    """
    if kind == "cpu":
        return _cpu()
    try:
        return GlRenderer()
    except (MissingExtra, Unavailable) as error:
        if kind == "gl":
            raise
        try:
            return _cpu()
        except MissingExtra as other:
            raise Unavailable(f"nothing to draw with: {error.message}; {other.message}") from error


def _cpu() -> Renderer:
    from retinue.apps.ar.render.cpu import CpuRenderer

    return CpuRenderer()


def facts() -> list[Fact]:
    """Return what ``retinue doctor`` tells: both renderers, and the one that would be taken."""
    found = []
    try:
        renderer = GlRenderer()
    except RetinueError as error:
        found.append(Fact("OpenGL", error.message, ok=False, advice=ADVICE))
    else:
        found.append(Fact("OpenGL", renderer.name))
        renderer.close()
    numba = importlib.util.find_spec("numba") is not None
    words = "with numba" if numba else "not installed"
    found.append(
        Fact("CPU renderer", words, numba, "" if numba else "pip install 'retinue[ar-cpu]'")
    )
    av = importlib.util.find_spec("av") is not None
    words = "PyAV" if av else "not installed"
    found.append(Fact("video", words, av, "" if av else "pip install 'retinue[ar]'"))
    return found
