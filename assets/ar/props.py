"""Things that are worn: glasses, a crown, a party hat and a moustache."""

from __future__ import annotations

import numpy as np
from glb import Material, Part, glb
from pixels import Canvas, Layers, clouds, fur, linear, png, ramp, to_linear
from shapes import (
    Floats,
    Mesh,
    circle,
    curve,
    grid,
    lathe,
    profile,
    sphere,
    sweep,
    tangents,
    tube,
    turn,
)

LENS = [(0.92, 3.15), (1.08, 1.9), (1.8, 0.72), (3.35, 0.22), (5.0, 0.62), (5.95, 1.95),
        (6.22, 3.55), (5.3, 4.32), (3.4, 4.42), (1.75, 4.2)]  # fmt: skip


def _wrap(points: Floats) -> Floats:
    """Bend the flat front round the face and lean its lower edge in."""
    x, y, z = points.T
    return np.stack([x, y, z + 5.95 - 0.034 * x**2 + 0.1 * (y - 2.5)], -1)


def _bar(width: float, depth: float, sides: int) -> Floats:
    """A section between a rectangle and an ellipse, width x depth."""
    ring = circle(sides)
    rounded = np.sign(ring) * np.abs(ring) ** 0.62
    rounded[-1] = rounded[0]
    return rounded * (width / 2, depth / 2)


def _front(steps: int, sides: int) -> Mesh:
    outline = curve(LENS, steps + 1, closed=True)
    ring = np.concatenate([outline, np.zeros((steps + 1, 1))], 1)
    ring[-1] = ring[0]
    thick = 0.46 + 0.3 * np.clip((outline[:, 1] - 3.2) / 1.2, 0, 1)
    sections = np.stack([_bar(w, 0.42, sides) for w in thick])
    right = sweep(_wrap(ring), sections, (0, 0, 1), closed=True)
    t = np.linspace(-1, 1, 9)
    path = np.stack([1.15 * t, 3.42 + 0.22 * (1 - t**2), 0.12 * (1 - t**2)], -1)
    height = 0.5 + 0.35 * t**2
    bridge = sweep(
        _wrap(path), np.stack([_bar(0.4, h, sides) for h in height])[:, :, ::1], (0, 1, 0)
    )
    return right + right.mirrored() + bridge


def _temple(steps: int, sides: int) -> Mesh:
    path = curve(
        [(5.9, 3.85, 4.55), (6.75, 3.85, 4.1), (7.4, 3.75, 3.0), (7.85, 3.65, 1.0),
         (8.05, 3.55, -1.6), (8.0, 3.45, -3.9), (7.75, 2.7, -5.2), (7.45, 1.4, -5.9),
         (7.2, 0.1, -6.2)],
        steps,
    )  # fmt: skip
    tall = profile([0.8, 0.78, 0.62, 0.5, 0.46, 0.46, 0.5, 0.58, 0.1], steps)
    flat = profile([0.4, 0.34, 0.28, 0.26, 0.26, 0.26, 0.28, 0.3, 0.08], steps)
    sections = np.stack([_bar(a, b, sides) for a, b in zip(flat, tall, strict=True)])
    for end in (0, -1):
        sections[end] = sections[end].mean(0)
    right = sweep(path, sections, (0, 1, 0))
    return right + right.mirrored()


def _lens(steps: int, rings: int, half: int) -> Mesh:
    outline = curve(LENS, steps + 1, closed=True)
    outline[-1] = outline[0]
    center = np.array([3.5, 2.4])
    t = np.linspace(0, 1, rings)[:, None, None]
    flat = center + (outline - center) * t
    bulge = 0.28 * (1 - t[..., 0] ** 2) * np.ones(steps + 1)
    points = np.concatenate([flat, bulge[..., None]], -1)
    sheet = grid(_wrap(points.reshape(-1, 3)).reshape(points.shape))
    lens = sheet if half == 1 else sheet.reversed()
    y = points.reshape(-1, 3)[:, 1]
    fade = np.clip((y - 0.2) / 4.2, 0, 1)[:, None]
    color = to_linear(ramp(fade[:, 0], ["#b9825a", "#6a5560", "#3b3f58"]))
    return lens.painted(np.concatenate([color, 0.5 + 0.38 * fade], 1))


def glasses(detail: float = 1.0) -> bytes:
    """Acetate frame, metal rivets, tinted lenses that mirror what is around."""
    full = detail == 1.0
    steps, sides = (36, 8) if full else (18, 5)
    frame = _front(steps, sides) + _temple(14 if full else 9, sides - 2 if full else sides)
    lens = _lens(30 if full else 16, 3 if full else 2, 1)
    acetate = Material("acetate", color=linear("#1c1512"), roughness=0.22)
    glass = Material("lens", metallic=0.85, roughness=0.08, mode="BLEND")
    steel = Material("rivets", color=linear("#e9dfc8"), metallic=1.0, roughness=0.2)
    parts = [Part("frame", frame, acetate), Part("lenses", lens + lens.mirrored(), glass)]
    if full:
        rivet = sphere((0.16, 0.1, 0.1), 4, 6).moved((5.85, 4.05, 5.16))
        rivet += sphere((0.1, 0.1, 0.1), 4, 6).moved((6.15, 4.05, 5.03))
        parts.append(Part("rivets", rivet + rivet.mirrored(), steel))
    return glb(parts)


GOLD = Material("gold", linear("#ffcb52"), 1.0, 0.3, emissive=(0.075, 0.042, 0.006))


_HAIR = 1.9
"""Up to here, above its lower edge, the crown is full of hair."""


def _on_head(mesh: Mesh) -> Mesh:
    return mesh.moved((0.0, 9.2, -3.35), turn(x=4.0))


def _ring(angle: Floats, height: Floats, out: float = 0.0) -> Floats:
    """Points round the crown's wall, which opens upwards."""
    radius = 7.85 + out + 0.02 * height + 0.008 * height**2
    return np.stack([radius * np.sin(angle), height, radius * np.cos(angle) * 1.13], -1)


def _wall(columns: int, rows: int) -> Mesh:
    """The wall; at the front and the sides its inside is there above the hair alone."""
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    wave = np.abs(np.cos(4 * angle))
    tall = np.where(np.cos(8 * angle) > 0, 1.0, 0.0)
    top = 2.0 + 2.9 * wave**2.6 + 0.35 * tall * (np.cos(angle * 4) > 0)
    levels = np.linspace(0, 1, rows)[:, None]
    outer = _ring(np.tile(angle, (rows, 1)), levels[::-1] * top)
    hair = _HAIR * np.clip((np.cos(angle) + 0.9) / 0.3, 0, 1)
    inner = _ring(np.tile(angle, (rows, 1)), hair + levels * (top - 0.08 - hair), -0.26)
    whole = []
    for sheet in (np.concatenate([inner[-1:], outer]), inner):
        sheet[:, -1] = sheet[:, 0]
        whole.append(grid(sheet))
    return whole[0] + whole[1]


def _band(y: float, radius: float, steps: int, sides: int, out: float = 0.05) -> Mesh:
    """Round the front, thinning out to behind the ears: there the hair lies over it."""
    angle = np.linspace(-1.9, 1.9, steps + 1)
    path = _ring(angle, np.full(steps + 1, y), out)
    thick = radius * np.minimum(1, (1.9 - np.abs(angle)) / 0.4)
    return sweep(path, circle(sides, thick), (0, 1, 0))


def _gem(size: tuple[float, float, float], sides: int = 8) -> Mesh:
    """A brilliant that looks along z: table and crown, all facets."""
    outline = np.array([(0.0, 0.55), (0.55, 0.55), (0.8, 0.36), (1.0, -0.1)])
    cut = lathe(outline, sides)
    return cut.moved(turn=turn(x=90)).bent(lambda p: p * size).faceted()


def _place(mesh: Mesh, angle: float, y: float, out: float = 0.0) -> Mesh:
    """Set a thing that looks along z on the wall, looking outwards."""
    a = np.radians(angle)
    spot = _ring(np.array([a]), np.array([y]), out)[0]
    facing = np.degrees(np.arctan2(np.sin(a) * 1.13, np.cos(a)))
    return mesh.moved(spot, turn(y=facing) @ turn(x=-8))


def _joined(meshes: list[Mesh]) -> Mesh:
    whole = meshes[0]
    for mesh in meshes[1:]:
        whole = whole + mesh
    return whole


def _jewels(full: bool) -> tuple[list[Mesh], list[Mesh], list[Mesh], list[Mesh]]:
    """Rubies, sapphires, pearls and the gold that holds them."""
    rubies: list[Mesh] = []
    blues: list[Mesh] = []
    pearls: list[Mesh] = []
    gold: list[Mesh] = []
    for i in range(8):
        tip = 45.0 * i
        high = 5.25 if i % 2 == 0 else 4.9
        ball = sphere(0.46 if i % 2 == 0 else 0.38, *((5, 8) if full else (3, 4)))
        pearls.append(_place(ball, tip, high + 0.3, -0.13))
        big = _gem((0.62, 0.78, 0.5), 9 if full else 5)
        (rubies if i % 2 == 0 else blues).append(_place(big, tip, 1.25, 0.03))
        if not full:
            continue
        setting = lathe(np.array([(0.98, 0.22), (1.16, 0.2), (1.2, -0.3)]), 9)
        setting = setting.moved(turn=turn(x=90)).bent(lambda p: p * (0.62, 0.78, 0.6))
        gold.append(_place(setting, tip, 1.25, 0.03))
        small = _gem((0.3, 0.46, 0.34), 6)
        (blues if i % 2 == 0 else rubies).append(_place(small, tip, 3.1, 0.02))
        for side in (-13, 13):
            bead = sphere(0.21, 3, 5)
            gold.append(_place(bead, tip + 22.5 + side * 0.4, 1.25, 0.05))
    return rubies, blues, pearls, gold


def crown(detail: float = 1.0) -> bytes:
    """Gold with rubies, sapphires and pearls."""
    full = detail == 1.0
    wall = _wall(64, 2) if full else _wall(24, 2)
    steps, sides = (24, 5) if full else (14, 3)
    bands = _band(0.05, 0.26, steps, sides)
    if full:
        bands = bands + _band(2.35, 0.13, steps, 3)
    rubies, blues, pearls, gold = _jewels(full)
    metal = wall + bands
    if gold:
        metal = metal + _joined(gold)
    parts = [
        Part("gold", _on_head(metal), GOLD),
        Part("rubies", _on_head(_joined(rubies)), Material("ruby", linear("#c3122f"), 0.35, 0.06)),
        Part(
            "sapphires", _on_head(_joined(blues)), Material("blue", linear("#1b3fb5"), 0.35, 0.06)
        ),
        Part("pearls", _on_head(_joined(pearls)), Material("pearl", linear("#fbf3e6"), 0.1, 0.16)),
    ]
    return glb(parts)


def _paper(size: int) -> bytes:
    """Slanting stripes and dots of bright colours."""
    v, u = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    coat = Layers(size).over("#5b2fc4", np.ones((size, size)))
    slant = (u * 8 + v * 2.4) % 1.0
    edge = size / 8 * np.minimum(np.abs(slant - 0.25), np.abs(slant - 0.75))
    stripe = np.where((slant > 0.25) & (slant < 0.75), edge, -edge)
    coat.over("#ff4f8b", np.clip(stripe / 2 + 0.5, 0, 1))
    random = np.random.default_rng(4)
    for color in ("#ffd23f", "#3ddbd9", "#ffffff"):
        dots = Canvas(size)
        for x, y in random.random((26, 2)):
            dots.dot((x, y), (0.012, 0.022))
        coat.over(color, dots.mask())
    shade = 0.93 + 0.1 * clouds(8, size, size, 5, 3)
    return png(coat.color * shade[..., None], 64)


def _pompom(rows: int, columns: int) -> Mesh:
    ball = sphere(1.0, rows, columns)
    random = np.random.default_rng(7)
    out = random.uniform(0.72, 1.22, (rows + 1, columns + 1))
    out[:, -1] = out[:, 0]
    out[[0, -1]] = 1.0
    shade = np.clip(0.35 + 0.65 * (out.ravel() - 0.7) / 0.5, 0, 1)
    colors = to_linear(ramp(shade, ["#c98a00", "#ffd23f", "#fff4b8"]))
    moved = ball.bent(lambda p: p * out.reshape(-1, 1) * 1.25)
    return moved.painted(np.concatenate([colors, np.ones((len(colors), 1))], 1))


def _ruffle(columns: int) -> Mesh:
    """A wavy frill round the brim."""
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    wave = np.cos(angle * 18)
    rows = []
    for radius, y, swing in ((4.3, 0.55, 0.05), (4.95, 0.2, 0.25), (5.35, -0.25, 0.42)):
        r = radius + 0.3 * swing * wave
        rows.append(np.stack([r * np.sin(angle), y + swing * wave, r * np.cos(angle)], -1))
    sheet = np.stack(rows)
    sheet[:, -1] = sheet[:, 0]
    return grid(sheet)


def _string(sides: int, steps: int) -> Mesh:
    """The elastic: from the brim past the cheeks to below the chin."""
    right = curve(
        [(4.4, 11.0, -2.5), (7.0, 8.0, -2.2), (7.95, 3.5, -1.7), (7.95, -0.5, -1.6),
         (7.0, -4.6, -0.4), (4.6, -8.2, 1.7), (2.2, -9.75, 3.3), (0.0, -10.0, 3.7)],
        steps,
    )  # fmt: skip
    path = np.concatenate([right, (right * (-1, 1, 1))[-2::-1]])
    return tube(path, 0.1, sides, up=(0, 0, 1))


def party_hat(detail: float = 1.0) -> bytes:
    """A paper cone with a frill, a pompom and its elastic."""
    full = detail == 1.0
    columns = 32 if full else 18
    t = np.linspace(0, 1, 3)
    outline = np.stack([0.12 + 4.45 * t, 8.8 - 8.8 * t], -1)
    cone = lathe(outline, columns)
    frill = _ruffle(72 if full else 36)

    def place(mesh: Mesh) -> Mesh:
        return mesh.moved((0.6, 11.0, -2.6), turn(x=6, z=-9))

    top = _pompom(12, 18) if full else _pompom(6, 9)
    gold = Material("frill", linear("#ffd23f"), 0.0, 0.5, double_sided=True)
    return glb(
        [
            Part("cone", place(cone), Material("paper", roughness=0.42, png=_paper(256))),
            Part("frill", place(frill), gold),
            Part("pompom", place(top.moved((0, 9.1, 0))), Material("wool", roughness=0.95)),
            Part("elastic", _string(3, 18 if full else 10),
                 Material("elastic", linear("#f3f0ea"), 0.0, 0.6)),
        ]
    )  # fmt: skip


def _wing(rows: int, columns: int) -> Mesh:
    """The right half of a moustache: combed out, its tip turned up."""
    path = curve(
        [(-0.25, -2.1, 6.4), (0.5, -2.45, 6.62), (1.7, -2.95, 6.2), (3.1, -3.15, 5.35),
         (4.3, -2.65, 4.75), (4.95, -1.7, 4.75), (4.75, -0.9, 4.95)],
        rows,
    )  # fmt: skip
    tall = profile([0.35, 0.82, 0.98, 0.86, 0.58, 0.34, 0.19, 0.0], rows)
    deep = profile([0.25, 0.5, 0.55, 0.48, 0.36, 0.26, 0.16, 0.0], rows)
    angle = np.linspace(0, 2 * np.pi, columns + 1)
    t = np.linspace(0, 1, rows)[:, None]
    grooves = 1 + 0.06 * np.cos(5 * angle + 2.2 * np.sin(5 * t)) * (1 - t**3)
    section = np.stack(
        [tall[:, None] * np.cos(angle) * grooves, deep[:, None] * np.sin(angle) * grooves], -1
    )
    section[:, -1] = section[:, 0]
    front = np.cross(tangents(path), (0.0, 0.0, 1.0))
    front = np.cross(front, tangents(path))
    return sweep(path, section, front)


def moustache(detail: float = 1.0) -> bytes:
    """A handlebar moustache."""
    full = detail == 1.0
    n = 192 if full else 64
    hair = fur(31, n, n, 0.3)
    shade = np.clip(0.75 * hair + 0.35 * clouds(33, n, n, 3) - 0.05, 0, 1)
    texture = png(ramp(shade, ["#1d100a", "#3c2314", "#5f3b22", "#8a5d3b"]), 48)
    right = _wing(20, 20) if full else _wing(12, 10)
    material = Material("hair", roughness=0.62, png=texture)
    return glb([Part("moustache", right + right.mirrored(), material)])
