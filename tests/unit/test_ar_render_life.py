"""Renderers beside each other, closed, and what they keep."""

import ctypes.util

import numpy as np
import pytest

from retinue.apps.ar.render.cpu import CpuRenderer
from retinue.apps.ar.render.gl import GlRenderer
from retinue.apps.ar.render.scene import Draw, Geometry, Material, Renderer, Texture, View
from retinue.core.errors import InvalidRequest

VIEW = View(np.array([[90.0, 0, 20], [0, 90, 20], [0, 0, 1]]), 0, 0, 40, 40)
MAKERS = [GlRenderer, CpuRenderer]


def triangle() -> Draw:
    at = np.array([(-5, 5, 50), (-5, -4, 50), (6, 5, 50)], np.float32)
    mesh = Geometry(at, np.array([(0, 1, 2)], np.int32), uv=at[:, :2].copy())
    pixels = np.full((4, 4, 4), 255, np.uint8)
    surface = Material(texture=Texture(pixels), unlit=True, double_sided=True)
    return Draw(mesh, surface, np.eye(4))


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> type[Renderer]:
    if request.param is GlRenderer and ctypes.util.find_library("EGL") is None:
        pytest.skip("there is no libEGL on this machine")
    found: type[Renderer] = request.param
    return found


def test_several_live_beside_each_other_until_they_are_closed(make: type[Renderer]) -> None:
    first, second = make(), make()
    draw = triangle()
    drawn = first.render([draw], VIEW)
    assert drawn.any()
    np.testing.assert_array_equal(second.render([draw], VIEW), drawn)
    np.testing.assert_array_equal(first.render([draw], VIEW), drawn)
    first.close()
    first.close()
    with pytest.raises(InvalidRequest, match="closed"):
        first.render([draw], VIEW)
    np.testing.assert_array_equal(second.render([draw], VIEW), drawn)
    second.close()


def test_what_is_gone_is_forgotten(make: type[Renderer]) -> None:
    renderer = make()
    held = renderer._meshes, renderer._pictures  # type: ignore[attr-defined]
    for _ in range(5):
        draw = triangle()
        renderer.render([draw], VIEW)
    assert [len(kept) for kept in held] == [1, 1]
    del draw
    assert [len(kept) for kept in held] == [0, 0]
    assert renderer.render([triangle()], VIEW).any()
    renderer.close()
