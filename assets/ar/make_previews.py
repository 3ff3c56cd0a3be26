"""Make each built-in filter's preview.png: ``python assets/ar/make_previews.py [NAME ...]``.

The filter is put on a mannequin, which is the canonical face with a head, by the app itself.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from make_filters import BUILTIN
from numpy.typing import NDArray
from paints import EYE, LIPS, MOUTH
from PIL import Image
from pixels import Canvas, Floats, Layers, blurred, clouds, linear, mix, smooth
from shapes import Mesh, curve, lathe, normals

from retinue.apps.ar.effects.occluder import head
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.canonical import TRIANGLES, UV, VERTICES
from retinue.apps.ar.face.values import FRONTAL, Face, Pose
from retinue.apps.ar.filters import load
from retinue.apps.ar.filters.stage import Stage
from retinue.apps.ar.governor import Quality
from retinue.apps.ar.render.choose import open_renderer
from retinue.apps.ar.render.scene import Draw, Geometry, Material, Renderer, Texture, View

SIZE, FINE = 256, 3
SKIN = "#c99a82"
OPEN_MOUTH = {"dog"}
SMILE = {"hearts"}
# Centimetres, down and away, for what is large or small.
SHIFT = {"party-hat": 5.2, "crown": 4.2, "dog": 2.0, "cat-eyes": 4.2, "hearts": 3.4}
AWAY = {
    "lipstick": 40.0,
    "big-eyes": 42.0,
    "tiger": 46.0,
    "butterfly": 46.0,
    "party-hat": 62.0,
    "dog": 62.0,
    "crown": 58.0,
    "cat-eyes": 58.0,
    "hearts": 58.0,
}


def skin(size: int = 768) -> NDArray[np.uint8]:
    """A plain face: lips, brows, eyes."""
    at = UV.astype(float)
    layers = Layers(size).over(SKIN, np.ones((size, size)))
    layers.over("#b97c6a", 0.45 * blurred(Canvas(size).dot(at[50], 0.09).mask(both=True), 30))
    lips = Canvas(size).polygon(curve(at[LIPS], 160, closed=True)).mask()
    layers.over("#a8605f", 0.8 * blurred(lips, 2))
    inner = Canvas(size).polygon(curve(at[MOUTH], 160, closed=True)).mask()
    layers.over("#3a1418", blurred(inner, 1))
    eye = Canvas(size).polygon(curve(at[EYE], 120, closed=True)).mask()
    layers.over("#ece6e1", blurred(eye, 1))
    center = (at[159] + at[145]) / 2
    iris = Canvas(size).dot(center, 0.036).mask() * blurred(eye, 1)
    layers.over("#5d422c", iris)
    layers.over("#0d0a09", Canvas(size).dot(center, 0.016).mask() * blurred(eye, 1))
    layers.over("#ffffff", 0.9 * Canvas(size).dot(center + np.array([0.009, -0.011]), 0.006).mask())
    lid = Canvas(size).stroke([at[33], at[159], at[133]], 0.011).mask()
    layers.over("#2a1c16", 0.85 * lid)
    brow = Canvas(size).stroke([at[70], at[105], at[107]], 0.034, ends=(0.2, 0.6)).mask()
    layers.over("#4d382c", 0.85 * blurred(brow, 2))
    left = np.arange(size)[None, :, None] < size / 2
    color = np.where(left, layers.color, layers.color[:, ::-1])
    opaque = np.dstack([color, np.ones((size, size))])
    return np.round(opaque * 255).astype(np.uint8)


def opened(amount: float, smile: float) -> Floats:
    """The canonical vertices with the jaw let down, or the mouth's corners drawn up."""
    x, y, z = VERTICES.astype(float).T
    jaw = smooth(y, -4.05, -4.5) * np.exp(-((x / 4.2) ** 2)) * smooth(z, 1.5, 4.5)
    corner = np.exp(-((np.abs(x) - 2.6) ** 2) / 1.6 - (y + 4.3) ** 2 / 1.8) * smooth(z, 2, 4)
    moved = np.stack([0.45 * smile * corner * np.sign(x), 0.75 * smile * corner, 0 * x], -1)
    return np.stack([x, y - 2.2 * amount * jaw, z - 0.5 * amount * jaw], -1) + moved


def irises(vertices: Floats) -> Floats:
    """(10, 3): centre, right, top, left, bottom of each eye."""
    found = []
    for upper, lower in ((159, 145), (386, 374)):
        center = (vertices[upper] + vertices[lower]) / 2
        ring = np.array([(0, 0, 0), (0.59, 0, 0), (0, 0.59, 0), (-0.59, 0, 0), (0, -0.59, 0)])
        found.append(center + ring)
    return np.concatenate(found)


def _geometry(mesh: Mesh, normal: Floats) -> Geometry:
    uv = None if mesh.uv is None else mesh.uv.astype(np.float32)
    return Geometry(
        mesh.positions.astype(np.float32),
        mesh.triangles.astype(np.int32),
        normal.astype(np.float32),
        uv,
    )


def mannequin(vertices: Floats, matrix: Floats) -> list[Draw]:
    """Face, skull, ears and neck."""
    face = Mesh(vertices, TRIANGLES.astype(int), UV.astype(float))
    plain = Material(base_color=linear(SKIN), roughness=0.75)
    back, follows, weights = head()
    moved = vertices - VERTICES
    skull = Mesh(back.positions + weights[:, None] * moved[follows], back.triangles.astype(int))
    outline = np.array([(5.2, 0.0), (5.3, -6.0), (5.8, -11.0), (8.5, -14.5), (14.0, -17.0)])
    neck = lathe(curve(outline, 16), 30).moved((0, -4, -4.5))
    # One surface for the light: no seam where the skull begins.
    normal = normals(face + skull)
    count = len(vertices)
    material = Material(texture=Texture(skin()), roughness=0.75)
    return [
        Draw(_geometry(face, normal[:count]), material, matrix),
        Draw(_geometry(skull, normal[count:]), plain, matrix),
        Draw(_geometry(neck, normals(neck)), plain, matrix),
    ]


def room(size: int) -> Floats:
    """A background with enough in it to be blurred."""
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    wall = mix(np.ones((size, size, 3)) * 0.0 + (0.55, 0.61, 0.66), "#3f4a56", 0.8 * y)
    layers = Layers(size).over(wall, np.ones((size, size)))
    layers.color = layers.color * (0.97 + 0.06 * clouds(3, size, size, 6))[..., None]
    return layers.color + 0 * x[..., None]


def shelves(size: int) -> Floats:
    """Books on shelves."""
    layers = Layers(size).over("#5b4433", np.ones((size, size)))
    random = np.random.default_rng(12)
    colors = ("#b8432f", "#2f6f8f", "#d9a441", "#4f7f4a", "#e8dcc8", "#7a4a7f", "#2d3142")
    for shelf in range(5):
        floor, x = 0.19 + 0.2 * shelf, 0.0
        while x < 1:
            wide, tall = random.uniform(0.02, 0.045), random.uniform(0.11, 0.165)
            box = np.array([(x, floor - tall), (x + wide, floor - tall), (x + wide, floor)])
            box = np.concatenate([box, [(x, floor)]])
            layers.over(colors[random.integers(len(colors))], Canvas(size).polygon(box).mask())
            x += wide + 0.004
    return layers.color


@dataclass
class Silhouette:
    """A segmenter that knows the answer."""

    alpha: NDArray[np.float32]

    def mask(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Of the mannequin."""
        return self.alpha

    small = mask


def _pose(name: str, turned: float = -16.0) -> Pose:
    yaw, pitch = np.radians(turned), np.radians(4.0)
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    away = AWAY.get(name, 54.0)
    return Pose(about_y @ about_x @ FRONTAL, np.array([0.6, SHIFT.get(name, 0.6), away]))


def preview(name: str, renderer: Renderer) -> Image.Image:
    """The filter on the mannequin."""
    size = SIZE * FINE
    camera = Camera.from_fov(size, size, 30.0)
    pose = _pose(name)
    wide = 1.0 if name in OPEN_MOUTH else 0.0
    vertices = opened(wide, 1.0 if name in SMILE else 0.0)
    view = View(camera.matrix, 0, 0, size, size)
    drawn = renderer.render(mannequin(vertices, pose.matrix()), view).astype(float) / 255
    alpha = drawn[..., 3]
    behind = shelves(size) if name == "background-blur" else room(size)
    frame = np.round((drawn[..., :3] + behind * (1 - alpha[..., None])) * 255).astype(np.uint8)
    frame = np.ascontiguousarray(frame)
    points = np.concatenate([vertices, irises(vertices)])
    seen = points @ pose.rotation.T + pose.translation
    depth = (seen[:, 2] - pose.translation[2]) * camera.matrix[0, 0] / pose.translation[2]
    landmarks = np.column_stack([camera.project(seen), depth]).astype(np.float32)
    coefficients = {"mouth_open": wide, "smile": 1.0 if name in SMILE else 0.0}
    stage = Stage(load(name), renderer, Silhouette(alpha.astype(np.float32)))
    for step in range(13):
        shown = frame.copy()
        seconds = step / 12
        face = Face(1, 1.0, landmarks, pose, coefficients, 1.0, seconds)
        stage.apply(shown, [face], camera, seconds, Quality())
    return Image.fromarray(shown).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def main(names: list[str]) -> None:
    """Write the previews."""
    renderer = open_renderer("auto")
    for name in names or sorted(path.parent.name for path in BUILTIN.glob("*/filter.toml")):
        picture = preview(name, renderer)
        picture.save(BUILTIN / name / "preview.png", "PNG", optimize=True)
        print(name)
    renderer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
