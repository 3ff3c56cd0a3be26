"""The page of AR filters: its bundle is current, it shares the program's numbers, its headers."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from starlette.testclient import TestClient

from retinue.apps.ar import APP
from retinue.core.apps import Page
from retinue.host import pages

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web" / "ar"
CONSOLE = ROOT / "src" / "retinue" / "apps" / "ar" / "console"
MOST_BYTES = 11 * 2**20


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_shared", WEB / "make_shared.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_shared_with_the_page_is_current() -> None:
    made = _script().text()
    assert (WEB / "src" / "shared.json").read_text() == made, "run web/ar/make_shared.py"


def test_the_bundle_is_of_these_sources() -> None:
    digest = hashlib.sha256()
    paths = [path for path in (WEB / "src").rglob("*") if path.is_file()]
    paths += [WEB / "build.mjs", WEB / "package-lock.json"]
    for path in sorted(paths, key=lambda path: path.relative_to(WEB).as_posix()):
        digest.update(f"{path.relative_to(WEB).as_posix()}\n".encode() + path.read_bytes())
    with (CONSOLE / "ar.js").open() as file:
        banner = file.readline()
    wanted = digest.hexdigest()[:16]
    assert f"Built from {wanted} " in banner, "run `npm ci && npm run build` in web/ar"


def test_it_is_small_and_names_nothing_elsewhere() -> None:
    assert sum(path.stat().st_size for path in CONSOLE.iterdir()) < MOST_BYTES
    assert gzip.decompress((CONSOLE / "litert.wasm.gz").read_bytes())[:4] == b"\0asm"
    licences = (CONSOLE / "THIRD-PARTY.txt").read_text()
    for name in ("@litertjs/core 2.5.3", "@litertjs/wasm-utils", "three 0.187.0", "fflate", "toml"):
        assert name in licences
    html = (CONSOLE / "ar.html").read_text() + (CONSOLE / "ar.css").read_text()
    assert not re.search(r"https?://", html)


def test_only_its_page_may_run_wasm_and_ask_for_the_camera() -> None:
    (page,) = APP.pages
    assert (page.wasm, page.camera) == (True, True)
    policy = pages.page_policy(page)
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy
    assert "connect-src 'self';" in policy
    assert "media-src 'self' blob:" in policy
    other = Page("/x", "X", "x.html", "x.js")
    assert pages.page_policy(other) == pages.PAGE_POLICY
    assert "wasm" not in pages.PAGE_POLICY
    shut, allowed = (dict(pages.page_headers("", camera=on)) for on in (False, True))
    assert shut[b"permissions-policy"].startswith(b"camera=(), ")
    assert allowed[b"permissions-policy"].startswith(b"camera=(self), ")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_webassembly_is_sent_compressed(tmp_path: Path, method: str) -> None:
    body = b"\0asm" + bytes(1000)
    (tmp_path / "one.wasm.gz").write_bytes(gzip.compress(body))
    client = TestClient(pages.Static(tmp_path))
    answer = client.request(method, "/one.wasm")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/wasm"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == (body if method == "GET" else b"")
    again = client.get("/one.wasm", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    refused = client.get("/one.wasm", headers={"accept-encoding": "identity"})
    assert refused.status_code == 406
    assert "Accept-Encoding: gzip" in refused.text
