"""Reading a request's body: bounded in bytes and in time, raw or multipart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from retinue.core.errors import (
    ClientClosed,
    InvalidRequest,
    RequestTimeout,
    TooManyBytes,
    UnsupportedMedia,
)

T = TypeVar("T")

# What is wrong with a form is said to the client that sent it, not to the server's log.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

MAX_PARTS = 32
MAX_FILENAME = 255
MAX_FIELD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file.

    Attributes:
        body: Its bytes.
        filename: The last part of the name that the client gave it, "" if none.
    """

    body: bytes
    filename: str = ""


def _too_many(limit: int) -> TooManyBytes:
    return TooManyBytes(
        f"the body is larger than {limit} bytes; send a smaller one, or raise "
        "server.max_body_bytes in the settings"
    )


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], *, limit: int, timeout_s: float
) -> bytes:
    """Read a request's whole body.

    Args:
        receive: The ASGI channel.
        headers: Lower-case names to values.
        limit: Most bytes that are accepted; refused by Content-Length before anything is read,
            and counted again while reading, for a chunked body announces no length.
        timeout_s: Most seconds that the whole body may take.

    Raises:
        TooManyBytes: more than the limit.
        RequestTimeout: the client was too slow.
        ClientClosed: the client went away.
        UnsupportedMedia: the body is compressed.
    """
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding != b"identity":
        raise UnsupportedMedia(
            f"content-encoding {encoding[:40].decode('latin-1')!r} is not read here; send the "
            "body as it is"
        )
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length[:20]) > limit:
        raise _too_many(limit)
    chunks: list[bytes] = []
    total = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientClosed("the client went away before its request was complete")
                chunk = message.get("body", b"")
                if chunk:
                    total += len(chunk)
                    if total > limit:
                        raise _too_many(limit)
                    chunks.append(chunk)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise RequestTimeout(
            f"the body did not arrive within {timeout_s:g} s; send it faster, or raise "
            "server.body_timeout_s in the settings"
        ) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def safe_filename(name: str) -> str:
    """Return the last part of a client's file name, printable and at most 255 characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[:MAX_FILENAME]


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart body.

    Attributes:
        file: Its first file, or None.
        files: How many files it has.
        fields: Its parts that are no files, by name, where they are wanted.
    """

    file: Upload | None
    files: int
    fields: Mapping[str, str]


class _Parts:
    """Collects the first file and the fields of a multipart body from the parser's callbacks."""

    def __init__(self, *, fields: bool) -> None:
        self._wants_fields = fields
        self.file: Upload | None = None
        self.files = 0
        self.fields: dict[str, str] = {}
        self._parts = 0
        self._field = ""
        self._name = b""
        self._value = b""
        self._disposition = b""
        self._filename: str | None = None
        self._chunks: list[bytes] = []
        self._size = 0

    def part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"the multipart body has more than {MAX_PARTS} parts")
        self._disposition, self._filename, self._field = b"", None, ""
        self._chunks, self._size = [], 0

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def headers_finished(self) -> None:
        self._field, self._filename = _disposition(self._disposition)
        self.files += self._filename is not None

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self._filename is None and self._wants_fields:
            self._size += end - start
            if self._size > MAX_FIELD:
                raise self._wrong(f"has more than {MAX_FIELD:,} bytes")
            self._chunks.append(data[start:end])
        elif self._filename is not None and self.file is None:
            self._chunks.append(data[start:end])

    def part_end(self) -> None:
        body = b"".join(self._chunks)
        if self._filename is None and self._wants_fields:
            if self._field in self.fields:
                raise self._wrong("is given twice")
            try:
                self.fields[self._field] = body.decode("utf-8")
            except UnicodeDecodeError as error:
                raise self._wrong(f"is not UTF-8: {error.reason}") from error
        elif self._filename is not None and self.file is None:
            self.file = Upload(body, safe_filename(self._filename))

    def _wrong(self, what: str) -> InvalidRequest:
        return InvalidRequest(f"the form's field {self._field[:60]!r} {what}")


def _disposition(value: bytes) -> tuple[str, str | None]:
    """Return the name of a part's field, and of its file; None where it is no file."""
    _, options = parse_options_header(value)
    file = options.get(b"filename")
    name = options.get(b"name", b"").decode("utf-8", "replace")
    return name, None if file is None else file.decode("utf-8", "replace")


def _boundary(content_type: bytes) -> bytes | None:
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/form-data":
        return None
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise InvalidRequest("the multipart content-type names no boundary")
    return boundary


def first_file(body: bytes, content_type: bytes) -> Upload:
    """Return the file that a body carries: the first one of a form, or the body itself.

    Raises:
        InvalidRequest: the form is malformed or has no file.
    """
    form = read_form(body, content_type, fields=False)
    if form is None:
        return Upload(body)
    if form.file is None:
        raise InvalidRequest("the form has no file; send one as a field with a file name")
    return form.file


def read_form(body: bytes, content_type: bytes, *, fields: bool = True) -> Form | None:
    """Return the form that a body is, or None where its type is not multipart.

    Args:
        body: The whole body.
        content_type: Of the body.
        fields: Whether fields that are no files are wanted; else they are passed over.

    Raises:
        InvalidRequest: the form is malformed, or a field that is wanted is too large, given twice
            or not UTF-8.
    """
    if content_type[:10].lower() != b"multipart/":
        return None
    boundary = _boundary(content_type)
    if boundary is None:
        raise InvalidRequest("of the multipart types only multipart/form-data is read here")
    parts = _Parts(fields=fields)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.part_begin,
                "on_header_field": parts.header_field,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_finished,
                "on_part_data": parts.part_data,
                "on_part_end": parts.part_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest(f"the multipart body is malformed: {error}") from error
    return Form(parts.file, parts.files, parts.fields)


async def unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run the work in this task; cancel it when the client goes away meanwhile.

    The body must have been read. A watcher task waits on the channel, and the work itself stays
    in the caller's task, so that the common case costs one task and no hand-over of the result.

    Raises:
        ClientClosed: the client went away, and the work was cancelled.
    """
    current = asyncio.current_task()
    assert current is not None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        current.cancel()

    watcher = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if left and current.uncancel() == 0:
            raise ClientClosed("the client went away before its answer was ready") from None
        raise
    finally:
        watcher.cancel()
