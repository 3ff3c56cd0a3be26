"""What the Open Inference Protocol's requests mean; its fronts only parse and render.

Every loaded model takes raw tensors under its name. Beside it, the model with `IMAGE_SUFFIX` takes
encoded image files (`retinue.host.oip.images`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from retinue.core.errors import InvalidRequest, InvalidTensor, ModelNotFound, ShuttingDown
from retinue.core.protocols import Pipeline
from retinue.core.settings import Execution, cores
from retinue.core.statistics import Statistics
from retinue.core.types import Array, TensorSpec
from retinue.host.contract import Host
from retinue.host.edge import State
from retinue.host.oip.classification import classify
from retinue.host.oip.config import QueuePolicy, model_config, platform
from retinue.host.oip.images import ImageModel
from retinue.host.oip.served import (
    InputTensor,
    Parameter,
    RawModel,
    Served,
    Terms,
    integer,
    refuse_shared_memory,
)
from retinue.models.loading import execution_of

SERVER = "retinue"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
IMAGE_SUFFIX = "-image"
HIGHEST, LOWEST = 1, 201
"""The range of the protocol's priorities; 0 is the default, which is in their middle."""

_STATELESS = ("sequence_id", "sequence_start", "sequence_end")
# Elements from which on the best of them are looked for off the event loop.
_MANY = 65_536
# Numbers of an input that tell it from others.
_KEYED = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One inference request, of whichever front.

    Attributes:
        model: Name of the model.
        inputs: Its tensors.
        version: Version of the model, "" for any.
        id: To be echoed; None or "" when the caller gave none.
        outputs: Names of the outputs to answer with, in order; empty for all. One that is named
            twice is answered once.
        parameters: The request's own parameters, among them ``timeout`` (microseconds from
            arrival, 0 for the default), ``priority`` (`HIGHEST` to `LOWEST`, 0 for the default)
            and what a model reads. Unknown ones are ignored, as the protocol has it.
        classification: Of which outputs not the scores but the best classes are wanted, and how
            many.
        client: Who asks, as the host knows it.
        deadline: The transport's own, seconds on ``time.monotonic()``'s clock; the earlier of it
            and ``timeout`` counts. None if it has none.
        arrived: When the request came in, on the same clock.
    """

    model: str
    inputs: tuple[InputTensor, ...]
    version: str = ""
    id: str | None = None
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    classification: Mapping[str, int] = field(default_factory=dict)
    client: str = ""
    deadline: float | None = None
    arrived: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """The answer to a `Request`.

    Attributes:
        model: Name of the model.
        version: The version that answered.
        id: That of the request.
        outputs: By name, in the order to answer with; BYTES is an ``object`` array of `bytes`.
    """

    model: str
    version: str
    id: str | None
    outputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model takes and gives; `retinue.host.oip.tensors.datatype` names the dtypes."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """What a model has done."""

    name: str
    version: str
    statistics: Statistics


class Inference:
    """All requests about models, by their names and versions."""

    def __init__(self, host: Host, state: State) -> None:
        self._host = host
        self._state = state

    def names(self) -> tuple[str, ...]:
        """Return the names of all models that are served."""
        loaded = self._host.models
        images = [name + IMAGE_SUFFIX for name in loaded]
        return tuple(dict.fromkeys(sorted([*loaded, *images])))

    def find(self, model: str, version: str = "", key: bytes | str = b"") -> Served:
        """Return a served model; what it answers is answered by one version.

        Args:
            model: Its name, or that of its twin for images.
            version: A version or alias that is loaded, "" for what the aliases give the request.
            key: What decides whether a canary answers; see `Services.pipeline`.

        Raises:
            ModelNotFound: no model is loaded under this name, or no such version of it.
        """
        loaded = self._host.models
        base = model if model in loaded else model.removesuffix(IMAGE_SUFFIX)
        if base not in loaded:
            names = ", ".join(self.names()) or "none"
            raise ModelNotFound(
                f"no model is loaded under the name {model[:80]!r}; loaded: {names}"
            )
        pipeline = self._host.pipeline(f"{base}@{version}" if version else base, key=key)
        if base != model:
            return ImageModel(model, pipeline, self._host)
        return RawModel(model, pipeline, self._execution(pipeline).runtime)

    def _execution(self, pipeline: Pipeline) -> Execution:
        return execution_of(pipeline.model.card, self._host.settings.execution)

    def server_ready(self) -> bool:
        """Return whether all models take work."""
        return self._state.ready and not self._state.draining

    def ready(self, model: str, version: str = "") -> bool:
        """Return whether one model takes work.

        Raises:
            ModelNotFound: as `find`.
        """
        pipeline: Pipeline = self.find(model, version).pipeline
        return self.server_ready() and pipeline.ready

    def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """Return what a model takes and gives.

        Raises:
            ModelNotFound: as `find`.
        """
        served = self.find(model, version)
        name, backend = platform(served.runtime)
        versions = tuple(self._all(model)) if not version else (served.version,)
        return ModelMetadata(model, versions, name or backend, served.inputs, served.outputs)

    def config(self, model: str, version: str = "") -> dict[str, Any]:
        """Return a model's configuration, in the terms and field names of Triton's.

        Raises:
            ModelNotFound: as `find`.
        """
        served = self.find(model, version)
        batching = self._host.settings.batching
        execution = self._execution(served.pipeline)
        return model_config(
            model,
            runtime=served.runtime,
            inputs=served.inputs,
            outputs=served.outputs,
            labelled=[spec.name for spec in served.outputs if served.labels(spec.name)],
            max_batch=served.pipeline.max_batch,
            queue_delay_us=round(batching.window_ms * 1000),
            instances=execution.instances or max(1, cores() // execution.threads),
            kind=_kind(execution),
            warm_up=execution.warm_up,
            queue=QueuePolicy(round(batching.deadline_ms * 1000), batching.max_queue, LOWEST),
        )

    def statistics(self, model: str = "", version: str = "") -> tuple[ModelStatistics, ...]:
        """Return what one model has done, or all models.

        A model and its twin for images share a queue, and so their figures: of all models each
        loaded one is listed once, under its own name.

        Raises:
            ModelNotFound: as `find`.
        """
        names = [model] if model else sorted(self._host.models)
        wanted = [(name, v) for name in names for v in ([version] if version else self._all(name))]
        found = [(name, self.find(name, v)) for name, v in wanted]
        return tuple(
            ModelStatistics(name, one.version, one.pipeline.statistics()) for name, one in found
        )

    def _all(self, model: str) -> list[str]:
        base = self.find(model).pipeline.model.name
        return [one.version for one in self._host.versions(base)]

    def admit(self, model: str, version: str = "", key: bytes | str = b"") -> Served:
        """Return the model that a request would run, before anything is read for it.

        Raises:
            ShuttingDown: the server takes no more work.
            ModelNotFound: as `find`.
        """
        if self._state.draining:
            raise ShuttingDown("the server is stopping; send the request again to another one")
        return self.find(model, version, key)

    async def infer(self, request: Request) -> Response:
        """Answer one inference request.

        Raises:
            ShuttingDown: as `admit`.
            ModelNotFound: as `find`.
            InvalidTensor: the inputs or outputs are not the model's.
            InvalidRequest: a parameter is out of range or asks for what is not offered.
            RetinueError: whatever stopped the model.
        """
        served = self.admit(request.model, request.version, _key(request))
        terms = _terms(request)
        wanted = _wanted(request, served)
        outputs = await served.infer(request.inputs, terms)
        shown = {name: outputs[name] for name in wanted}
        for name, count in request.classification.items():
            if count:
                call = partial(classify, shown[name], count, served.labels(name), name)
                few = shown[name].size < _MANY
                shown[name] = call() if few else await asyncio.to_thread(call)
        return Response(request.model, served.version, request.id, shown)


def _kind(execution: Execution) -> str:
    device = execution.device.lower()
    if device.startswith(("cuda", "gpu")):
        return "KIND_GPU"
    # Without a device, these take the processor; others choose for themselves.
    on_cpu = execution.runtime in ("onnxruntime", "openvino") or device == "cpu"
    return "KIND_CPU" if on_cpu else "KIND_AUTO"


def _key(request: Request) -> bytes | str:
    """Return what decides whether a canary answers: the parameter ``key``, else the first input."""
    given = str(request.parameters.get("key", ""))
    if given:
        return given
    data: Array = request.inputs[0].data if request.inputs else np.empty(0)
    first: Array = data.ravel()[:_KEYED]
    if first.dtype == object:
        return bytes(first[0]) if first.size else b""
    return first.tobytes()


def _terms(request: Request) -> Terms:
    parameters = request.parameters
    refuse_shared_memory(parameters, "the request")
    for name, value in parameters.items():
        if value and name in _STATELESS:
            raise InvalidRequest(f"parameter {name!r}: no model here keeps a sequence's state")
    timeout_us = integer(parameters, "timeout", 0)
    if timeout_us < 0:
        raise InvalidRequest(
            f"parameter 'timeout' must be microseconds, 0 (the default) or more, not {timeout_us}"
        )
    deadline = request.deadline
    if timeout_us:
        own = request.arrived + timeout_us / 1e6
        deadline = own if deadline is None else min(own, deadline)
    return Terms(deadline, _priority(parameters), request.client, parameters)


def _priority(parameters: Mapping[str, Parameter]) -> int:
    """Return our priority, where larger goes first, of the protocol's, where 1 does."""
    given = integer(parameters, "priority", 0)
    if given and not HIGHEST <= given <= LOWEST:
        raise InvalidRequest(
            f"parameter 'priority' must be {HIGHEST} (first) to {LOWEST}, or 0 for the default, "
            f"not {given}"
        )
    return (HIGHEST + LOWEST) // 2 - given if given else 0


def _wanted(request: Request, served: Served) -> tuple[str, ...]:
    known = tuple(spec.name for spec in served.outputs)
    for name in request.outputs:
        if name not in known:
            raise InvalidTensor(
                f"no output of {served.name!r} is called {name[:80]!r}; known: {', '.join(known)}"
            )
    wanted = request.outputs or known
    for name, count in request.classification.items():
        if name not in wanted:
            raise InvalidTensor(f"classification of {name[:80]!r}, which is not among the outputs")
        if count < 0:
            raise InvalidRequest(f"classification of {name!r} must be 0 (off) or more, not {count}")
    return wanted
