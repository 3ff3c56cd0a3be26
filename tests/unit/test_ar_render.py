"""Both renderers: what each must draw, and that they draw the same."""

import ctypes.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retinue.apps.ar import gltf
from retinue.apps.ar.face.canonical import TRIANGLES, VERTICES
from retinue.apps.ar.face.values import FRONTAL
from retinue.apps.ar.render.cpu import CpuRenderer
from retinue.apps.ar.render.gl import GlRenderer
from retinue.apps.ar.render.scene import Draw, Geometry, Material, Renderer, Texture, View
from retinue.core.errors import InvalidRequest
from retinue.testing.gltf import GltfFile

BUILTIN = Path(gltf.__file__).parents[1] / "builtin"
K = np.array([[600.0, 0, 320], [0, 600.0, 180], [0, 0, 1]])
VIEW = View(K, 200, 60, 240, 240)
LENS = Material((0.2, 0.3, 0.5, 0.4), None, 0.5, 0.05, alpha_mode="blend", double_sided=True)


@pytest.fixture(scope="module")
def gl() -> Iterator[Renderer]:
    if ctypes.util.find_library("EGL") is None:
        pytest.skip("there is no libEGL on this machine")
    renderer = GlRenderer()
    yield renderer
    renderer.close()


@pytest.fixture(scope="module")
def cpu() -> Iterator[Renderer]:
    renderer = CpuRenderer()
    yield renderer
    renderer.close()


@pytest.fixture(params=["gl", "cpu"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    found: Renderer = request.getfixturevalue(request.param)
    return found


def pose(x: float = 0, y: float = 0, z: float = 50, yaw: float = 0, scale: float = 1) -> np.ndarray:
    """A head's matrix: yaw in degrees, centimetres."""
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    matrix = np.eye(4)
    matrix[:3, :3] = FRONTAL @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) * scale
    matrix[:3, 3] = x, y, z
    return matrix


def sphere(radius: float = 4, rows: int = 24) -> Geometry:
    a = np.linspace(0, np.pi, rows + 1)[:, None]
    b = np.linspace(0, 2 * np.pi, 2 * rows + 1)[None]
    at = np.stack(np.broadcast_arrays(np.sin(a) * np.sin(b), np.cos(a), np.sin(a) * np.cos(b)), -1)
    uv = np.stack(np.broadcast_arrays(b / (2 * np.pi), a / np.pi), -1).reshape(-1, 2)
    row, column = np.mgrid[:rows, : 2 * rows].reshape(2, -1)
    first = row * (2 * rows + 1) + column
    below = first + 2 * rows + 1
    quads = [np.stack(t, 1) for t in ((first, below, first + 1), (first + 1, below, below + 1))]
    normals = at.reshape(-1, 3).astype(np.float32)
    colors = np.concatenate([0.5 + 0.5 * normals, np.ones((len(normals), 1))], 1)
    return Geometry(
        normals * np.float32(radius),
        np.concatenate(quads).astype(np.int32),
        normals,
        uv.astype(np.float32),
        colors.astype(np.float32),
    )


def quad(half: float = 5, z: float = 0) -> Geometry:
    """It looks along z; its texture's top left is its top left."""
    at = np.array([(-1, 1, 0), (-1, -1, 0), (1, -1, 0), (1, 1, 0)], np.float32)
    uv = np.array([(0, 0), (0, 1), (1, 1), (1, 0)], np.float32)
    normals = np.tile(np.float32([0, 0, 1]), (4, 1))
    at = at * np.float32(half) + np.float32([0, 0, z])
    return Geometry(at, np.array([(0, 1, 2), (0, 2, 3)], np.int32), normals, uv)


def checks(size: int = 32, alpha: bool = False) -> np.ndarray:
    random = np.random.default_rng(5)
    pixels = random.integers(70, 190, (size // 4, size // 4, 4), dtype=np.uint8)
    pixels = np.kron(pixels, np.ones((4, 4, 1), np.uint8))
    at = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    pixels[..., 3] = np.clip(255 * (1.5 - 2 * np.hypot(*at)), 0, 255)
    if not alpha:
        pixels[..., 3] = 255
    return pixels


def plain(geometry: Geometry, **values: object) -> Geometry:
    return replace(geometry, **{"colors": None, "normals": None, "uv": None} | values)


FACE = Draw(Geometry(VERTICES, TRIANGLES), None, pose())
BALL = sphere()


def _skin(path: Path) -> list[Draw]:
    """A bent tube of a skin, whose vertices are also morphed."""
    file, ball = GltfFile(), sphere(1, 16)
    bend = np.clip((ball.positions[:, 1] + 1) / 2, 0, 1)
    weights = np.stack([1 - bend, bend, 0 * bend, 0 * bend], 1).astype(np.float32)
    joints = np.tile(np.array([0, 1, 0, 0], np.uint8), (len(weights), 1))
    attributes = {
        "NORMAL": file.accessor(ball.normals, "VEC3"),
        "JOINTS_0": file.accessor(joints, "VEC4"),
        "WEIGHTS_0": file.accessor(weights, "VEC4"),
    }
    grown = file.accessor(ball.positions * np.float32([0.5, 0, 0.5]), "VEC3")
    node = file.mesh(
        ball.positions, ball.triangles.astype(np.uint16), attributes, targets=[{"POSITION": grown}]
    )
    turn = [0, 0, float(np.sin(0.4)), float(np.cos(0.4))]
    tip = file.add("nodes", {"rotation": turn})
    base = file.add("nodes", {"children": [tip]})
    file.document["nodes"][node]["skin"] = file.add("skins", {"joints": [base, tip]})
    file.document["scenes"][0]["nodes"].append(base)
    model = gltf.load(file.save(path / "skin.glb"))
    return model.draws(pose(scale=5, yaw=20), 0.0, weights={"0": 0.7})


def _builtin(name: str, yaw: float) -> Callable[[Path], list[Draw]]:
    def scene(path: Path) -> list[Draw]:
        head = pose(1.5, 2.0, 45, yaw)
        draws = [replace(FACE, matrix=head)]
        matrix = head @ np.diag([100.0, 100.0, 100.0, 1.0])
        for file in sorted((BUILTIN / name).glob("*.glb")):
            model = gltf.load(file)
            animation = model.animations[0] if model.animations else None
            draws += model.draws(matrix, 0.15, animation=animation)
        return draws

    return scene


SCENES: dict[str, Callable[[Path], list[Draw]]] = {
    "colours": lambda _: [Draw(BALL, Material(roughness=0.4), pose())],
    "mirror": lambda _: [Draw(replace(BALL, colors=None), Material(WARM, None, 1, 0.05), pose())],
    "texture": lambda _: [Draw(BALL, Material(texture=Texture(checks(64))), pose(yaw=30))],
    "far texture": lambda _: [
        Draw(plain(quad(60), uv=4 * quad().uv), _unlit(wrap), pose(x, 0, 300, 40, 1))
        for x, wrap in ((-20, "repeat"), (20, "mirror"), (0, "clamp"))
    ],
    "near texture": lambda _: [Draw(plain(quad(), uv=quad().uv), _unlit("clamp"), pose(yaw=50))],
    "occluder": lambda _: [
        FACE,
        Draw(BALL, Material(emissive=(0.1, 0, 0.2)), pose(2, -3, 46)),
        Draw(replace(BALL, colors=None), LENS, pose(-2, -2, 44)),
    ],
    "lenses": lambda _: [
        Draw(BALL, Material(roughness=0.8), pose(0, 0, 55)),
        Draw(quad(4), LENS, pose(1, 0, 48, 20)),
        Draw(quad(4), replace(LENS, metallic=0.0), pose(-2, 1, 46, -30)),
    ],
    "cut-outs": lambda _: [
        Draw(quad(5), _cut("mask"), pose(yaw=15)),
        Draw(quad(5), _cut("blend"), pose(1, 1, 45, -10)),
    ],
    "faded": lambda _: [
        Draw(BALL, Material(roughness=0.5), pose(), opacity=0.4),
        Draw(quad(3), Material(double_sided=True), pose(0, 0, 40, 70), opacity=0.7),
    ],
    "mirrored": lambda _: [
        Draw(BALL, Material(roughness=0.6), pose() @ np.diag([-1.0, 1.0, 2.0, 1.0]))
    ],
    "too near": lambda _: [
        Draw(quad(40), Material(WARM, double_sided=True), pose(10, 20, 5, -80)),
        Draw(BALL, Material(double_sided=True), pose(0, 0, 3)),
    ],
    "skin and morph": _skin,
} | {
    f"{name} {yaw}": _builtin(name, yaw)
    for yaw, name in zip(
        (-40, -20, 0, 25, 50, 10),
        ("dog", "glasses", "crown", "cat-eyes", "party-hat", "moustache"),
        strict=True,
    )
}
WARM = (0.9, 0.5, 0.2, 1.0)


def _unlit(wrap: str) -> Material:
    texture = Texture(checks(64), wrap)  # type: ignore[arg-type]
    return Material(texture=texture, unlit=True, double_sided=True)


def _cut(mode: str) -> Material:
    texture = Texture(checks(32, alpha=True))
    return Material(texture=texture, alpha_mode=mode, double_sided=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize(
    "view", [VIEW, View(K, 100, 20, 431, 333, 0.7)], ids=["off-centre", "scaled"]
)
def test_both_renderers_agree(
    gl: Renderer, cpu: Renderer, name: str, view: View, tmp_path: Path
) -> None:
    draws = SCENES[name](tmp_path)
    first, second = gl.render(draws, view).astype(int), cpu.render(draws, view).astype(int)
    assert (first[..., 3] > 0).mean() > 0.003
    differ = np.abs(first - second).max(axis=2) > 3
    assert differ.mean() < 0.001, f"{100 * differ.mean():.3f} % of the pixels differ"


def test_a_picture_keeps_its_colours(renderer: Renderer) -> None:
    """Unlit and pixel by pixel, what is drawn is the texture; rounded twice on the way."""
    rows, columns = np.mgrid[:48, :48]
    pixels = np.stack([rows * 5, columns * 5, 255 - 3 * rows - columns, 255 + 0 * rows], -1).astype(
        np.uint8
    )
    geometry = plain(quad(2), uv=quad(2).uv)
    material = Material(texture=Texture(pixels, "clamp"), unlit=True)
    # 600 / 50 pixels a centimetre, 4 cm: 48 pixels.
    drawn = renderer.render([Draw(geometry, material, pose())], View(K, 296, 156, 48, 48))
    assert np.abs(drawn[..., :3].astype(int) - pixels[..., :3]).max() <= 1
    assert (drawn[..., 3] == 255).all()


def test_factors_are_linear(renderer: Renderer) -> None:
    material = Material((0.5, 0.2140, 0.0, 1.0), unlit=True)
    drawn = renderer.render([Draw(plain(quad(30)), material, pose())], VIEW)
    assert np.abs(drawn[120, 120].astype(int) - (188, 127, 0, 255)).max() <= 1


def test_alpha_is_premultiplied_in_srgb(renderer: Renderer) -> None:
    material = Material((1, 1, 1, 0.5), alpha_mode="blend", unlit=True)
    drawn = renderer.render([Draw(plain(quad(30)), material, pose(), opacity=0.5)], VIEW)
    assert np.abs(drawn[120, 120].astype(int) - 64).max() <= 1


def test_blended_draws_lie_over_each_other_by_distance(renderer: Renderer) -> None:
    half = [
        Draw(plain(quad(30)), Material((*color, 0.5), alpha_mode="blend", unlit=True), pose(z=z))
        for z, color in ((40, (1, 0, 0)), (60, (0, 1, 0)))
    ]
    for draws in (half, half[::-1]):
        red, green, blue, alpha = renderer.render(draws, VIEW)[120, 120].tolist()
        assert abs(red - 128) <= 1 and abs(green - 64) <= 1 and blue == 0 and abs(alpha - 191) <= 1


def test_each_pixel_of_a_mesh_is_drawn_once(renderer: Renderer) -> None:
    """Triangles that share an edge leave no gap and do not overlap."""
    random = np.random.default_rng(1)
    side = np.linspace(-6, 6, 14)
    at = np.stack([*np.meshgrid(side, side), np.zeros((14, 14))], -1).reshape(-1, 3)
    at[:, :2] += random.uniform(-0.3, 0.3, (len(at), 2))
    row, column = np.mgrid[:13, :13].reshape(2, -1)
    first = row * 14 + column
    tops = [
        np.stack(t, 1)
        for t in ((first, first + 1, first + 14), (first + 1, first + 15, first + 14))
    ]
    geometry = Geometry(at.astype(np.float32), np.concatenate(tops).astype(np.int32))
    material = Material((1, 1, 1, 0.5), alpha_mode="blend", unlit=True, double_sided=True)
    drawn = renderer.render([Draw(geometry, material, pose())], View(K, 260, 120, 120, 120))
    assert np.abs(drawn.astype(int) - 128).max() <= 1


def test_corners_are_where_the_camera_sees_them(renderer: Renderer) -> None:
    matrix = pose(7.3, -4.1, 61.7, 35)
    geometry = plain(quad(3))
    material = Material(unlit=True, double_sided=True)
    seen = geometry.positions @ matrix[:3, :3].T + matrix[:3, 3]
    wanted = (seen[:, :2] / seen[:, 2:]) @ K[:2, :2].T + K[:2, 2]
    for view in (View(K, 330, 70, 150, 150), View(K, 300, 33, 301, 249, 1.7)):
        drawn = renderer.render([Draw(geometry, material, matrix)], view)
        height, width = drawn.shape[:2]
        assert (width, height) == (round(view.width * view.scale), round(view.height * view.scale))
        rows, columns = np.nonzero(drawn[..., 3] > 127)
        found = [
            (columns.min() * view.width / width + view.x, wanted[:, 0].min()),
            ((columns.max() + 1) * view.width / width + view.x, wanted[:, 0].max()),
            (rows.min() * view.height / height + view.y, wanted[:, 1].min()),
            ((rows.max() + 1) * view.height / height + view.y, wanted[:, 1].max()),
        ]
        for place, edge in found:
            assert abs(place - edge) < 1.2


def test_the_invisible_head_hides_what_is_behind_it(renderer: Renderer) -> None:
    behind = Draw(plain(quad(30)), Material(unlit=True), pose(z=60))
    alone = renderer.render([behind], VIEW)
    hidden = renderer.render([behind, FACE], VIEW)
    assert alone[120, 120, 3] == 255 and hidden[120, 120, 3] == 0
    assert hidden[2, 2, 3] == 255
    assert not renderer.render([FACE], VIEW).any()


def test_back_faces_are_seen_of_double_sided_meshes_alone(renderer: Renderer) -> None:
    for draw, sides in ((quad(), (255, 0)), (replace(quad(), normals=None), (255, 0))):
        for turn, wanted in zip((0, 180), sides, strict=True):
            one = Draw(draw, Material(unlit=True), pose(yaw=turn))
            both = replace(one, material=Material(unlit=True, double_sided=True))
            assert renderer.render([one], VIEW)[120, 120, 3] == wanted
            assert renderer.render([both], VIEW)[120, 120, 3] == 255


def test_lenses_keep_their_reflections(renderer: Renderer) -> None:
    """The tint takes away colour, not shine; the cut-out takes away both."""
    glass = Material((0, 0, 0, 0.0), None, 0.0, 0.05, alpha_mode="blend", double_sided=True)
    ball = replace(BALL, colors=None)
    drawn = renderer.render([Draw(ball, glass, pose())], VIEW)
    assert drawn[..., 3].max() > 40
    nothing = np.zeros((8, 8, 4), np.uint8)
    cut = replace(glass, texture=Texture(nothing))
    assert not renderer.render([Draw(ball, cut, pose())], VIEW).any()


def test_moved_vertices_are_drawn(renderer: Renderer) -> None:
    material = Material(roughness=0.7)
    still = renderer.render([Draw(BALL, material, pose(3, 1))], VIEW)
    positions = BALL.positions + np.float32([3, -1, 0])
    moved = Draw(BALL, material, pose(), positions=positions, normals=BALL.normals)
    other = replace(moved, positions=BALL.positions - np.float32([4, 0, 0]))
    np.testing.assert_array_equal(renderer.render([moved], VIEW), still)
    # Two draws of one geometry, as two faces are.
    both = renderer.render([moved, other], VIEW)
    assert (both[..., 3] > 0).sum() > 1.5 * (still[..., 3] > 0).sum()


def test_nothing_is_drawn_of_nothing(renderer: Renderer) -> None:
    none = Geometry(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    assert not renderer.render([], VIEW).any()
    assert not renderer.render([Draw(none, Material(unlit=True), pose())], VIEW).any()
    assert not renderer.render([Draw(BALL, Material(), pose(), opacity=0)], VIEW).any()
    assert not renderer.render([Draw(BALL, Material(), pose(z=-50))], VIEW).any()
    assert not renderer.render([Draw(BALL, Material(), pose(z=5000))], VIEW).any()
    flat = pose() @ np.diag([1.0, 1.0, 0.0, 1.0])
    assert renderer.render([Draw(BALL, Material(), flat)], VIEW).shape == (240, 240, 4)


def test_vertices_that_are_no_numbers_are_left_out(renderer: Renderer) -> None:
    positions = BALL.positions.copy()
    positions[100] = np.nan
    draw = Draw(BALL, Material(), pose(), positions=positions)
    drawn = renderer.render([draw], VIEW)
    assert 0.1 < (drawn[..., 3] > 0).mean() < 0.5


def test_results_are_not_changed_by_later_ones(renderer: Renderer) -> None:
    draw = Draw(BALL, Material(), pose())
    first = renderer.render([draw], VIEW)
    kept = first.copy()
    for side in (16, 100, 300, 64, 511):
        made = renderer.render([draw], View(K, 200, 60, side, side + 3))
        assert made.shape == (side + 3, side, 4)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(renderer.render([draw], VIEW), kept)


@pytest.mark.parametrize(
    "draw",
    [
        Draw(replace(BALL, triangles=BALL.triangles + 1), Material(), pose()),
        Draw(replace(BALL, triangles=BALL.triangles - 1), None, pose()),
        Draw(replace(BALL, normals=None), Material(), pose()),
        Draw(replace(BALL, uv=BALL.uv[1:]), Material(), pose()),
        Draw(BALL, Material(), pose(), positions=BALL.positions[1:]),
        Draw(replace(BALL, uv=None), Material(texture=Texture(checks())), pose()),
    ],
)
def test_meshes_that_do_not_fit_are_refused(renderer: Renderer, draw: Draw) -> None:
    with pytest.raises(InvalidRequest):
        renderer.render([Draw(BALL, Material(), pose()), draw], VIEW)
    assert renderer.render([Draw(BALL, Material(), pose())], VIEW).any()


@pytest.mark.parametrize(
    "view",
    [
        View(K, 0, 0, 0, 10),
        View(K, 0, 0, 10, -1),
        View(K, 0, 0, 9000, 10),
        View(K, 0, 0, 10, 10, 0.0),
        View(K, 0, 0, 10, 10, float("nan")),
        View(K, 0, 0, 10, 10, near=5, far=5),
    ],
)
def test_views_that_cannot_be_are_refused(renderer: Renderer, view: View) -> None:
    with pytest.raises(InvalidRequest, match="view"):
        renderer.render([FACE], view)
