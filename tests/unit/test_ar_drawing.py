"""What renderers are made of: textures, edges, compositing, and which renderer is taken."""

import ctypes.util
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.apps.ar.render import composite as composing
from retinue.apps.ar.render import kernels, smooth
from retinue.apps.ar.render.choose import facts, open_renderer
from retinue.apps.ar.render.environment import ENCODE, ENCODE_FROM, LAMPS
from retinue.apps.ar.render.scene import View
from retinue.apps.ar.render.textures import mipmaps

K = np.eye(3)


def shapes(seed: int, size: tuple[int, int] = (90, 120)) -> np.ndarray:
    """Premultiplied discs and lines, hard-edged."""
    random = np.random.default_rng(seed)
    made = np.zeros((*size, 4), np.uint8)
    for _ in range(6):
        color = (*random.integers(0, 256, 3).tolist(), 255)
        x, y, radius = random.integers(0, (size[1], size[0], 40)).tolist()
        if random.random() < 0.5:
            cv2.circle(made, (x, y), radius, color, -1)
        else:
            cv2.line(made, (x, y), (radius, 2 * radius), color, 3)
    made[..., :3] = np.minimum(made[..., :3], made[..., 3:])
    return made


def test_srgb_is_near_to_the_standard() -> None:
    linear = np.linspace(0, 1, 10_001)
    root = np.sqrt(linear)
    near = np.where(root < ENCODE_FROM, 12.92 * linear, np.polyval(ENCODE[::-1], root))
    wanted = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(near - wanted).max() < 0.2 / 255


def test_lamps_have_axes_at_right_angles() -> None:
    for lamp in LAMPS:
        axes = np.array([lamp.middle, lamp.right, lamp.up])
        np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)


def test_mipmaps_average_light_and_leave_no_dark_seams() -> None:
    pixels = np.zeros((5, 8, 4), np.uint8)
    pixels[:, :4] = 255
    levels = mipmaps(pixels)
    assert [level.shape[:2] for level in levels] == [(5, 8), (2, 4), (1, 2), (1, 1)]
    # Transparent texels are white too, as their neighbours are.
    assert all((level[..., :3] == 255).all() for level in levels)
    assert levels[-1][0, 0, 3] == 128 or levels[-1][0, 0, 3] == 127
    half = np.zeros((2, 2, 4), np.uint8)
    half[..., 3] = 255
    half[0] = 255
    # Half of the light is the root of a half.
    assert mipmaps(half)[1][0, 0].tolist() == [180, 180, 180, 255]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_edges_are_smoothed_alike_with_and_without_numba(seed: int) -> None:
    drawn = shapes(seed)
    wanted = smooth._smoothed(drawn, *smooth.find(drawn))
    np.testing.assert_array_equal(smooth.smooth(drawn.copy()), wanted)


def test_a_slanted_edge_gets_what_it_covers() -> None:
    """Against the edge drawn at many times the size, most of the error goes."""
    for degrees in (3, 8, 15, 30, 44, 60, 85):
        slope = np.tan(np.radians(degrees))
        y, x = (np.mgrid[: 16 * 64, : 16 * 64] + 0.5) / 16
        fine = np.where(y - 32 > slope * (x - 32), 255, 0).astype(np.float32)
        wanted = fine.reshape(64, 16, 64, 16).mean(axis=(1, 3))
        hard = np.repeat(fine[8::16, 8::16, None], 4, axis=2).astype(np.uint8)
        made = smooth.smooth(hard.copy())[..., 3].astype(float)
        inner = slice(12, -12), slice(12, -12)
        before = np.sqrt(((hard[..., 3] - wanted)[inner] ** 2).mean())
        after = np.sqrt(((made - wanted)[inner] ** 2).mean())
        assert after < 0.75 * before, (degrees, before, after)
        flat = (wanted == 0) | (wanted == 255)
        near = cv2.dilate((~flat).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        np.testing.assert_array_equal(made[~near], wanted[~near])


def test_flat_pictures_are_left_as_they_are() -> None:
    drawn = np.full((40, 40, 4), 77, np.uint8)
    assert smooth.smooth(drawn) is drawn
    assert smooth.smooth(np.zeros((1, 1, 4), np.uint8)).shape == (1, 1, 4)
    assert smooth.smooth(shapes(3, (2, 300))).shape == (2, 300, 4)


def _over(below: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    kept = below.astype(float) * (255 - drawn[..., 3:].astype(float)) / 255
    return np.clip(drawn[..., :3] + kept, 0, 255)


@pytest.mark.parametrize("share", [0.02, 0.6])
def test_composite_is_the_over_operator(share: float) -> None:
    random = np.random.default_rng(2)
    alpha = random.integers(0, 256, (70, 90, 1))
    alpha = np.where(random.random(alpha.shape) < share, alpha, 255 * (alpha > 128))
    drawn = np.concatenate([random.integers(0, 256, (70, 90, 3)) * alpha // 255, alpha], 2)
    drawn = drawn.astype(np.uint8)
    frame = random.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    for x, y in ((100, 50), (-30, -20), (280, 190), (-200, 0)):
        wanted = frame.astype(float)
        canvas = np.zeros((600, 900, 4), np.uint8)
        canvas[200 + y : 270 + y, 300 + x : 390 + x] = drawn
        wanted = _over(wanted, canvas[200:400, 300:600])
        made = frame.copy()
        composing.composite(made, drawn, View(K, x, y, 90, 70))
        assert np.abs(made - wanted).max() <= 0.51
        plain = frame[:70, :90].copy()
        composing.lay(plain, drawn)
        twin = frame[:70, :90].copy()
        kernels.lay(twin, drawn)
        np.testing.assert_array_equal(plain, twin)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
def test_composite_brings_the_picture_to_its_size(scale: float) -> None:
    view = View(K, 10, 20, 64, 48, scale)
    drawn = np.zeros((round(48 * scale), round(64 * scale), 4), np.uint8)
    drawn[:, : drawn.shape[1] // 2] = 255
    frame = np.zeros((100, 100, 3), np.uint8)
    composing.composite(frame, drawn, view)
    assert (frame[20:68, 10:40] == 255).all() and not frame[20:68, 46:74].any()
    assert not frame[:20].any() and not frame[68:].any()


def test_the_doctor_tells_of_renderers() -> None:
    told = {fact.name: fact for fact in facts()}
    assert set(told) == {"OpenGL", "CPU renderer", "renderer", "video"}
    assert told["CPU renderer"].ok
    if ctypes.util.find_library("EGL"):
        assert told["OpenGL"].ok and "OpenGL" in told["OpenGL"].words
    renderer = open_renderer()
    taken = "OpenGL" if renderer.name.startswith("OpenGL") else "CPU"
    assert told["renderer"].words.startswith(taken)
    renderer.close()


def _python(code: str, **environment: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    ran = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert not ran.returncode, ran.stderr
    return ran.stdout


ASK = """
import sys
{before}
from retinue.apps.ar.render.choose import facts, open_renderer
from retinue.core.errors import RetinueError
for kind in ("gl", "cpu", "auto"):
    try:
        print(kind, open_renderer(kind).name)
    except RetinueError as error:
        print(kind, error.code, error.message)
print(*facts(), sep="\\n")
"""
NO_EGL = {"GLCONTEXT_LINUX_LIBEGL": "libnone.so"}


def test_without_opengl_the_cpu_draws() -> None:
    told = _python(ASK.format(before=""), **NO_EGL)
    assert "gl invalid_config there is no OpenGL through EGL" in told
    assert "apt install libegl1 libgl1-mesa-dri" in told
    assert "auto CPU" in told and "cpu CPU" in told
    assert "CPU is taken" in told


def test_without_moderngl_the_extra_is_named() -> None:
    told = _python(ASK.format(before="sys.modules['moderngl'] = None"))
    assert "gl missing_extra" in told and "retinue[ar]" in told and "auto CPU" in told


def test_without_numba_opengl_draws() -> None:
    if ctypes.util.find_library("EGL") is None:
        pytest.skip("there is no libEGL on this machine")
    draw = """
import numpy as np
from retinue.apps.ar.render.composite import composite
from retinue.apps.ar.render.scene import Draw, Geometry, Material, View
at = np.array([(-5, 5, 50), (-5, -4, 50), (6, 5, 50)], np.float32)
mesh = Geometry(at, np.array([(0, 1, 2)], np.int32))
drawn = Draw(mesh, Material(unlit=True, double_sided=True), np.eye(4))
view = View(np.array([[90.0, 0, 20], [0, 90, 20], [0, 0, 1]]), 0, 0, 40, 40)
frame = np.zeros((40, 40, 3), np.uint8)
composite(frame, open_renderer("gl").render([drawn], view), view)
print("drawn", frame[25, 14, 0])
"""
    told = _python(ASK.format(before="sys.modules['numba'] = None") + draw)
    assert "cpu missing_extra" in told and "retinue[ar-cpu]" in told
    assert "auto OpenGL" in told and "OpenGL is taken" in told
    assert "drawn 255" in told


def test_with_neither_both_ways_out_are_named() -> None:
    told = _python(ASK.format(before="sys.modules['numba'] = None"), **NO_EGL)
    auto = next(line for line in told.splitlines() if line.startswith("auto"))
    assert "nothing to draw with" in auto
    assert "libegl1" in auto and "retinue[ar-cpu]" in auto
    assert "none: no filter can be drawn" in told
