"""The camera and the region of interest: there and back."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.apps.ar.face._small import invert
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.roi import Roi
from retinue.core.errors import InputNotFound, InvalidRequest
from retinue.testing.ar import Head, pose

coordinate = st.floats(-200, 200)
rois = st.builds(
    Roi,
    st.floats(-500, 2500),
    st.floats(-500, 2500),
    st.floats(4, 3000),
    st.floats(-math.pi, math.pi),
)


@given(
    st.integers(1, 8000),
    st.integers(1, 8000),
    st.floats(10, 150),
    st.lists(st.tuples(coordinate, coordinate, st.floats(1, 500)), min_size=1, max_size=8),
)
@settings(deadline=None)
def test_a_point_lies_on_the_ray_through_its_pixel(
    width: int, height: int, fov: float, points: list[tuple[float, float, float]]
) -> None:
    camera = Camera.from_fov(width, height, fov)
    xyz = np.array(points)
    assert camera.rays(camera.project(xyz)) == pytest.approx(xyz[:, :2] / xyz[:, 2:], abs=1e-6)


def test_the_field_of_view_is_the_frames_height() -> None:
    camera = Camera.from_fov(1280, 720, 63.0)
    edge = math.tan(math.radians(31.5)) * 50
    assert camera.project([0.0, edge, 50.0]) == pytest.approx((640, 720))
    assert camera.project([0.0, -edge, 50.0]) == pytest.approx((640, 0))
    assert camera.matrix[0, 0] == camera.matrix[1, 1] == pytest.approx(587.4, abs=0.1)
    with pytest.raises(ValueError, match="read-only"):
        camera.matrix[0, 0] = 1


def test_what_is_behind_the_camera_is_not_seen() -> None:
    assert np.isnan(Camera.from_fov(64, 48).project([[0, 0, -5.0], [1, 1, 0.0]])).all()


@pytest.mark.parametrize(
    ("width", "height", "matrix", "message"),
    [
        (0, 4, np.eye(3), "0x4 pixels"),
        (4, 4, np.eye(4), r"must be \(3, 3\)"),
        (4, 4, np.full((3, 3), np.nan), "finite"),
        (4, 4, np.diag([-1.0, 1.0, 1.0]), "fx, fy > 0"),
        (4, 4, np.array([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]]), "fx, 0, cx"),
    ],
)
def test_a_matrix_that_is_no_pinhole_is_refused(
    width: int, height: int, matrix: np.ndarray, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Camera(width, height, matrix)


@pytest.mark.parametrize("fov", [0.0, 180.0, math.nan])
def test_a_field_of_view_out_of_range_is_refused(fov: float) -> None:
    with pytest.raises(InvalidRequest, match="field of view"):
        Camera.from_fov(64, 48, fov)


K = np.array([[900.0, 0, 639.5], [0, 910.0, 359.5], [0, 0, 1]])


def write_opencv(path: Path, distortion: float = 0.0, **more: object) -> Path:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 1280)
    storage.write("image_height", 720)
    storage.write("camera_matrix", K)
    storage.write("distortion_coefficients", np.full((1, 5), distortion))
    storage.release()
    return path


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json", ".xml"])
def test_opencvs_calibration_has_its_pixels_half_a_pixel_off(suffix: str, tmp_path: Path) -> None:
    camera = Camera.read(write_opencv(tmp_path / f"camera{suffix}"), 640, 360)
    assert camera.matrix == pytest.approx(np.array([[450, 0, 320], [0, 455, 180], [0, 0, 1]]))


def test_ros_and_plain_lists_are_read(tmp_path: Path) -> None:
    ros = tmp_path / "ros.yaml"
    ros.write_text(
        "%YAML:1.0\n---\nimage_width: 1280\nimage_height: 720\n"
        "camera_matrix:\n  rows: 3\n  cols: 3\n"
        "  data: [900.0, 0.0, 639.5, 0.0, 910.0, 359.5, 0.0, 0.0, 1.0]\n"
        "distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [0.0, 0.0, 0.0, 0.0, 0.0]\n"
    )
    rows = tmp_path / "rows.json"
    rows.write_text('{"camera_matrix": [[900, 0, 639.5], [0, 910, 359.5], [0, 0, 1]]}')
    for path in (ros, rows):
        assert Camera.read(path, 1280, 720).matrix[:2, 2] == pytest.approx((640, 360))


def test_toml_is_in_our_own_pixels(tmp_path: Path) -> None:
    path = tmp_path / "camera.toml"
    path.write_text("fx = 900\nfy = 900.0\ncx = 640\ncy = 360\nwidth = 1280\nheight = 720\n")
    assert Camera.read(path, 1280, 720).matrix[:2, 2] == pytest.approx((640, 360))
    assert Camera.read(path, 320, 180).matrix[0, 0] == pytest.approx(225)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "no calibration by its name"),
        ("a.toml", "fx = ", "not TOML"),
        ("a.toml", "fx = 1\nfy = 1\ncx = 1\n", "cy must be a number"),
        ("a.toml", "fx = true\nfy = 1\ncx = 1\ncy = 1", "fx must be a number"),
        ("a.toml", "fx = 1\nfy = 1\ncx = 1\ncy = 1\nk = 1", "unknown k"),
        ("a.toml", "fx = 1\nfy = 1\ncx = 1\ncy = 1\nwidth = 64", "height must be"),
        ("a.toml", "fx = 1\nfy = 1\ncx = 1\ncy = 1\nwidth = 0\nheight = 0", "0x0; correct"),
        ("a.toml", "fx = 1\nfy = 1\ncx = 1\ncy = 1\nwidth = 64\nheight = 64", "another shape"),
        ("a.toml", "fx = 1\nfy = 1\ncx = 1\ncy = 1\ndistortion = [0.1]", "lens distortion"),
        ("a.toml", 'fx = 1\nfy = 1\ncx = 1\ncy = 1\ndistortion = ["a"]', "list of numbers"),
        ("a.toml", "fx = 0\nfy = 1\ncx = 1\ncy = 1", "fx, fy > 0"),
        ("a.yaml", "%YAML:1.0\n---\nother: 1\n", "has no camera_matrix"),
        ("a.json", '{"camera_matrix": [1, 2, 3]}', "has no camera_matrix"),
        ("a.json", '{"camera_matrix": [[9, 1, 3], [0, 9, 3], [0, 0, 1]]}', "skew"),
        ("a.yaml", "\x00\x01nonsense", "cannot be read|has no camera_matrix"),
        ("a.json", "{", "cannot be read|has no camera_matrix"),
        ("a.xml", "<a>", "cannot be read|has no camera_matrix"),
    ],
)
def test_what_is_no_calibration_is_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=message):
        Camera.read(path, 640, 360)


def test_distortion_missing_files_and_huge_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="lens distortion"):
        Camera.read(write_opencv(tmp_path / "a.yaml", 0.1), 1280, 720)
    with pytest.raises(InputNotFound, match="no calibration file"):
        Camera.read(tmp_path / "none.yaml", 1280, 720)
    (tmp_path / "huge.yaml").write_bytes(b" " * (1 << 21))
    with pytest.raises(InvalidRequest, match="larger than any"):
        Camera.read(tmp_path / "huge.yaml", 1280, 720)


# -- region of interest --------------------------------------------------------------------------


@given(rois, st.integers(16, 512), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_to_the_crop_and_back(roi: Roi, pixels: int, x: float, y: float) -> None:
    there, back = roi.to_crop(pixels), roi.to_frame(pixels)
    point = np.array([x * pixels, y * pixels, 1.0])
    assert there @ [*(back @ point), 1.0] == pytest.approx(point[:2], abs=1e-6)
    assert back @ [pixels / 2, pixels / 2, 1.0] == pytest.approx((roi.x, roi.y), abs=1e-6)


@given(rois, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_landmarks_of_the_crop_come_back_to_the_frame(roi: Roi, seed: int) -> None:
    points = np.random.default_rng(seed).uniform(0, 192, (9, 3)).astype(np.float32)
    frame = roi.landmarks_to_frame(points, 192)
    assert frame.dtype == np.float32
    matrix = roi.to_crop(192)
    again = frame[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert again == pytest.approx(points[:, :2], abs=192 * 4e-3)
    assert frame[:, 2] == pytest.approx(points[:, 2] * roi.size / 192, rel=1e-5)


@given(
    turn=st.floats(-3.0, 3.0),
    scale=st.floats(0.2, 5.0),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
@settings(deadline=None, max_examples=50)
def test_a_square_is_around_its_face_and_level_with_the_eyes(
    turn: float, scale: float, x: float, y: float
) -> None:
    face = Head(pose()).seen(Camera.from_fov(640, 480)).astype(np.float64)
    own = Roi.of_landmarks(face)
    matrix = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    face[:, :2] = face[:, :2] @ matrix.T + (x, y)
    roi = Roi.of_landmarks(face)
    low, high = face[:, :2].min(axis=0), face[:, :2].max(axis=0)
    assert (roi.x, roi.y) == pytest.approx((low + high) / 2, abs=1e-6)
    assert roi.size == pytest.approx(1.5 * (high - low).max(), rel=1e-9)
    assert math.remainder(roi.angle - own.angle - turn, math.tau) == pytest.approx(0, abs=1e-4)


def test_the_square_of_a_box_is_half_as_large_again_and_level_with_the_eyes() -> None:
    eyes = np.array([[110, 100], [150, 140]], np.float32)
    roi = Roi.of_detection(np.array([100, 80, 180, 200], np.float32), eyes)
    assert (roi.x, roi.y, roi.size) == (140, 140, 180)
    assert roi.angle == pytest.approx(math.pi / 4)


@pytest.mark.parametrize("size", [60.0, 150.0, 700.0, 1500.0])
@pytest.mark.parametrize("angle", [0.0, 0.6, -2.5])
def test_a_crop_shows_what_its_matrix_says(size: float, angle: float) -> None:
    height, width = 700, 900
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    frame = np.stack([x / width * 255, y / height * 255, np.full_like(x, 255)], axis=2)
    roi = Roi(430.3, 361.7, size, angle)
    crop = roi.crop(frame.round().astype(np.uint8), 192).astype(np.float64)
    matrix = roi.to_frame(192)
    for u, v in ((96, 96), (40, 90), (150, 60), (100, 170)):
        seen = crop[v - 4 : v + 4, u - 4 : u + 4].mean(axis=(0, 1))
        expected = matrix @ [u, v, 1.0]
        if 50 < expected[0] < width - 50 and 50 < expected[1] < height - 50:
            assert seen[2] == pytest.approx(255)
            assert seen[:2] / 255 * [width, height] == pytest.approx(expected, abs=2.5)


def test_a_large_square_is_averaged_and_black_beyond_the_frame() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    crop = Roi(600, 600, 1000).crop(noise, 100)
    assert crop.std() < 25, "sampling alone would leave 74 / 2"
    beyond = Roi(-2000, -2000, 900).crop(noise, 100)
    assert not beyond.any()
    half = Roi(0, 600, 1000).crop(noise, 100)
    assert not half[:, :48].any() and half[:, 52:].mean() > 100


@pytest.mark.parametrize("figures", [(0, 0, 0), (0, 0, -1), (math.nan, 0, 1), (0, 0, math.inf)])
def test_what_is_no_square_is_refused(figures: tuple[float, float, float]) -> None:
    with pytest.raises(InvalidRequest, match="no square"):
        Roi(*figures)


def test_landmarks_in_one_place_have_no_square() -> None:
    with pytest.raises(InvalidRequest, match="no square"):
        Roi.of_landmarks(np.zeros((468, 3), np.float32))


def test_near_squares() -> None:
    roi = Roi(100, 100, 200, 0.0)
    assert roi.near(Roi(101, 100, 200, 0.0), 0.01)
    assert not roi.near(Roi(103, 100, 200, 0.0), 0.01)
    assert not roi.near(Roi(100, 100, 206, 0.0), 0.01)
    assert not roi.near(Roi(100, 100, 200, 0.05), 0.01)
    assert roi.near(Roi(100, 100, 200, math.tau), 0.01)
    assert roi.moved(3, -2) == Roi(103, 98, 200, 0.0)


# -- small matrices ------------------------------------------------------------------------------


@given(st.lists(st.floats(-100, 100), min_size=9, max_size=9))
@settings(deadline=None)
def test_the_inverse_is_numpys(values: list[float]) -> None:
    matrix = np.array(values).reshape(3, 3)
    inverse, determinant = invert(matrix)
    size = np.abs(matrix).max() ** 3
    assert determinant == pytest.approx(np.linalg.det(matrix), rel=1e-6, abs=1e-12 * size)
    if abs(determinant) > 1e-4 * size > 0:
        assert inverse @ matrix == pytest.approx(np.eye(3), abs=1e-6)


def test_a_matrix_without_an_inverse_gives_zeros() -> None:
    inverse, determinant = invert(np.ones((3, 3)))
    assert not inverse.any() and determinant == 0
