"""glTF: what is read, and what moves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinue.apps.ar import gltf
from retinue.testing.gltf import GltfFile

from .ar_gltf_files import LIMITS, SQUARE, STILL, TWO, png, read, seen, skinned, square


@pytest.mark.parametrize("name", ["model.glb", "model.gltf"])
def test_both_containers_are_read(tmp_path: Path, name: str) -> None:
    model = gltf.load(square().save(tmp_path / name), LIMITS)
    (draw,) = model.draws(STILL, 0.0)
    assert model.triangles == 2
    np.testing.assert_array_equal(draw.geometry.positions, SQUARE)
    np.testing.assert_array_equal(draw.geometry.triangles, TWO)
    np.testing.assert_allclose(draw.geometry.normals, np.tile([0, 0, 1.0], (4, 1)))
    assert draw.material is not None and draw.material.metallic == 1.0
    low, high = model.bounds
    np.testing.assert_allclose([low, high], [[0, 0, 0], [1, 1, 0]])


def test_buffers_and_pictures_may_lie_beside_the_file(tmp_path: Path) -> None:
    file = square()
    uv = file.accessor(SQUARE[:, :2].copy(), "VEC2")
    file.document["meshes"][0]["primitives"][0]["attributes"]["TEXCOORD_0"] = uv
    file.document["meshes"][0]["primitives"][0]["material"] = 0
    file.add("images", {"uri": "a%20skin.png"})
    file.add("samplers", {"wrapS": 33648})
    file.add("textures", {"source": 0, "sampler": 0})
    file.add("materials", {"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}})
    file.document["buffers"] = [{"byteLength": len(file.blob), "uri": "data.bin"}]
    (tmp_path / "a skin.png").write_bytes(png())
    (tmp_path / "data.bin").write_bytes(bytes(file.blob))
    material = gltf.load(file.save(tmp_path / "model.gltf"), LIMITS).draws(STILL, 0)[0].material
    assert material is not None and material.texture is not None
    assert material.texture.wrap == "mirror"
    assert material.texture.pixels[0, 1].tolist() == [4, 5, 6, 7]


def test_material_values_are_kept(tmp_path: Path) -> None:
    file = square(material=0)
    surface = {"baseColorFactor": [0.5, 0.25, 1, 0.5], "metallicFactor": 0, "roughnessFactor": 0.3}
    extras = {"alphaMode": "MASK", "alphaCutoff": 0.7, "doubleSided": True}
    glow = {"emissiveFactor": [0, 1, 0], "extensions": {"KHR_materials_unlit": {}}}
    file.add("materials", {"pbrMetallicRoughness": surface} | extras | glow)
    file.document["extensionsRequired"] = ["KHR_materials_unlit"]
    material = read(file, tmp_path).draws(STILL, 0)[0].material
    assert material is not None
    assert material.base_color == (0.5, 0.25, 1.0, 0.5)
    assert (material.metallic, material.roughness) == (0.0, 0.3)
    assert (material.alpha_mode, material.alpha_cutoff) == ("mask", 0.7)
    assert material.double_sided and material.unlit and material.emissive == (0.0, 1.0, 0.0)


def test_texture_transform_moves_coordinates(tmp_path: Path) -> None:
    file = square(material=0)
    attributes = file.document["meshes"][0]["primitives"][0]["attributes"]
    attributes["TEXCOORD_1"] = file.accessor(SQUARE[:, :2].copy(), "VEC2")
    file.add("images", {"bufferView": file.view(png())})
    file.add("textures", {"source": 0})
    move = {"offset": [0.5, 0], "scale": [2, 1], "rotation": np.pi / 2, "texCoord": 1}
    info = {"index": 0, "extensions": {"KHR_texture_transform": move}}
    file.add("materials", {"pbrMetallicRoughness": {"baseColorTexture": info}})
    uv = read(file, tmp_path).draws(STILL, 0)[0].geometry.uv
    # A quarter of a turn takes u to -v and v to u, where v goes down.
    np.testing.assert_allclose(uv, [(0.5, 0), (0.5, -2), (1.5, -2), (1.5, 0)], atol=1e-6)


def test_nodes_are_inside_each_other(tmp_path: Path) -> None:
    file = square()
    turned = {"rotation": [0, 0, np.sqrt(0.5), np.sqrt(0.5)], "children": [0]}
    outer = file.add("nodes", turned)
    root = file.add("nodes", {"translation": [10, 0, 0], "scale": [2, 2, 2], "children": [outer]})
    file.document["scenes"][0]["nodes"] = [root]
    model = read(file, tmp_path)
    np.testing.assert_allclose(seen(model)[1], (10, 2, 0), atol=1e-6)
    moved = np.eye(4)
    moved[0, 3] = 5
    np.testing.assert_allclose(seen(model, matrix=moved)[1], (15, 2, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("how", "values", "half"),
    [
        ("LINEAR", [(0, 0, 0), (2, 0, 0)], 1.0),
        ("STEP", [(0, 0, 0), (2, 0, 0)], 0.0),
        ("CUBICSPLINE", [(0, 0, 0)] * 4 + [(2, 0, 0)] + [(0, 0, 0)], 1.0),
        ("CUBICSPLINE", [(0, 0, 0), (0, 0, 0), (8, 0, 0), (0, 0, 0), (2, 0, 0), (0, 0, 0)], 2.0),
    ],
)
def test_animations_move_nodes(tmp_path: Path, how: str, values: list[Any], half: float) -> None:
    file = square()
    file.animate(0, "translation", [1.0, 2.0], values, how)
    model = read(file, tmp_path)
    assert model.animations == ("move",) and model.length("move") == 2.0
    assert seen(model)[0, 0] == 0.0
    for seconds, x in ((0.0, 0.0), (1.5, half), (2.0, 2.0), (9.0, 2.0)):
        np.testing.assert_allclose(seen(model, seconds, animation="move")[0, 0], x, atol=1e-6)


def test_rotations_take_the_short_way(tmp_path: Path) -> None:
    file = square()
    quarter = np.array([0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    file.animate(0, "rotation", [0.0, 1.0], [(0, 0, 0, 1), tuple(-quarter)])
    corner = seen(read(file, tmp_path), 0.5, animation="move")[1]
    np.testing.assert_allclose(corner, (np.sqrt(0.5), np.sqrt(0.5), 0), atol=1e-6)


def morphing() -> GltfFile:
    file = square()
    up = file.accessor(np.tile(np.float32([0, 0, 1]), (4, 1)), "VEC3")
    wide = file.accessor(SQUARE * np.float32([1, 0, 0]), "VEC3")
    file.document["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": up}, {"POSITION": wide}]
    file.document["meshes"][0] |= {"weights": [0, 0.5], "extras": {"targetNames": ["up", "wide"]}}
    return file


def test_morph_targets_add_up(tmp_path: Path) -> None:
    file = morphing()
    file.animate(0, "weights", [0.0, 1.0], [(0.0, 0.0), (1.0, 2.0)][0:2])
    file.document["accessors"][-1] |= {"type": "SCALAR"}
    model = read(file, tmp_path)
    np.testing.assert_allclose(seen(model)[2], (1.5, 1, 0))
    np.testing.assert_allclose(seen(model, 0.5, animation="move")[2], (2, 1, 0.5))
    by_hand = seen(model, 0.5, animation="move", weights={"up": 3.0, "unknown": 1.0})
    np.testing.assert_allclose(by_hand[2], (2, 1, 3))


def test_skins_pull_vertices(tmp_path: Path) -> None:
    model = read(skinned(), tmp_path)
    # The node's own place does not count, its joints' do.
    np.testing.assert_allclose(seen(model), SQUARE, atol=1e-6)
    np.testing.assert_allclose(
        seen(model, 1.0, animation="move"), [(0, 0, 0), (1, 0, 0), (1, 3, 0), (0, 2, 0)], atol=1e-6
    )
    flat = np.diag([1.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(seen(model, matrix=flat), SQUARE, atol=1e-6)


def test_sparse_and_normalized_accessors(tmp_path: Path) -> None:
    file = square()
    place = {"bufferView": file.view(np.array([2], np.uint8).tobytes()), "componentType": 5121}
    what = {"bufferView": file.view(np.array([(7, 8, 9)], np.float32).tobytes())}
    file.document["accessors"][0]["sparse"] = {"count": 1, "indices": place, "values": what}
    colors = np.array([(0, 255, 51)] * 4, np.uint8)
    padded = np.concatenate([colors, np.zeros((4, 1), np.uint8)], axis=1)
    color = file.accessor(padded, "VEC3", normalized=True)
    file.document["bufferViews"][-1]["byteStride"] = 4
    file.document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"] = color
    geometry = read(file, tmp_path).draws(STILL, 0)[0].geometry
    assert geometry.positions[2].tolist() == [7, 8, 9]
    np.testing.assert_allclose(geometry.colors, [(0, 1, 0.2, 1)] * 4, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "wanted"), [(5, [(0, 1, 2), (2, 1, 3)]), (6, [(0, 1, 2), (0, 2, 3)])]
)
def test_strips_and_fans(tmp_path: Path, mode: int, wanted: list[Any]) -> None:
    file = square(mode=mode)
    file.document["meshes"][0]["primitives"][0].pop("indices")
    assert read(file, tmp_path).draws(STILL, 0)[0].geometry.triangles.tolist() == list(
        map(list, wanted)
    )
