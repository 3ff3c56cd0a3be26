"""The README's and the documentation's code blocks are run, and settings shown are all there are.

Blocks marked ``bash`` run with the program on the path, a ``photo.jpg`` and a ``photos`` folder in
the working directory, and a server at the address that the pages use. Blocks marked ``python`` of a
page run as one script, after its ``bash`` blocks. Blocks marked ``toml`` are settings, or cards.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import skimage.data  # type: ignore[import-untyped]
from PIL import Image

from retinue.apps.ar.settings import ArSettings
from retinue.apps.detect.settings import DetectSettings
from retinue.apps.search.settings import SearchSettings
from retinue.core.settings import Settings, load_settings
from retinue.models.card import Card
from retinue.testing.onnx_models import color_detector

from .. import forked

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HTTP, GRPC = "127.0.0.1:8900", "127.0.0.1:8901"


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(blocks(page, language) for language in languages)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = Path(skimage.data.data_dir)
    (tmp_path / "photos").mkdir()
    for name in ("chelsea.png", "coffee.png"):
        shutil.copy(data / name, tmp_path / "photos")
    with Image.open(data / "astronaut.png") as photo:
        photo.convert("RGB").save(tmp_path / "photo.jpg")
    color_detector(tmp_path / "my-detector.onnx")
    (card,) = (b for b in blocks(ROOT / "docs" / "models.md", "toml") if "family" in b)
    (tmp_path / "mine.toml").write_text(card.partition("[source]")[0])
    return tmp_path


@contextmanager
def server(folder: Path, env: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Start the program as the page says, on free ports, and give its addresses."""
    command = [sys.executable, "-m", "retinue", "up", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().split("//")[-1].strip()
        yield address, process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize("page", pages_with("bash", "python"), ids=_name)
def test_code_blocks_run(
    page: Path, folder: Path, ar_cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shell = blocks(page, "bash")
    code = "\n".join(blocks(page, "python"))
    cache = folder / "cache"
    shutil.copytree(ar_cache_dir, cache, ignore=shutil.ignore_patterns("demo-photos"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # The README's program is the one that is installed; the pages start it often.
    if page.name != "README.md":
        path = f"{forked.program(tmp_path_factory.mktemp('bin'))}:{path}"
    env = os.environ | {
        "PATH": path,
        "RETINUE_CACHE": str(cache),
        "RETINUE_HOME": str(folder / "home"),
    }
    here = (HTTP, GRPC)
    uses_server = any(address in block for block in [*shell, code] for address in here)
    with server(folder, env) if uses_server else nullcontext(here) as started:

        def meant(text: str) -> str:
            for shown, address in zip(here, started, strict=True):
                text = text.replace(shown, address)
            return text

        for block in shell:
            _run(["bash", "-euo", "pipefail", "-c", meant(block)], folder, env)
        if code:
            _run([sys.executable, "-W", "error", "-c", meant(code)], folder, env)


def _run(command: list[str], folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", pages_with("toml"), ids=_name)
def test_settings_and_cards_shown_are_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        if "family" in tomllib.loads(block):
            Card.model_validate(tomllib.loads(block))
            continue
        file = tmp_path / "retinue.toml"
        file.write_text(block)
        settings = load_settings(file)
        DetectSettings.model_validate(settings.apps.get("detect", {}))
        SearchSettings.model_validate(settings.apps.get("search", {}))
        ArSettings.model_validate(settings.apps.get("ar", {}))


def test_the_settings_page_shows_every_setting_with_its_default() -> None:
    (shown,) = (tomllib.loads(block) for block in blocks(ROOT / "docs" / "settings.md", "toml"))
    # TOML has no null: what has no default is shown as a comment.
    hidden = {"home", "cache", "apps"}
    defaults = Settings().model_dump(mode="json", exclude=hidden, exclude_none=True)
    assert shown.pop("apps") == {
        "detect": DetectSettings().model_dump(),
        "search": SearchSettings().model_dump(mode="json"),
        "ar": ArSettings().model_dump(),
    }
    assert shown == defaults


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "site" / "detect" / "index.html").stat().st_size > 1000
