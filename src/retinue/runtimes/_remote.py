"""A kept connection to a remote Open Inference server, over HTTP/1.1.

The standard library's client, since a run is one request of a few large buffers: for 2 MB each way
it takes a quarter of the processor time of a full HTTP library.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import orjson

from retinue.core.errors import ConfigError, Unavailable

API_KEY: Final = "RETINUE_TRITON_API_KEY"
CONNECT_S: Final = 5.0
TIMEOUT_S: Final = 60.0
MAX_TIMEOUT_S: Final = 3600.0
MAX_ANSWER: Final = 1 << 30

_EXAMPLE: Final = 'execution.device = "http://HOST:8000", or "http://HOST:8000/MODEL/VERSION"'


@dataclass(frozen=True, slots=True)
class Address:
    """Where a model is served.

    Attributes:
        host: Name or address of the machine.
        port: TCP port.
        secure: Whether over TLS.
        model: The model's name there.
        version: Its version there, "" for whichever it chooses.
        timeout_s: Seconds that one request may take.
    """

    host: str
    port: int
    secure: bool
    model: str
    version: str
    timeout_s: float

    @property
    def server(self) -> str:
        """The server's URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    @property
    def path(self) -> str:
        """The path of the model's metadata."""
        version = f"/versions/{quote(self.version, safe='')}" if self.version else ""
        return f"/v2/models/{quote(self.model, safe='')}{version}"


def parse(url: str, name: str) -> Address:
    """Read ``http[s]://HOST[:PORT][/MODEL[/VERSION]][?timeout_s=SECONDS]``.

    ``triton://`` is http at Triton's own port, 8000.

    Args:
        url: The address.
        name: The model's name where the address has none.

    Raises:
        ConfigError: it is no such address.
    """
    if not url:
        raise ConfigError(f"the triton runtime needs the server's address; set {_EXAMPLE}")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        timeout_s = float(query.pop("timeout_s", TIMEOUT_S))
    except ValueError as error:
        raise ConfigError(f"execution.device is no address ({error}); set {_EXAMPLE}") from error
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"put no secret into execution.device; set the variable {API_KEY} to it")
    if parts.scheme == "grpc":
        raise ConfigError("the triton runtime speaks HTTP; give the server's HTTP port, not gRPC's")
    ports = {"http": 80, "https": 443, "triton": 8000}
    model, *versions = [unquote(part) for part in parts.path.strip("/").split("/")]
    model = model or name
    if parts.scheme not in ports or not host or not model or len(versions) > 1 or query:
        raise ConfigError(f"execution.device {url!r} is no address of a model; set {_EXAMPLE}")
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise ConfigError(f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S:.0f} seconds")
    return Address(
        host=host,
        port=port or ports[parts.scheme],
        secure=parts.scheme == "https",
        model=model,
        version="".join(versions),
        timeout_s=timeout_s,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered.

    Attributes:
        status: The HTTP status.
        head_size: Bytes of the JSON object that binary tensors follow, None without any.
        body: The whole body.
    """

    status: int
    head_size: int | None
    body: bytearray

    @property
    def error(self) -> str:
        """The server's own message, on one line."""
        try:
            said = orjson.loads(self.body)["error"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            said = bytes(self.body[:200]).decode("utf-8", "replace")
        line = re.sub(r"\s+", " ", str(said)).strip()[:500]
        return f"{line} (HTTP {self.status})" if line else f"HTTP {self.status}"


class Connection:
    """One connection, kept between requests; used by one thread at a time."""

    def __init__(self, address: Address) -> None:
        """Connect with the first request; a key is read from the environment now."""
        self._address = address
        key = os.environ.get(API_KEY, "")
        if not all("!" <= character <= "~" for character in key):
            raise ConfigError(f"the variable {API_KEY} holds characters that no key has")
        self._key = {"Authorization": f"Bearer {key}"} if key else {}
        host, port = address.host, address.port
        self._http = (
            http.client.HTTPSConnection(
                host, port, timeout=CONNECT_S, context=ssl.create_default_context()
            )
            if address.secure
            else http.client.HTTPConnection(host, port, timeout=CONNECT_S)
        )

    def ask(
        self,
        method: str,
        path: str,
        body: Sequence[bytes | memoryview] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and read its answer whole.

        A kept connection that turns out to be closed is opened anew, once: servers close those
        that were idle, and to run a batch twice does no harm.

        Args:
            method: "GET" or "POST".
            path: The path, quoted.
            body: Buffers of bytes that are sent one after the other.
            headers: Further headers.

        Raises:
            Unavailable: the server cannot be reached, or did not answer whole and in time.
        """
        fields = {**self._key, **(headers or {})}
        if body:
            fields["Content-Length"] = str(sum(len(part) for part in body))
        kept = self._http.sock is not None
        try:
            try:
                return self._once(method, path, body, fields)
            except ConnectionError:
                if not kept:
                    raise
                self._http.close()
                return self._once(method, path, body, fields)
        except TimeoutError as error:
            self._http.close()
            raise Unavailable(
                f"{self._address.server} did not answer within "
                f"{self._address.timeout_s:g} s; try again, or allow more with ?timeout_s="
            ) from error
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            self._http.close()
            raise Unavailable(
                f"cannot reach {self._address.server}: {_reason(error)}; is it up, and the address "
                "right?"
            ) from error

    def _once(
        self,
        method: str,
        path: str,
        body: Sequence[bytes | memoryview],
        headers: Mapping[str, str],
    ) -> Answer:
        connection = self._http
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(self._address.timeout_s)
        end = time.monotonic() + self._address.timeout_s
        connection.request(method, path, body=body or None, headers=dict(headers))
        response = connection.getresponse()
        content = _read(response, end)
        size = response.headers.get("Inference-Header-Content-Length", "")
        return Answer(response.status, int(size) if size.isdecimal() else None, content)

    def close(self) -> None:
        """Close the connection. May be called twice."""
        self._http.close()


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
        return "what answers there does not speak HTTP (gRPC has a port of its own)"
    return str(error) or type(error).__name__


def _read(response: http.client.HTTPResponse, end: float) -> bytearray:
    """Read a body whole, into one buffer where its size is announced."""
    size = response.length
    if size is not None and size > MAX_ANSWER:
        raise http.client.HTTPException(f"it answers with {size} bytes, over {MAX_ANSWER}")
    body = bytearray(size or 0)
    filled = 0
    while not response.isclosed():
        if time.monotonic() > end:
            raise TimeoutError
        if size is None:
            body += response.read1(1 << 20)
            if len(body) > MAX_ANSWER:
                raise http.client.HTTPException(f"it answers with over {MAX_ANSWER} bytes")
            continue
        got = response.readinto(memoryview(body)[filled:])
        filled += got
        if not got and filled < size:
            raise http.client.IncompleteRead(b"", size - filled)
    return body
