"""Who may call: API keys, the Host header and the page that a browser's request came from.

Everything here is a pure function of settings and headers; `retinue.host.edge` applies it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from retinue.core.errors import AccessError, ConfigError, Unauthenticated
from retinue.core.settings import Server

KEY_PREFIX = "rtn_"
DIGEST_PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


def new_key() -> str:
    """Return a new API key: 256 random bits in URL-safe base64 after ``rtn_``."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """Return what the settings keep of a key: "sha256:" and 64 hex digits.

    One round of SHA-256 is the right hash here, and a password hash is not: a key is 256 random
    bits, so nobody can try them all however fast the hash is, there is no second user of the same
    key for a salt to tell apart, and a slow hash would be paid on every request.
    """
    return DIGEST_PREFIX + hashlib.sha256(key.encode()).hexdigest()


def verify(key: str, digests: Iterable[str]) -> bool:
    """Return whether a key is one of those that the digests stand for, in constant time."""
    mine = digest(key)
    found = False
    for known in digests:
        found |= hmac.compare_digest(mine, known)
    return found


def is_loopback(host: str) -> bool:
    """Return whether an address or name can only be reached from this machine."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def check_settings(server: Server) -> None:
    """Refuse settings that would open the server to others by mistake.

    Raises:
        ConfigError: an address that others can reach has neither API keys nor ``insecure``, or
            ``api_keys`` holds something that is not a digest.
    """
    for known in server.api_keys:
        if not _DIGEST.fullmatch(known):
            raise ConfigError(
                "server.api_keys holds something that is not a digest; run `retinue keys new` and "
                "put the digest that it prints (sha256:...) into the settings, never the key"
            )
    if not (is_loopback(server.host) or server.api_keys or server.insecure):
        raise ConfigError(
            f"server.host {server.host!r} can be reached by others and server.api_keys is empty: "
            "make a key with `retinue keys new` and put its digest into the settings, or give "
            "--insecure to serve everybody who can reach this machine"
        )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def split_host(value: str) -> tuple[str, int | None]:
    """Split a Host header into a lower-case name, without brackets, and the port, if it has one.

    Raises:
        ValueError: it is not of the form name, name:port, [ipv6] or [ipv6]:port.
    """
    if not value or re.search(r"[\s/@?#\\]", value):
        raise ValueError(value)
    parts = urlsplit(f"//{value}")
    if not parts.hostname:
        raise ValueError(value)
    return parts.hostname.rstrip("."), parts.port


@dataclass(frozen=True, slots=True)
class Caller:
    """The headers of a request that say who calls; "" where one is missing.

    Attributes:
        hosts: All Host headers; HTTP/1.1 asks for exactly one.
        origin: The Origin header.
        site: The Sec-Fetch-Site header.
        authorization: The Authorization header.
        api_key: The X-API-Key header.
    """

    hosts: tuple[str, ...] = ()
    origin: str = ""
    site: str = ""
    authorization: str = ""
    api_key: str = ""


def _key(caller: Caller) -> str:
    scheme, _, token = caller.authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else caller.api_key


class Policy:
    """The access rules that follow from the server's settings."""

    def __init__(self, server: Server) -> None:
        """Read the rules; `check_settings` must have accepted the settings."""
        self._digests = server.api_keys
        self._origins = frozenset(origin.rstrip("/").lower() for origin in server.allowed_origins)
        self._names = frozenset(name.lower() for name in (*server.allowed_hosts, server.host))
        self._any_name = "*" in server.allowed_hosts
        self._any_address = not is_loopback(server.host)

    @property
    def needs_key(self) -> bool:
        """Whether callers must present an API key."""
        return bool(self._digests)

    def check_host(self, caller: Caller) -> None:
        """Refuse a Host header that no honest client of this server would send.

        A page of another site can point its own name at this address (DNS rebinding) and would
        then count as same-origin here; its Host header still carries that name. Addresses cannot
        be rebound, so where the server is open to others any address is fine.

        Raises:
            AccessError: the name is not one of the server's.
        """
        if self._any_name:
            return
        if len(caller.hosts) != 1:
            raise AccessError("the request must have exactly one Host header")
        try:
            name, _ = split_host(caller.hosts[0])
        except ValueError:
            raise AccessError("the Host header is malformed") from None
        if name in self._names or is_loopback(name):
            return
        if self._any_address and _address(name) is not None:
            return
        raise AccessError(
            f"this server does not go by the name {name[:100]!r}; to let it, add the name to "
            "server.allowed_hosts in the settings"
        )

    def check_origin(self, caller: Caller) -> None:
        """Refuse a browser's request that another site's page made.

        The order of the checks is that of Go's ``net/http.CrossOriginProtection``: what the
        browser says of the site (Fetch Metadata), else the Origin against the Host. Clients that
        are not browsers send neither.

        Raises:
            AccessError: it came from another origin that ``server.allowed_origins`` does not name.
        """
        if caller.site in ("same-origin", "none"):
            return
        if not caller.site and not caller.origin:
            return
        origin = caller.origin.rstrip("/").lower()
        if origin and origin in self._origins:
            return
        if not caller.site and caller.hosts and self._same_host(origin, caller.hosts[0]):
            return
        raise AccessError(
            f"refused: a page of another site ({origin[:100] or caller.site[:20]}) made this "
            "request; to let it, add the origin to server.allowed_origins in the settings"
        )

    @staticmethod
    def _same_host(origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
            name, port = split_host(host)
            if parts.scheme not in ("http", "https") or parts.hostname != name:
                return False
            default = 443 if parts.scheme == "https" else 80
            return (parts.port or default) == (port or default)
        except ValueError:
            return False

    def check_key(self, caller: Caller) -> None:
        """Refuse a caller without a known API key, where keys are set.

        Raises:
            Unauthenticated: no key, or an unknown one.
        """
        if not self._digests:
            return
        key = _key(caller)
        if not key:
            raise Unauthenticated(
                "an API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
        if not verify(key, self._digests):
            raise Unauthenticated("this API key is not known here; ask who runs the server for one")

    def client_id(self, caller: Caller, address: str) -> str:
        """Return who calls, for the fair sharing of models: the same over HTTP and gRPC.

        A key counts only where keys are checked: else a caller could be a new client each time.

        Args:
            caller: Whom `check_key` accepted.
            address: The connection's other end, without its port.

        Returns:
            "key:" and the first 12 hex digits of the key's digest, else the address.
        """
        if not self._digests:
            return address.removeprefix("::ffff:")  # of a socket that takes IPv4 and IPv6
        start = len(DIGEST_PREFIX)
        return f"key:{digest(_key(caller))[start : start + 12]}"
