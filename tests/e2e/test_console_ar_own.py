"""The page of AR filters: filters of one's own, what is refused, and how it looks."""

# Fixtures of the other half are taken by importing them.
# ruff: noqa: F401, F811

from __future__ import annotations

import base64
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from retinue.apps.ar import filters

from .test_console_ar import (
    DESK,
    FACES,
    PHONE,
    PHOTO,
    PIXELS,
    _open_photo,
    _seen,
    _wear,
    ar_server,
    browser,
    opened,
    playwright,
)


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


def test_a_filter_of_ones_own_is_a_folder_or_a_zip(
    opened: Callable[..., Page], browser: Browser, tmp_path: Path
) -> None:
    folder = _own(tmp_path / "patch", PATCH.format(file="patch.png", size=0.5))
    page = opened(browser)
    _open_photo(page)
    plain = _seen(page)
    page.set_input_files("#own-folder", folder)
    expect(page.locator('input[value="own:patch"]')).to_be_checked()
    expect(page.locator("#about")).to_have_text("Patch")
    expect(page.locator("#working")).to_be_hidden()
    patched = _seen(page)
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
    assert (_seen(page) == patched).all()


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("format = 1\nname =", "it is not TOML"),
        (PATCH.format(file="patch.png", size=-1), "size: -1 is too small"),
        (PATCH.format(file="none.png", size=1), "none.png: there is no such file"),
        (PATCH.format(file="../patch.png", size=1), "leads out of the filter's folder"),
        (PATCH.format(file="filter.toml", size=1), "it is of the wrong type"),
        (PATCH.format(file="patch.png", size=1) + "glow = 1\n", "parts[0].glow: unknown"),
        (PATCH.format(file="patch.png", size=1).replace("sticker", "hat"), 'kind = "hat"'),
    ],
)
def test_a_broken_filter_is_refused_and_the_page_goes_on(
    opened: Callable[..., Page], browser: Browser, tmp_path: Path, toml: str, message: str
) -> None:
    folder = _own(tmp_path / "broken", toml)
    page = opened(browser)
    page.set_input_files("#own-folder", folder)
    expect(page.locator("#problem")).to_contain_text(message, ignore_case=True)
    _open_photo(page)
    _wear(page, "big-eyes")


def test_a_picture_bomb_and_other_files_are_refused(
    opened: Callable[..., Page], browser: Browser, tmp_path: Path
) -> None:
    folder = _own(tmp_path / "bomb", PATCH.format(file="patch.png", size=1))
    header = bytearray((folder / "patch.png").read_bytes())
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    (folder / "patch.png").write_bytes(header)
    page = opened(browser)
    page.set_input_files("#own-folder", folder)
    expect(page.locator("#problem")).to_contain_text("60000 x 60000 pixels are too many")
    noise = {"name": "noise.zip", "mimeType": "application/zip", "buffer": os.urandom(4000)}
    page.set_input_files("#own-zip", noise)
    expect(page.locator("#problem")).to_contain_text("it is no .zip")
    page.set_input_files("#file", {**noise, "name": "noise.jpg", "mimeType": "image/jpeg"})
    expect(page.locator("#problem")).to_contain_text("noise.jpg is no picture")
    page.set_input_files("#file", {**noise, "name": "noise.mp4", "mimeType": "video/mp4"})
    expect(page.locator("#problem")).to_contain_text("noise.mp4 is no video")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_fits_and_goes_by_keyboard(
    opened: Callable[..., Page],
    browser: Browser,
    size: dict[str, int],
    scheme: str,
    tmp_path: Path,
) -> None:
    page = opened(browser, viewport=size, color_scheme=scheme)
    _open_photo(page)
    page.locator('input[name=filter][value=""]').focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator('input[value="background-blur"]')).to_be_checked()
    expect(page.locator("#about")).to_contain_text("People stay sharp")
    expect(page.locator("#working")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for control in page.locator(".actions > .button:visible").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= 44
    shot = tmp_path / "page.png"
    page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 20_000
