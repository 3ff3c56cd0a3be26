"""``npm:NAME@VERSION``: files inside an npm package, by the registry's protocol.

No npm client is needed. The protocol is that of
https://github.com/npm/registry/blob/main/docs/responses/package-metadata.md; the package's
integrity is checked as https://www.w3.org/TR/SRI/ says.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from retinue.core.errors import ChecksumMismatch, FetchError
from retinue.models.sources.archives import from_npm_tarball
from retinue.models.sources.base import Policy, Progress
from retinue.models.sources.npmrc import DEFAULT_REGISTRY, NpmConfig
from retinue.models.sources.transfer import (
    download,
    get_bytes,
    open_client,
    plain_hosts,
    show,
    ssl_context,
)

REFERENCE = re.compile(
    r"npm:((?:@[a-zA-Z0-9~-][\w.~-]*/)?[a-zA-Z0-9~-][\w.~-]*)@([0-9][0-9A-Za-z.+-]*)"
)
METADATA = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8"
STRENGTHS = ("sha512", "sha384", "sha256", "sha1")
ADVICE = "check the name, the version, and npm's registry and token settings in .npmrc"


def fetch(url: str, targets: Mapping[str, Path], *, progress: Progress, policy: Policy) -> None:
    """Download and unpack the package; see `retinue.models.sources.base.SourcePlugin`."""
    match = REFERENCE.fullmatch(url)
    if match is None:
        raise FetchError(f"{url!r} is not of the form npm:NAME@VERSION with an exact version")
    name, version = match.groups()
    config = NpmConfig.load()
    registry = config.registry(name)
    context = ssl_context(config.authorities, verify=config.strict_ssl)
    folder = next(iter(targets.values())).parent
    with (
        tempfile.TemporaryDirectory(prefix="npm-", dir=folder) as scratch,
        open_client(
            policy,
            plain_hosts=plain_hosts(registry),
            context=context,
            proxies=config.proxies,
        ) as client,
    ):
        dist = _dist(client, config, registry, name, version, policy)
        archive = Path(scratch) / f"{name.rpartition('/')[2]}-{version}.tgz"
        tarball = _tarball(dist, registry, name)
        algorithm, expected = _integrity(dist, name)
        found = download(
            client,
            tarball,
            archive,
            label=f"{name} {version}",
            progress=progress,
            policy=policy,
            headers=config.authorization(tarball),
            advice=ADVICE,
            algorithm=algorithm,
        )
        if found not in expected:
            raise ChecksumMismatch(
                f"{show(tarball)} does not match the {algorithm} that the registry states for "
                f"{name} {version}; it was not used. Try again, or report it to the registry"
            )
        from_npm_tarball(archive, targets, policy)


def _dist(
    client: httpx.Client,
    config: NpmConfig,
    registry: httpx.URL,
    name: str,
    version: str,
    policy: Policy,
) -> Mapping[str, Any]:
    """Return the ``dist`` part of a version's metadata."""
    url = httpx.URL(f"{registry}{quote(name, safe='@')}")
    headers = {"Accept": METADATA, **config.authorization(url)}
    body = get_bytes(client, url, policy=policy, headers=headers, advice=ADVICE)
    try:
        versions = json.loads(body)["versions"]
        dist = versions[version]["dist"] if version in versions else None
        if dist is not None:
            str(dist["tarball"])
            return dict(dist)
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{show(url)} did not answer as an npm registry does") from error
    raise FetchError(f"{show(url)} has no version {version} of {name}; check the model's card")


def _tarball(dist: Mapping[str, Any], registry: httpx.URL, name: str) -> httpx.URL:
    """Return where the package itself is.

    A tarball named at the public registry is asked of the configured one (npm's
    ``replace-registry-host``), and one named over http on the registry's own host over https.
    """
    text = str(dist["tarball"])
    public = httpx.URL(DEFAULT_REGISTRY).host
    try:
        url = httpx.URL(text)
        if url.host == public and registry.host != public:
            path = url.raw_path.decode("ascii").lstrip("/")
            url = httpx.URL(f"{registry}{path}")
        elif url.scheme == "http" and url.host == registry.host and registry.scheme == "https":
            url = registry.copy_with(raw_path=url.raw_path)
    except httpx.InvalidURL as error:
        raise FetchError(f"the registry names no usable tarball for {name}: {text!r}") from error
    same_plain = registry.scheme == "http" and url.host == registry.host
    if url.scheme != "https" and not (url.scheme == "http" and same_plain):
        raise FetchError(f"the tarball of {name} is at {show(url)}, which is not https")
    return url


def _integrity(dist: Mapping[str, Any], name: str) -> tuple[str, list[bytes]]:
    """Return the strongest stated algorithm and its digests, any of which will do."""
    stated: dict[str, list[bytes]] = {}
    try:
        for token in str(dist.get("integrity") or "").split():
            algorithm, _, digest = token.partition("?")[0].partition("-")
            stated.setdefault(algorithm, []).append(base64.b64decode(digest, validate=True))
        if dist.get("shasum"):
            stated.setdefault("sha1", []).append(bytes.fromhex(str(dist["shasum"])))
    except ValueError as error:
        raise FetchError(f"the registry states a malformed integrity for {name}") from error
    for algorithm in STRENGTHS:
        if stated.get(algorithm):
            return algorithm, stated[algorithm]
    raise FetchError(f"the registry states no integrity for {name}; it cannot be checked")


SOURCE = fetch
