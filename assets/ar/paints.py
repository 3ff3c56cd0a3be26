"""Face paint in the canonical face's texture coordinates: dog, tiger, butterfly; and stickers."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from pixels import Canvas, Layers, blurred, clouds, fur, mix, noise, png, ramp, smooth, warped
from shapes import Floats, curve

from retinue.apps.ar.face.canonical import UV

EYE = [33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7]
MOUTH = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95]
LIPS = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146]
OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67,
        109]  # fmt: skip

Points = list[tuple[float, float]]


def _outline(landmarks: list[int]) -> Floats:
    return np.asarray(UV[landmarks], float)


@cache
def openings(size: int) -> Floats:
    """Where the eyes and the mouth are: no paint goes there."""
    eyes = Canvas(size).polygon(curve(_outline(EYE), 120, closed=True)).mask(both=True)
    mouth = Canvas(size).polygon(curve(_outline(MOUTH), 120, closed=True)).mask()
    return np.clip(blurred(np.maximum(eyes, mouth), size / 400) * 1.25, 0, 1)


def within(size: int, inset: float, ragged: float = 0.0, seed: int = 0) -> Floats:
    """The face, soft towards its outline, ``inset`` and ``ragged`` in parts of its width."""
    center = np.array([0.5, 0.53])
    outline = center + (_outline(OVAL) - center) * (1 - 2 * inset)
    mask = blurred(Canvas(size).polygon(outline).mask(), size * max(inset, 0.004) * 0.4)
    return warped(mask, seed, size * ragged, 40) if ragged else mask


def coat(size: int, seed: int, center: tuple[float, float] = (0.5, 0.5)) -> Floats:
    """(size, size) in [0, 1]: hairs that grow away from the nose, the same on both sides."""
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    away = np.hypot(x - center[0], y - center[1])
    turn = np.abs(np.arctan2(x - center[0], center[1] - y)) / np.pi
    strands = fur(seed, 384, 900, 0.05)
    rows = np.clip(away / 0.75 * 383, 0, 383).astype(int)
    sway = 0.012 * (noise(seed + 3, size, size, (9, 9)) - 0.5)
    columns = np.clip((turn + sway) * 899, 0, 899).astype(int)
    found = strands[rows, columns]
    return blurred(np.where(x < 0.5, found, found[:, ::-1]), 0.6)


def strokes(size: int, lines: list[tuple[Points, float]], ends: tuple[float, float]) -> Floats:
    """Brush strokes on the picture's right half and their mirror images."""
    canvas = Canvas(size)
    for points, width in lines:
        canvas.stroke(points, width, ends=ends)
    return canvas.mask(both=True)


def shape(
    size: int, points: ArrayLike, seed: int, rough: float = 0.012, both: bool = True
) -> Floats:
    """A patch with a furry edge."""
    mask = Canvas(size).shape(points).mask(both=both)
    return blurred(warped(mask, seed, size * rough, 42), size / 300)


def _dots(size: int, points: Points, radius: tuple[float, float]) -> Floats:
    """Where whiskers would grow, on both cheeks."""
    canvas = Canvas(size)
    for point in points:
        canvas.dot(point, radius)
    return canvas.mask(both=True)


def dog(size: int = 512) -> bytes:
    """White muzzle and blaze, a brown patch round one eye, whisker dots."""
    hairs = coat(size, 61, (0.5, 0.53))
    white = ramp(hairs, ["#c9b8a6", "#f1e8dc", "#ffffff"])
    brown = ramp(hairs, ["#4a2913", "#7d4a26", "#a96f40"])
    muzzle = shape(
        size,
        [(0.5, 0.14), (0.535, 0.22), (0.525, 0.34), (0.545, 0.46), (0.62, 0.56), (0.705, 0.64),
         (0.70, 0.74), (0.62, 0.81), (0.5, 0.83), (0.38, 0.81), (0.30, 0.74), (0.295, 0.64),
         (0.38, 0.56), (0.455, 0.46), (0.475, 0.34), (0.465, 0.22)],
        3, both=False,
    )  # fmt: skip
    patch = shape(
        size,
        [(0.60, 0.31), (0.68, 0.22), (0.80, 0.215), (0.875, 0.30), (0.875, 0.42), (0.80, 0.49),
         (0.68, 0.475), (0.605, 0.40)],
        4, both=False,
    )  # fmt: skip
    spots = [(0.60, 0.60), (0.635, 0.635), (0.605, 0.655), (0.665, 0.605), (0.655, 0.67)]
    dots = _dots(size, spots, (0.0075, 0.0085))
    line = (
        Canvas(size).stroke([(0.5, 0.57), (0.5, 0.61), (0.5, 0.648)], 0.012, ends=(1, 0.6)).mask()
    )
    layers = Layers(size).over(white, 0.86 * muzzle).over(brown, 0.88 * patch)
    layers.over("#3a2416", 0.9 * dots).over("#2a1a12", 0.85 * blurred(line, 1))
    layers.alpha = layers.alpha * (1 - openings(size)) * (0.9 + 0.1 * hairs)
    return layers.png(40)


TIGER_STRIPES: list[tuple[Points, float]] = [
    ([(0.5, 0.135), (0.555, 0.15), (0.60, 0.135)], 0.030),
    ([(0.5, 0.195), (0.55, 0.205), (0.585, 0.185)], 0.028),
    ([(0.5, 0.25), (0.54, 0.255), (0.565, 0.24)], 0.024),
    ([(0.64, 0.125), (0.635, 0.18), (0.60, 0.225)], 0.030),
    ([(0.73, 0.15), (0.715, 0.20), (0.665, 0.235)], 0.032),
    ([(0.82, 0.20), (0.80, 0.245), (0.74, 0.265)], 0.030),
    ([(0.955, 0.31), (0.90, 0.32), (0.85, 0.355)], 0.032),
    ([(0.975, 0.42), (0.91, 0.415), (0.845, 0.44)], 0.036),
    ([(0.965, 0.525), (0.89, 0.505), (0.79, 0.535)], 0.042),
    ([(0.945, 0.625), (0.86, 0.60), (0.755, 0.61)], 0.042),
    ([(0.90, 0.725), (0.83, 0.695), (0.735, 0.69)], 0.038),
    ([(0.83, 0.815), (0.77, 0.785), (0.70, 0.765)], 0.034),
    ([(0.74, 0.885), (0.69, 0.855), (0.635, 0.845)], 0.030),
    ([(0.60, 0.945), (0.57, 0.915), (0.535, 0.905)], 0.026),
    ([(0.555, 0.335), (0.545, 0.375), (0.555, 0.42)], 0.016),
]


def tiger(size: int = 640) -> bytes:
    """Orange and white fur, black stripes, a pink nose."""
    hairs, patches = coat(size, 21), clouds(30, size, size, 4)
    tone = np.clip(0.7 * hairs + 0.4 * patches - 0.05, 0, 1)
    orange = ramp(tone, ["#a8430a", "#e0731a", "#f59b35", "#ffc26b"])
    white = ramp(hairs, ["#d2c4b2", "#f6efe4", "#ffffff"])
    black = ramp(hairs, ["#0a0808", "#171313", "#2c2523"])
    brow = [(0.57, 0.335), (0.60, 0.27), (0.68, 0.245), (0.77, 0.27), (0.79, 0.32), (0.72, 0.335),
            (0.65, 0.34)]  # fmt: skip
    under = [(0.585, 0.42), (0.66, 0.435), (0.76, 0.425), (0.80, 0.45), (0.72, 0.475), (0.62, 0.46)]
    muzzle = [(0.5, 0.60), (0.56, 0.565), (0.65, 0.585), (0.72, 0.655), (0.72, 0.745),
              (0.67, 0.83), (0.58, 0.91), (0.5, 0.93), (0.42, 0.91), (0.33, 0.83), (0.28, 0.745),
              (0.28, 0.655), (0.35, 0.585), (0.44, 0.565)]  # fmt: skip
    layers = Layers(size).over(orange, within(size, 0.03, 0.02, 2))
    for number, points in enumerate((brow, under, muzzle)):
        layers.over(white, 0.95 * shape(size, points, 12 + number, 0.014, number < 2))
    stripes = strokes(size, TIGER_STRIPES, (1.0, 0.0))
    stripes = np.clip(1.25 * blurred(warped(stripes, 17, size * 0.007, 60), 1.2), 0, 1)
    layers.over(black, 0.96 * stripes * within(size, 0.012, 0.01, 3))
    _cat_nose(layers, size, black)
    layers.alpha = layers.alpha * (1 - openings(size))
    return layers.png(32)


def _cat_nose(layers: Layers, size: int, black: Floats) -> None:
    """Nose leather, the line below it, lined eyes and whisker dots."""
    leather = Canvas(size).shape(
        [(0.5, 0.495), (0.55, 0.505), (0.565, 0.545), (0.535, 0.585), (0.5, 0.60), (0.465, 0.585),
         (0.435, 0.545), (0.45, 0.505)]
    ).mask()  # fmt: skip
    layers.over(black, 0.9 * blurred(leather, 3))
    inner = np.clip(blurred(leather, size / 110) * 2 - 1, 0, 1)
    layers.over("#c9696b", 0.92 * inner)
    line = Canvas(size).stroke([(0.5, 0.59), (0.5, 0.63), (0.5, 0.655)], 0.014, ends=(1, 1)).mask()
    layers.over(black, 0.9 * line)
    lids = strokes(
        size,
        [([(0.575, 0.415), (0.60, 0.385), (0.66, 0.345), (0.72, 0.36), (0.775, 0.345)], 0.024),
         ([(0.59, 0.40), (0.655, 0.415), (0.72, 0.395), (0.76, 0.36)], 0.015)],
        (0.3, 0.2),
    )  # fmt: skip
    layers.over(black, 0.92 * blurred(lids, 1.2))
    spots = [(0.60, 0.62), (0.64, 0.61), (0.615, 0.65), (0.655, 0.645), (0.63, 0.68)]
    layers.over(black, 0.9 * _dots(size, spots, (0.0065, 0.0075)))


UPPER: Points = [(0.545, 0.385), (0.555, 0.31), (0.59, 0.235), (0.645, 0.175), (0.72, 0.158),
                 (0.80, 0.205), (0.865, 0.28), (0.915, 0.36), (0.885, 0.42), (0.80, 0.437),
                 (0.70, 0.44), (0.60, 0.43)]  # fmt: skip
LOWER: Points = [(0.555, 0.425), (0.64, 0.44), (0.75, 0.45), (0.855, 0.45), (0.895, 0.51),
                 (0.87, 0.59), (0.815, 0.635), (0.80, 0.70), (0.765, 0.715), (0.735, 0.655),
                 (0.66, 0.60), (0.59, 0.515)]  # fmt: skip
VEINS: list[tuple[Points, float]] = [
    ([(0.556, 0.385), (0.60, 0.29), (0.665, 0.17)], 0.011),
    ([(0.565, 0.385), (0.66, 0.29), (0.765, 0.175)], 0.010),
    ([(0.575, 0.385), (0.71, 0.30), (0.845, 0.25)], 0.010),
    ([(0.77, 0.36), (0.84, 0.335), (0.905, 0.325)], 0.011),
    ([(0.775, 0.395), (0.84, 0.40), (0.91, 0.385)], 0.010),
    ([(0.57, 0.43), (0.70, 0.49), (0.88, 0.50)], 0.010),
    ([(0.57, 0.44), (0.69, 0.53), (0.83, 0.61)], 0.011),
    ([(0.57, 0.45), (0.66, 0.54), (0.765, 0.69)], 0.009),
]


def butterfly(size: int = 640) -> bytes:
    """Wings round the eyes in blue, violet and rose, with black veins and white dots."""
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    side = np.abs(x - 0.5)
    upper, lower = (Canvas(size).shape(p).mask(both=True) for p in (UPPER, LOWER))
    wing = np.maximum(upper, lower)
    grain = clouds(41, size, size, 14, 4)
    grain = 0.5 * (grain + grain[:, ::-1])
    away = np.hypot(side - 0.05, (y - 0.41) * 1.05) / 0.44
    top = ramp(np.clip(away + 0.16 * (grain - 0.5), 0, 1),
               ["#fff3a8", "#ff9ed2", "#d94fd0", "#7a3ff0", "#2f6bff", "#19b8ff"])  # fmt: skip
    bottom = ramp(np.clip(away * 1.15 + 0.16 * (grain - 0.5), 0, 1),
                  ["#fff3a8", "#ffb36b", "#ff5f9e", "#b63be0", "#5b3ff0"])  # fmt: skip
    color = np.where((lower > upper)[..., None], bottom, top)
    color = mix(color, "#ffffff", 0.25 * smooth(grain, 0.62, 0.85))
    soft = [blurred(m, size / 70) for m in (upper, lower)]
    rim = np.maximum(
        upper * smooth(soft[0], 0.93, 0.7), lower * smooth(soft[1], 0.93, 0.7)
    ) * smooth(side, 0.10, 0.30)
    thin = np.maximum(
        upper * smooth(blurred(upper, size / 260), 0.98, 0.7),
        lower * smooth(blurred(lower, size / 260), 0.98, 0.7),
    )
    veins = strokes(size, VEINS, (0.4, 0.9)) * wing
    glow = blurred(np.clip(rim + veins, 0, 1), size / 90) * wing
    layers = Layers(size).over(color, 0.9 * blurred(wing, 1))
    layers.over("#1a0f3d", 0.35 * glow)
    layers.over("#120c22", 0.95 * blurred(np.clip(rim + thin + veins, 0, 1), 0.8))
    _butterfly_dots(layers, size)
    layers.alpha = layers.alpha * (1 - openings(size))
    return layers.png(32)


def _butterfly_dots(layers: Layers, size: int) -> None:
    """White dots on the rim, antennae, a row of pearls down the nose."""
    dots = Canvas(size)
    for outline, low, high in ((UPPER, 0.30, 0.76), (LOWER, 0.32, 0.82)):
        path = curve(outline, 61, closed=True)
        middle = path.mean(0)
        for step, index in enumerate(range(round(60 * low), round(60 * high), 2)):
            point = path[index] + (middle - path[index]) * 0.045
            dots.dot(point, 0.0062 if step % 2 else 0.0042)
    layers.over("#ffffff", 0.95 * dots.mask(both=True))
    feelers = [([(0.508, 0.30), (0.525, 0.22), (0.565, 0.155), (0.60, 0.15)], 0.012)]
    layers.over("#120c22", 0.95 * strokes(size, feelers, (0.7, 0.5)))
    knob = Canvas(size).dot((0.602, 0.152), 0.011).mask(both=True)
    layers.over("#120c22", knob)
    body = Canvas(size).shape(
        [(0.5, 0.29), (0.511, 0.305), (0.513, 0.34), (0.511, 0.42), (0.5, 0.475), (0.489, 0.42),
         (0.487, 0.34), (0.489, 0.305)]
    ).mask()  # fmt: skip
    layers.over("#120c22", 0.95 * body)
    shine = Canvas(size)
    for step, y in enumerate((0.315, 0.345, 0.373, 0.4, 0.425)):
        shine.dot((0.5, y), 0.0052 - 0.0006 * step)
    layers.over("#9fe8ff", 0.95 * shine.mask())


def heart(size: int = 192) -> bytes:
    """A glossy heart, for stickers."""
    y, x = np.mgrid[1.25 : -1.35 : size * 1j, -1.3 : 1.3 : size * 1j]
    field = (x**2 + y**2 - 0.9) ** 3 - x**2 * (y + 0.08) ** 3 * 1.1
    fine = field / np.maximum(np.hypot(*np.gradient(field)), 1e-9)
    inside = np.clip(0.5 - fine, 0, 1)
    inside[:2] = inside[-2:] = 0
    depth = blurred(inside, size / 14)
    color = ramp(np.clip(0.5 * depth + 0.28 * y + 0.35, 0, 1), ["#8f0f33", "#e0214f", "#ff5b7d"])
    shine = np.exp(-(((x + 0.48) / 0.24) ** 2) - ((y - 0.52) / 0.15) ** 2)
    glint = np.exp(-(((x - 0.52) / 0.1) ** 2) - ((y - 0.58) / 0.07) ** 2)
    color = mix(color, "#ffffff", np.clip(0.85 * shine + 0.6 * glint, 0, 1))
    return png(np.dstack([color, inside]))
