"""The Open Inference Protocol over gRPC: `retinue.host.oip.inference` behind ``grpc.aio``.

Every handler is a streaming one, which is the same on the wire: only those read the request
themselves, so that its arrival is bounded in time, and bytes that are no message get an answer
instead of a traceback in the log. Browsers do not speak gRPC, so no Host or Origin is checked.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

# Both are read when the library is loaded. Its fork handlers would write to standard error when a
# process is started; no forked child here goes on to call gRPC.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc  # type: ignore[import-untyped]
from grpc import aio

from retinue.core.errors import (
    AddressInUse,
    InvalidRequest,
    RequestTimeout,
    RetinueError,
    ShuttingDown,
)
from retinue.core.settings import Server
from retinue.host.access import Caller, Policy
from retinue.host.contract import Host
from retinue.host.edge import State
from retinue.host.oip.methods import HEALTH, SERVICE, Call, Handler, Methods, known

T = TypeVar("T")

PUBLIC = frozenset({"ServerLive", "ServerReady", "Check"})
"""What anybody may call without a key, as over HTTP."""
NOT_OFFERED = (
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)
NOT_OFFERED_TEXT = "shared memory, tracing and log settings are not offered here"
STREAM_AHEAD = 16
"""Most requests of one stream that are under way."""
STREAM_IDLE_S = 600.0
"""How long a stream may be silent."""
ENVELOPE_BYTES = 64 * 2**10
"""What a message may have beside the data that ``server.max_body_bytes`` bounds."""
DETAILS_BYTES = 2000
"""Of an error's message; a client refuses 8 kB of headers, and each byte may take three there."""


def options(server: Server) -> list[tuple[str, int]]:
    """Return the server's channel arguments: what a connection and a message may cost.

    The size of answers is not limited: it follows from the model and the requests' size. A client
    that stops reading loses its connection when it does not answer pings either; one that does
    answer them and still reads nothing keeps its place until the connection's greatest age.

    Source: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
    """
    return [
        ("grpc.so_reuseport", 0),  # else a taken port is shared with who has it
        ("grpc.max_receive_message_length", server.max_body_bytes + ENVELOPE_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 16 * 2**10),
        ("grpc.absolute_max_metadata_size", 32 * 2**10),
        ("grpc.max_allowed_incoming_connections", server.max_connections),
        ("grpc.max_concurrent_streams", min(256, server.max_connections)),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.max_connection_age_ms", 3_600_000),
        ("grpc.max_connection_age_grace_ms", 600_000),
    ]


def peer_address(peer: str) -> str:
    """Return the address in what gRPC calls a peer, such as ``ipv6:%5B::1%5D:50000``."""
    _, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") or rest


def details(error: RetinueError) -> str:
    """Return an error's message, of a length that fits into trailing headers."""
    return error.message.encode(errors="replace")[:DETAILS_BYTES].decode(errors="ignore")


class Stream:
    """One ``ModelStreamInfer``: runs requests side by side and answers in their order."""

    def __init__(self, context: Any, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._context = context
        self._answer = answer
        self._places = asyncio.Semaphore(STREAM_AHEAD)
        self._answers: asyncio.Queue[asyncio.Future[bytes] | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve it to its end.

        Raises:
            ShuttingDown: `stop` was called; what had been read is answered.
            RequestTimeout: nothing was sent for `STREAM_IDLE_S`.
        """
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(lambda _: self._answers.put_nowait(None))
        try:
            while (answer := await self._answers.get()) is not None:
                await self._context.write(await answer)
                self._places.release()
            if self._reader.cancelled():
                raise ShuttingDown("the server is stopping; open the stream again to another one")
            await self._reader
        finally:
            self._reader.cancel()
            while not self._answers.empty():
                if (answer := self._answers.get_nowait()) is not None:
                    answer.cancel()

    def stop(self) -> None:
        """Read no more requests."""
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        while True:
            await self._places.acquire()
            raw = await receive(self._context, STREAM_IDLE_S)
            if raw is None:
                return
            self._answers.put_nowait(asyncio.ensure_future(self._answer(raw)))


async def receive(context: Any, timeout_s: float) -> bytes | None:
    """Return the client's next message, None when it sends no more.

    Raises:
        RequestTimeout: it did not come in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            raw = await context.read()
    except TimeoutError:
        raise RequestTimeout(f"the request did not arrive within {timeout_s:g} s") from None
    return None if raw is aio.EOF else raw


async def _refuse(_requests: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_OFFERED_TEXT)


class GrpcFront:
    """The gRPC server."""

    def __init__(self, host: Host, state: State) -> None:
        server, methods = host.settings.server, Methods(host, state)
        self._metrics = host.metrics
        self._policy = Policy(server)
        self._body_timeout_s = server.body_timeout_s
        self._draining = False
        self._streams: set[Stream] = set()
        self._server = aio.server(
            options=options(server), maximum_concurrent_rpcs=server.max_connections
        )
        unary = {name: self._unary(name, one) for name, one in methods.unary().items()}
        stream = {"ModelStreamInfer": self._streaming("ModelStreamInfer", methods.stream_infer)}
        refused = grpc.stream_unary_rpc_method_handler(_refuse)
        self._serve(SERVICE, {**unary, **stream, **dict.fromkeys(NOT_OFFERED, refused)})
        health = {name: self._unary(name, one) for name, one in methods.health().items()}
        self._serve(HEALTH, health)

    async def start(self, address: str) -> int:
        """Listen, and return the port.

        Raises:
            AddressInUse: the address is taken.
        """
        try:
            port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise AddressInUse(
                f"gRPC cannot listen on {address}; choose another port with --grpc-port, or "
                "--grpc-port 0 for any free one"
            ) from error
        await self._server.start()
        return port

    async def drain(self, timeout_s: float) -> None:
        """Accept nothing more and finish what was accepted, in at most so many seconds.

        May be called again with less time. Streams end after the requests that were read.
        """
        self._draining = True
        for stream in self._streams:
            stream.stop()
        await self._server.stop(timeout_s)

    def _serve(self, service: str, methods: Mapping[str, Any]) -> None:
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, methods),)
        )

    def _unary(self, method: str, handler: Handler) -> Any:
        async def work(context: Any) -> bytes:
            call = self._admit(method, context)
            raw = await receive(context, self._body_timeout_s)
            if raw is None:
                raise InvalidRequest("the call ended without a request")
            return await handler(raw, call)

        async def handle(_requests: Any, context: Any) -> bytes:
            return await self._guarded(method, context, work(context))

        return grpc.stream_unary_rpc_method_handler(handle)

    def _streaming(self, method: str, handler: Handler) -> Any:
        async def work(context: Any) -> None:
            call = self._admit(method, context)
            if self._draining:
                raise ShuttingDown("the server is stopping; open the stream to another one")
            stream = Stream(context, lambda raw: handler(raw, call))
            self._streams.add(stream)
            try:
                await stream.run()
            finally:
                self._streams.discard(stream)

        async def handle(_requests: Any, context: Any) -> None:
            await self._guarded(method, context, work(context))

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _guarded(self, method: str, context: Any, work: Awaitable[T]) -> T:
        """Do one call's work, end the call with its error if it fails, and count it."""
        began = time.perf_counter()
        code = "CANCELLED"
        try:
            answer = await work
            code = "OK"
            return answer
        except aio.BaseError:  # gRPC's own: the client is gone
            raise
        except Exception as error:  # noqa: BLE001 - isolation: a call that fails, fails alone
            failure = known(error, method)
            code, text = failure.grpc_status, details(failure)
            # gRPC keeps this frame, and the traceback would keep the request and its version.
            del failure
        finally:
            self._metrics.grpc(method, code, time.perf_counter() - began)
        await context.abort(grpc.StatusCode[code], text)
        raise AssertionError("not reached: `abort` raises what ends the call")

    def _admit(self, method: str, context: Any) -> Call:
        """Return who calls.

        Raises:
            Unauthenticated: no key, or an unknown one.
        """
        caller = Caller()
        if self._policy.needs_key:
            metadata = dict(context.invocation_metadata())
            caller = Caller(
                authorization=str(metadata.get("authorization", "")),
                api_key=str(metadata.get("x-api-key", "")),
            )
            if method not in PUBLIC:
                self._policy.check_key(caller)
        client = self._policy.client_id(caller, peer_address(context.peer()))
        remaining = context.time_remaining()
        return Call(client, None if remaining is None else time.monotonic() + remaining)
