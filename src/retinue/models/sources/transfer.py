"""HTTPS transfers: streamed to disk, bounded, retried, never redirected to plain HTTP."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from retinue import __version__
from retinue.core.errors import ConfigError, FetchError
from retinue.models.sources.base import Policy, Progress

CHUNK = 1 << 18
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_RETRY_AFTER_S = 20.0
MAX_REDIRECTS = 8
# A proxy cannot reach this machine's own loopback addresses.
DIRECT = ("all://localhost", "all://127.0.0.1", "all://[::1]")

T = TypeVar("T")


class _Transient(Exception):
    """An answer that may be different the next time."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_url(url: str) -> httpx.URL:
    """Parse an absolute http(s) URL.

    Raises:
        FetchError: it is not one, or it is plain HTTP to another machine.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise FetchError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise FetchError(f"{url!r} is not an https:// URL")
    if parsed.scheme == "http" and not is_loopback(parsed.host):
        raise FetchError(f"{show(parsed)} is plain http; only https is fetched from other machines")
    return parsed


def show(url: httpx.URL) -> str:
    """Return a URL for messages: without user, password, query and fragment."""
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{url.host}{port}{url.path}"


def ssl_context(extra: Path | None = None, *, verify: bool = True) -> ssl.SSLContext:
    """Return a context that trusts the usual authorities and those that the user named.

    The usual ones are certifi's and the system's, among which a company's proxy often has its own.
    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` replace them; ``REQUESTS_CA_BUNDLE`` and ``extra`` are
    added.

    Raises:
        ConfigError: a file of authorities cannot be read.
    """
    context = httpx.create_ssl_context()
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        context.load_default_certs()
    bundle = os.environ.get("REQUESTS_CA_BUNDLE")
    for file in (Path(bundle) if bundle else None, extra):
        if file is not None:
            try:
                if file.is_dir():
                    context.load_verify_locations(capath=file)
                else:
                    context.load_verify_locations(cafile=file)
            except OSError as error:
                raise ConfigError(f"cannot read the certificates in {file}: {error}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def open_client(
    policy: Policy,
    *,
    plain_hosts: frozenset[str] = frozenset(),
    context: ssl.SSLContext | None = None,
    proxies: Mapping[str, str | None] | None = None,
) -> Iterator[httpx.Client]:
    """Open a client that follows redirects, but to https only.

    Args:
        policy: Bounds.
        plain_hosts: Hosts that may be spoken to over plain HTTP.
        context: How servers' certificates are checked.
        proxies: URL pattern as httpx has them to a proxy's URL, or None for no proxy; on top of
            the proxy variables of the environment.
    """
    context = context or ssl_context()

    def refuse_plain(request: httpx.Request) -> None:
        url = request.url
        if url.scheme != "https" and url.host not in plain_hosts:
            raise FetchError(f"refused to go on to {show(url)}: it is not https")

    mounts: dict[str, httpx.BaseTransport | None] = dict.fromkeys(DIRECT)
    for pattern, proxy in (proxies or {}).items():
        made = httpx.HTTPTransport(verify=context, proxy=proxy) if proxy else None
        mounts[pattern] = made
    with httpx.Client(
        verify=context,
        mounts=mounts,
        timeout=policy.timeout_s,
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        event_hooks={"request": [refuse_plain]},
        headers={"User-Agent": f"retinue/{__version__}"},
    ) as client:
        yield client


def plain_hosts(*urls: httpx.URL) -> frozenset[str]:
    """Return the hosts of those of the URLs that are plain HTTP."""
    return frozenset(url.host for url in urls if url.scheme == "http")


def get_bytes(
    client: httpx.Client,
    url: httpx.URL,
    *,
    policy: Policy,
    headers: Mapping[str, str] | None = None,
    advice: str = "",
    max_bytes: int = 64 * 2**20,
) -> bytes:
    """Return a small answer's body.

    Raises:
        FetchError: the transfer failed, or the body is larger than ``max_bytes``.
    """

    def attempt() -> bytes:
        with client.stream("GET", url, headers=dict(headers or {})) as response:
            _check_status(response, advice)
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > max_bytes:
                    raise FetchError(f"{show(url)}: the answer is larger than {max_bytes} bytes")
            return bytes(body)

    return _retrying(attempt, url, policy)


def download(
    client: httpx.Client,
    url: httpx.URL,
    target: Path,
    *,
    label: str,
    progress: Progress,
    policy: Policy,
    headers: Mapping[str, str] | None = None,
    advice: str = "",
    algorithm: str = "sha256",
) -> bytes:
    """Stream a file to disk.

    Args:
        client: From `open_client`.
        url: What to get.
        target: Where to write it; begun anew on each attempt.
        label: What the progress is called.
        progress: Hears of the transfer.
        policy: Bounds.
        headers: Further request headers. A credential is dropped on a redirect to another host.
        advice: What to do when the server says 401, 403 or 404.
        algorithm: Hash of the body to compute, by its ``hashlib`` name.

    Returns:
        The body's digest.

    Raises:
        FetchError: the transfer failed, also after retries, or the file is too large.
        OSError: the target cannot be written.
    """

    def attempt() -> bytes:
        # Identity, since the digests are of the file as stored.
        asked = {"Accept-Encoding": "identity", **(headers or {})}
        with client.stream("GET", url, headers=asked) as response:
            _check_status(response, advice)
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            _check_size(total or 0, url, policy)
            digest = hashlib.new(algorithm, usedforsecurity=False)
            progress.start(label, total)
            done = 0
            with target.open("wb") as out:
                for chunk in response.iter_raw(CHUNK):
                    done += len(chunk)
                    _check_size(done, url, policy)
                    out.write(chunk)
                    digest.update(chunk)
                    progress.advance(len(chunk))
            progress.finish()
            return digest.digest()

    return _retrying(attempt, url, policy)


def _check_size(size: int, url: httpx.URL, policy: Policy) -> None:
    if size > policy.max_bytes:
        raise FetchError(f"{show(url)} is larger than the limit of {policy.max_bytes} bytes")


def _check_status(response: httpx.Response, advice: str) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        return
    message = f"{show(response.url)} answered {status} {response.reason_phrase}"
    if status in TRANSIENT_STATUSES:
        after = response.headers.get("Retry-After", "")
        raise _Transient(message, min(float(after), MAX_RETRY_AFTER_S) if after.isdigit() else 0.0)
    if status in (401, 403, 404) and advice:
        message += f"; {advice}"
    raise FetchError(message)


def _retrying(attempt: Callable[[], T], url: httpx.URL, policy: Policy) -> T:
    for number in range(1, policy.tries + 1):
        pause = policy.backoff_s * 2 ** (number - 1)
        try:
            return attempt()
        except (_Transient, httpx.TransportError) as error:
            reason = str(error) or type(error).__name__
            if number == policy.tries:
                message = f"cannot fetch {show(url)} after {number} tries: {reason}"
                raise FetchError(message) from error
            if isinstance(error, _Transient):
                pause = max(pause, error.pause_s)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FetchError(f"cannot fetch {show(url)}: {error}") from error
        time.sleep(pause)
    raise FetchError(f"cannot fetch {show(url)}: the policy allows no try")
