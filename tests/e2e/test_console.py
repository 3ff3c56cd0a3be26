"""The console in a real Chromium: drop, paste or choose a photo, errors, keyboard, phone, keys."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import skimage
from playwright.sync_api import Browser, BrowserContext, FileChooser, Page, expect, sync_playwright

from retinue.host.access import digest, new_key

if TYPE_CHECKING:
    from tests.e2e.conftest import Program

PHOTO = Path(skimage.__file__).parent / "data" / "motorcycle_left.png"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 860}

DROP = """
async ([name, type, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const stage = document.getElementById("stage");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    stage.dispatchEvent(new DragEvent(kind, {
      dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}
"""
PASTE = """
async ([name, type, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages; at the end nothing may have gone wrong in them or left the server."""
    contexts: list[BrowserContext] = []
    problems: list[str] = []
    origins: set[str] = set()

    def make(url: str, **more: Any) -> Page:
        context = browser.new_context(**{"viewport": DESK, **more})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text)
                if message.type in ("error", "warning")
                and "the server responded with a status of" not in message.text
                else None
            ),
        )
        page.on("request", lambda request: origins.add(request.url.split("/")[2]))
        page.goto(url)
        return page

    yield make
    for context in contexts:
        context.close()
    assert problems == []
    assert {origin.partition(":")[0] for origin in origins} <= {"127.0.0.1", ""}


def _give(page: Page, script: str, path: Path = PHOTO, kind: str = "image/png") -> None:
    page.evaluate(script, [path.name, kind, base64.b64encode(path.read_bytes()).decode()])


def _fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_home_shows_what_is_loaded(server: Program, opened: Callable[..., Page]) -> None:
    page = opened(server.url + "/")
    names = ["nanodet-g-416", "efficientnet-lite0-search"]
    expect(page.locator("#models h3")).to_have_text(names)
    expect(page.locator("#health")).to_have_text("Ready")
    page.get_by_role("link", name="Open Detect").click()
    expect(page.locator("h1")).to_have_text("Detect")
    expect(page.get_by_role("link", name="Detect")).to_have_attribute("aria-current", "page")


def test_a_dropped_photo_gets_its_boxes(
    server: Program, opened: Callable[..., Page], tmp_path: Path
) -> None:
    page = opened(server.url + "/detect")
    expect(page.locator("#model option")).to_have_count(1)
    _give(page, DROP)
    expect(page.locator(".box").first).to_be_visible()
    expect(page.locator("#found .name").first).to_have_text("motorcycle")
    expect(page.locator("#summary")).to_contain_text("motorcycle")
    expect(page.locator("#timings")).to_contain_text("Run")
    photo = page.locator("#photo").bounding_box()
    box = page.locator(".box").last.bounding_box()  # the best one is drawn last
    assert photo is not None
    assert box is not None
    answer = page.evaluate("JSON.parse(document.getElementById('json').textContent)")
    x1, y1, x2, y2 = answer["detections"][0]["box"]
    scale = photo["width"] / answer["width"]
    assert box["x"] == pytest.approx(photo["x"] + x1 * scale, abs=1.5)
    assert box["y"] == pytest.approx(photo["y"] + y1 * scale, abs=1.5)
    assert box["width"] == pytest.approx((x2 - x1) * scale, abs=1.5)
    assert box["height"] == pytest.approx((y2 - y1) * scale, abs=1.5)
    shot = tmp_path / "detect.png"
    page.screenshot(path=shot, full_page=True)
    assert shot.stat().st_size > 50_000


def test_paste_and_choose_work_too(server: Program, opened: Callable[..., Page]) -> None:
    page = opened(server.url + "/detect")
    _give(page, PASTE)
    expect(page.locator("#found .name").first).to_have_text("motorcycle")
    page.set_input_files("#file", PHOTO.with_name("chelsea.png"))
    expect(page.locator("#found .name").first).to_have_text("cat")


def test_the_slider_filters_without_asking_again(
    server: Program, opened: Callable[..., Page]
) -> None:
    page = opened(server.url + "/detect")
    _give(page, DROP)
    expect(page.locator(".box").first).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator("#conf").fill("10")
    many = page.locator(".box").count()
    page.locator("#conf").fill("95")
    expect(page.locator(".box")).to_have_count(0)
    expect(page.locator("#summary")).to_contain_text("Lower it")
    page.locator("#conf").fill("50")
    assert 0 < page.locator(".box").count() < many
    expect(page.locator("#count")).to_have_text(str(page.locator(".box").count()))
    assert [url for url in asked if "/v1/" in url] == []


def test_everything_works_by_keyboard(server: Program, opened: Callable[..., Page]) -> None:
    page = opened(server.url + "/detect")
    # Listening from the start: the browser learns of it some time after being told.
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    expect(page.locator("#model option")).to_have_count(1)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "file":
            break
    expect(page.locator("#file")).to_be_focused()
    page.keyboard.press("Enter")
    if not choosers:
        page.wait_for_event("filechooser")
    choosers[0].set_files(PHOTO)
    expect(page.locator(".box").first).to_be_visible()
    row = page.locator("#found button").first
    row.focus()
    expect(page.locator(".box[data-on]")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(row).to_have_attribute("aria-pressed", "true")
    page.locator("#conf").focus()
    before = page.locator("#conf-value").text_content()
    page.keyboard.press("ArrowRight")
    assert page.locator("#conf-value").text_content() != before


def test_what_is_wrong_is_shown_and_the_next_photo_works(
    server: Program, opened: Callable[..., Page], tmp_path: Path
) -> None:
    text = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    text.write_text("not a photo\n" * 20)
    page = opened(server.url + "/detect")
    _give(page, DROP, text, "image/jpeg")
    expect(page.get_by_role("alert").first).to_contain_text("unsupported_media")
    expect(page.locator(".box")).to_have_count(0)
    _give(page, DROP)
    expect(page.locator(".box").first).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_both_colour_schemes(
    server: Program, opened: Callable[..., Page], scheme: str
) -> None:
    colours = set()
    for view in (PHONE, DESK):
        mobile = view is PHONE
        page = opened(
            server.url + "/detect",
            viewport=view,
            color_scheme=scheme,
            has_touch=mobile,
            is_mobile=mobile,
        )
        assert page.locator("#camera-label").is_visible() is mobile
        _give(page, DROP)
        expect(page.locator(".box").first).to_be_visible()
        assert _fits(page)
        for name, shown in (("/", "#models li"), ("/docs", ".opblock")):
            page.goto(server.url + name)
            expect(page.locator(shown).first).to_be_visible()
            assert _fits(page)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == {"rgb(246, 247, 249)" if scheme == "light" else "rgb(14, 17, 22)"}


def test_the_api_page_works_offline(server: Program, opened: Callable[..., Page]) -> None:
    page = opened(server.url + "/docs")
    expect(page.locator(".opblock-summary-path", has_text="/v1/detect").first).to_be_visible()
    assert page.locator(".opblock").count() >= 14
    page.locator("#operations-Server-healthz .opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table").first).to_contain_text('"ok"')


def test_a_key_is_asked_for_once_and_kept_in_the_tab(
    echo_server: Callable[..., Program], opened: Callable[..., Page]
) -> None:
    key = new_key()
    program = echo_server(api_keys=[digest(key)])
    page = opened(program.url + "/")
    dialog = page.locator("#key-dialog")
    expect(dialog).to_be_visible()
    page.locator("#key-input").fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("not known")
    page.locator("#key-input").fill(key)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#models h3")).to_have_text(["fake"])
    page.reload()
    expect(page.locator("#models h3")).to_have_text(["fake"])
    expect(dialog).to_be_hidden()
    assert key not in page.content()
    assert page.evaluate("localStorage.length") == 0


def test_no_key_no_data(echo_server: Callable[..., Program], opened: Callable[..., Page]) -> None:
    program = echo_server(api_keys=[digest(new_key())])
    page = opened(program.url + "/")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#problem")).to_contain_text("unauthenticated")
    expect(page.locator("#models li")).to_have_count(0)


def test_another_sites_page_cannot_drive_the_server(
    server: Program, echo_server: Callable[..., Program], browser: Browser
) -> None:
    other = echo_server()  # another origin: the port differs
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(other.url + "/")
    outcome = page.evaluate(
        """async (url) => {
          try {
            const simple = { method: "POST", mode: "no-cors", body: "x" };
            const answer = await fetch(url + "/v1/detect", simple);
            return answer.type;
          } catch (error) { return "blocked"; }
        }""",
        server.url,
    )
    assert outcome in ("opaque", "blocked")
    metrics = server.get("/metrics").text
    assert any(
        'route="unmatched"' in line and 'status="403"' in line
        for line in metrics.splitlines()
        if "http" in line
    )
    framed = page.evaluate(
        """(url) => new Promise((done) => {
          const frame = document.createElement("iframe");
          frame.src = url + "/detect";
          frame.onload = () => {
            try { done(frame.contentDocument === null ? "no access" : "access"); }
            catch { done("no access"); }
          };
          document.body.append(frame);
        })""",
        server.url,
    )
    assert framed == "no access"
    context.close()
