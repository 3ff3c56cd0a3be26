"""Pictures behind http(s) URLs that somebody else wrote down.

A URL may be an attempt to reach what only this machine reaches. So the name is resolved here, every
address of it is checked, and the connection goes to a checked address: the name is not looked up
again, and each redirect passes the same check. Connections are direct: a proxy would look the
name up itself.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
import typing
import weakref
from collections.abc import Iterable
from functools import cached_property, partial

import httpcore
import httpx

from retinue import __version__
from retinue.apps.search.sources.base import Found, Refused, check_size, too_long
from retinue.core.errors import (
    EmptyInput,
    FetchError,
    InputError,
    InputNotFound,
    InvalidRequest,
    RetinueError,
    UnsupportedMedia,
)
from retinue.core.settings import Limits
from retinue.media.sniff import HEAD, READ, sniff
from retinue.models.sources.transfer import show, ssl_context

MAX_REDIRECTS = 5
TRIES = 3
CONNECT_S = 10.0
TOTAL_S = 60.0
"""Seconds that a picture may take in all, however slowly its bytes drip."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_PAUSE_S = 10.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_FAILURES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


class _Transient(Exception):
    """An answer that may be different the next time."""

    def __init__(self, error: RetinueError, pause_s: float) -> None:
        super().__init__(error.message)
        self.error, self.pause_s = error, pause_s


class _Clock(threading.local):
    """When the picture that this thread is reading must be there."""

    until = 0.0

    def left(self, timeout: float | None) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"it took more than {TOTAL_S:.0f} s")
        return left if timeout is None else min(left, timeout)


def is_public(address: str) -> bool:
    """Whether an IP address, and the IPv4 address that it may carry, is one of the internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    carried: list[ipaddress.IPv4Address | None] = []
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        carried = [ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            carried.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if ip.is_site_local:
            return False
    unusual = ip.is_multicast or ip.is_reserved or ip.is_unspecified
    local = ip.is_private or ip.is_loopback or ip.is_link_local
    if (unusual and ip not in _NAT64) or local or not ip.is_global:
        return False
    return all(is_public(str(inner)) for inner in carried if inner is not None)


class _Backend(httpcore.NetworkBackend):
    """Connects to checked addresses only, and within the picture's time."""

    def __init__(self, clock: _Clock, allow_private: bool) -> None:
        self._clock, self._allow_private = clock, allow_private
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[typing.Any] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception | None = None
        for address in self._addresses(host, port)[:4]:
            left = self._clock.left(timeout)
            try:
                stream = self._inner.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._clock)
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be looked up: {error.strerror}") from error
        except UnicodeError as error:
            raise InvalidRequest(f"{host!r:.100} is no host name") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self._allow_private and not is_public(address):
                message = f"host {host} has the address {address}, which is not on the internet"
                raise InvalidRequest(f"{message}; allow private addresses if you trust the source")
        return addresses


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, clock: _Clock) -> None:
        self._inner, self._clock = inner, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._clock.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._clock.left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: typing.Any,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = self._clock.left(timeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._clock)

    def get_extra_info(self, info: str) -> typing.Any:
        return self._inner.get_extra_info(info)


def parse(url: str) -> httpx.URL:
    """Parse an http(s) URL; its fragment is dropped.

    Raises:
        InvalidRequest: it is not one, or holds a password.
    """
    try:
        parsed = httpx.URL(url).copy_with(fragment=None)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidRequest(f"{url[:200]!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidRequest(f"{url[:200]!r} is no http(s) URL")
    if parsed.userinfo:
        message = f"{show(parsed)}: the URL holds a user or password, which would be kept"
        raise InvalidRequest(f"{message} with the item; fetch the pictures to a folder first")
    return parsed


class Web:
    """Reads pictures over HTTP; any thread may.

    Args:
        limits: Bytes that a picture may have.
        allow_private: Whether addresses that are not on the internet may be reached.
    """

    def __init__(self, limits: Limits, *, allow_private: bool) -> None:
        self._limits, self._allow_private = limits, allow_private
        self._clock = _Clock()
        self._lock = threading.Lock()

    @cached_property
    def _made(self) -> httpcore.ConnectionPool:
        pool = httpcore.ConnectionPool(
            ssl_context=ssl_context(),
            max_connections=64,
            max_keepalive_connections=32,
            keepalive_expiry=15.0,
            network_backend=_Backend(self._clock, self._allow_private),
        )
        # Readers outlive the listing, and nobody says when the last one is gone.
        weakref.finalize(self, pool.close)
        return pool

    @property
    def _pool(self) -> httpcore.ConnectionPool:
        with self._lock:
            return self._made

    def offer(self, url: str, *, source: str, item_id: str = "") -> Found | Refused:
        """Offer the picture behind a URL; nothing is fetched yet."""
        try:
            parsed = parse(url)
        except RetinueError as error:
            return Refused(source, url[:200], error, item_id)
        shown = str(parsed)
        return Found(source, item_id or shown, shown, -1, 0, "", partial(self.read, parsed))

    def read(self, url: httpx.URL) -> bytes:
        """Return the picture behind a URL.

        Raises:
            InvalidRequest: an address that is not on the internet.
            InputNotFound: the server says 404 or 410.
            TooManyBytes: more bytes than the limit.
            UnsupportedMedia: the answer is not a picture of a type that is read.
            FetchError: the transfer failed, also after retries.
        """
        self._clock.until = time.monotonic() + TOTAL_S
        for number in range(1, TRIES + 1):
            try:
                return self._follow(url)
            except _Transient as error:
                failure, pause = error.error, max(error.pause_s, 0.5 * 2 ** (number - 1))
            except _FAILURES as error:
                failure = FetchError(f"cannot fetch {show(url)}: {error or type(error).__name__}")
                pause = 0.5 * 2 ** (number - 1)
            if number == TRIES or time.monotonic() + pause > self._clock.until:
                break
            time.sleep(pause)
        raise failure

    def _follow(self, url: httpx.URL) -> bytes:
        at = url
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._get(at)
            if isinstance(answer, bytes):
                return answer
            try:
                onward = parse(str(at.join(answer)))
            except httpx.InvalidURL as error:
                raise InvalidRequest(f"{show(at)} redirects to {answer[:200]!r}") from error
            if at.scheme == "https" and onward.scheme != "https":
                raise InvalidRequest(f"{show(at)} redirects from https to plain {show(onward)}")
            at = onward
        raise FetchError(f"{show(url)} redirects more than {MAX_REDIRECTS} times")

    def _get(self, url: httpx.URL) -> bytes | str:
        """Return the body, or where it is said to be."""
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        headers: dict[bytes | str, bytes | str] = {
            "Accept": "image/jpeg, image/png, image/webp, image/*;q=0.5",
            "Accept-Encoding": "identity",
            "User-Agent": f"retinue/{__version__}",
        }
        timeout = {"connect": CONNECT_S, "read": TOTAL_S, "write": TOTAL_S, "pool": TOTAL_S}
        with self._pool.stream(
            "GET", target, headers=headers, extensions={"timeout": timeout}
        ) as response:
            answer = httpx.Headers(response.headers)
            if response.status in _REDIRECTS and "Location" in answer:
                return answer["Location"]
            _check_status(response.status, answer, show(url))
            return self._body(response, answer, show(url))

    def _body(self, response: httpcore.Response, headers: httpx.Headers, shown: str) -> bytes:
        if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise UnsupportedMedia(f"{shown}: the server compressed the picture, unasked")
        length = headers.get("Content-Length", "")
        check_size(int(length) if length.isdigit() else 0, shown, self._limits)
        data = bytearray()
        looked = False
        for chunk in response.iter_stream():
            data += chunk
            if len(data) > self._limits.max_bytes:
                raise too_long(shown, self._limits)
            if not looked and len(data) >= HEAD:
                looked = _check_type(data, shown)
        _check_type(data, shown)
        return bytes(data)


def _check_type(data: bytearray, shown: str) -> bool:
    if not data:
        raise EmptyInput(f"{shown}: the server sent zero bytes")
    content = sniff(bytes(data[:HEAD]))
    if content.kind != "image":
        raise UnsupportedMedia(f"{shown}: this looks like {content.name}; {READ}")
    return True


def _check_status(status: int, headers: httpx.Headers, shown: str) -> None:
    if status == httpx.codes.OK:
        return
    message = f"{shown}: the server answered {status}"
    if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        raise InputNotFound(f"{message}: there is no such picture")
    if status in _TRANSIENT:
        after = headers.get("Retry-After", "")
        pause = min(float(after), _MAX_PAUSE_S) if after.isdigit() and len(after) < 9 else 0.0
        raise _Transient(FetchError(f"{message}; try again later"), pause)
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise InputError(f"{message}: the picture is not public")
    raise FetchError(message)
