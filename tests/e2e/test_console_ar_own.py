"""The page of AR filters: filters of one's own, what is refused, and how it looks."""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from tests.e2e.console_ar_page import DESK, FACES, seen, wear

PHONE = {"width": 390, "height": 844}
TABLET = {"width": 768, "height": 1024}


def _own(folder: Path, toml: str) -> Path:
    folder.mkdir()
    (folder / "filter.toml").write_text(toml)
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[8:56, 8:56] = (0, 0, 255, 255)
    cv2.imwrite(str(folder / "patch.png"), picture)
    return folder


PATCH = """
format = 1
name = "patch"
title = "Patch"
[[parts]]
kind = "sticker"
file = "{file}"
at = 1
size = {size}
"""


def test_a_filter_of_ones_own_is_a_folder_or_a_zip(photo_page: Page, tmp_path: Path) -> None:
    folder = _own(tmp_path / "patch", PATCH.format(file="patch.png", size=0.5))
    page = photo_page
    plain = seen(page)
    page.set_input_files("#own-folder", folder)
    expect(page.locator('input[value="own:patch"]')).to_be_checked()
    expect(page.locator("#about")).to_have_text("Patch")
    expect(page.locator("#working")).to_be_hidden()
    patched = seen(page)
    red = (patched == (255, 0, 0)).all(axis=2)
    rows, columns = np.nonzero(red)
    (face,) = page.evaluate(FACES)
    x, y, _ = np.array(face["landmarks"]).reshape(-1, 3)[1]
    assert columns.mean() + 0.5 == pytest.approx(x, abs=1)
    assert rows.mean() + 0.5 == pytest.approx(y, abs=1)
    assert (patched[300:] == plain[300:]).all()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for each in folder.iterdir():
            file.write(each, f"patch/{each.name}")
    page.locator('input[name=filter][value=""]').check(force=True)
    page.set_input_files(
        "#own-zip",
        {"name": "patch.zip", "mimeType": "application/zip", "buffer": packed.getvalue()},
    )
    expect(page.locator('input[value="own:patch"]')).to_be_checked()
    expect(page.locator("#working")).to_be_hidden()
    assert (seen(page) == patched).all()


BROKEN = (
    ("format = 1\nname =", "it is not TOML"),
    (PATCH.format(file="patch.png", size=-1), "parts[0].size: -1 is too small"),
    (PATCH.format(file="none.png", size=1), "none.png: there is no such file"),
    (PATCH.format(file="../patch.png", size=1), "leads out of the filter's folder"),
    (PATCH.format(file="filter.toml", size=1), "it is of the wrong type"),
    (PATCH.format(file="patch.png", size=1) + "glow = 1\n", "parts[0].glow: unknown"),
    (PATCH.format(file="patch.png", size=1).replace("sticker", "hat"), 'kind = "hat"'),
)


def test_broken_filters_are_refused_and_the_page_goes_on(photo_page: Page, tmp_path: Path) -> None:
    page = photo_page
    for number, (toml, message) in enumerate(BROKEN):
        page.set_input_files("#own-folder", _own(tmp_path / f"broken{number}", toml))
        expect(page.locator("#problem")).to_contain_text(message)
    wear(page, "big-eyes")


MODEL = """
format = 1
name = "plate"
title = "Plate"
[[parts]]
kind = "model"
file = "plate.gltf"
position = [0, 0, 12]
scale = 1
"""


def _plate() -> tuple[dict[str, Any], bytes]:
    """Return a square of 6 cm that shines green, and its buffer."""
    corners = np.array([(-3, -3, 0), (3, -3, 0), (3, 3, 0), (-3, 3, 0)], np.float32).tobytes()
    triangles = np.array([0, 1, 2, 0, 2, 3], np.uint16).tobytes()
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "material": 0}]}],
        "materials": [
            {
                "pbrMetallicRoughness": {"baseColorFactor": [0, 1, 0, 1]},
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "extensionsUsed": ["KHR_materials_unlit"],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": 5126,
                "count": 4,
                "type": "VEC3",
                "min": [-3, -3, 0],
                "max": [3, 3, 0],
            },
            {"bufferView": 1, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteLength": len(corners)},
            {"buffer": 0, "byteOffset": len(corners), "byteLength": len(triangles)},
        ],
        "buffers": [{"uri": "plate.bin", "byteLength": len(corners + triangles)}],
    }
    return document, corners + triangles


def _model(folder: Path, document: dict[str, Any], buffer: bytes) -> Path:
    _own(folder, MODEL)
    (folder / "plate.gltf").write_text(json.dumps(document))
    (folder / "plate.bin").write_bytes(buffer)
    return folder


def test_models_are_read_from_files_and_from_text(photo_page: Page, tmp_path: Path) -> None:
    document, buffer = _plate()
    page = photo_page
    page.set_input_files("#own-folder", _model(tmp_path / "file", document, buffer))
    expect(page.locator("#about")).to_have_text("Plate")
    expect(page.locator("#working")).to_be_hidden()
    from_file = seen(page)
    green = (from_file == (0, 255, 0)).all(axis=2)
    assert 500 < green.sum() < 20_000
    page.locator('input[name=filter][value=""]').check(force=True)
    expect(page.locator("#about")).to_have_text("Nothing is drawn.")
    text = base64.b64encode(buffer).decode()
    document["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{text}"
    page.set_input_files("#own-folder", _model(tmp_path / "text", document, b""))
    expect(page.locator("#about")).to_have_text("Plate")
    expect(page.locator("#working")).to_be_hidden()
    assert (seen(page) == from_file).all()


def test_broken_models_are_refused(photo_page: Page, tmp_path: Path) -> None:
    page = photo_page

    def refused(name: str, message: str, buffer: bytes | None = None, **change: Any) -> None:
        document, whole = _plate()
        folder = _model(
            tmp_path / name, {**document, **change}, whole if buffer is None else buffer
        )
        page.set_input_files("#own-folder", folder)
        expect(page.locator("#problem")).to_contain_text(message)

    refused("cut", "buffer 0 is cut off", b"1234")
    refused("gone", "there is no such file", buffers=[{"uri": "gone.bin", "byteLength": 60}])
    refused("out", "leads out of", buffers=[{"uri": "../plate.bin", "byteLength": 60}])
    refused("web", "leads out of", buffers=[{"uri": "https://example.org/a", "byteLength": 60}])
    circle = [{"mesh": 0, "children": [1]}, {"children": [0]}]
    refused("circle", "go round in a circle", nodes=circle)
    refused("unknown", "it needs EXT_none", extensionsRequired=["EXT_none"])
    refused("old", "it is not glTF 2.0", asset={"version": "1.0"})


def test_a_picture_bomb_and_other_files_are_refused(photo_page: Page, tmp_path: Path) -> None:
    folder = _own(tmp_path / "bomb", PATCH.format(file="patch.png", size=1))
    header = bytearray((folder / "patch.png").read_bytes())
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    (folder / "patch.png").write_bytes(header)
    page = photo_page
    page.set_input_files("#own-folder", folder)
    expect(page.locator("#problem")).to_contain_text("60000 x 60000 pixels are too many")
    page.set_input_files("#file", folder / "patch.png")
    expect(page.locator("#problem")).to_contain_text("pixels; at most 220 million are opened")
    noise = {"name": "noise.zip", "mimeType": "application/zip", "buffer": os.urandom(4000)}
    page.set_input_files("#own-zip", noise)
    expect(page.locator("#problem")).to_contain_text("it is no .zip")
    page.set_input_files("#file", {**noise, "name": "noise.jpg", "mimeType": "image/jpeg"})
    expect(page.locator("#problem")).to_contain_text("no picture from noise.jpg")
    page.set_input_files("#file", {**noise, "name": "noise.mp4", "mimeType": "video/mp4"})
    expect(page.locator("#problem")).to_contain_text("no video from noise.mp4")
    page.set_input_files("#file", {**noise, "name": "noise.txt", "mimeType": "text/plain"})
    expect(page.locator("#problem")).to_contain_text("opens no photo or video from noise.txt. Use")
    page.set_input_files("#file", {**noise, "name": "none.jpg", "buffer": b""})
    expect(page.locator("#problem")).to_contain_text("There is nothing in none.jpg")
    expect(page.locator("#stage")).to_have_attribute("data-state", "photo")


def test_it_fits_and_goes_by_keyboard(photo_page: Page, tmp_path: Path) -> None:
    page = photo_page
    page.locator('input[name=filter][value="big-eyes"]').focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator('input[value="butterfly"]')).to_be_checked()
    expect(page.locator("#about")).to_contain_text("wings")
    expect(page.locator("#working")).to_be_hidden()
    for size in (PHONE, TABLET, DESK):
        page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            for control in page.locator(".actions > .button:visible").all():
                box = control.bounding_box()
                assert box is not None
                assert box["height"] >= 44
        shot = tmp_path / "page.png"
        page.screenshot(path=shot)
        assert shot.stat().st_size > 20_000
    page.set_viewport_size(DESK)
