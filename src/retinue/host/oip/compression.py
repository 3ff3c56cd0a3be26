"""Compressed bodies of requests and answers: gzip, and deflate in zlib's format (RFC 9110)."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

from starlette.types import Receive

from retinue.core.errors import InvalidRequest, TooManyBytes, UnsupportedMedia
from retinue.core.settings import Server
from retinue.host.upload import read_body

CODINGS: Mapping[bytes, int] = {
    b"gzip": 16 + zlib.MAX_WBITS,
    b"x-gzip": 16 + zlib.MAX_WBITS,
    b"deflate": zlib.MAX_WBITS,
}
"""Content codings, and what zlib calls them."""

LEVEL = 1
# Bytes from which on a thread compresses; zlib lets the others run meanwhile.
_BIG = 32_768


async def read_decoded(receive: Receive, headers: Mapping[bytes, bytes], server: Server) -> bytes:
    """Read a request's whole body, and undo its content coding.

    Raises:
        TooManyBytes: more than ``server.max_body_bytes``, as sent or decompressed.
        InvalidRequest: it is not of the coding that it says, or is cut short.
        UnsupportedMedia: another coding than gzip or deflate.
        RetinueError: as `retinue.host.upload.read_body`.
    """
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    if coding not in CODINGS and coding != b"identity":
        known = ", ".join(name.decode() for name in CODINGS)
        shown = coding[:40].decode("latin-1")
        raise UnsupportedMedia(f"content-encoding {shown!r} is not read here; known: {known}")
    plain = {name: value for name, value in headers.items() if name != b"content-encoding"}
    limit = server.max_body_bytes
    body = await read_body(receive, plain, limit=limit, timeout_s=server.body_timeout_s)
    if coding == b"identity":
        return body
    # Always in a thread: 32 kB may become 32 MB.
    return await asyncio.to_thread(decompress, body, coding, limit)


def decompress(body: bytes, coding: bytes, limit: int) -> bytes:
    """Undo a content coding; no more than the limit and a byte is ever held.

    Raises:
        TooManyBytes: it would be more than ``limit`` bytes.
        InvalidRequest: the body is not of this coding, is cut short, or goes on after its end.
    """
    shown = coding.decode("latin-1")
    reader = zlib.decompressobj(CODINGS[coding])
    try:
        plain = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(
            f"the body is not {shown}, as content-encoding says: {error}"
        ) from error
    if len(plain) > limit:
        raise TooManyBytes(
            f"the body is larger than {limit} bytes when decompressed; send a smaller one, or "
            "raise server.max_body_bytes in the settings"
        )
    if not reader.eof or reader.unused_data:
        raise InvalidRequest(f"the {shown} body is cut short, or goes on after its end")
    return plain


def wanted_coding(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the coding that the client asks for, None for a plain answer.

    One coding alone in Accept-Encoding is taken as a wish. A list is not: most clients send one
    with every request, and compressing tensors costs more than sending them nearby.
    """
    wish = headers.get(b"accept-encoding", b"").strip().lower()
    return wish if wish in CODINGS else None


async def compress(body: bytes, coding: bytes) -> bytes:
    """Return the body in a coding."""
    if len(body) < _BIG:
        return _compress(body, coding)
    return await asyncio.to_thread(_compress, body, coding)


def _compress(body: bytes, coding: bytes) -> bytes:
    return zlib.compress(body, LEVEL, CODINGS[coding])
