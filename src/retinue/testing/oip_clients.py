"""NVIDIA's ``tritonclient``, over HTTP and over gRPC, behind one small face.

The clients are used as they come; only their answers are brought to one form, so that
`retinue.testing.oip_suite` can say once what a server must do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from retinue.core.types import Array
from retinue.host.oip.tensors import datatype

TIMEOUT_S = 30.0

KINDS: Mapping[str, str] = {
    "400": "invalid",
    "StatusCode.INVALID_ARGUMENT": "invalid",
    "415": "invalid",
    "404": "not found",
    "StatusCode.NOT_FOUND": "not found",
    "403": "forbidden",
    "StatusCode.PERMISSION_DENIED": "forbidden",
    "503": "unavailable",
    "StatusCode.UNAVAILABLE": "unavailable",
    "StatusCode.RESOURCE_EXHAUSTED": "unavailable",
    "504": "too late",
    "StatusCode.DEADLINE_EXCEEDED": "too late",
}
"""What the statuses of both fronts mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The answer to one inference.

    Attributes:
        model: The model's name in it.
        version: The version that answered.
        id: The request's id in it, "" if there is none.
        outputs: The tensors by name; BYTES as an ``object`` array of `bytes`.
    """

    model: str
    version: str
    id: str
    outputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a model's metadata or configuration; ``datatype`` without "TYPE_"."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """What statistics say: rows, runs, successful requests."""

    inferences: int
    executions: int
    successes: int


class Front(ABC):
    """One of the protocol's fronts, as a client sees it.

    Attributes:
        name: "http" or "grpc".
        forms: Ways to send and get tensors: "binary" always, "json" over HTTP.
        codings: Keyword arguments of `infer` that compress, one way each.
        client: The ``tritonclient`` client.
    """

    name: str
    forms: tuple[str, ...] = ("binary",)
    codings: tuple[Mapping[str, Any], ...]

    def __init__(self, module: ModuleType, url: str, **options: Any) -> None:
        self._module = module
        self.client = module.InferenceServerClient(url, **options)

    def close(self) -> None:
        """Close the client's connections."""
        self.client.close()

    def _call(
        self,
        tensors: Mapping[str, Array],
        datatypes: Mapping[str, str],
        outputs: Sequence[str],
        classes: Mapping[str, int],
        form: str,
    ) -> dict[str, Any]:
        inputs = []
        for name, array in tensors.items():
            kind = datatypes.get(name) or datatype(array.dtype)
            tensor = self._module.InferInput(name, list(array.shape), kind)
            self._fill(tensor, array, form)
            inputs.append(tensor)
        wanted = [self._wanted(name, classes.get(name, 0), form) for name in outputs]
        return {"inputs": inputs, "outputs": wanted or None}

    def infer(
        self,
        model: str,
        tensors: Mapping[str, Array],
        *,
        outputs: Sequence[str] = (),
        classes: Mapping[str, int] | None = None,
        datatypes: Mapping[str, str] | None = None,
        form: str = "binary",
        **options: Any,
    ) -> Answer:
        """Run one inference.

        Args:
            model: The model's name.
            tensors: Its inputs.
            outputs: Names of the outputs to ask for; empty for all.
            classes: How many best classes are wanted of which output.
            datatypes: The protocol's datatypes where they are not those of the arrays.
            form: One of `forms`.
            options: Further arguments of the client's own ``infer``.

        Raises:
            tritonclient.utils.InferenceServerException: the server refused it.
        """
        call = self._call(tensors, datatypes or {}, outputs, classes or {}, form)
        return self._answer(self.client.infer(model, **call, **options))

    @abstractmethod
    def infer_many(self, model: str, requests: Sequence[Mapping[str, Array]]) -> list[Answer]:
        """Run inferences at the same time; answers in the order of the requests."""

    @abstractmethod
    def _fill(self, tensor: Any, array: Array, form: str) -> None: ...

    @abstractmethod
    def _wanted(self, name: str, classes: int, form: str) -> Any: ...

    @abstractmethod
    def _answer(self, result: Any) -> Answer: ...

    @abstractmethod
    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the client; its answer as JSON-like values."""

    def metadata(self, model: str, version: str = "") -> tuple[str, list[Tensor], list[Tensor]]:
        """Return a model's name, inputs and outputs by its metadata."""
        found = self.ask("get_model_metadata", model, version)
        inputs, outputs = (
            [Tensor(t["name"], t["datatype"], _shape(t["shape"])) for t in found[key]]
            for key in ("inputs", "outputs")
        )
        return found["name"], inputs, outputs

    def config(self, model: str) -> tuple[int, list[Tensor], list[Tensor]]:
        """Return a model's largest batch, inputs and outputs by its configuration."""
        found = self.ask("get_model_config", model)
        found = found.get("config", found)
        inputs, outputs = (
            [
                Tensor(t["name"], t["data_type"].removeprefix("TYPE_"), _shape(t["dims"]))
                for t in found[key]
            ]
            for key in ("input", "output")
        )
        return int(found.get("max_batch_size", 0)), inputs, outputs

    def counts(self, model: str) -> Counts:
        """Return a model's counts by its statistics."""
        (found,) = self.ask("get_inference_statistics", model)["model_stats"]
        success = found.get("inference_stats", {}).get("success", {})
        return Counts(
            int(found.get("inference_count", 0)),
            int(found.get("execution_count", 0)),
            int(success.get("count", 0)),
        )

    def index(self) -> dict[str, str]:
        """Return the repository's models and their states."""
        found = self.ask("get_model_repository_index")
        entries = found if isinstance(found, list) else found.get("models", [])
        return {one["name"]: one.get("state", "") for one in entries}

    def refusal(self, call: Callable[[], object]) -> tuple[str, str]:
        """Return how a call was refused, by `KINDS`, and the message.

        Raises:
            AssertionError: it was not.
        """
        from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

        try:
            call()
        except InferenceServerException as error:
            return KINDS.get(error.status(), error.status()), error.message()
        raise AssertionError("expected a refusal")


def _shape(shape: Sequence[int | str]) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)


def _bytes(array: Array) -> Array:
    """Return an array whose strings, as JSON has them, are `bytes`."""
    if array.dtype.kind != "O":
        return array
    values = [v.encode() if isinstance(v, str) else v for v in array.reshape(-1).tolist()]
    found = np.empty(len(values), object)
    found[:] = values
    return found.reshape(array.shape)


class HttpFront(Front):
    """Over HTTP."""

    name = "http"
    forms = ("binary", "json")
    codings = tuple(
        {f"{which}_compression_algorithm": coding}
        for which in ("request", "response")
        for coding in ("gzip", "deflate")
    )

    def __init__(self, url: str, *, concurrency: int = 8) -> None:
        """Connect to "host:port"."""
        import tritonclient.http as module  # type: ignore[import-untyped]

        super().__init__(
            module,
            url,
            concurrency=concurrency,
            connection_timeout=TIMEOUT_S,
            network_timeout=TIMEOUT_S,
        )

    def infer_many(self, model: str, requests: Sequence[Mapping[str, Array]]) -> list[Answer]:
        """Run inferences at the same time, as many as the client has connections."""
        calls = [self._call(tensors, {}, (), {}, "binary") for tensors in requests]
        pending = [self.client.async_infer(model, **call) for call in calls]
        return [self._answer(one.get_result()) for one in pending]

    def _fill(self, tensor: Any, array: Array, form: str) -> None:
        tensor.set_data_from_numpy(array, binary_data=form == "binary")

    def _wanted(self, name: str, classes: int, form: str) -> Any:
        binary = form == "binary"
        return self._module.InferRequestedOutput(name, binary_data=binary, class_count=classes)

    def _answer(self, result: Any) -> Answer:
        head = result.get_response()
        arrays = {o["name"]: _bytes(result.as_numpy(o["name"])) for o in head["outputs"]}
        return Answer(head["model_name"], head["model_version"], head.get("id", ""), arrays)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the client, whose answers are JSON values."""
        return getattr(self.client, method)(*arguments)


class GrpcFront(Front):
    """Over gRPC."""

    name = "grpc"
    codings = tuple({"compression_algorithm": coding} for coding in ("gzip", "deflate"))

    def __init__(self, url: str) -> None:
        """Connect to "host:port"."""
        import tritonclient.grpc as module  # type: ignore[import-untyped]

        super().__init__(module, url)

    def infer_many(self, model: str, requests: Sequence[Mapping[str, Array]]) -> list[Answer]:
        """Run inferences at the same time."""
        pending: list[Future[Answer]] = []
        for tensors in requests:
            future: Future[Answer] = Future()
            call = self._call(tensors, {}, (), {}, "binary")
            self.client.async_infer(model, callback=self._ended(future), **call)
            pending.append(future)
        return [future.result(TIMEOUT_S) for future in pending]

    def _ended(self, future: Future[Answer]) -> Callable[[Any, Any], None]:
        def ended(result: Any, error: Any) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(self._answer(result))

        return ended

    def _fill(self, tensor: Any, array: Array, form: str) -> None:
        tensor.set_data_from_numpy(array)

    def _wanted(self, name: str, classes: int, form: str) -> Any:
        return self._module.InferRequestedOutput(name, class_count=classes)

    def _answer(self, result: Any) -> Answer:
        head = result.get_response()
        arrays = {o.name: _bytes(result.as_numpy(o.name)) for o in head.outputs}
        return Answer(head.model_name, head.model_version, head.id, arrays)

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the client; 64-bit numbers of its answer are strings, zeros absent."""
        return getattr(self.client, method)(*arguments, as_json=True)


@contextmanager
def http_front(url: str) -> Iterator[HttpFront]:
    """Give a front over HTTP to "host:port" while the block runs."""
    front = HttpFront(url)
    try:
        yield front
    finally:
        front.close()


@contextmanager
def grpc_front(url: str) -> Iterator[GrpcFront]:
    """Give a front over gRPC to "host:port" while the block runs."""
    front = GrpcFront(url)
    try:
        yield front
    finally:
        front.close()
