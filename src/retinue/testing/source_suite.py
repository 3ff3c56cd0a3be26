"""The contract of sources: named files arrive whole, or an error of the tree says why.

A new source adds to `PUBLISHERS` how a package is put where it can be fetched without leaving
this machine: a folder, or the small web server of `retinue.testing.web`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from retinue.core.errors import FetchError
from retinue.models.sources.base import Policy, SourcePlugin
from retinue.testing.web import Site

FILES: Mapping[str, bytes] = {
    "models/weights.bin": bytes(range(256)) * 700,
    "models/graph.json": b'{"nodes": []}',
    "read me.txt": b"with a space in its name",
}
QUICK = Policy(timeout_s=10.0, total_s=60.0, backoff_s=0.01)


@dataclass(frozen=True, slots=True)
class Published:
    """A package that can be fetched.

    Attributes:
        url: As in a card.
        environment: Variables to set while fetching.
        absent: The same, of a package that does not exist.
    """

    url: str
    absent: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Heard:
    """A `Progress` that keeps what it is told."""

    labels: list[str] = field(default_factory=list)
    totals: list[int | None] = field(default_factory=list)
    done: int = 0
    finished: int = 0

    def start(self, label: str, total: int | None = None) -> None:
        """Keep the label and total."""
        self.labels.append(label)
        self.totals.append(total)

    def advance(self, n: int) -> None:
        """Add up."""
        self.done += n

    def finish(self) -> None:
        """Count."""
        self.finished += 1


def wheel(files: Mapping[str, bytes], folder: Path) -> Path:
    """Write a wheel of the package ``retinue-sample`` 1.2.3 into a folder."""
    path = folder / "retinue_sample-1.2.3-py3-none-any.whl"
    info = "retinue_sample-1.2.3.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        about = "Metadata-Version: 2.1\nName: retinue-sample\nVersion: 1.2.3\n"
        archive.writestr(f"{info}/METADATA", about)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def npm_tarball(files: Mapping[str, bytes], *, top: str = "package") -> bytes:
    """Return an npm package of regular files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def publish_npm(site: Site, packed: bytes, /, **dist: str) -> None:
    """Put ``@retinue/sample`` 1.2.3 on a site, as an npm registry would; ``dist`` replaces."""
    path = "/@retinue/sample/-/sample-1.2.3.tgz"
    sha512 = base64.b64encode(hashlib.sha512(packed).digest()).decode("ascii")
    stated = {"tarball": site.url + path, "integrity": f"sha512-{sha512}", **dist}
    packument = {"name": "@retinue/sample", "versions": {"1.2.3": {"dist": stated}}}
    site.pages["/@retinue%2Fsample"] = json.dumps(packument).encode()
    site.pages[path] = packed


def npm_environment(site: Site) -> dict[str, str]:
    """Return the variables that make a site the only npm setting."""
    nowhere = "/nonexistent/npmrc"
    return {
        "npm_config_registry": site.url + "/",
        "npm_config_userconfig": nowhere,
        "npm_config_globalconfig": nowhere,
    }


def _wheel(files: Mapping[str, bytes], folder: Path, site: Site) -> Published:
    wheel(files, folder)
    environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}
    return Published("wheel:retinue-sample@1.2.3", "wheel:retinue-sample@9.9.9", environment)


def _npm(files: Mapping[str, bytes], folder: Path, site: Site) -> Published:
    publish_npm(site, npm_tarball(files))
    return Published(
        "npm:@retinue/sample@1.2.3", "npm:@retinue/sample@9.9.9", npm_environment(site)
    )


def _hf(files: Mapping[str, bytes], folder: Path, site: Site) -> Published:
    for name, data in files.items():
        site.pages[f"/retinue/sample/resolve/v1/{quote(name)}"] = data
    return Published("hf:retinue/sample@v1", "hf:retinue/none@v1", {"HF_ENDPOINT": site.url})


def _https(files: Mapping[str, bytes], folder: Path, site: Site) -> Published:
    for name, data in files.items():
        site.pages[f"/sample/{quote(name)}"] = data
    return Published(f"{site.url}/sample/", f"{site.url}/none/")


def _file(files: Mapping[str, bytes], folder: Path, site: Site) -> Published:
    for name, data in files.items():
        path = folder / "a sample" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Published((folder / "a sample").as_uri(), (folder / "none").as_uri())


Publisher = Callable[[Mapping[str, bytes], Path, Site], Published]
PUBLISHERS: Mapping[str, Publisher] = {
    "wheel": _wheel,
    "npm": _npm,
    "hf": _hf,
    "https": _https,
    "file": _file,
}


def check_named_files_arrive(source: SourcePlugin, published: Published, folder: Path) -> None:
    """Every named file is whole, in its target, and nothing else is left."""
    targets = {name: folder / str(i) for i, name in enumerate(FILES)}
    source(published.url, targets, progress=Heard(), policy=QUICK)
    assert {name: target.read_bytes() for name, target in targets.items()} == FILES
    assert sorted(folder.iterdir()) == sorted(targets.values())


def check_progress_is_told(source: SourcePlugin, published: Published, folder: Path) -> None:
    """Each step is begun with a label and ended; no more is done than was announced."""
    heard = Heard()
    source(published.url, {"read me.txt": folder / "0"}, progress=heard, policy=QUICK)
    assert heard.labels
    assert all(heard.labels)
    assert heard.finished
    assert heard.done <= sum(total or 0 for total in heard.totals)


def check_a_missing_file_is_refused(
    source: SourcePlugin, published: Published, folder: Path
) -> None:
    """A name that the package lacks is a `FetchError` that says the name."""
    targets = {"models/graph.json": folder / "0", "no-such-file": folder / "1"}
    message = _refusal(source, published.url, targets, QUICK)
    assert "no-such-file" in message
    assert {path.name for path in folder.iterdir()} <= {"0"}


def check_an_absent_package_is_refused(
    source: SourcePlugin, published: Published, folder: Path
) -> None:
    """A package that does not exist is a `FetchError`; nothing is left."""
    assert _refusal(source, published.absent, {"read me.txt": folder / "0"}, QUICK)
    assert not list(folder.iterdir())


def check_a_malformed_url_is_refused(
    source: SourcePlugin, published: Published, folder: Path
) -> None:
    """What is not of the source's form is a `FetchError`, not a guess."""
    scheme = published.url.partition(":")[0]
    for rest in ("", "@", "--option@1", "../x@1", "a b@1"):
        url = f"{scheme}:{rest}"
        assert _refusal(source, url, {"x": folder / "0"}, QUICK), url


def check_a_size_limit_holds(source: SourcePlugin, published: Published, folder: Path) -> None:
    """A file over the limit is a `FetchError`."""
    policy = replace(QUICK, max_bytes=100_000)
    assert "larg" in _refusal(source, published.url, {"models/weights.bin": folder / "0"}, policy)


def _refusal(source: SourcePlugin, url: str, targets: Mapping[str, Path], policy: Policy) -> str:
    try:
        source(url, targets, progress=Heard(), policy=policy)
    except FetchError as error:
        return error.message
    raise AssertionError(f"{url} was not refused")


Check = Callable[[SourcePlugin, Published, Path], None]
CHECKS: tuple[Check, ...] = (
    check_named_files_arrive,
    check_progress_is_told,
    check_a_missing_file_is_refused,
    check_an_absent_package_is_refused,
    check_a_malformed_url_is_refused,
    check_a_size_limit_holds,
)
