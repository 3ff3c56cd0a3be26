"""Pictures made of numbers: noise, fur, brush strokes and their PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from shapes import curve

Floats = NDArray[np.float64]


def resized(values: Floats, height: int, width: int) -> Floats:
    """Bicubic, of one channel."""
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), float)


def noise(seed: int, height: int, width: int, cells: tuple[int, int]) -> Floats:
    """(height, width) smooth noise in about [0, 1] with cells (down, across) bumps."""
    raw = np.random.default_rng(seed).random((cells[0] + 2, cells[1] + 2))
    return np.clip(resized(raw, height, width), 0, 1)


def clouds(seed: int, height: int, width: int, cells: int, octaves: int = 4) -> Floats:
    """Fractal noise in [0, 1]."""
    total = np.zeros((height, width))
    for octave in range(octaves):
        n = cells * 2**octave
        total += noise(seed + octave, height, width, (n, n)) * 0.5**octave
    low, high = total.min(), total.max()
    return np.asarray((total - low) / (high - low))


def fur(seed: int, height: int, width: int, length: float = 0.12) -> Floats:
    """(height, width) in [0, 1]: hairs that run down, wavy, ``length`` of the height long."""
    down = max(2, round(1 / length))
    hairs = np.zeros((height, width))
    for octave, (across, weight) in enumerate(((1.0, 0.6), (1.9, 0.4), (4.0, 0.22))):
        cells = (down + 4 * octave, max(4, round(width / across)))
        hairs += weight * noise(seed + octave, height, width, cells)
    sway = noise(seed + 9, height, width, (4, 6)) + 0.35 * noise(seed + 8, height, width, (12, 14))
    rows = np.arange(height)[:, None]
    columns = np.arange(width)[None] + ((sway - 0.6) * width * 0.035).round().astype(int)
    hairs = hairs[rows, np.clip(columns, 0, width - 1)]
    low, high = np.quantile(hairs, [0.01, 0.99])
    return np.asarray(np.clip((hairs - low) / (high - low), 0, 1))


def ramp(values: Floats, colors: Sequence[str | ArrayLike]) -> Floats:
    """(..., 3) sRGB in [0, 1] along evenly spaced colours."""
    stops = np.array([srgb(c) for c in colors])
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, at, channel) for channel in stops.T], -1)


def srgb(color: str | ArrayLike) -> Floats:
    """(3,) in [0, 1] of "#rrggbb"."""
    if isinstance(color, str):
        return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.asarray(color, float)


def linear(color: str, alpha: float = 1.0) -> tuple[float, float, float, float]:
    """Linear RGBA of "#rrggbb", rounded to what matters."""
    r, g, b = (round(float(c), 4) for c in to_linear(srgb(color)))
    return r, g, b, alpha


def to_linear(values: Floats) -> Floats:
    """Take sRGB to linear light."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def mix(a: Floats, b: Floats | str, amount: Floats | float) -> Floats:
    """a + (b - a) * amount."""
    other = srgb(b) if isinstance(b, str) else b
    return np.asarray(a + (other - a) * np.asarray(amount)[..., None])


def smooth(values: Floats, low: float, high: float) -> Floats:
    """0 below low, 1 above high (or the other way round), smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def blurred(mask: Floats, radius: float) -> Floats:
    """Gaussian by three boxes on each axis; radius in pixels."""
    box = max(1, round(radius))
    size = 2 * box + 1
    for _ in range(2):
        for _ in range(3):
            total = np.cumsum(np.pad(mask, ((box + 1, box), (0, 0)), mode="edge"), 0)
            mask = (total[size:] - total[:-size]) / size
        mask = np.ascontiguousarray(mask.T)
    return mask


def warped(mask: Floats, seed: int, pixels: float, cells: int) -> Floats:
    """Move every pixel a little by noise: edges that a brush could have made."""
    height, width = mask.shape
    y, x = np.mgrid[:height, :width].astype(float)
    y += (clouds(seed, height, width, cells, 2) - 0.5) * 2 * pixels
    x += (clouds(seed + 50, height, width, cells, 2) - 0.5) * 2 * pixels
    y, x = np.clip(y, 0, height - 1.001), np.clip(x, 0, width - 1.001)
    top, left = y.astype(int), x.astype(int)
    v, u = y - top, x - left
    upper = mask[top, left] * (1 - u) + mask[top, left + 1] * u
    lower = mask[top + 1, left] * (1 - u) + mask[top + 1, left + 1] * u
    return np.asarray(upper * (1 - v) + lower * v)


class Canvas:
    """Masks of strokes and shapes in coordinates of [0, 1]; drawn at three times the size."""

    FINE = 3

    def __init__(self, size: int) -> None:
        self.size = size
        self._picture = Image.new("L", (size * self.FINE, size * self.FINE), 0)
        self._draw = ImageDraw.Draw(self._picture)

    def polygon(self, points: Floats, value: float = 1.0) -> Canvas:
        """Fill a closed outline of (N, 2) points."""
        scaled = points * self.size * self.FINE
        self._draw.polygon([tuple(p) for p in scaled.tolist()], fill=round(255 * value))
        return self

    def shape(self, points: ArrayLike, value: float = 1.0) -> Canvas:
        """Fill the smooth closed curve through points."""
        return self.polygon(curve(points, 160, closed=True), value)

    def stroke(
        self, points: ArrayLike, width: float, *, ends: tuple[float, float] = (0.0, 0.0)
    ) -> Canvas:
        """Draw a brush stroke: widest in the middle, ``ends`` of that width at its two ends."""
        path = curve(points, 48)
        t = np.linspace(0, 1, len(path))
        body = np.sin(np.pi * t) ** 0.7
        half = width / 2 * np.maximum(body, ends[0] * (1 - t) ** 0.5 + ends[1] * t**0.5)
        along = np.gradient(path, axis=0)
        side = np.stack([-along[:, 1], along[:, 0]], -1)
        side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
        left, right = path + side * half[:, None], path - side * half[:, None]
        self.polygon(np.concatenate([left, right[::-1]]))
        for end, size in ((path[0], half[0]), (path[-1], half[-1])):
            self.dot(end, size)
        return self

    def dot(self, center: ArrayLike, radius: float | tuple[float, float]) -> Canvas:
        """Fill an ellipse."""
        x, y = np.asarray(center, float)
        rx, ry = (radius, radius) if isinstance(radius, int | float) else radius
        if min(rx, ry) > 1e-5:
            box = np.array([x - rx, y - ry, x + rx, y + ry]) * self.size * self.FINE
            self._draw.ellipse(box.tolist(), fill=255)
        return self

    def mask(self, *, both: bool = False) -> Floats:
        """(size, size) in [0, 1]; ``both`` adds the mirror image."""
        small = self._picture.resize((self.size, self.size), Image.Resampling.BOX)
        found = np.asarray(small, float) / 255
        return np.maximum(found, found[:, ::-1]) if both else found


class Layers:
    """Coats of paint, one over the other, with straight alpha."""

    def __init__(self, size: int) -> None:
        self.color = np.zeros((size, size, 3))
        self.alpha = np.zeros((size, size))

    def over(self, color: str | Floats, mask: Floats) -> Layers:
        """Paint a colour (or a picture) through a mask."""
        paint = np.broadcast_to(srgb(color) if isinstance(color, str) else color, self.color.shape)
        alpha = mask + self.alpha * (1 - mask)
        part = np.divide(mask, alpha, out=np.zeros_like(mask), where=alpha > 1e-6)
        self.color = self.color + (paint - self.color) * part[..., None]
        self.alpha = alpha
        return self

    def png(self, levels: int = 256) -> bytes:
        """The file; fewer colours make it smaller."""
        return png(np.dstack([self.color, self.alpha]), levels)


def png(picture: Floats, levels: int = 256) -> bytes:
    """PNG of (H, W, 3 or 4) in [0, 1]; ``levels`` a channel."""
    steps = np.round(np.clip(picture, 0, 1) * (levels - 1)) / (levels - 1)
    pixels = np.round(steps * 255).astype(np.uint8)
    if pixels.shape[2] == 4:
        pixels[pixels[..., 3] == 0] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=7)
    return file.getvalue()
