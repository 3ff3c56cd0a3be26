"""glTF files: what is drawn of good ones, and what is said of bad ones."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinue.apps.ar import gltf
from retinue.core.errors import FilterInvalid
from retinue.core.settings import Limits

FLOAT, SHORT = 5126, 5123
KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
Document = dict[str, Any]
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)


class Maker:
    """Puts a small document together."""

    def __init__(self) -> None:
        self.data = b""
        self.document: Document = {
            "asset": {"version": "2.0"},
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "accessors": [],
            "bufferViews": [],
        }
        primitive = {
            "attributes": {"POSITION": self.add(SQUARE)},
            "indices": self.add(np.array([[0], [1], [2], [0], [2], [3]], np.uint16)),
        }
        self.document["meshes"] = [{"primitives": [primitive]}]

    @property
    def primitive(self) -> Document:
        found: Document = self.document["meshes"][0]["primitives"][0]
        return found

    def view(self, data: bytes) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        views = self.document["bufferViews"]
        views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        self.data += data
        return len(views) - 1

    def add(self, values: np.ndarray) -> int:
        values = values.reshape(len(values), -1)
        accessors = self.document["accessors"]
        accessors.append(
            {
                "bufferView": self.view(np.ascontiguousarray(values).tobytes()),
                "componentType": FLOAT if values.dtype == np.float32 else SHORT,
                "count": len(values),
                "type": KINDS[values.shape[1]],
            }
        )
        return len(accessors) - 1

    def picture(self, data: bytes) -> None:
        self.document["images"] = [{"bufferView": self.view(data)}]
        self.document["textures"] = [{"source": 0}]
        surface = {"baseColorTexture": {"index": 0}}
        self.document["materials"] = [{"pbrMetallicRoughness": surface}]
        self.primitive["attributes"]["TEXCOORD_0"] = self.add(SQUARE[:, :2].copy())
        self.primitive["material"] = 0

    def glb(self, path: Path) -> Path:
        self.document["buffers"] = [{"byteLength": len(self.data)}]
        return written(path, self.document, self.data)


def written(path: Path, document: Document, data: bytes) -> Path:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    data += b"\0" * (-len(data) % 4)
    whole = 12 + 8 + len(text) + 8 + len(data)
    parts = (
        struct.pack("<4sII", b"glTF", 2, whole),
        struct.pack("<II", len(text), 0x4E4F534A),
        text,
        struct.pack("<II", len(data), 0x004E4942),
        data,
    )
    path.write_bytes(b"".join(parts))
    return path


def png(width: int = 2, height: int = 2) -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (width, height), (255, 0, 0, 128)).save(out, "PNG")
    return out.getvalue()


def test_a_square_is_two_triangles_with_normals_of_its_own(tmp_path: Path) -> None:
    model = gltf.load(Maker().glb(tmp_path / "square.glb"))
    assert (model.triangles, model.animations) == (2, ())
    (draw,) = model.draws(np.diag([2.0, 2, 2, 1]), 0)
    assert draw.geometry.positions.tolist() == SQUARE.tolist()
    assert np.allclose(draw.geometry.normals, [0, 0, 1])
    assert draw.matrix.tolist() == np.diag([2.0, 2, 2, 1]).tolist()
    low, high = model.bounds
    assert low.tolist() == [0, 0, 0] and high.tolist() == [1, 1, 0]


def test_nodes_are_where_their_parents_put_them(tmp_path: Path) -> None:
    maker = Maker()
    quarter = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]
    maker.document["nodes"] = [
        {"translation": [5, 0, 0], "rotation": quarter, "children": [1]},
        {"mesh": 0, "translation": [1, 0, 0], "scale": [2, 2, 2]},
    ]
    (draw,) = gltf.load(maker.glb(tmp_path / "m.glb")).draws(np.eye(4), 0)
    assert draw.matrix @ [0, 0, 0, 1] == pytest.approx([5, 1, 0, 1])
    assert draw.matrix @ [1, 0, 0, 1] == pytest.approx([5, 3, 0, 1])


def test_pictures_materials_and_files_beside_it(tmp_path: Path) -> None:
    maker = Maker()
    maker.picture(png())
    maker.document["materials"][0] |= {"alphaMode": "BLEND", "doubleSided": True}
    document = maker.document | {"buffers": [{"byteLength": len(maker.data), "uri": "a%20b.bin"}]}
    (tmp_path / "a b.bin").write_bytes(maker.data)
    (tmp_path / "m.gltf").write_text(json.dumps(document))
    (draw,) = gltf.load(tmp_path / "m.gltf").draws(np.eye(4), 0)
    assert draw.material is not None and draw.material.texture is not None
    assert draw.material.texture.pixels[0, 0].tolist() == [255, 0, 0, 128]
    assert (draw.material.alpha_mode, draw.material.double_sided) == ("blend", True)
    inside = base64.b64encode(maker.data).decode()
    document["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{inside}"
    (tmp_path / "own.gltf").write_text(json.dumps(document))
    assert gltf.load(tmp_path / "own.gltf").triangles == 2


def test_morph_targets_by_name_and_by_animation(tmp_path: Path) -> None:
    maker = Maker()
    up = np.zeros((4, 3), np.float32)
    up[:, 1] = 3
    maker.primitive["targets"] = [{"POSITION": maker.add(up)}]
    maker.document["meshes"][0]["extras"] = {"targetNames": ["up"]}
    times = maker.add(np.array([[0], [2]], np.float32))
    amounts = maker.add(np.array([[0], [1]], np.float32))
    channel = {"sampler": 0, "target": {"node": 0, "path": "weights"}}
    sampler = {"input": times, "output": amounts}
    maker.document["animations"] = [{"name": "rise", "channels": [channel], "samplers": [sampler]}]
    model = gltf.load(maker.glb(tmp_path / "m.glb"))
    assert model.animations == ("rise",) and model.length("rise") == 2
    for seconds, height in ((-1, 0), (0.5, 0.75), (1, 1.5), (9, 3)):
        (draw,) = model.draws(np.eye(4), seconds, animation="rise")
        positions = draw.geometry.positions if draw.positions is None else draw.positions
        assert positions[0, 1] == pytest.approx(height)
    (draw,) = model.draws(np.eye(4), 0, weights={"up": 2.0, "nothing": 1.0})
    assert draw.positions is not None and draw.positions[0, 1] == 6


@pytest.mark.parametrize(
    ("interpolation", "values", "at", "x"),
    [
        ("LINEAR", [[0, 0, 0], [4, 0, 0]], 0.25, 1.0),
        ("STEP", [[0, 0, 0], [4, 0, 0]], 0.9, 0.0),
        ("CUBICSPLINE", [[0] * 3, [0] * 3, [0] * 3, [0] * 3, [4, 0, 0], [0] * 3], 0.5, 2.0),
        ("CUBICSPLINE", [[0] * 3, [0] * 3, [4, 0, 0], [4, 0, 0], [4, 0, 0], [0] * 3], 0.25, 1.0),
    ],
)
def test_translations_over_time(
    tmp_path: Path, interpolation: str, values: list[list[float]], at: float, x: float
) -> None:
    maker = Maker()
    sampler = {
        "input": maker.add(np.array([[0], [1]], np.float32)),
        "output": maker.add(np.array(values, np.float32)),
        "interpolation": interpolation,
    }
    channel = {"sampler": 0, "target": {"node": 0, "path": "translation"}}
    maker.document["animations"] = [{"channels": [channel], "samplers": [sampler]}]
    model = gltf.load(maker.glb(tmp_path / "m.glb"))
    (draw,) = model.draws(np.eye(4), at, animation="0")
    assert draw.matrix[0, 3] == pytest.approx(x)


def test_a_skin_follows_its_joints(tmp_path: Path) -> None:
    maker = Maker()
    joints = np.array([[0, 1, 0, 0]] * 4, np.uint16)
    weights = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0]], np.float32)
    maker.primitive["attributes"] |= {
        "JOINTS_0": maker.add(joints),
        "WEIGHTS_0": maker.add(weights),
    }
    bind = np.stack([np.eye(4), np.eye(4)])
    bind[1, 3, 0] = -7
    maker.document["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},
        {"children": [2]},
        {"translation": [9, 0, 0]},
    ]
    maker.document["scenes"] = [{"nodes": [0, 1]}]
    maker.document["skins"] = [
        {
            "joints": [1, 2],
            "inverseBindMatrices": maker.add(bind.reshape(2, 16).astype(np.float32)),
        }
    ]
    (draw,) = gltf.load(maker.glb(tmp_path / "m.glb")).draws(np.eye(4), 0)
    assert draw.positions is not None
    assert np.allclose(draw.positions - SQUARE, [[0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 0]])


def change(what: Callable[[Maker], None]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        maker = Maker()
        what(maker)
        return maker.glb(folder / "bad.glb")

    return make


def set_(*path: Any, value: Any) -> Callable[[Path], Path]:
    def what(maker: Maker) -> None:
        place: Any = maker.document
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change(what)


def cut(folder: Path) -> Path:
    path = Maker().glb(folder / "bad.glb")
    path.write_bytes(path.read_bytes()[:-20])
    return path


def uri(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        maker = Maker()
        (folder / "inner").mkdir(exist_ok=True)
        (folder / "outside.bin").write_bytes(maker.data)
        (folder / "inner" / "link.bin").symlink_to(folder / "outside.bin")
        document = maker.document | {"buffers": [{"byteLength": len(maker.data), "uri": name}]}
        path = folder / "inner" / "bad.gltf"
        path.write_text(json.dumps(document))
        return path

    return make


def not_finite(maker: Maker) -> None:
    values = SQUARE.copy()
    values[2, 1] = np.nan
    maker.primitive["attributes"]["POSITION"] = maker.add(values)


def circle(maker: Maker) -> None:
    maker.document["nodes"] = [{"children": [1]}, {"children": [0], "mesh": 0}]


def plain(text: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "bad.gltf"
        path.write_bytes(text)
        return path

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (cut, "cut off"),
        (plain(b""), "JSON"),
        (plain(b"glTF\2\0\0\0"), "cut off"),
        (plain(b"[" * 100_000), "JSON"),
        (plain(b'{"asset": {"version": "1.0"}}'), "glTF 1.0"),
        (plain(b'{"asset": 3}'), "not valid glTF"),
        (set_("extensionsRequired", value=["KHR_draco_mesh_compression"]), "draco"),
        (set_("nodes", 0, "mesh", value=5), "mesh 5"),
        (set_("scenes", 0, "nodes", value=[7]), "node 7"),
        (set_("accessors", 0, "count", value=5_000), "needs"),
        (set_("accessors", 0, "count", value=2**30), "too many"),
        (set_("accessors", 0, "type", value="VEC2"), "VEC2"),
        (set_("accessors", 0, "bufferView", value=9), "buffer view 9"),
        (set_("bufferViews", 0, "byteLength", value=10**6), "ends at byte"),
        (set_("bufferViews", 0, "buffer", value=3), "buffer 3"),
        (set_("meshes", 0, "primitives", 0, "material", value=1), "material 1"),
        (change(not_finite), "NaN"),
        (change(circle), "tree"),
        (change(lambda maker: maker.picture(b"no picture")), "image 0"),
        (change(lambda maker: maker.picture(png()[:40])), "image 0"),
        (change(lambda maker: maker.picture(png(3000, 3000))), "pixels"),
        (uri("nothing.bin"), "missing"),
        (uri("../outside.bin"), "leads out"),
        (uri("%2e%2e/outside.bin"), "leads out"),
        (uri("/etc/passwd"), "leads out"),
        (uri("link.bin"), "leads out"),
        (uri("https://example.com/a.bin"), "leads out"),
        (uri("data:;base64,####"), "data URI"),
        (uri("data:text/plain,hello"), "base64"),
    ],
)
def test_what_is_wrong_is_said(make: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    limits = Limits(max_bytes=2**20, max_pixels=2_000_000)
    with pytest.raises(FilterInvalid, match=said):
        gltf.load(make(tmp_path), limits)


def test_an_index_beyond_the_vertices(tmp_path: Path) -> None:
    maker = Maker()
    maker.primitive["indices"] = maker.add(np.array([[0], [1], [4]], np.uint16))
    with pytest.raises(FilterInvalid, match="vertex 4"):
        gltf.load(maker.glb(tmp_path / "m.glb"))


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    whole = Maker().glb(tmp_path / "m.glb").read_bytes()
    draw = np.random.default_rng(0)
    path = tmp_path / "damaged.glb"
    for _ in range(300):
        data = bytearray(whole)
        for place in draw.integers(0, len(data), draw.integers(1, 6)):
            data[place] = draw.integers(0, 256)
        path.write_bytes(data)
        try:
            model = gltf.load(path)
        except FilterInvalid:
            continue
        model.draws(np.eye(4), 0)
