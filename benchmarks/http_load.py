"""A cheap load generator: keeps N requests under way for some seconds, prints figures as JSON.

    python benchmarks/http_load.py http://127.0.0.1:8900/v1/detect PHOTO --concurrency 8 --seconds 5

A process of its own, with raw sockets and no HTTP library: it shares the cores with the server that
it measures, so it must cost next to nothing (about 0.1 ms of CPU a request).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class Result:
    """What the clients saw."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    broken: int = 0


def encode_request(url: str, body: bytes, headers: Sequence[str] = ()) -> bytes:
    """Return a POST request; headers are lines like ``Content-Type: image/jpeg``."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {path} HTTP/1.1", f"Host: {parts.netloc}", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("ascii") + body


class Client:
    """One client: a request, its answer, the next request; keep-alive where the server allows."""

    def __init__(self, url: str, request: bytes, result: Result) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._request = request
        self._result = result
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, until: float) -> None:
        """Send requests one after the other until a moment of ``time.perf_counter()``."""
        while time.perf_counter() < until:
            began = time.perf_counter()
            try:
                status = await self._once()
            except (OSError, asyncio.IncompleteReadError):
                self._result.broken += 1
                await self._close()
                continue
            self._result.latencies_s.append(time.perf_counter() - began)
            self._result.statuses[status] = self._result.statuses.get(status, 0) + 1
        await self._close()

    async def _once(self) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if b"connection: close" in head:
            await self._close()
        return int(head[9:12])

    async def _close(self) -> None:
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def load(url: str, request: bytes, concurrency: int, seconds: float) -> Result:
    """Keep so many requests under way for so long."""
    result = Result()
    until = time.perf_counter() + seconds
    clients = [Client(url, request, result) for _ in range(concurrency)]
    await asyncio.gather(*(client.run(until) for client in clients))
    return result


def main() -> None:
    """Read the command line, run, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("body", type=Path, help="a file")
    parser.add_argument("--header", action="append", help="'Name: value'; may be repeated")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    headers = given.header or ["Content-Type: image/jpeg"]
    request = encode_request(given.url, given.body.read_bytes(), headers)
    began = time.perf_counter()
    result = asyncio.run(load(given.url, request, given.concurrency, given.seconds))
    took = time.perf_counter() - began
    ordered = sorted(result.latencies_s) or [float("nan")]
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "requests": len(result.latencies_s),
                "per_s": len(result.latencies_s) / took,
                "p50_ms": 1e3 * ordered[len(ordered) // 2],
                "p99_ms": 1e3 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
                "statuses": result.statuses,
                "broken": result.broken,
                "client_cpu_s": used.ru_utime + used.ru_stime,
            }
        )
    )


if __name__ == "__main__":
    main()
