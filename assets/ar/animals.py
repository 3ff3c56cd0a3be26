"""Dog and cat: ears, noses, whiskers and a tongue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from glb import Channel, Material, Part, glb
from numpy.typing import ArrayLike
from pixels import blurred, clouds, fur, linear, mix, noise, png, ramp, smooth
from shapes import Mesh, curve, profile, sphere, sweep, tangents, tube, turn, unit

Palette = dict[str, list[str]]
DOG: Palette = {
    "coat": ["#4f2c16", "#7d4a26", "#a5683a", "#c48a58"],
    "inside": ["#c9837c", "#e3a59b", "#f3cbbd"],
    "tuft": ["#b98d68", "#e9cfae", "#fbeeda"],
}
CAT: Palette = {
    "coat": ["#25262c", "#42444d", "#5f626d", "#8b8e99"],
    "inside": ["#c77b80", "#e8a5a4", "#f6c9c4"],
    "tuft": ["#8b8c94", "#d5d5da", "#ffffff"],
}


HAIR = (-0.4, 0.8, 0.0)
"""How far hair lifts the right ear off the skull, where its root stays."""


def ear_texture(palette: Palette, size: int, seed: int, dark: float) -> bytes:
    """Left half the inside, right half the outside, the base on top; hairs run to the tip."""
    height, half = size, size // 2
    v, u = np.mgrid[0 : 1 : height * 1j, 0 : 1 : half * 1j]
    edge = np.abs(u - 0.5) * 2
    hairs = fur(seed, height, half, 0.11)
    patches = clouds(seed + 20, height, half, 3)
    shade = 0.72 * hairs + 0.5 * patches - 0.1 - dark * smooth(v, 0.45, 1.0)
    outside = ramp(np.clip(shade, 0, 1), palette["coat"])
    skin = ramp(
        np.clip(0.35 + 0.5 * smooth(edge, 0.0, 0.9) + 0.25 * (patches - 0.5), 0, 1),
        palette["inside"],
    )
    strands = fur(seed + 40, height, half, 0.2)
    tuft = ramp(strands, palette["tuft"])
    ragged = edge + 0.42 * (strands - 0.5) + 0.12 * (v - 0.5)
    inside = mix(skin, tuft, 0.95 * smooth(ragged, 0.22, 0.6))
    inside = mix(inside, outside, smooth(ragged, 0.58, 0.76))
    inside = mix(inside * 0.99, "#5d2f33", 0.5 * (1 - smooth(v, 0.05, 0.5)) * (1 - edge**2))
    return png(np.concatenate([inside, outside], 1), 40)


def ear(
    spine: ArrayLike,
    across: ArrayLike,
    width: ArrayLike,
    cup: ArrayLike,
    detail: tuple[int, int],
    thick: float = 0.34,
) -> Mesh:
    """A leaf along a spine; its front is the inside of the ear.

    Args:
        spine: Points from the base to the tip.
        across: Directions from one edge to the other, by points as the spine's.
        width: Half of it, by even steps from base to tip.
        cup: How far the edges stand forward, in half widths.
        detail: Rows and columns.
        thick: Half of it, in the middle.
    """
    rows, columns = detail
    path = curve(spine, rows)
    along = tangents(path)
    given = np.asarray(across, float)
    over = unit(np.stack([profile(c, rows) for c in given.T], -1))
    front = unit(np.cross(over, along))
    half = np.maximum(profile(width, rows), 0)[:, None]
    half[-1] = 0
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    side, sheet = np.cos(angle), np.sin(angle)
    body = np.minimum(thick, 0.45 * half)
    bend = profile(cup, rows)[:, None] * half
    section = np.stack([-half * side, body * sheet + bend * (side**2 - 0.4)], -1)
    section[:, -1] = section[:, 0]
    return sweep(path, section * (-1, 1), front)


def dog_ears(detail: tuple[int, int], perk: float = 0.0) -> Mesh:
    """Half pricked: the upper half folds forward and hangs down; ``perk`` raises it."""
    spines = (
        [(4.9, 9.6, -3.4), (6.3, 12.6, -3.2), (7.5, 15.0, -2.2), (8.5, 15.3, 0.4),
         (9.3, 13.4, 2.2), (9.8, 10.8, 2.6), (10.0, 9.3, 2.4)],
        [(4.9, 9.6, -3.4), (6.4, 12.4, -3.2), (7.9, 14.6, -2.2), (9.1, 14.7, 0.3),
         (10.0, 12.7, 1.9), (10.5, 10.0, 2.2), (10.6, 8.4, 1.9)],
    )  # fmt: skip
    raised = [(4.9, 9.6, -3.4), (5.8, 12.9, -3.3), (6.5, 15.9, -2.6), (7.1, 17.4, -0.7),
              (7.8, 17.2, 1.6), (8.5, 15.6, 2.9), (8.8, 14.4, 3.1)]  # fmt: skip
    across = [(0.9, -0.45, 0.25), (0.92, -0.4, 0.15), (0.95, -0.32, 0.1), (0.98, -0.22, 0.0),
              (0.99, 0.08, 0.1)]  # fmt: skip
    width = [2.3, 2.75, 3.0, 3.05, 2.9, 2.45, 1.7, 0.0]
    cup = [0.5, 0.5, 0.34, 0.08, -0.1, -0.2, -0.25]
    right, left = (
        ear(np.array(spine) * (1 - perk) + np.array(raised) * perk, across, width, cup, detail)
        for spine in spines
    )
    return right.moved(HAIR) + left.moved(HAIR).mirrored()


def nose(size: ArrayLike, detail: tuple[int, int]) -> Mesh:
    """A wet nose about the origin: broad on top, two nostrils and the groove between them.

    Its back, which is inside the face, is open. Its vertex colours are white, darker down in the
    nostrils.
    """
    ball = sphere(1.0, *detail, until=0.66).moved(turn=turn(x=90))
    x, y, z = ball.positions.T
    front = smooth(z, 0.0, 0.55)
    wide = 1.0 + 0.22 * y - 0.1 * y**2
    wings = 0.16 * np.exp(-(((np.abs(x) - 0.62) / 0.3) ** 2) - ((y + 0.25) / 0.38) ** 2)
    reach = np.hypot((np.abs(x) - 0.5 - 0.25 * (y + 0.2)) / 0.2, (y + 0.22) / 0.24)
    hole = np.exp(-(reach**2)) * front
    groove = np.exp(-((x / 0.09) ** 2)) * (1 - smooth(y, -0.15, 0.25)) * front
    out = 1 + wings * front - 0.42 * hole - 0.13 * groove
    top = np.where(y > 0, 0.94, 1.0)
    placed = np.stack([x * wide, y * top, z * (1 - 0.12 * y**2)], -1) * out[:, None]
    shade = 1 - 0.88 * smooth(hole, 0.25, 0.85) - 0.4 * groove
    colors = np.concatenate([np.repeat(shade[:, None], 3, 1), np.ones((len(x), 1))], 1)
    # Seen from the front, so that the skin's pebbles do not gather at the pole.
    uv = 0.5 + 0.48 * np.stack([x, -y], -1)
    return replace(ball, positions=placed * np.asarray(size, float), uv=uv).painted(colors)


def leather(size: int) -> bytes:
    """The nose's skin: fine pebbles."""
    pebbles = noise(71, size, size, (size // 5, size // 5))
    pebbles = blurred(pebbles, 1)
    return png(ramp(smooth(pebbles, 0.2, 0.8), ["#161314", "#272324", "#403a3c"]), 64)


TONGUE = (0.0, -4.54, 5.40)
"""Where landmark 14 is: the tongue hangs on it."""


def tongue(spine: ArrayLike, detail: tuple[int, int], width: float = 1.45) -> Mesh:
    """Flat and rounded, with a furrow along its top; its coordinates are those of landmark 14."""
    rows, columns = detail
    path = curve(spine, rows)
    t = np.linspace(0, 1, rows)
    half = width * profile([0.86, 0.96, 1.0, 1.03, 1.0, 0.9], rows)
    half *= np.sqrt(np.clip(1 - np.clip((t - 0.74) / 0.26, 0, 1) ** 2, 0, 1))
    half *= 0.35 + 0.65 * np.sqrt(1 - np.clip(1 - t / 0.2, 0, 1) ** 2)
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    side, sheet = np.cos(angle), np.sin(angle)
    furrow = 0.16 * np.exp(-((side / 0.22) ** 2)) * (sheet > 0)
    thick = np.minimum(0.34, 0.5 * half)[:, None]
    lift = 0.10 * half[:, None] * side**2
    section = np.stack([half[:, None] * side + 0 * thick, thick * (sheet - furrow) + lift], -1)
    section[:, -1] = section[:, 0]
    return sweep(path, section, np.cross(tangents(path), (1.0, 0, 0)))


def tongue_texture(size: int) -> bytes:
    """Pink, deeper along the furrow, dark at the root inside the mouth, with fine bumps."""
    v, u = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size // 2 * 1j]
    top = np.clip(1 - np.abs(u - 0.25) * 4, 0, 1)
    bumps = noise(5, size, size // 2, (size // 3, size // 6)) - 0.5
    shade = 0.66 + 0.27 * v - 0.38 * top**6 * (1 - 0.5 * v) + 0.17 * bumps
    shade -= 0.6 * np.clip(1 - v / 0.28, 0, 1)
    colors = ["#4a1220", "#a52f45", "#d95068", "#ee7f8d", "#f6a3a6"]
    return png(ramp(np.clip(shade, 0, 1), colors), 64)


def dog(detail: float = 1.0) -> bytes:
    """Ears and nose, in the face's own coordinates."""
    n = 256 if detail == 1.0 else 96
    rows, columns = (16, 12) if detail == 1.0 else (10, 8)
    coat = Material("coat", roughness=0.9, png=ear_texture(DOG, n, 3, 0.45))
    skin = Material("nose", roughness=0.22, png=leather(n // 2))
    ball = nose((1.62, 1.22, 1.3), (11, 18) if detail == 1.0 else (7, 12))
    ball = ball.moved((0, -0.42, 7.2), turn(x=-8))
    ears = Part("ears", dog_ears((rows, columns)), coat, {"perk": dog_ears((rows, columns), 1.0)})
    return glb([ears, Part("nose", ball, skin)])


def dog_tongue(detail: float = 1.0) -> bytes:
    """A tongue with the animation "tongue": it comes out and pants."""
    shape = (16, 14) if detail == 1.0 else (10, 8)
    out = tongue(
        [
            (0, 0.3, -1.6),
            (0, 0.42, -0.2),
            (0, 0.3, 0.75),
            (0, -0.45, 1.5),
            (0, -1.9, 1.75),
            (0, -3.2, 1.6),
            (0, -4.3, 1.25),
        ],
        shape,
    )
    within = tongue(
        [
            (0, 0.1, -2.2),
            (0, 0.12, -1.6),
            (0, 0.1, -1.1),
            (0, 0.0, -0.7),
            (0, -0.1, -0.45),
            (0, -0.2, -0.3),
        ],
        shape,
        0.9,
    )
    wet = Material("tongue", roughness=0.3, png=tongue_texture(128 if detail == 1.0 else 48))
    seconds = [0.0, 0.1, 0.2, 0.28]
    weights = [1.0, 0.55, 0.05, -0.07]
    for breath in range(1, 25):
        seconds.append(round(0.28 + 0.16 * breath, 2))
        weights.append(0.06 if breath % 2 else -0.03)
    seconds.append(4.4)
    weights.append(0.0)
    channel = Channel("tongue", "weights", seconds, weights)
    return glb([Part("tongue", out, wet, {"within": within})], {"tongue": [channel]})


def cat_ears(detail: tuple[int, int]) -> Mesh:
    """Upright triangles that lean out a little."""
    right = ear(
        [(4.2, 8.9, -2.2), (4.9, 11.2, -1.9), (5.7, 13.9, -1.8), (6.5, 16.6, -2.2)],
        [(0.94, -0.26, -0.3), (0.94, -0.26, -0.28), (0.93, -0.3, -0.2)],
        [3.15, 3.1, 2.75, 2.2, 1.5, 0.75, 0.0],
        [0.42, 0.46, 0.5, 0.5, 0.4],
        detail,
        0.3,
    ).moved(HAIR)
    return right + right.mirrored()


def whiskers(sides: int, steps: int) -> Mesh:
    """Four on a cheek, thin and bowed."""
    found = []
    for start, end, bow in (
        ((2.3, -2.0, 5.5), (9.6, 0.2, 4.3), 0.9),
        ((2.5, -2.4, 5.35), (10.3, -1.7, 4.4), 0.8),
        ((2.5, -2.85, 5.2), (9.9, -3.8, 4.4), 0.6),
        ((2.2, -3.2, 5.2), (8.4, -5.6, 4.5), 0.4),
    ):
        a, b = np.array(start), np.array(end)
        middle = (a + b) / 2 + (0, bow, 0.9)
        radius = 0.13 * np.linspace(1, 0.0, steps) ** 0.5
        radius[0] = 0.0
        found.append(tube(curve([a, middle, b], steps), radius, sides))
    right = found[0] + found[1] + found[2] + found[3]
    return right + right.mirrored()


def cat(detail: float = 1.0) -> bytes:
    """Ears, a small nose and whiskers."""
    n = 256 if detail == 1.0 else 96
    coat = Material("coat", roughness=0.9, png=ear_texture(CAT, n, 11, 0.25))
    pink = Material("nose", color=linear("#e58f95"), roughness=0.35)
    white = Material("whiskers", color=linear("#f7f5f2"), roughness=0.45)
    ball = nose((1.02, 0.72, 0.75), (9, 16) if detail == 1.0 else (6, 10))
    ball = ball.moved((0, -0.55, 7.35), turn(x=-12))
    return glb(
        [
            Part("ears", cat_ears((14, 12) if detail == 1.0 else (9, 8)), coat),
            Part("nose", ball, pink),
            Part("whiskers", whiskers(*((4, 9) if detail == 1.0 else (3, 6))), white),
        ]
    )
