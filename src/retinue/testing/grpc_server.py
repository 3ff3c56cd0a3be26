"""A gRPC front of a fake host, on a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import TypeVar

from retinue.core.settings import Server, Settings
from retinue.host.edge import State
from retinue.host.oip.grpc import GrpcFront
from retinue.testing.host import FakeHost
from retinue.testing.pipelines import FakeServed

T = TypeVar("T")


class GrpcServer:
    """A running server; a context manager.

    The arguments are the fake host's and settings of ``server``.

    Attributes:
        host: The fake host behind it.
        state: Whether it takes work.
        address: Where it listens.
    """

    def __init__(
        self,
        *,
        models: Sequence[FakeServed] = (FakeServed("fake"),),
        delay_s: float = 0.0,
        **server: object,
    ) -> None:
        self.host = FakeHost(
            Settings(server=Server.model_validate(server)), models=models, delay_s=delay_s
        )
        self.state = State(ready=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._front, port = self.call(self._start)
        self.address = f"127.0.0.1:{port}"

    async def _start(self) -> tuple[GrpcFront, int]:
        front = GrpcFront(self.host, self.state)
        return front, await front.start("127.0.0.1:0")

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run something on the server's loop and return what it returns."""

        async def run() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def drain(self, timeout_s: float) -> None:
        """Drain it as a signal would."""
        self.state.draining = True
        self.call(lambda: self._front.drain(timeout_s))

    def __enter__(self) -> GrpcServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drain(0.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
