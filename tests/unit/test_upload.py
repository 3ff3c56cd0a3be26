"""Reading bodies: limits, time, multipart, clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.errors import (
    ClientClosed,
    InvalidRequest,
    RequestTimeout,
    TooManyBytes,
    UnsupportedMedia,
)
from retinue.host.upload import first_file, read_body, safe_filename, unless_client_leaves

Receive = Callable[[], Awaitable[dict[str, Any]]]


def _channel(chunks: Sequence[bytes], *, delay_s: float = 0.0, leaves: bool = False) -> Receive:
    """Return an ASGI channel that sends the chunks, and then waits or reports a disconnect."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(delay_s)
        if left:
            body = left.pop(0)
            more = bool(left) or leaves
            return {"type": "http.request", "body": body, "more_body": more}
        if leaves:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def _read(
    receive: Receive, headers: dict[bytes, bytes] | None = None, limit: int = 100, t: float = 5
) -> bytes:
    return asyncio.run(read_body(receive, headers or {}, limit=limit, timeout_s=t))


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=8))
def test_chunks_are_joined(chunks: list[bytes]) -> None:
    assert _read(_channel(chunks), limit=1000) == b"".join(chunks)


def test_content_length_is_refused_before_anything_is_read() -> None:
    async def never() -> dict[str, Any]:
        raise AssertionError("read")

    with pytest.raises(TooManyBytes, match="100 bytes"):
        _read(never, {b"content-length": b"101"})
    with pytest.raises(TooManyBytes):
        _read(never, {b"content-length": b"9" * 400})


def test_a_chunked_body_is_counted() -> None:
    assert len(_read(_channel([b"a" * 60, b"b" * 40]))) == 100
    with pytest.raises(TooManyBytes):
        _read(_channel([b"a" * 60, b"b" * 41, b"never read"]))


def test_a_slow_body_is_given_up() -> None:
    with pytest.raises(RequestTimeout, match=r"0\.05 s"):
        _read(_channel([b"a"] * 50, delay_s=0.02), t=0.05)


def test_a_client_that_leaves_while_sending() -> None:
    with pytest.raises(ClientClosed):
        _read(_channel([b"a"], leaves=True))


def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(UnsupportedMedia, match="gzip"):
        _read(_channel([b"a"]), {b"content-encoding": b"gzip"})
    assert _read(_channel([b"a"]), {b"content-encoding": b"Identity"}) == b"a"


def _form(**parts: Any) -> tuple[bytes, bytes]:
    request = httpx.Request("POST", "http://x", **parts)
    return request.read(), request.headers["content-type"].encode()


@given(st.binary(max_size=500))
def test_a_form_gives_its_first_file(content: bytes) -> None:
    body, kind = _form(
        data={"note": "hello"},
        files=[
            ("file", ("C:\\fotos\\été.jpg", content, "image/jpeg")),
            ("file", ("second.jpg", b"other", "image/jpeg")),
        ],
    )
    upload = first_file(body, kind)
    assert upload.body == content
    assert upload.filename == "été.jpg"


def test_a_raw_body_is_the_file_whatever_its_type() -> None:
    for kind in (b"", b"image/jpeg", b"application/x-www-form-urlencoded", b"text/plain"):
        assert first_file(b"--x", kind) == first_file(b"--x", b"")
        assert first_file(b"--x", kind).body == b"--x"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"garbage", b"multipart/form-data; boundary=b"),
        (b"", b"multipart/form-data; boundary=b"),
        (b"--b\r\n", b"multipart/form-data; boundary=b"),
        (b"--b\r\nno colon\r\n\r\nx\r\n--b--", b"multipart/form-data; boundary=b"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", b"multipart/form-data; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\ncut o',
            b"multipart/form-data; boundary=b",
        ),
        (b"--b--", b"multipart/form-data"),
        (b"--b--", b"multipart/form-data; boundary="),
        (b"--b--", b"multipart/form-data; boundary=" + b"b" * 300),
        (b"--b--", b"multipart/mixed; boundary=b"),
        (
            b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n' * 40 + b"--b--\r\n",
            b"multipart/form-data; boundary=b",
        ),
        (b"--b\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", b"multipart/form-data; boundary=b"),
    ],
)
def test_garbage_forms_are_refused(body: bytes, kind: bytes) -> None:
    with pytest.raises(InvalidRequest):
        first_file(body, kind)


@given(st.binary(max_size=300))
def test_any_form_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        first_file(b"--b\r\n" + body, b"multipart/form-data; boundary=b")


@given(st.text(max_size=400))
def test_file_names_are_one_printable_part(name: str) -> None:
    safe = safe_filename(name)
    assert len(safe) <= 255
    assert safe.isprintable()
    assert "/" not in safe
    assert "\\" not in safe


def test_work_is_cancelled_when_the_client_leaves() -> None:
    cancelled = []

    async def work() -> int:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return 1

    async def run() -> int:
        leaves = _channel([], delay_s=0.02, leaves=True)
        with pytest.raises(ClientClosed):
            await unless_client_leaves(leaves, work())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # the task goes on: nothing is pending
        return 2

    assert asyncio.run(run()) == 2
    assert cancelled == [True]


def test_work_that_ends_first_is_answered_and_the_watcher_stops() -> None:
    async def work() -> int:
        await asyncio.sleep(0.01)
        return 7

    async def run() -> int:
        value = await unless_client_leaves(_channel([]), work())
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        return value

    assert asyncio.run(run()) == 7


def test_another_cancellation_stays_a_cancellation() -> None:
    async def run() -> None:
        task = asyncio.create_task(unless_client_leaves(_channel([]), asyncio.sleep(30)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_an_error_of_the_work_passes_through() -> None:
    async def work() -> None:
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        asyncio.run(unless_client_leaves(_channel([]), work()))
