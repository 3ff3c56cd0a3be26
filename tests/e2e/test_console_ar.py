"""The page of AR filters in a real Chromium: nothing leaves it; it sees what the program sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import skimage.data  # type: ignore[import-untyped]
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect
from tests.e2e.console_ar_page import FACES, PHOTO, moved, open_photo, seen, wear

from retinue.apps.ar import filters
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.face.canonical import VERTICES
from retinue.apps.ar.face.pose import solve
from retinue.apps.ar.face.values import FRONTAL, Pose
from retinue.apps.ar.networks import Networks
from retinue.apps.ar.session import Session
from retinue.apps.ar.settings import ArSettings
from retinue.core.settings import Settings

SOLVE = """cases => cases.map((landmarks) => {
  const camera = retinueAr.cameraOf(1280, 720, 63);
  return [...retinueAr.solve(landmarks, camera).rotation];
})"""
LAST_ROLL = """() => {
  const [face] = retinueAr.session.last.faces;
  return face ? face.coefficients.roll : null;
}"""
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
FILTERS = tuple(filters.names())


@pytest.fixture(scope="module")
def camera_browser(
    launch: Callable[..., Browser], tmp_path_factory: pytest.TempPathFactory
) -> Browser:
    """A browser whose camera shows a photo that moves a little."""
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    with film.open("wb") as file:
        for number in range(20):
            file.write(cv2.imencode(".jpg", moved(number)[..., ::-1])[1].tobytes())
    return launch(
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    )


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
    photo_page: Page, program: Callable[[str], Any], name: str, count: int
) -> None:
    wear(photo_page, name)
    (found,) = photo_page.evaluate(FACES)
    (face,) = program(name).faces
    landmarks = np.array(found["landmarks"]).reshape(-1, 3)
    assert landmarks.shape == (count, 3)
    assert np.abs(landmarks - face.landmarks).max() < 0.5
    assert _apart(np.array(found["rotation"]).reshape(3, 3), face.pose.rotation) < 0.5
    np.testing.assert_allclose(found["translation"], face.pose.translation, atol=0.2)
    for key, value in face.coefficients.items():
        tolerance = 1.0 if key in ("yaw", "pitch", "roll") else 0.05
        assert found["coefficients"][key] == pytest.approx(value, abs=tolerance), key


def test_poses_are_the_programs_over_a_grid(photo_page: Page) -> None:
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
    found = photo_page.evaluate(SOLVE, [case.ravel().tolist() for case in cases])
    for case, rotation in zip(cases, found, strict=True):
        assert _apart(np.array(rotation).reshape(3, 3), solve(case, camera).rotation) < 0.2


@pytest.mark.parametrize("name", FILTERS)
def test_pictures_are_nearly_the_programs(
    photo_page: Page, program: Callable[[str], Any], name: str
) -> None:
    wear(photo_page, name)
    picture = seen(photo_page)
    assert (picture != skimage.data.astronaut()).any()
    expect(photo_page.locator("#about")).not_to_be_empty()
    away = np.abs(picture.astype(int) - program(name).pixels.astype(int)).max(axis=2)
    # Edges are drawn with more samples here.
    assert (away > 24).mean() < (1e-3 if name in ("background-blur", "big-eyes") else 2e-3)
    assert away.mean() < 0.6


def test_no_filter_changes_nothing(photo_page: Page) -> None:
    wear(photo_page, "")
    assert (seen(photo_page) == skimage.data.astronaut()).all()


def test_a_graphics_card_that_is_taken_away_comes_back(photo_page: Page) -> None:
    wear(photo_page, "glasses")
    before = seen(photo_page)
    photo_page.evaluate(
        """() => {
          window.before = retinueAr.session;
          const gl = window.before.canvas.renderer.getContext();
          gl.getExtension("WEBGL_lose_context").loseContext(); }"""
    )
    photo_page.wait_for_function("retinueAr.session !== window.before")
    expect(photo_page.locator("#working")).to_be_hidden()
    wear(photo_page, "hearts")
    wear(photo_page, "glasses")
    assert (seen(photo_page) == before).mean() > 0.999


def test_a_camera_is_worn_mirrored_recorded_and_stopped(
    opened: Callable[..., Page], camera_browser: Browser, tmp_path: Path
) -> None:
    page = opened(camera_browser)
    page.locator('input[value="glasses"]').check(force=True)
    page.locator("#camera").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#stage")).to_have_attribute("data-state", "camera")
    expect(page.locator("#seen")).to_contain_text("1 face")
    expect(page.locator("#stop")).to_be_focused()
    expect(page.locator("#mirror")).to_have_attribute("aria-pressed", "true")
    page.locator("#mirror").click()
    expect(page.locator("#mirror")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#rate")).to_contain_text("fps")
    expect(page.locator("#time-total")).to_contain_text("ms")
    page.locator("#record").click()
    expect(page.locator("#record")).to_have_text("Stop and save")
    expect(page.locator("#recorded")).to_have_text("0:02")
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
    expect(page.get_by_role("button", name="Start camera")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#stage")).to_have_attribute("data-state", "camera")
    page.evaluate(
        """() => retinueAr.loop.source.picture.srcObject.getTracks()
          .forEach((track) => track.dispatchEvent(new Event("ended")))"""
    )
    expect(page.locator("#problem")).to_contain_text("The camera was unplugged or taken away")
    expect(page.locator("#stage")).to_have_attribute("data-state", "empty")


def _film(path: Path, codec: str, *, upside_down: bool = False) -> None:
    """Write a film; upside down, with a note to turn it back, as phones do."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=20)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(60):
            pixels = moved(number)
            turned = np.ascontiguousarray(pixels[::-1, ::-1]) if upside_down else pixels
            frame = av.VideoFrame.from_ndarray(turned, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 20)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    if not upside_down:
        return
    data = bytearray(path.read_bytes())
    # Version and flags, five words of times, three of layers and volume; then the matrix.
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    half_turn = [-1 << 16, 0, 0, 0, -1 << 16, 0, 320 << 16, 240 << 16, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in half_turn)
    path.write_bytes(data)


def test_a_video_plays_and_pauses_and_is_recorded_whole(
    opened: Callable[..., Page], ar_browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "film.webm"
    _film(path, "libvpx")
    page = opened(ar_browser)
    page.locator('input[value="crown"]').check(force=True)
    page.set_input_files("#file", path)
    expect(page.locator("#stage")).to_have_attribute("data-state", "video")
    expect(page.locator("#seen")).to_contain_text("1 face, 320")
    page.evaluate(HIDE, True)
    expect(page.locator("#stop")).to_have_text("Play")
    page.evaluate(HIDE, False)
    expect(page.locator("#stop")).to_have_text("Pause")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save picture").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert cv2.imread(str(saved)).shape == (240, 320, 3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Record").click()
    assert download.value.suggested_filename.endswith(".webm")
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_a_phones_video_is_upright(
    opened: Callable[..., Page], ar_browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "phone.mp4"
    _film(path, "libx264", upside_down=True)
    page = opened(ar_browser)
    page.set_input_files("#file", path)
    expect(page.locator("#seen")).to_contain_text("1 face, 320")
    page.get_by_role("button", name="Pause").click()
    assert abs(page.evaluate(LAST_ROLL)) < 20


def test_without_a_camera_the_page_says_so(
    opened: Callable[..., Page], ar_browser: Browser, tmp_path: Path
) -> None:
    page = opened(ar_browser, permissions=["camera"])
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#problem")).to_contain_text("There is no camera. Connect one")
    page.evaluate(
        """() => { navigator.mediaDevices.getUserMedia = async () => {
          throw new DOMException("no", "NotAllowedError"); }; }"""
    )
    page.get_by_role("button", name="Start camera").click()
    expect(page.locator("#problem")).to_contain_text("The camera is not allowed here")
    gray = tmp_path / "gray.png"
    cv2.imwrite(str(gray), np.full((120, 160, 3), 128, np.uint8))
    wear(page, "hearts")
    open_photo(page, gray)
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#hint")).to_have_text("No face is seen. Come closer, or into more light.")


def test_what_does_not_arrive_is_named_and_tried_again(
    opened: Callable[..., Page], ar_browser: Browser
) -> None:
    page = opened(ar_browser, quiet=False)
    page.route("**/litert.wasm", lambda route: route.fulfill(status=404, body="gone"))
    page.set_input_files("#file", PHOTO)
    expect(page.locator("#problem")).to_contain_text("litert.wasm) cannot be loaded. See that")
    expect(page.locator("#stage")).to_have_attribute("data-state", "empty")
    page.unroute("**/litert.wasm")
    open_photo(page)
    wear(page, "hearts")
    page.route("**/filters/big-eyes/*", lambda route: route.abort())
    page.locator('input[value="big-eyes"]').check(force=True)
    expect(page.locator("#problem")).to_contain_text("The server cannot be reached")
    expect(page.locator('input[value="hearts"]')).to_be_checked()
