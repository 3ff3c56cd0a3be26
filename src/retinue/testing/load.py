"""Many clients that keep every answer, for tests that ask what became of each request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes:
        number: The request's, from 0.
        status: The answer's status; 0 when the connection broke.
        body: The answer's body; why it broke, when it did.
        at: When it was sent, in seconds of ``time.monotonic()``.
        seconds: Until the answer's end; from the planned time where there is a plan.
    """

    number: int
    status: int
    body: bytes
    at: float
    seconds: float


async def ask(
    url: str,
    bodies: Sequence[bytes],
    count: int,
    *,
    clients: int = 4,
    rate: float = 0.0,
    heard: Callable[[Answer], None] | None = None,
) -> list[Answer]:
    """Send requests over keep-alive connections; none is sent twice.

    Args:
        url: For example ``http://127.0.0.1:8900/v1/detect``.
        bodies: The i-th request has the body ``i % len(bodies)``.
        count: Number of requests.
        clients: Connections, each with one request under way.
        rate: Requests a second that are planned, evenly; 0 for as many as are answered.
        heard: Is told of each answer.

    Returns:
        The answers, in the order of their requests.
    """
    numbers = iter(range(count))
    answers: list[Answer] = []
    start = time.monotonic()

    async def client() -> None:
        connection: _Connection | None = None
        for number in numbers:
            planned = start + number / rate if rate else time.monotonic()
            await asyncio.sleep(planned - time.monotonic())
            at = time.monotonic()
            try:
                connection = connection or await _Connection.open(url)
                status, body = await connection.post(bodies[number % len(bodies)])
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                status, body, connection = 0, repr(error).encode(), None
            answers.append(Answer(number, status, body, at, time.monotonic() - planned))
            if heard is not None:
                heard(answers[-1])
        if connection is not None:
            connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return sorted(answers, key=lambda answer: answer.number)


class _Connection:
    def __init__(
        self, url: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: "
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> _Connection:
        parts = urlsplit(url)
        return cls(url, *await asyncio.open_connection(parts.hostname, parts.port))

    async def post(self, body: bytes) -> tuple[int, bytes]:
        self._writer.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        return int(head.split(" ", 2)[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()
