"""Fitting a picture into a model's input, and mapping boxes back: resize, pad, crop.

Coordinates are continuous, with the origin at the corner of the first pixel, so the centre of
pixel i is at i + 0.5. Resizing maps centres to centres under that convention (OpenCV's, and
``align_corners=False`` elsewhere), so one linear map per axis serves pixels and boxes alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

Anchor = Literal["center", "top_left"]
Interpolation = Literal["bilinear", "bicubic", "area"]
Pixels = NDArray[np.uint8]

_FLAGS = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


def stretch(
    pixels: Pixels, out_h: int, out_w: int, interpolation: Interpolation = "bilinear"
) -> Pixels:
    """Resize to a size, whatever that does to the aspect ratio.

    Args:
        pixels: (H, W, 3) uint8.
        out_h: Height of the result in pixels.
        out_w: Width of the result in pixels.
        interpolation: "bilinear" and "bicubic" look at the 2 x 2 or 4 x 4 nearest pixels, without
            smoothing when they shrink, as models trained with OpenCV saw their pictures; "area"
            averages all pixels that an output pixel covers, and is "bilinear" for enlarging.

    Returns:
        (out_h, out_w, 3) uint8.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (out_h, out_w):
        return pixels
    if interpolation == "area" and (out_h > height or out_w > width):
        interpolation = "bilinear"
    resized = cv2.resize(pixels, (out_w, out_h), interpolation=_FLAGS[interpolation])
    return np.asarray(resized, np.uint8)


def center_crop(
    pixels: Pixels,
    out_h: int,
    out_w: int,
    crop: float = 1.0,
    interpolation: Interpolation = "bilinear",
) -> Pixels:
    """Cut the middle out and resize it.

    The region has the result's aspect ratio: the largest such region, times ``crop``. For a square
    result that is ``crop`` times the short side, the same as resizing the short side to
    ``out / crop`` and cutting ``out`` pixels, in one pass over fewer pixels.

    Args:
        pixels: (H, W, 3) uint8.
        out_h: Height of the result in pixels.
        out_w: Width of the result in pixels.
        crop: Share of the side that is kept, in (0, 1].
        interpolation: As for `stretch`.

    Returns:
        (out_h, out_w, 3) uint8.
    """
    height, width = pixels.shape[:2]
    unit = crop * min(height / out_h, width / out_w)
    h, w = max(1, round(out_h * unit)), max(1, round(out_w * unit))
    top, left = (height - h) // 2, (width - w) // 2
    return stretch(pixels[top : top + h, left : left + w], out_h, out_w, interpolation)


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A picture shrunk or enlarged into a frame, its aspect ratio kept, the rest padded.

    The geometry is that of the upright original; the pixels that are resized may come from a
    scaled decode.

    Attributes:
        width: Width of the upright original in pixels.
        height: Height of the upright original in pixels.
        out_width: Width of the frame in pixels.
        out_height: Height of the frame in pixels.
        left: First column of the content in the frame.
        top: First row of the content in the frame.
        content_width: Width of the content in the frame, in [1, out_width].
        content_height: Height of the content in the frame, in [1, out_height].
    """

    width: int
    height: int
    out_width: int
    out_height: int
    left: int
    top: int
    content_width: int
    content_height: int

    @classmethod
    def fit(
        cls,
        width: int,
        height: int,
        out_width: int,
        out_height: int,
        anchor: Anchor = "center",
    ) -> Self:
        """Place a picture in a frame.

        Args:
            width: Width of the upright original in pixels.
            height: Height of the upright original in pixels.
            out_width: Width of the frame in pixels.
            out_height: Height of the frame in pixels.
            anchor: Where the picture lies in the frame; the padding is on the other sides.

        Raises:
            ValueError: a size is not positive.
        """
        if min(width, height, out_width, out_height) < 1:
            sizes = f"{width} x {height} into {out_width} x {out_height}"
            raise ValueError(f"sizes must be positive: {sizes}")
        scale = min(out_width / width, out_height / height)
        content_w = min(out_width, max(1, round(width * scale)))
        content_h = min(out_height, max(1, round(height * scale)))
        centered = anchor == "center"
        left = (out_width - content_w) // 2 if centered else 0
        top = (out_height - content_h) // 2 if centered else 0
        return cls(width, height, out_width, out_height, left, top, content_w, content_h)

    def apply(
        self, pixels: Pixels, pad: int = 114, interpolation: Interpolation = "bilinear"
    ) -> Pixels:
        """Draw the picture into its frame.

        Args:
            pixels: (H, W, 3) uint8, the whole picture, of any size.
            pad: Grey level of the border, 0..255.
            interpolation: As for `stretch`.

        Returns:
            (out_height, out_width, 3) uint8, C-contiguous.
        """
        content = stretch(pixels, self.content_height, self.content_width, interpolation)
        if content.shape[:2] == (self.out_height, self.out_width):
            return np.ascontiguousarray(content)
        frame = np.full((self.out_height, self.out_width, 3), pad, np.uint8)
        bottom, right = self.top + self.content_height, self.left + self.content_width
        frame[self.top : bottom, self.left : right] = content
        return frame

    def to_original(self, boxes: NDArray[Any]) -> NDArray[Any]:
        """Map boxes from the frame to the original; the exact inverse of `from_original`.

        The result is not clipped: see `clip`.

        Args:
            boxes: (N, 4) x1 y1 x2 y2 in pixels of the frame.

        Returns:
            (N, 4) in pixels of the upright original, of the same floating dtype (float64 for
            integers).
        """
        scale, offset = self._map()
        return _as_given((boxes.astype(np.float64) - offset) / scale, boxes)

    def from_original(self, boxes: NDArray[Any]) -> NDArray[Any]:
        """Map boxes from the original to the frame.

        Args:
            boxes: (N, 4) x1 y1 x2 y2 in pixels of the upright original.

        Returns:
            (N, 4) in pixels of the frame, of the same floating dtype (float64 for integers).
        """
        scale, offset = self._map()
        return _as_given(boxes.astype(np.float64) * scale + offset, boxes)

    def clip(self, boxes: NDArray[Any]) -> NDArray[Any]:
        """Return boxes of the original, (N, 4) x1 y1 x2 y2, cut off at its borders."""
        return boxes.clip(0, np.array([self.width, self.height] * 2, boxes.dtype))

    def _map(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scale = np.array([self.content_width / self.width, self.content_height / self.height] * 2)
        return scale, np.array([self.left, self.top, self.left, self.top], np.float64)


def _as_given(result: NDArray[np.float64], boxes: NDArray[Any]) -> NDArray[Any]:
    floating = np.issubdtype(boxes.dtype, np.floating)
    return result.astype(boxes.dtype) if floating else result
