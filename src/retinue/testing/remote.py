"""A real Open Inference server on the loopback, that serves whatever runtime it is given.

Its front is Retinue's own HTTP application; behind it is no scheduler, only the runtime.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from retinue.core.errors import RetinueError
from retinue.core.protocols import Precision, Runtime
from retinue.core.settings import Settings
from retinue.core.types import Array, Tensors
from retinue.host import http
from retinue.host.edge import State
from retinue.runtimes.onnxruntime import OnnxRuntime
from retinue.runtimes.triton import TritonRuntime
from retinue.testing.host import FakeHost
from retinue.testing.models import FakeModel, fake_card
from retinue.testing.pipelines import FakePipeline

_START_S = 10.0


class _RuntimePipeline(FakePipeline):
    """Runs each request at once, one at a time."""

    def __init__(self, name: str, runtime: Any) -> None:
        super().__init__(FakeModel(runtime, name=name, version="1", card=fake_card(name)))
        self._runtime: Runtime = runtime
        self._using = threading.Lock()

    async def infer(
        self,
        tensors: Tensors,
        *,
        deadline: float | None = None,
        priority: int = 0,
        client: str = "",
    ) -> dict[str, Array]:
        """Run the tensors."""
        return await asyncio.to_thread(self._run, tensors)

    def _run(self, tensors: Tensors) -> dict[str, Array]:
        with self._using:
            return self._runtime.run(tensors)


class RemoteHost(FakeHost):
    """A host of any runtimes.

    Attributes:
        url: The server's address.
    """

    url = ""

    def serve(self, name: str, runtime: Runtime) -> None:
        """Serve a runtime under a name, in place of what was there."""
        self.pipelines[name] = _RuntimePipeline(name, runtime)

    def connect(
        self,
        path: Path,
        *,
        threads: int = 1,
        precision: Precision = "f32",
        device: str = "",
        name: str = "",
    ) -> Runtime:
        """Serve an ONNX file by its stem, if it can be loaded, and connect to it.

        A `retinue.core.protocols.RuntimeFactory`.
        """
        name = name or path.stem
        try:
            self.serve(name, OnnxRuntime(path))
        except RetinueError:
            self.pipelines.pop(name, None)
        return TritonRuntime(
            path, threads=threads, precision=precision, device=device or self.url, name=name
        )


@contextmanager
def serving(settings: Settings | None = None) -> Iterator[RemoteHost]:
    """Run a server on a free port of 127.0.0.1 for the length of the block."""
    host = RemoteHost(settings or Settings(), models=())
    config = uvicorn.Config(
        http.build(host, State(ready=True)), log_level="critical", lifespan="off"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        end = time.monotonic() + _START_S
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.01)
        try:
            yield host
        finally:
            server.should_exit = True
            thread.join()
