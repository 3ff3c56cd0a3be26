"""Transfers against a small web server that the test runs on this machine's loopback."""

from pathlib import Path

import httpx
import pytest

from retinue.core.errors import ChecksumMismatch, ConfigError, FetchError
from retinue.models.card import Source
from retinue.models.fetch import fetch, sha256_of
from retinue.models.sources import hf, https
from retinue.models.sources.transfer import is_loopback, parse_url, show, ssl_context
from retinue.testing.source_suite import QUICK, Heard
from retinue.testing.web import Answer, Site, serve

BODY = b"weights" * 50_000


@pytest.fixture
def site():
    with serve() as running:
        yield running


def get(site: Site, target: Path, path: str = "/model.onnx", heard: Heard | None = None) -> None:
    https.SOURCE(site.url + path, {"model.onnx": target}, progress=heard or Heard(), policy=QUICK)


def in_turn(*answers: Answer):
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_transient_status_is_tried_again(site: Site, tmp_path: Path, status: int) -> None:
    site.pages["/model.onnx"] = in_turn(Answer(status=status), Answer(status=status), Answer(BODY))
    heard = Heard()
    get(site, tmp_path / "out", heard=heard)
    assert (tmp_path / "out").read_bytes() == BODY
    assert heard.totals == [len(BODY)]
    assert len(site.requests) == 3


def test_a_truncated_download_is_begun_anew(site: Site, tmp_path: Path) -> None:
    site.pages["/model.onnx"] = in_turn(Answer(BODY, cut=100_000), Answer(BODY))
    get(site, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == BODY


def test_three_tries_are_final(site: Site, tmp_path: Path) -> None:
    site.pages["/model.onnx"] = Answer(BODY, cut=100_000)
    with pytest.raises(FetchError, match="after 3 tries"):
        get(site, tmp_path / "out")
    assert len(site.requests) == 3


@pytest.mark.parametrize(("status", "word"), [(404, "card"), (403, "card"), (410, "410")])
def test_a_refusal_is_final_at_once(site: Site, tmp_path: Path, status: int, word: str) -> None:
    site.pages["/model.onnx"] = Answer(status=status)
    with pytest.raises(FetchError, match=word):
        get(site, tmp_path / "out")
    assert len(site.requests) == 1


def test_a_silent_server_is_given_up(site: Site, tmp_path: Path) -> None:
    import threading
    from dataclasses import replace

    hold = threading.Event()
    site.pages["/model.onnx"] = Answer(BODY, cut=10, hold=hold)
    policy = replace(QUICK, timeout_s=0.1, tries=2)
    with pytest.raises(FetchError, match="after 2 tries"):
        https.SOURCE(
            site.url + "/model.onnx", {"x": tmp_path / "out"}, progress=Heard(), policy=policy
        )
    hold.set()


def test_no_server_at_all(tmp_path: Path) -> None:
    with serve() as gone:
        pass
    with pytest.raises(FetchError, match="after 3 tries"):
        get(gone, tmp_path / "out")


def test_a_redirect_is_followed_on_the_same_host(site: Site, tmp_path: Path) -> None:
    site.pages["/model.onnx"] = Answer(status=302, headers={"Location": "/moved"})
    site.pages["/moved"] = BODY
    get(site, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == BODY


@pytest.mark.parametrize("place", ["http://example.com/x", "http://[::1]:9/x", "ftp://127.0.0.1/x"])
def test_a_redirect_to_plain_http_elsewhere_is_refused(
    site: Site, tmp_path: Path, place: str
) -> None:
    site.pages["/model.onnx"] = Answer(status=302, headers={"Location": place})
    with pytest.raises(FetchError, match=r"not https|cannot fetch"):
        get(site, tmp_path / "out")


def test_endless_redirects_end(site: Site, tmp_path: Path) -> None:
    site.pages["/model.onnx"] = Answer(status=302, headers={"Location": "/model.onnx"})
    with pytest.raises(FetchError, match="redirects"):
        get(site, tmp_path / "out")


def test_a_body_without_a_length_is_bounded_too(site: Site, tmp_path: Path) -> None:
    from dataclasses import replace

    site.pages["/model.onnx"] = BODY
    with pytest.raises(FetchError, match="larger"):
        https.SOURCE(
            site.url + "/model.onnx",
            {"x": tmp_path / "out"},
            progress=Heard(),
            policy=replace(QUICK, max_bytes=1000),
        )
    assert not (tmp_path / "out").exists()


def test_plain_http_is_for_loopback_only() -> None:
    assert is_loopback("127.8.9.1")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("127.0.0.1.example.com")
    with pytest.raises(FetchError, match="plain http"):
        parse_url("http://example.com/x")
    assert parse_url("https://example.com/x").host == "example.com"


@pytest.mark.parametrize("url", ["ftp://example.com/x", "https://", "not a url", "https:x"])
def test_what_is_no_https_url_is_refused(url: str) -> None:
    with pytest.raises(FetchError):
        parse_url(url)


def test_messages_show_no_secrets() -> None:
    shown = show(httpx.URL("https://me:secret@example.com:8443/a?token=secret#secret"))
    assert shown == "https://example.com:8443/a"


def test_a_missing_certificate_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.pem"):
        ssl_context(tmp_path / "gone.pem")


def test_hub_token_goes_to_the_hub_only(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub sends large files from another host; a second port stands in for it.
    with serve() as store:
        monkeypatch.setenv("HF_ENDPOINT", site.url + "/")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        place = store.url + "/blob"
        site.pages["/a/b/resolve/refs%2Fpr%2F1/model.onnx"] = Answer(
            status=302, headers={"Location": place}
        )
        store.pages["/blob"] = BODY
        hf.SOURCE(
            "hf:a/b@refs/pr/1", {"model.onnx": tmp_path / "o"}, progress=Heard(), policy=QUICK
        )
        assert site.requests[0].headers["authorization"] == "Bearer hf_secret"
        assert "authorization" not in store.requests[0].headers
    assert (tmp_path / "o").read_bytes() == BODY


def test_fetch_checks_each_digest(site: Site, tmp_path: Path) -> None:
    site.pages["/model.onnx"] = BODY
    (tmp_path / "same").write_bytes(BODY)
    right = sha256_of(tmp_path / "same")
    files = fetch(
        Source(url=site.url + "/model.onnx", files={"model.onnx": right}), tmp_path, policy=QUICK
    )
    assert files["model.onnx"].read_bytes() == BODY
    site.pages["/model.onnx"] = BODY[:-1] + b"!"
    with pytest.raises(ChecksumMismatch, match="not used"):
        fetch(
            Source(url=site.url + "/model.onnx", files={"model.onnx": right}),
            tmp_path,
            policy=QUICK,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["same"]


def test_an_unknown_scheme_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="known: file, hf, https, npm, wheel"):
        fetch(Source(url="ftp://example.com/x", files={"x": "0" * 64}), tmp_path)


def test_local_names_are_ours(site: Site, tmp_path: Path) -> None:
    site.pages["/d/%2E%2E/x.onnx"] = b""
    site.pages["/x.onnx"] = b""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    files = fetch(Source(url=site.url + "/d/", files={"../x.onnx": empty}), tmp_path, policy=QUICK)
    assert files == {"../x.onnx": tmp_path / "000.onnx"}
