"""The one pinhole camera that pose, drawing and the region of interest share."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from retinue.core.errors import InputNotFound, InvalidRequest

DEFAULT_FOV_DEGREES: Final = 63.0
"""Vertical field of view that is taken where no calibration is known: a usual webcam's."""
MAX_FILE_BYTES: Final = 1 << 20
_OPENCV_SUFFIXES: Final = (".yaml", ".yml", ".json", ".xml")
_ASPECT_TOLERANCE: Final = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole without distortion.

    Pixels have their origin at the top left corner of the top left pixel, whose centre is at
    (0.5, 0.5). In space x is to the right, y down and z away from the camera, in centimetres.

    Attributes:
        width: Of the frame in pixels.
        height: Of the frame in pixels.
        matrix: (3, 3) float64, the intrinsics K.

    Raises:
        InvalidRequest: the frame has no pixels, or the matrix is not that of a pinhole.
    """

    width: int
    height: int
    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        k = np.asarray(self.matrix, np.float64)
        if self.width < 1 or self.height < 1:
            raise InvalidRequest(f"a camera's frame is {self.width}x{self.height} pixels; use >= 1")
        if k.shape != (3, 3) or not np.isfinite(k).all():
            raise InvalidRequest(f"a camera's matrix must be (3, 3) and finite, not {k.tolist()}")
        pinhole = k[0, 0] > 0 and k[1, 1] > 0 and not k[1, 0] and k[2].tolist() == [0, 0, 1]
        if not pinhole or k[0, 1]:
            raise InvalidRequest(
                f"a camera's matrix must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with fx, fy > 0, "
                f"not {k.tolist()}"
            )
        k = k.copy()
        k.setflags(write=False)
        object.__setattr__(self, "matrix", k)

    @classmethod
    def from_fov(
        cls, width: int, height: int, vertical_degrees: float = DEFAULT_FOV_DEGREES
    ) -> Self:
        """Return a camera with square pixels that looks along the frame's middle.

        Args:
            width: Of the frame in pixels.
            height: Of the frame in pixels.
            vertical_degrees: Field of view from the top edge to the bottom edge.

        Raises:
            InvalidRequest: the angle is not between 1 and 175 degrees.
        """
        if not 1 <= vertical_degrees <= 175:
            raise InvalidRequest(
                f"a vertical field of view of {vertical_degrees} degrees; give one from 1 to 175"
            )
        focal = height / 2 / math.tan(math.radians(vertical_degrees) / 2)
        return cls(width, height, _matrix(focal, focal, width / 2, height / 2))

    @classmethod
    def read(cls, path: Path | str, width: int, height: int) -> Self:
        """Read a calibration.

        OpenCV's and ROS' files (``.yaml``, ``.yml``, ``.json``, ``.xml``) name ``camera_matrix``
        or ``cameraMatrix``, as OpenCV writes it: their pixel centres are whole numbers, and half
        a pixel is added here. A ``.toml`` has ``fx fy cx cy`` in this project's pixels. Where the
        file tells its size (``image_width`` and ``image_height``, in TOML ``width`` and
        ``height``), the figures are scaled to the frame's.

        Args:
            path: The file.
            width: Of the frames that the camera is for, in pixels.
            height: Of those frames.

        Raises:
            InputNotFound: there is no such file.
            InvalidRequest: it is no calibration, is of another shape than the frame, or has lens
                distortion, which is not modelled.
        """
        path = Path(path)
        if not path.is_file():
            raise InputNotFound(f"no calibration file {path}; check its path")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidRequest(f"{path} is larger than any calibration; give the right file")
        suffix = path.suffix.lower()
        if suffix == ".toml":
            k, size = _read_toml(path)
        elif suffix in _OPENCV_SUFFIXES:
            k, size = _read_opencv(path)
        else:
            raise InvalidRequest(
                f"{path} is no calibration by its name; .toml, {', '.join(_OPENCV_SUFFIXES)} are"
            )
        across, down = _scales(path, size, width, height)
        return cls(width, height, _matrix(*(k * (across, down, across, down))))

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return where points are seen.

        Args:
            points: (..., 3), camera space in centimetres, with z > 0.

        Returns:
            (..., 2) float64 pixels; what is not in front of the camera is not a number.
        """
        xyz = np.asarray(points, np.float64)
        z = np.where(xyz[..., 2:] > 0, xyz[..., 2:], np.nan)
        k = self.matrix
        pixels = xyz[..., :2] / z * (k[0, 0], k[1, 1]) + k[:2, 2]
        return np.asarray(pixels, np.float64)

    def rays(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Return the (..., 2) slopes x / z and y / z of the rays through (..., 2) pixels."""
        k = self.matrix
        slopes = (np.asarray(pixels, np.float64) - k[:2, 2]) / (k[0, 0], k[1, 1])
        return np.asarray(slopes, np.float64)


def _matrix(fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float64]:
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _scales(
    path: Path, size: tuple[float, float] | None, width: int, height: int
) -> tuple[float, float]:
    if size is None:
        return 1.0, 1.0
    if min(size) < 1:
        raise InvalidRequest(f"{path} is for pictures of {size[0]:g}x{size[1]:g}; correct it")
    across, down = width / size[0], height / size[1]
    if abs(across / down - 1) > _ASPECT_TOLERANCE:
        raise InvalidRequest(
            f"{path} is for {size[0]:g}x{size[1]:g} but the frames are {width}x{height}, of "
            "another shape; calibrate the camera in the mode that it is used in"
        )
    return across, down


def _read_toml(path: Path) -> tuple[NDArray[np.float64], tuple[float, float] | None]:
    try:
        read: Mapping[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not TOML: {error}") from error
    unknown = set(read) - {"fx", "fy", "cx", "cy", "width", "height", "distortion"}
    if unknown:
        raise InvalidRequest(
            f"{path}: unknown {', '.join(sorted(unknown))}; it has fx, fy, cx, cy, width, height"
        )

    def number(name: str) -> float:
        value = read.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidRequest(f"{path}: {name} must be a number of pixels, not {value!r}")
        return float(value)

    _refuse_distortion(path, read.get("distortion", ()))
    size = (number("width"), number("height")) if {"width", "height"} & set(read) else None
    return np.array([number("fx"), number("fy"), number("cx"), number("cy")]), size


def _read_opencv(path: Path) -> tuple[NDArray[np.float64], tuple[float, float] | None]:
    try:
        storage = cv2.FileStorage(
            path.read_text("utf-8"), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY
        )
    except (cv2.error, UnicodeDecodeError, SystemError) as error:
        raise InvalidRequest(f"{path} cannot be read as OpenCV's calibration: {error}") from error
    try:
        k = _numbers(storage, ("camera_matrix", "cameraMatrix"))
        distortion = _numbers(
            storage, ("distortion_coefficients", "distCoeffs", "dist_coeffs", "distortion")
        )
        sizes = [_numbers(storage, (f"image_{side}", side)) for side in ("width", "height")]
    finally:
        storage.release()
    if k is None or k.size != 9:
        raise InvalidRequest(f"{path} has no camera_matrix of 3 x 3; give OpenCV's calibration")
    if distortion is not None:
        _refuse_distortion(path, distortion)
    if k[1] or k[3]:
        raise InvalidRequest(f"{path}: camera_matrix has skew, which is not modelled; remove it")
    size = (
        None if sizes[0] is None or sizes[1] is None else (float(sizes[0][0]), float(sizes[1][0]))
    )
    return np.array([k[0], k[4], k[2] + 0.5, k[5] + 0.5]), size


def _numbers(storage: cv2.FileStorage, names: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Return the first of the nodes that is there, flat: a matrix, a list or one number."""
    for name in names:
        node = storage.getNode(name)
        if node.empty():
            continue
        if node.isMap():
            inner = node.getNode("data")
            if not node.getNode("dt").empty():
                return np.asarray(node.mat(), np.float64).ravel()
            node = inner
        if node.isSeq():
            values = [node.at(i) for i in range(node.size())]
            if any(value.isSeq() for value in values):
                values = [row.at(i) for row in values for i in range(row.size())]
            return np.array([value.real() for value in values], np.float64)
        return np.array([node.real()])
    return None


def _refuse_distortion(path: Path, coefficients: ArrayLike) -> None:
    try:
        values = np.asarray(coefficients, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{path}: distortion must be a list of numbers") from error
    if values.any():
        raise InvalidRequest(
            f"{path} has lens distortion, which is not modelled; undistort the frames with "
            "cv2.undistort and set the coefficients to 0"
        )
