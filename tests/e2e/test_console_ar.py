"""The page of AR filters in a real Chromium: nothing leaves it; it sees what the program sees."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
import pytest
import skimage.data  # type: ignore[import-untyped]
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from retinue.apps.ar import filters
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.canonical import VERTICES
from retinue.apps.ar.face.pose import solve
from retinue.apps.ar.face.values import FRONTAL, Pose
from retinue.apps.ar.networks import Networks
from retinue.apps.ar.originals import original
from retinue.apps.ar.session import Session
from retinue.apps.ar.settings import ArSettings
from retinue.core.settings import Settings

if TYPE_CHECKING:
    from tests.e2e.conftest import Program

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
PHONE = {"width": 390, "height": 844}
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
SOLVE = """cases => cases.map((landmarks) => {
  const camera = retinueAr.cameraOf(1280, 720, 63);
  return [...retinueAr.solve(landmarks, camera).rotation];
})"""


@pytest.fixture(scope="module")
def ar_server(
    start_server: Callable[[Path], Iterator[Program]],
    tmp_path_factory: pytest.TempPathFactory,
    ar_cache_dir: Path,
) -> Iterator[Program]:
    """A server that has the networks' own files already."""
    folder = tmp_path_factory.mktemp("ar-server")
    there = folder / "home" / "ar" / "originals"
    there.mkdir(parents=True)
    ar = ArSettings()
    for name in (ar.detector, ar.far_detector, ar.mesh, ar.iris_mesh, ar.segmenter):
        shutil.copy(original(ar_cache_dir.parent / "originals", name), there)
    yield from start_server(folder)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def camera_browser(playwright: Playwright, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A browser whose camera shows a photo that moves a little."""
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    photo = cv2.imread(str(PHOTO))
    with film.open("wb") as file:
        for number in range(20):
            turn = cv2.getRotationMatrix2D(FACE, 4 * np.sin(number / 3), 1.2)
            turn[:, 2] += (160 - FACE[0], 130 - FACE[1])
            seen = cv2.warpAffine(photo, turn, (320, 240), borderMode=cv2.BORDER_REPLICATE)
            file.write(cv2.imencode(".jpg", seen)[1].tobytes())
    more = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ]
    chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *more])
    yield chromium
    chromium.close()


@pytest.fixture
def opened(ar_server: Program) -> Iterator[Callable[..., Page]]:
    """Open the page; in the end nothing went wrong in it, and nothing was sent anywhere."""
    # Pixels are drawn by the CPU here.
    expect.set_options(timeout=60_000)
    contexts: list[Any] = []
    problems: list[str] = []
    sent: set[str] = set()

    def make(browser: Browser, **more: Any) -> Page:
        context = browser.new_context(**{"viewport": DESK, **more})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("request", lambda request: sent.add(f"{request.method} {request.url}"))
        page.goto(ar_server.url + "/ar")
        expect(page.locator("#ar[data-ready]")).to_be_attached()
        return page

    yield make
    expect.set_options(timeout=5_000)
    for context in contexts:
        context.close()
    assert problems == []
    ours = (f"GET {ar_server.url}/", "GET blob:http://127.0.0.1:", "GET data:")
    assert [each[:200] for each in sent if not each.startswith(ours)] == []


def _open_photo(page: Page, photo: Path = PHOTO) -> None:
    page.set_input_files("#file", photo)
    expect(page.locator("#seen")).to_contain_text("face")


def _wear(page: Page, name: str) -> None:
    page.locator(f'input[name=filter][value="{name}"]').check(force=True)
    expect(page.locator("#working")).to_be_hidden()
    expect(page.locator("#problem")).to_be_hidden()


def _seen(page: Page) -> NDArray[np.uint8]:
    data = np.frombuffer(base64.b64decode(page.evaluate(PIXELS)), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], np.uint8)


def _apart(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    cosine = (np.trace(one.T @ other) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


@pytest.fixture(scope="module")
def program(ar_cache_dir: Path) -> Iterator[Callable[[str], Any]]:
    """What the program makes of the photo, by filter."""
    settings = Settings(cache=ar_cache_dir)
    networks = Networks(settings, ArSettings())
    photo = skimage.data.astronaut()

    def apply(name: str) -> Any:
        worn = filters.load(name)
        with Session(worn, settings=settings, networks=networks, live=False) as session:
            return session.apply(photo, 0.0)

    yield apply
    networks.close()


@pytest.mark.parametrize(("name", "count"), [("crown", 468), ("lipstick", 478)])
def test_landmarks_and_pose_are_the_programs(
    opened: Callable[..., Page],
    browser: Browser,
    program: Callable[[str], Any],
    name: str,
    count: int,
) -> None:
    page = opened(browser)
    _open_photo(page)
    _wear(page, name)
    (found,) = page.evaluate(FACES)
    (face,) = program(name).faces
    landmarks = np.array(found["landmarks"]).reshape(-1, 3)
    assert landmarks.shape == (count, 3)
    assert np.abs(landmarks - face.landmarks).max() < 0.5
    assert _apart(np.array(found["rotation"]).reshape(3, 3), face.pose.rotation) < 0.5
    np.testing.assert_allclose(found["translation"], face.pose.translation, atol=0.2)
    for key, value in face.coefficients.items():
        tolerance = 1.0 if key in ("yaw", "pitch", "roll") else 0.05
        assert found["coefficients"][key] == pytest.approx(value, abs=tolerance), key


def test_poses_are_the_programs_over_a_grid(opened: Callable[..., Page], browser: Browser) -> None:
    random = np.random.default_rng(3)
    camera = Camera.from_fov(1280, 720)
    cases = []
    for yaw, pitch, roll in np.ndindex(5, 3, 3):
        turn = np.radians([(yaw - 2) * 25, (pitch - 1) * 25, (roll - 1) * 40])
        about = [
            cv2.Rodrigues(axis * angle)[0] for axis, angle in zip(np.eye(3), turn, strict=True)
        ]
        rotation = about[2] @ about[0] @ about[1] @ FRONTAL
        for place in ((0, 0, 60), (24, 0, 40), (-15, 10, 35)):
            points = Pose(rotation, np.array(place, float)).rotation @ VERTICES.T
            points = points.T + place
            depth = (points[:, 2:] - points[:, 2].mean()) * camera.matrix[0, 0] / place[2]
            seen = np.hstack([camera.project(points), depth])
            cases.append((seen + random.normal(0, 1, seen.shape)).astype(np.float32))
    page = opened(browser)
    found = page.evaluate(SOLVE, [case.ravel().tolist() for case in cases])
    for case, rotation in zip(cases, found, strict=True):
        assert _apart(np.array(rotation).reshape(3, 3), solve(case, camera).rotation) < 0.2


@pytest.mark.parametrize(
    ("name", "share"),
    [("dog", 2e-3), ("background-blur", 1e-3), ("big-eyes", 1e-3), ("lipstick", 2e-3)],
)
def test_pictures_are_nearly_the_programs(
    opened: Callable[..., Page],
    browser: Browser,
    program: Callable[[str], Any],
    name: str,
    share: float,
) -> None:
    page = opened(browser)
    _open_photo(page)
    _wear(page, name)
    away = np.abs(_seen(page).astype(int) - program(name).pixels.astype(int)).max(axis=2)
    # Edges are drawn with more samples here.
    assert (away > 24).mean() < share
    assert away.mean() < 0.6


def test_every_filter_draws_something_and_none_draws_nothing(
    opened: Callable[..., Page], browser: Browser, tmp_path: Path
) -> None:
    page = opened(browser)
    _open_photo(page)
    photo = skimage.data.astronaut()
    assert (_seen(page) == photo).all()
    for name in filters.names():
        _wear(page, name)
        assert (_seen(page) != photo).any(), name
        expect(page.locator("#about")).not_to_be_empty()
    _wear(page, "")
    assert (_seen(page) == photo).all()
    shot = tmp_path / "ar.png"
    page.screenshot(path=shot)
    assert shot.stat().st_size > 50_000


def test_a_camera_is_worn_mirrored_recorded_and_stopped(
    opened: Callable[..., Page], camera_browser: Browser, tmp_path: Path
) -> None:
    page = opened(camera_browser)
    page.locator('input[value="glasses"]').check(force=True)
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "camera")
    expect(page.locator("#seen")).to_contain_text("1 face")
    expect(page.locator("#mirror")).to_have_attribute("aria-pressed", "true")
    page.locator("#mirror").click()
    expect(page.locator("#mirror")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#rate")).to_contain_text("fps")
    expect(page.locator("#time-total")).to_contain_text("ms")
    page.locator("#record").click()
    expect(page.locator("#record")).to_have_text("Stop and save")
    page.wait_for_timeout(2500)
    with page.expect_download() as download:
        page.locator("#record").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.suffix == ".webm"
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) >= 2
    assert frames[0].shape == (240, 320, 3)
    page.get_by_role("button", name="Stop camera").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "empty")
    expect(page.get_by_role("button", name="Start camera")).to_be_visible()


def test_a_video_plays_and_pauses_and_gives_a_picture(
    opened: Callable[..., Page], browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "film.webm"
    photo = skimage.data.astronaut()
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 30)
        for number in range(45):
            turn = cv2.getRotationMatrix2D(FACE, number / 4, 1.2)
            turn[:, 2] += (160 - FACE[0], 130 - FACE[1])
            seen = cv2.warpAffine(photo, turn, (320, 240), borderMode=cv2.BORDER_REPLICATE)
            frame = av.VideoFrame.from_ndarray(seen, format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    page = opened(browser)
    page.locator('input[value="crown"]').check(force=True)
    page.set_input_files("#file", path)
    expect(page.locator("#stage")).to_have_attribute("data-state", "video")
    expect(page.locator("#seen")).to_contain_text("1 face, 320")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save picture").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert cv2.imread(str(saved)).shape == (240, 320, 3)
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_without_a_camera_the_page_says_so(opened: Callable[..., Page], browser: Browser) -> None:
    page = opened(browser, permissions=["camera"])
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#problem")).to_contain_text("There is no camera. Connect one")
    _open_photo(page)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_forbidden_camera_is_explained(opened: Callable[..., Page], browser: Browser) -> None:
    page = opened(browser)
    page.evaluate(
        """() => { navigator.mediaDevices.getUserMedia = async () => {
          throw new DOMException("no", "NotAllowedError"); }; }"""
    )
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#problem")).to_contain_text("The camera is not allowed here")
