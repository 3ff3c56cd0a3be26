"""The Open Inference Protocol over REST, for every loaded model.

KServe, Triton's clients and anything else that speaks the protocol can use these routes. Errors
have the protocol's own shape, ``{"error": "..."}``; `retinue.host.edge` gives them that.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

import retinue
from retinue.core.statistics import Statistics
from retinue.host.contract import Host
from retinue.host.edge import Headers, State, header_map, respond, respond_json
from retinue.host.oip.bodies import (
    Body,
    flag,
    has_strings,
    json_body,
    json_size,
    mapping,
    parse,
    parse_raw,
    render,
    split,
)
from retinue.host.oip.compression import compress, read_decoded, wanted_coding
from retinue.host.oip.config import written_out
from retinue.host.oip.inference import (
    EXTENSIONS,
    SERVER,
    Inference,
    ModelStatistics,
    Request,
    Response,
)
from retinue.host.oip.repository import Repository
from retinue.host.oip.served import Served
from retinue.host.oip.tensors import datatype
from retinue.host.upload import unless_client_leaves

HEADER_LENGTH = b"inference-header-content-length"
BIG = 262_144
"""Bytes of JSON, or of binary BYTES tensors, that are read or written off the event loop."""


class _Endpoint(ABC):
    """Shared by the endpoints: the models, and what the path says."""

    def __init__(self, host: Host, state: State, inference: Inference) -> None:
        self._host = host
        self._state = state
        self._inference = inference
        self._repository = Repository(host, state)

    @staticmethod
    def _named(scope: Scope) -> tuple[str, str]:
        parameters = scope["path_params"]
        return parameters["model"], parameters.get("version", "")

    @abstractmethod
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""


class ServerMetadata(_Endpoint):
    """``GET /v2``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with name, version and extensions."""
        answer = {"name": SERVER, "version": retinue.__version__, "extensions": EXTENSIONS}
        await respond_json(send, answer)


class Live(_Endpoint):
    """``GET /v2/health/live``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer that the process answers."""
        await respond_json(send, {"live": True})


class Ready(_Endpoint):
    """``GET /v2/health/ready``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer whether all models take work."""
        ready = self._inference.server_ready()
        await respond_json(send, {"ready": ready}, 200 if ready else 503)


class ModelReady(_Endpoint):
    """``GET /v2/models/{model}[/versions/{version}]/ready``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer whether one model takes work."""
        name, version = self._named(scope)
        ready = self._inference.ready(name, version)
        await respond_json(send, {"name": name, "ready": ready}, 200 if ready else 503)


class ModelMetadata(_Endpoint):
    """``GET /v2/models/{model}[/versions/{version}]``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the model's tensors."""
        found = self._inference.metadata(*self._named(scope))
        tensors = {
            key: [
                {"name": one.name, "datatype": datatype(one.dtype), "shape": one.shape}
                for one in specs
            ]
            for key, specs in (("inputs", found.inputs), ("outputs", found.outputs))
        }
        answer = {"name": found.name, "versions": found.versions, "platform": found.platform}
        await respond_json(send, {**answer, **tensors})


class ModelConfig(_Endpoint):
    """``GET /v2/models/{model}[/versions/{version}]/config``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the model's configuration."""
        await respond_json(send, written_out(self._inference.config(*self._named(scope))))


class ModelStats(_Endpoint):
    """``GET /v2/models/{model}[/versions/{version}]/stats`` and ``GET /v2/models/stats``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what one model has done, or all."""
        named = self._named(scope) if "model" in scope["path_params"] else ()
        found = [_statistics(one) for one in self._inference.statistics(*named)]
        await respond_json(send, {"model_stats": found})


def _statistics(found: ModelStatistics) -> dict[str, Any]:
    """Return one entry of ``model_stats`` of the protocol's statistics extension."""
    statistics: Statistics = found.statistics
    durations = asdict(statistics)
    batches = durations.pop("batches")
    counts = [durations.pop(name) for name in ("inference_count", "execution_count")]
    return {
        "name": found.name,
        "version": found.version,
        "last_inference": durations.pop("last_inference_ms"),
        "inference_count": counts[0],
        "execution_count": counts[1],
        "inference_stats": durations,
        "response_stats": {},
        "batch_stats": [{"batch_size": size, **batches[size]} for size in sorted(batches)],
        "memory_usage": [],
    }


class Infer(_Endpoint):
    """``POST /v2/models/{model}[/versions/{version}]/infer``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one inference."""
        name, version = self._named(scope)
        served = self._inference.admit(name, version)
        headers = header_map(scope)
        arrived = time.monotonic()
        raw = await read_decoded(receive, headers, self._host.settings.server)
        body = await _parse(raw, headers.get(HEADER_LENGTH), served)
        del raw
        request = Request(
            name,
            body.inputs,
            version=version,
            id=body.id,
            outputs=body.outputs,
            parameters=body.parameters,
            classification=body.classification,
            client=scope["client_id"],
            arrived=arrived,
        )
        response = await unless_client_leaves(receive, self._inference.infer(request))
        await _answer(send, response, body, wanted_coding(headers))


async def _parse(raw: bytes, header_length: bytes | None, served: Served) -> Body:
    size = json_size(raw, header_length)
    if size == 0 and header_length is not None:
        return parse_raw(raw, served.inputs)
    if size > BIG:
        return await asyncio.to_thread(lambda: parse(*split(raw, size)))
    request, tail = split(raw, size)
    if len(tail) > BIG and has_strings(request):
        return await asyncio.to_thread(parse, request, tail)
    return parse(request, tail)


async def _answer(send: Send, response: Response, body: Body, coding: bytes | None) -> None:
    as_json = (array for name, array in response.outputs.items() if not body.is_binary(name))
    # As text, a number takes about twice the bytes that it has in an array.
    big = 2 * sum(array.nbytes for array in as_json) > BIG
    answer, json_part = (
        await asyncio.to_thread(render, response, body) if big else render(response, body)
    )
    headers: Headers = []
    content_type = b"application/json"
    if json_part is not None:
        content_type = b"application/octet-stream"
        headers.append((HEADER_LENGTH, str(json_part).encode("ascii")))
    if coding is not None:
        answer = await compress(answer, coding)
        headers += [(b"content-encoding", coding), (b"vary", b"accept-encoding")]
    await respond(send, 200, answer, content_type, headers)


class RepositoryIndex(_Endpoint):
    """``POST /v2/repository/index``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with all installed models and their states."""
        raw = await read_decoded(receive, header_map(scope), self._host.settings.server)
        ready = flag(json_body(raw), "ready", False)
        entries = self._repository.index(ready=ready)
        shown = [{k: v for k, v in asdict(entry).items() if v} for entry in entries]
        await respond_json(send, shown)


class RepositoryChange(_Endpoint):
    """``POST /v2/repository/models/{model}/load`` and ``.../unload``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Load or unload a model; the answer, without a body, comes when it is done."""
        raw = await read_decoded(receive, header_map(scope), self._host.settings.server)
        repository = self._repository
        change = repository.load if scope["path"].endswith("/load") else repository.unload
        name, _ = self._named(scope)
        await change(name, mapping(json_body(raw).get("parameters") or {}, "parameters"))
        await respond(send, 200, b"", b"application/json")


def routes(host: Host, state: State) -> list[BaseRoute]:
    """Return the protocol's routes."""
    inference = Inference(host, state)

    def route(path: str, endpoint: type[_Endpoint], method: str = "GET") -> Route:
        return Route(path, endpoint(host, state, inference), methods=[method])

    def of_model(base: str) -> Sequence[Route]:
        return (
            route(f"{base}/infer", Infer, "POST"),
            route(f"{base}/ready", ModelReady),
            route(f"{base}/config", ModelConfig),
            route(f"{base}/stats", ModelStats),
            route(base, ModelMetadata),
        )

    return [
        route("/v2/models/stats", ModelStats),
        *of_model("/v2/models/{model}"),
        *of_model("/v2/models/{model}/versions/{version}"),
        route("/v2", ServerMetadata),
        route("/v2/health/live", Live),
        route("/v2/health/ready", Ready),
        route("/v2/repository/index", RepositoryIndex, "POST"),
        route("/v2/repository/models/{model}/load", RepositoryChange, "POST"),
        route("/v2/repository/models/{model}/unload", RepositoryChange, "POST"),
    ]
