"""Open Inference Protocol v2 over REST for every loaded model, with the binary tensor extension.

KServe, Triton's clients and anything else that speaks the protocol can use these routes. Errors
have the protocol's own shape, ``{"error": "..."}``; `retinue.host.edge` gives them that.
"""

from __future__ import annotations

import time

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

import retinue
from retinue.core.errors import ModelNotFound, ShuttingDown
from retinue.core.protocols import Pipeline
from retinue.core.types import TensorSpec
from retinue.host.contract import Host
from retinue.host.edge import Headers, State, header_map, respond, respond_json
from retinue.host.upload import read_body, unless_client_leaves
from retinue.host.v2_tensors import datatype, parse, render

HEADER_LENGTH = b"inference-header-content-length"
EXTENSIONS = ("binary_tensor_data",)


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": datatype(spec.dtype), "shape": list(spec.shape)}


class _Endpoint:
    """Shared by the endpoints: the models."""

    def __init__(self, host: Host, state: State) -> None:
        self._host = host
        self._state = state

    def _find(self, scope: Scope) -> tuple[str, Pipeline]:
        name: str = scope["path_params"]["model"]
        version: str | None = scope["path_params"].get("version")
        pipeline = self._host.pipelines.get(name)
        if pipeline is None:
            loaded = ", ".join(self._host.pipelines) or "none"
            raise ModelNotFound(
                f"no model is loaded under the name {name[:80]!r}; loaded: {loaded}"
            )
        if version is not None and version != pipeline.model.version:
            raise ModelNotFound(
                f"model {name!r} has no version {version[:80]!r} loaded; loaded: "
                f"{pipeline.model.version}"
            )
        return name, pipeline


class ServerMetadata(_Endpoint):
    """``GET /v2``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with name, version and extensions."""
        answer = {"name": "retinue", "version": retinue.__version__, "extensions": EXTENSIONS}
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
        ready = self._state.ready and not self._state.draining
        await respond_json(send, {"ready": ready}, 200 if ready else 503)


class ModelReady(_Endpoint):
    """``GET /v2/models/{model}[/versions/{version}]/ready``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer whether one model takes work."""
        name, _ = self._find(scope)
        ready = self._state.ready and not self._state.draining
        await respond_json(send, {"name": name, "ready": ready}, 200 if ready else 503)


class ModelMetadata(_Endpoint):
    """``GET /v2/models/{model}[/versions/{version}]``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the model's tensors."""
        name, pipeline = self._find(scope)
        model = pipeline.model
        answer = {
            "name": name,
            "versions": [model.version],
            "platform": f"{self._host.settings.execution.runtime}_onnx",
            "inputs": [_tensor(spec) for spec in model.runtime.inputs],
            "outputs": [_tensor(spec) for spec in model.runtime.outputs],
        }
        await respond_json(send, answer)


class Infer(_Endpoint):
    """``POST /v2/models/{model}[/versions/{version}]/infer``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one inference."""
        if self._state.draining:
            raise ShuttingDown("the server is stopping; send the request again to another one")
        name, pipeline = self._find(scope)
        server, headers = self._host.settings.server, header_map(scope)
        body = await read_body(
            receive, headers, limit=server.max_body_bytes, timeout_s=server.body_timeout_s
        )
        runtime = pipeline.model.runtime
        inference = parse(body, headers.get(HEADER_LENGTH), runtime.inputs, runtime.outputs)
        deadline = None
        if inference.timeout_us is not None:
            deadline = time.monotonic() + inference.timeout_us / 1e6
        outputs = await unless_client_leaves(
            receive, pipeline.infer(inference.tensors, deadline=deadline)
        )
        answer, json_size = render(name, pipeline.model.version, inference, outputs)
        if json_size is None:
            await respond(send, 200, answer, b"application/json")
            return
        more: Headers = [(HEADER_LENGTH, str(json_size).encode("ascii"))]
        await respond(send, 200, answer, b"application/octet-stream", more)


def routes(host: Host, state: State) -> list[BaseRoute]:
    """Return the protocol's routes."""
    model = "/v2/models/{model}"
    version = model + "/versions/{version}"
    return [
        *(
            Route(f"{base}/infer", Infer(host, state), methods=["POST"])
            for base in (model, version)
        ),
        *(
            Route(f"{base}/ready", ModelReady(host, state), methods=["GET"])
            for base in (model, version)
        ),
        *(Route(base, ModelMetadata(host, state), methods=["GET"]) for base in (model, version)),
        Route("/v2", ServerMetadata(host, state), methods=["GET"]),
        Route("/v2/health/live", Live(host, state), methods=["GET"]),
        Route("/v2/health/ready", Ready(host, state), methods=["GET"]),
    ]
