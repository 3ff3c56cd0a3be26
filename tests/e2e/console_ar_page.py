"""What the tests of the page of AR filters share: a browser, an opened page, what is seen on it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data  # type: ignore[import-untyped]
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect

PHOTO = Path(skimage.data.data_dir) / "astronaut.png"
FACE = (222.0, 122.0)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK = {"width": 1280, "height": 860}
FACES = """async () => {
  const { session, loop } = retinueAr;
  const { picture, width, height } = loop.source;
  session.reset();
  const { faces } = await session.draw(picture, width, height, 0, false);
  return faces.map(({ landmarks, pose, coefficients, score }) => ({
    landmarks: [...landmarks], rotation: [...pose.rotation], translation: pose.translation,
    coefficients, score }));
}"""
PIXELS = """async () => {
  const bytes = new Uint8Array(await (await retinueAr.session.picture()).arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return btoa(text);
}"""


class Opened:
    """Opens the page; in the end nothing went wrong in it, and nothing was sent anywhere."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._contexts: list[Any] = []
        self._problems: list[str] = []
        self._sent: set[tuple[str, str, bool]] = set()

    def __call__(self, browser: Browser, *, quiet: bool = True, **more: Any) -> Page:
        """Open the page; `quiet` is whether its console has to stay empty."""
        context = browser.new_context(**{"viewport": DESK, **more})
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self._problems.append(str(error)))
        if quiet:
            page.on("console", self._said)
        page.on("websocket", lambda socket: self._sent.add(("socket", socket.url, True)))
        tools = context.new_cdp_session(page)
        tools.send("Network.enable")
        tools.on("Network.requestWillBeSent", self._requested)
        page.goto(self._url + "/ar")
        expect(page.locator("#ar[data-ready]")).to_be_attached()
        return page

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self._problems.append(message.text)

    def _requested(self, event: dict[str, Any]) -> None:
        request = event["request"]
        self._sent.add((request["method"], request["url"][:200], bool(request.get("hasPostData"))))

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        assert self._problems == []
        ours = (f"{self._url}/", "blob:http://127.0.0.1:", "data:")
        assert [
            each
            for each in self._sent
            if each[0] != "GET" or each[2] or not each[1].startswith(ours)
        ] == []
        assert any(url.endswith("/apps/ar/ar.js") for _, url, _ in self._sent)


def opening(url: str) -> Iterator[Callable[..., Page]]:
    """Yield what opens the page, and close all that it opened."""
    opened = Opened(url)
    yield opened
    opened.close()


def open_photo(page: Page, photo: Path = PHOTO) -> None:
    page.set_input_files("#file", photo)
    expect(page.locator("#seen")).to_contain_text("face")
    expect(page.locator("#working")).to_be_hidden()


def wear(page: Page, name: str) -> None:
    page.locator(f'input[name=filter][value="{name}"]').check(force=True)
    expect(page.locator("#working")).to_be_hidden()
    expect(page.locator("#problem")).to_be_hidden()


def seen(page: Page) -> NDArray[np.uint8]:
    """Return what is seen, (H, W, 3) RGB."""
    data = np.frombuffer(base64.b64decode(page.evaluate(PIXELS)), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], np.uint8)


def moved(number: int, degrees: float = 4) -> NDArray[np.uint8]:
    """Return a frame of a film, (240, 320, 3) RGB: the photo's face, which rocks to and fro."""
    turn = cv2.getRotationMatrix2D(FACE, degrees * np.sin(number / 3), 1.2)
    turn[:, 2] += (160 - FACE[0], 130 - FACE[1])
    photo = skimage.data.astronaut()
    frame = cv2.warpAffine(photo, turn, (320, 240), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(frame, np.uint8)
