"""The methods of the Open Inference Protocol over gRPC, each from message to message.

What they mean is `retinue.host.oip.inference`'s; how calls reach them `retinue.host.oip.grpc`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import retinue
from retinue.core.errors import (
    ModelNotFound,
    NotFound,
    RetinueError,
    Unavailable,
)
from retinue.host.contract import Host
from retinue.host.edge import State
from retinue.host.oip import messages
from retinue.host.oip.inference import EXTENSIONS, SERVER, Inference, Request
from retinue.host.oip.messages import Message
from retinue.host.oip.repository import Repository

log = logging.getLogger("retinue.host")

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"


@dataclass(frozen=True, slots=True)
class Call:
    """What the handlers know of a call.

    Attributes:
        client: Who calls, as `Policy.client_id` says.
        deadline: The call's, seconds on ``time.monotonic()``'s clock; None if it has none.
    """

    client: str
    deadline: float | None


BIG = 262_144
"""Bytes of a message from which on elements are read one by one off the event loop."""

Handler = Callable[[bytes, Call], Awaitable[bytes]]


def known(error: Exception, method: str) -> RetinueError:
    """Return the error to answer with; what nobody foresaw is logged and named no further."""
    if not isinstance(error, RetinueError):
        log.error("gRPC %s failed unexpectedly", method, exc_info=error)
        return RetinueError("internal error; the server's log has the details")
    if error.http_status >= 500 and not isinstance(error, Unavailable):
        log.warning("gRPC %s: %s: %s", method, error.code, error.message)
    return error


class Methods:
    """All methods."""

    def __init__(self, host: Host, state: State) -> None:
        self._inference = Inference(host, state)
        self._repository = Repository(host, state)

    def unary(self) -> dict[str, Handler]:
        """Return the methods of `SERVICE` that take one message."""
        plain: dict[str, Callable[[Message], Message]] = {
            "ServerLive": lambda _: messages.new("ServerLiveResponse", live=True),
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._index,
        }
        found = {name: _plain(f"{name}Request", answer) for name, answer in plain.items()}
        found["ModelInfer"] = self._infer
        found["RepositoryModelLoad"] = self._load
        found["RepositoryModelUnload"] = self._unload
        return found

    def health(self) -> dict[str, Handler]:
        """Return the methods of `HEALTH`."""
        return {"Check": _plain(f"{HEALTH}CheckRequest", self._check)}

    async def stream_infer(self, raw: bytes, call: Call) -> bytes:
        """Answer one request of a stream; its failure is an answer too."""
        request_id = ""
        try:
            message = messages.parse("ModelInferRequest", raw)
            request_id = message.id
            request = await _request(message, len(raw), call)
            return messages.stream_response(await self._inference.infer(request))
        except Exception as error:  # noqa: BLE001 - a request fails alone, its stream goes on
            return messages.stream_error(known(error, "ModelStreamInfer").message, request_id)

    async def _infer(self, raw: bytes, call: Call) -> bytes:
        message = messages.parse("ModelInferRequest", raw)
        request = await _request(message, len(raw), call)
        return messages.infer_response(await self._inference.infer(request))

    async def _load(self, raw: bytes, call: Call) -> bytes:
        request = messages.parse("RepositoryModelLoadRequest", raw)
        await self._repository.load(request.model_name, request.parameters)
        return b""

    async def _unload(self, raw: bytes, call: Call) -> bytes:
        request = messages.parse("RepositoryModelUnloadRequest", raw)
        await self._repository.unload(request.model_name, request.parameters)
        return b""

    def _server_ready(self, request: Message) -> Message:
        return messages.new("ServerReadyResponse", ready=self._inference.server_ready())

    def _server_metadata(self, request: Message) -> Message:
        return messages.new(
            "ServerMetadataResponse",
            name=SERVER,
            version=retinue.__version__,
            extensions=EXTENSIONS,
        )

    def _model_ready(self, request: Message) -> Message:
        try:
            ready = self._inference.ready(request.name, request.version)
        except ModelNotFound:
            ready = False
        return messages.new("ModelReadyResponse", ready=ready)

    def _model_metadata(self, request: Message) -> Message:
        return messages.model_metadata(self._inference.metadata(request.name, request.version))

    def _model_config(self, request: Message) -> Message:
        return messages.model_config(self._inference.config(request.name, request.version))

    def _model_statistics(self, request: Message) -> Message:
        return messages.statistics(self._inference.statistics(request.name, request.version))

    def _index(self, request: Message) -> Message:
        return messages.repository_index(self._repository.index(ready=request.ready))

    def _check(self, request: Message) -> Message:
        if request.service not in ("", SERVICE, HEALTH):
            raise NotFound(f"no service is called {request.service[:80]!r}; known: {SERVICE}")
        status = "SERVING" if self._inference.server_ready() else "NOT_SERVING"
        return messages.new(f"{HEALTH}CheckResponse", status=status)


async def _request(message: Message, size: int, call: Call) -> Request:
    read = partial(messages.infer_request, message, call.client, call.deadline)
    slow = size > BIG and messages.is_slow(message)
    return await asyncio.to_thread(read) if slow else read()


def _plain(kind: str, answer: Callable[[Message], Message]) -> Handler:
    async def handle(raw: bytes, call: Call) -> bytes:
        return bytes(answer(messages.parse(kind, raw)).SerializeToString())

    return handle
