"""glTF: what is refused, and that damage is."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinue.apps.ar import gltf
from retinue.core.errors import FilterInvalid, RetinueError
from retinue.core.settings import Limits
from retinue.testing.gltf import GltfFile

from .ar_gltf_files import LIMITS, SQUARE, STILL, TWO, png, read, skinned, square


def _index(file: GltfFile) -> None:
    file.blob[-2:] = struct.pack("<H", 4)


def _primitive(file: GltfFile, **values: Any) -> None:
    file.document["meshes"][0]["primitives"][0] |= values


def _texture(file: GltfFile, data: bytes) -> None:
    _primitive(file, material=0)
    attributes = file.document["meshes"][0]["primitives"][0]["attributes"]
    attributes["TEXCOORD_0"] = file.accessor(SQUARE[:, :2].copy(), "VEC2")
    file.add("images", {"bufferView": file.view(data)})
    file.add("textures", {"source": 0})
    file.add("materials", {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}})


def _uri(uri: str) -> Any:
    return lambda f: f.document.update(buffers=[{"byteLength": 8, "uri": uri}])


def _nodes(*children: list[int]) -> Any:
    def change(file: GltfFile) -> None:
        file.document["nodes"] = [{"children": one} for one in children]

    return change


def _nan(file: GltfFile) -> None:
    file.blob[:4] = struct.pack("<f", np.nan)


def _bones(file: GltfFile, **values: Any) -> None:
    file.document.update(skinned().document)
    file.blob[:] = skinned().blob
    file.document["skins"][0] |= values


WRONG: dict[str, tuple[Any, str]] = {
    "a missing buffer": (_uri("gone.bin"), "missing"),
    "no buffer": (lambda f: f.document.update(buffers=[{"byteLength": 999}]), "cut off|no data"),
    "a short buffer": (_uri("data:;base64,AAAA"), "cut off"),
    "damaged data": (_uri("data:;base64,A"), "damaged"),
    "data that is text": (_uri("data:text/plain,hello"), "base64"),
    "http": (_uri("http://127.0.0.1/x.bin"), "leads out"),
    "a path up": (_uri("../x.bin"), "leads out"),
    "a path up, hidden": (_uri("%2e%2e/x.bin"), "leads out"),
    "an absolute path": (_uri("/etc/passwd"), "leads out"),
    "a drive": (_uri("C:%5Cx.bin"), "leads out"),
    "a zero byte": (_uri("a%00b"), "leads out"),
    "a name without end": (_uri("a" * 5000), "found|missing"),
    "the folder": (_uri("."), "missing"),
    "a view beyond its buffer": (
        lambda f: f.document["bufferViews"][0].update(byteLength=10**6),
        "ends at",
    ),
    "an accessor beyond its view": (lambda f: f.document["accessors"][0].update(count=5), "needs"),
    "an accessor in another place": (
        lambda f: f.document["accessors"][0].update(byteOffset=2**30),
        "needs",
    ),
    "a count without end": (lambda f: f.document["accessors"][0].update(count=2**30), "memory"),
    "values from nowhere": (
        lambda f: f.document["accessors"][0].update(count=2**30, bufferView=None),
        "memory",
    ),
    "a count of less than nothing": (
        lambda f: f.document["accessors"][0].update(count=-1),
        "count",
    ),
    "an accessor of another type": (
        lambda f: f.document["accessors"][0].update(type="VEC2"),
        "VEC3",
    ),
    "an index that is out of range": (_index, "names vertex 4"),
    "no such accessor": (lambda f: _primitive(f, indices=9), "accessor 9"),
    "no such material": (lambda f: _primitive(f, material=3), "material 3"),
    "no such mesh": (lambda f: f.document["nodes"][0].update(mesh=7), "mesh 7"),
    "no such node": (lambda f: f.document["scenes"][0].update(nodes=[5]), "node 5"),
    "no such scene": (lambda f: f.document.update(scene=3), "scene 3"),
    "no positions": (lambda f: _primitive(f, attributes={}), "no positions"),
    "other lengths": (
        lambda f: _primitive(
            f, attributes={"POSITION": 0, "NORMAL": f.accessor(SQUARE[:3].copy(), "VEC3")}
        ),
        "4 positions and 3 of NORMAL",
    ),
    "NaN": (_nan, "NaN"),
    "a node inside itself": (_nodes([1], [0]), "itself"),
    "a node inside two": (_nodes([1, 2], [2], []), "two nodes"),
    "all nodes in a circle": (
        lambda f: (_nodes([1], [0])(f), f.document.pop("scenes"), f.document.pop("scene")),
        "circle",
    ),
    "an unknown extension": (
        lambda f: f.document.update(extensionsRequired=["KHR_draco_mesh_compression"]),
        "KHR_draco_mesh_compression",
    ),
    "glTF 1": (lambda f: f.document["asset"].update(version="1.0"), "2.0"),
    "a number that is text": (lambda f: f.document["nodes"][0].update(mesh="0x"), "mesh"),
    "a scale without end": (
        lambda f: f.document["nodes"][0].update(scale=[1e300, 1e300, 1e300]),
        "larger",
    ),
    "times that go back": (
        lambda f: f.animate(0, "translation", [1, 0], [(0, 0, 0)] * 2),
        "ascend",
    ),
    "values that do not fit": (
        lambda f: f.animate(0, "translation", [0, 1], [(0, 0, 0)] * 3),
        "do not fit",
    ),
    "no such node to move": (
        lambda f: f.animate(9, "translation", [0, 1], [(0, 0, 0)] * 2),
        "node 9",
    ),
    "a picture that is none": (lambda f: _texture(f, b"hello world, no picture"), "image 0"),
    "a picture that is cut off": (lambda f: _texture(f, png()[:60]), "image 0"),
    "a texture bomb": (lambda f: _texture(f, png(512, 512)), "pixels"),
    "a joint that there is not": (lambda f: _bones(f, joints=[1]), "joint 1"),
    "a joint that is no node": (lambda f: _bones(f, joints=[1, 77]), "node 77"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused(tmp_path: Path, name: str) -> None:
    change, words = WRONG[name]
    file = square()
    change(file)
    for suffix in (".glb", ".gltf"):
        with pytest.raises(FilterInvalid, match=words):
            gltf.load(file.save(tmp_path / f"model{suffix}"), LIMITS)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(100))
    (inner / "data.bin").symlink_to(tmp_path / "secret.bin")
    file = square()
    _uri("data.bin")(file)
    with pytest.raises(FilterInvalid, match="leads out"):
        gltf.load(file.save(inner / "model.gltf"), LIMITS)


def test_memory_is_counted_over_all_values(tmp_path: Path) -> None:
    file = square()
    # 64 targets of 40,000 vertices that are not even in the file.
    zeros = file.add("accessors", {"componentType": 5126, "count": 40_000, "type": "VEC3"})
    _primitive(file, attributes={"POSITION": zeros}, targets=[{"POSITION": zeros}] * 64)
    with pytest.raises(FilterInvalid, match="memory"):
        read(file, tmp_path)
    many = square()
    primitive = many.document["meshes"][0]["primitives"][0]
    big = many.add("accessors", {"componentType": 5126, "count": 40_000, "type": "VEC3"})
    primitive["attributes"] = {"POSITION": big}
    many.document["meshes"][0]["primitives"] = [primitive] * 4000
    with pytest.raises(FilterInvalid, match="memory"):
        read(many, tmp_path)


def test_too_many_triangles_are_refused(tmp_path: Path) -> None:
    file = GltfFile()
    file.mesh(SQUARE, np.tile(TWO, (30_000, 1)))
    file.document["nodes"] *= 4
    file.document["scenes"][0]["nodes"] = [0, 1, 2, 3]
    limits = Limits(max_bytes=16 * 2**20, max_pixels=64, max_frames=1)
    with pytest.raises(FilterInvalid, match="240,000 triangles"):
        read(file, tmp_path, limits)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "JSON"),
        (b"glTF", "cut off"),
        (b"{]", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"asset": {"version": "2.0"}, "nodes": [{"scale": [NaN, 1, 1]}]}', "scale"),
        (b"\xff\xfe\x00", "JSON"),
        (struct.pack("<4sII", b"glTF", 1, 20) + bytes(8), "version 1"),
        (struct.pack("<4sII", b"glTF", 2, 999) + bytes(8), "cut off"),
        (struct.pack("<4sIIII", b"glTF", 2, 20, 99, 0x4E4F534A), "chunk"),
        (struct.pack("<4sIIII", b"glTF", 2, 20, 0, 0x004E4942), "no JSON"),
    ],
)
def test_what_is_no_gltf_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "model.glb"
    path.write_bytes(data)
    with pytest.raises(FilterInvalid, match=words):
        gltf.load(path, LIMITS)


def test_files_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    file = square()
    file.view(bytes(2**20))
    with pytest.raises(FilterInvalid, match="1,048,576 bytes"):
        read(file, tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is changed in a file, there is a model or a clear error."""
    whole = bytearray(skinned().glb())
    text = json.loads(bytes(whole[20 : 20 + struct.unpack_from("<I", whole, 12)[0]]))
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    else:
        file = skinned()
        place: Any = file.document
        while isinstance(place, dict | list) and place:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = data.draw(st.sampled_from(list(keys)))
            inner = place[key]
            if not isinstance(inner, dict | list) or data.draw(st.integers(0, 5)) == 0:
                place[key] = data.draw(
                    st.none() | st.integers(-2, 2**33) | st.floats() | st.text() | st.just([])
                )
                break
            place = inner
        assert text
        whole = bytearray(file.glb())
    path = tmp_path_factory.mktemp("damaged") / "model.glb"
    path.write_bytes(whole)
    try:
        model = gltf.load(path, LIMITS)
        for draw in model.draws(STILL, 0.5, animation="move"):
            assert len(draw.geometry.triangles) <= 100
    except RetinueError as error:
        assert isinstance(error, FilterInvalid) and len(error.message) < 500
