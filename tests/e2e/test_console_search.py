"""The search page in a real Chromium: photo, region, conditions, more like this, duplicates."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.e2e.conftest import Program, end
from tests.e2e.search_program import add, serve

from retinue.testing.embedders import photo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
DROP = """
([base64]) => {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
  document.getElementById("stage").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}
"""

RECORD = """
window.sent = {};
const append = FormData.prototype.append;
FormData.prototype.append = function (name, ...rest) {
  window.sent[name] = String(rest[0]);
  return append.call(this, name, ...rest);
};
null;
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = serve(tmp_path_factory.mktemp("search-console"))
    with httpx.Client(base_url=program.url, timeout=60) as client:
        for number in range(6):
            add(client, "shop", f"item-{number}", photo(number), meta=json.dumps({"price": number}))
        add(client, "shop", "copy-1", photo(1), meta='{"price": 9}')
    yield program
    end(program)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, program: Program) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            problems.append(message.text)
            if message.type in ("error", "warning") and "status of" not in message.text
            else None
        ),
    )
    page.goto(f"{program.url}/search")
    expect(page.locator("#search")).to_be_visible()
    yield page
    context.close()
    assert problems == []


def _drop(page: Page, data: bytes) -> None:
    page.evaluate(DROP, [base64.b64encode(data).decode()])


def test_a_dropped_photo_finds_itself_and_shows_its_thumbnail(page: Page) -> None:
    _drop(page, photo(3))
    first = page.locator(".hit").first
    expect(first.locator(".hit-id")).to_have_text("1. item-3")
    expect(page.locator(".hit")).to_have_count(6)  # the copy is hidden
    page.wait_for_function(
        "document.querySelector('.hit img').naturalWidth > 0 || "
        "document.querySelector('.hit img').complete"
    )
    expect(page.locator("#summary")).to_contain_text("items")


def test_a_region_is_drawn_and_searched(page: Page) -> None:
    _drop(page, photo(2))
    expect(page.locator(".hit").first).to_be_visible()
    frame = page.locator("#image").bounding_box()
    assert frame is not None
    page.evaluate(RECORD)
    with page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        page.mouse.move(frame["x"] + 5, frame["y"] + 5)
        page.mouse.down()
        page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
        page.mouse.up()
    assert answered.value.ok
    x1, y1, x2, y2 = (float(edge) for edge in page.evaluate("window.sent.box").split(","))
    assert 0 < x1 < 20 and 70 < x2 < 90
    assert 0 < y1 < 20 and y1 < y2 < 90
    expect(page.locator("#region")).to_be_visible()
    page.get_by_role("button", name="Whole photo").click()
    expect(page.locator("#region")).to_be_hidden()


def test_more_like_this_and_conditions(page: Page) -> None:
    _drop(page, photo(4))
    page.get_by_role("button", name="Add a condition").click()
    page.get_by_label("How", exact=True).select_option("at least")
    page.get_by_label("Value", exact=True).fill("3")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".hit")).to_have_count(4)
    page.locator(".hit").first.get_by_role("button", name="More like this").click()
    expect(page.locator(".hit-id").first).not_to_contain_text("item-4")


def test_the_servers_word_is_shown(page: Page) -> None:
    page.evaluate(DROP, [base64.b64encode(b"no photo").decode()])
    expect(page.locator("#problem")).to_contain_text("plain text")


def test_duplicates_are_shown_and_deleted(page: Page) -> None:
    page.get_by_role("button", name="Duplicates").click()
    expect(page.locator(".group")).to_have_count(1)
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator(".group .hit").last.get_by_role("button", name="Delete").click()
    expect(page.locator("#summary")).to_have_text("No duplicates.")


def test_it_fits_a_phone(browser: Browser, program: Program, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(f"{program.url}/search#collection=shop")
    expect(page.locator("#search")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()
