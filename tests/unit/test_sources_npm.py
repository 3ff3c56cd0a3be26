"""npm packages, from a registry that the test runs on this machine's loopback."""

import base64
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import httpx
import pytest

from retinue.core.errors import ChecksumMismatch, ConfigError, FetchError
from retinue.models.sources import archives, npm, wheel
from retinue.models.sources.npmrc import NpmConfig
from retinue.testing.source_suite import (
    FILES,
    QUICK,
    Heard,
    npm_environment,
    npm_tarball,
    publish_npm,
)
from retinue.testing.web import Answer, serve

URL = "npm:@retinue/sample@1.2.3"
NAME = "models/graph.json"
TARBALL = "/@retinue/sample/-/sample-1.2.3.tgz"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch):
    with serve() as running:
        for name, value in npm_environment(running).items():
            monkeypatch.setenv(name, value)
        yield running


def get(folder: Path, name: str = NAME) -> bytes:
    npm.SOURCE(URL, {name: folder / "out"}, progress=Heard(), policy=QUICK)
    return (folder / "out").read_bytes()


def special_tarball(*members: tarfile.TarInfo, data: bytes = b"evil") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def test_a_tampered_tarball_is_refused(site, tmp_path: Path) -> None:
    publish_npm(site, npm_tarball(FILES))
    site.pages[TARBALL] = npm_tarball({**FILES, NAME: b"{}"})
    with pytest.raises(ChecksumMismatch, match="sha512"):
        get(tmp_path)
    assert not list(tmp_path.iterdir())


def test_any_digest_of_the_strongest_algorithm_will_do(site, tmp_path: Path) -> None:
    tarball = npm_tarball(FILES)
    good = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    wrong = base64.b64encode(b"0" * 64).decode()
    publish_npm(site, tarball, integrity=f"sha1-AAAA sha512-{wrong} sha512-{good}?opt")
    assert get(tmp_path) == FILES[NAME]
    publish_npm(
        site, tarball, integrity=f"sha512-{wrong}", shasum=hashlib.sha1(tarball).hexdigest()
    )
    with pytest.raises(ChecksumMismatch):
        get(tmp_path)


def test_an_old_package_has_a_sha1_only(site, tmp_path: Path) -> None:
    tarball = npm_tarball(FILES)
    publish_npm(site, tarball, integrity="", shasum=hashlib.sha1(tarball).hexdigest())
    assert get(tmp_path) == FILES[NAME]


@pytest.mark.parametrize(
    ("dist", "word"),
    [
        ({"integrity": ""}, "no integrity"),
        ({"integrity": "sha512-!!"}, "malformed"),
        ({"tarball": "http://example.com/x.tgz"}, "not https"),
        ({"tarball": "file:///etc/passwd"}, "not https"),
    ],
)
def test_unusable_metadata(site, tmp_path: Path, dist: dict[str, str], word: str) -> None:
    publish_npm(site, npm_tarball(FILES), **dist)
    with pytest.raises(FetchError, match=word):
        get(tmp_path)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"versions": {"1.2.3": {}}}', b"null"])
def test_an_answer_that_is_no_registrys(site, tmp_path: Path, body: bytes) -> None:
    site.pages["/@retinue%2Fsample"] = body
    with pytest.raises(FetchError, match="did not answer as an npm registry"):
        get(tmp_path)


def test_an_unknown_package_is_a_404_with_advice(site, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"404.*\.npmrc"):
        get(tmp_path)


def test_names_and_links_in_a_tarball_lead_nowhere(site, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = tarfile.TarInfo(f"package/{NAME}")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    hard = tarfile.TarInfo(f"package/{NAME}")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../secret"
    names = ("../../evil", "/evil", "package/../../evil", "package/../evil")
    evil = special_tarball(link, hard, *(tarfile.TarInfo(name) for name in names))
    publish_npm(site, evil)
    with pytest.raises(FetchError, match=r"has no file models/graph\.json"):
        get(into)
    assert not list(into.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["into", "secret"]
    # Even a card that asks for such a name gets a file at its own target.
    assert get(into, "../../evil") == b"evil"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["into", "secret"]


def test_damaged_archives(site, tmp_path: Path) -> None:
    whole = npm_tarball(FILES)
    for damaged in (whole[: len(whole) // 2], b"not gzip", gzip.compress(b"not tar" * 500), b""):
        publish_npm(site, damaged)
        with pytest.raises(FetchError):
            get(tmp_path)
        assert not list(tmp_path.glob("npm-*"))


def test_a_gzip_bomb_is_stopped(tmp_path: Path) -> None:
    from dataclasses import replace

    bomb = tmp_path / "bomb.tgz"
    bomb.write_bytes(special_tarball(tarfile.TarInfo("package/zeros"), data=b"\0" * 10_000_000))
    assert bomb.stat().st_size < 50_000
    with pytest.raises(FetchError, match="larger"):
        archives.from_npm_tarball(bomb, {"x": tmp_path / "x"}, replace(QUICK, max_bytes=1_000_000))


def test_a_public_tarball_is_asked_of_the_configured_registry(site, tmp_path: Path) -> None:
    publish_npm(site, npm_tarball(FILES), tarball=f"https://registry.npmjs.org{TARBALL}")
    assert get(tmp_path) == FILES[NAME]


def test_a_registry_below_a_path(site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_npm(site, npm_tarball(FILES), tarball=f"https://registry.npmjs.org{TARBALL}")
    site.pages = {f"/repo/npm{path}": page for path, page in site.pages.items()}
    monkeypatch.setenv("npm_config_registry", f"{site.url}/repo/npm")
    assert get(tmp_path) == FILES[NAME]


def test_the_token_goes_to_its_host_only(
    site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = site.url.partition("//")[2]
    rc = tmp_path / "npmrc"
    rc.write_text(f"@retinue:registry={site.url}\n//{host}/:_authToken=${{MY_TOKEN}}\n")
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    monkeypatch.setenv("npm_config_userconfig", str(rc))
    monkeypatch.setenv("npm_config_registry", "https://elsewhere.invalid/")
    with serve() as store:
        # The tarball's page sends on to another host, as a registry backed by a store does.
        publish_npm(site, npm_tarball(FILES))
        store.pages["/blob"] = site.pages[TARBALL]
        site.pages[TARBALL] = Answer(status=302, headers={"Location": f"{store.url}/blob"})
        (tmp_path / "into").mkdir()
        assert get(tmp_path / "into") == FILES[NAME]
        assert [r.headers.get("authorization") for r in site.requests] == ["Bearer s3cret"] * 2
        assert "authorization" not in store.requests[0].headers


def test_settings_are_merged_as_npm_does(tmp_path: Path) -> None:
    (tmp_path / "npmrc").write_text("registry=https://machine.example/\nstrict-ssl=false\n")
    (tmp_path / ".npmrc").write_text(
        "; a comment\n# another\nregistry = https://user.example/npm ; trailing\n"
        "@corp:registry=https://corp.example\ncafile='/etc/ca;1.pem'\n"
        "//corp.example/:_auth = dTpw\n//user.example/npm/:_authToken=${TOKEN}\n"
        "//user.example/:username=me\n//user.example/:_password=cHc=\n"
        "gone=${UNSET}-${UNSET?}\nca[]=ignored\n[section]\nnonsense\n"
    )
    environment = {
        "HOME": str(tmp_path),
        "NPM_CONFIG_GLOBALCONFIG": str(tmp_path / "npmrc"),
        "TOKEN": "t",
        "npm_config_https_proxy": "http://proxy.example:3128",
        "npm_config_noproxy": "corp.example, .internal",
        "npm_config_empty": "",
    }
    config = NpmConfig.load(environment)
    assert str(config.registry("plain")) == "https://user.example/npm/"
    assert str(config.registry("@corp/x")) == "https://corp.example/"
    assert str(config.registry("@other/x")) == "https://user.example/npm/"
    assert config.values["gone"] == "${UNSET}-"
    assert config.authorities == Path("/etc/ca;1.pem")
    assert not config.strict_ssl
    assert config.proxies == {
        "https://": "http://proxy.example:3128",
        "all://*corp.example": None,
        "all://*.internal": None,
    }

    def header(url: str) -> str | None:
        return config.authorization(httpx.URL(url)).get("Authorization")

    assert header("https://corp.example/@corp%2fx") == "Basic dTpw"
    assert header("https://user.example/npm/x") == "Bearer t"
    basic = "Basic " + base64.b64encode(b"me:pw").decode()
    assert header("https://user.example/npmx/x") == basic
    assert header("https://evil.example/user.example/npm/x") is None
    assert header("https://user.example.evil/npm/x") is None
    assert header("https://user.example:444/npm/x") is None
    with pytest.raises(FetchError, match="not https"):
        config.authorization(httpx.URL("http://corp.example/x"))


def test_environment_wins_and_default_is_public(tmp_path: Path) -> None:
    base = {"HOME": str(tmp_path), "npm_config_globalconfig": "/nonexistent"}
    assert str(NpmConfig.load(base).registry("x")) == "https://registry.npmjs.org/"
    (tmp_path / ".npmrc").write_text("registry=https://user.example/\n")
    config = NpmConfig.load({**base, "NPM_CONFIG_REGISTRY": "https://env.example"})
    assert str(config.registry("x")) == "https://env.example/"


@pytest.mark.parametrize("registry", ["nonsense", "ftp://x/", "https://"])
def test_a_wrong_registry_setting_is_named(tmp_path: Path, registry: str) -> None:
    config = NpmConfig({"registry": registry})
    with pytest.raises(ConfigError, match="registry setting"):
        config.registry("x")


def test_unreadable_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read npm's settings"):
        NpmConfig.load({"npm_config_userconfig": str(tmp_path)})
    with pytest.raises(ConfigError, match="base64"):
        values = {"//h/:username": "me", "//h/:_password": "!!!"}
        NpmConfig(values).authorization(httpx.URL("https://h/"))


def test_pips_error_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(FetchError, match="No matching distribution") as caught:
        wheel.SOURCE(
            "wheel:retinue-sample@1.2.3", {"x": tmp_path / "x"}, progress=Heard(), policy=QUICK
        )
    assert len(caught.value.message) < 400
    assert not list(tmp_path.iterdir())


def test_pip_is_stopped_when_it_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that never answers: pip is ended by the policy, and said so."""
    import threading
    from dataclasses import replace

    hold = threading.Event()
    with serve() as site:
        site.pages["/retinue-sample/"] = Answer(b"x" * 10, cut=1, hold=hold)
        monkeypatch.setenv("PIP_INDEX_URL", site.url)
        monkeypatch.setenv("PIP_NO_INDEX", "0")
        with pytest.raises(FetchError, match="limit is 2 s"):
            wheel.SOURCE(
                "wheel:retinue-sample@1.2.3",
                {"x": tmp_path / "x"},
                progress=Heard(),
                policy=replace(QUICK, total_s=2.0),
            )
        hold.set()
    assert not list(tmp_path.iterdir())


def test_a_missing_pip_is_named(tmp_path: Path) -> None:
    """A fresh environment without pip says how to get it."""
    import subprocess
    import sys

    program = (
        "import sys; sys.modules['pip'] = None\n"
        "from pathlib import Path\n"
        "from retinue.models.sources import base, wheel\n"
        "wheel.SOURCE('wheel:x@1', {'x': Path(sys.argv[1])}, progress=base.Quiet(),"
        " policy=base.Policy())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "MissingExtra" in done.stderr
    assert "-m ensurepip" in done.stderr
