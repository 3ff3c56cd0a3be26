"""A remote Open Inference server as a runtime: Triton, KServe, or another Retinue, by URL.

Sources: the protocol's REST specification
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md)
and its binary tensor data extension
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from pydantic import BaseModel, Field, ValidationError

from retinue.core.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidTensor,
    ModelNotFound,
    ModelRunFailed,
    RetinueError,
    Unavailable,
    UnsupportedModel,
)
from retinue.core.protocols import Precision, RuntimeFactory
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.runtimes import tensors as tensor_checks
from retinue.runtimes._options import check_threads
from retinue.runtimes._remote import API_KEY, Answer, Connection, parse

_NUMPY: Final[Mapping[str, str]] = {
    "BOOL": "bool",
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{u}INT{bits}": f"{u.lower()}int{bits}" for u in ("", "U") for bits in (8, 16, 32, 64)},
}
_DATATYPES: Final = {numpy: datatype for datatype, numpy in _NUMPY.items()}
# What a run's refusal means here; anything else is a run that failed.
_REFUSALS: Final[Mapping[int, type[RetinueError]]] = {
    400: InvalidTensor,
    404: ModelNotFound,
    408: DeadlineExceeded,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


class _Size(BaseModel):
    binary_data_size: int | None = Field(None, ge=0)


class _Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Size = _Size()
    data: list[Any] | None = None


class _Metadata(BaseModel):
    inputs: list[_Tensor]
    outputs: list[_Tensor]


class _Answer(BaseModel):
    outputs: list[_Tensor]


class TritonRuntime:
    """A model that a remote server executes; its tensors are what that server says of it.

    The local file is not opened, and threads are the server's own business. So is precision:
    f32 stands for what the server does.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        precision: Precision = "f32",
        device: str = "",
        name: str = "",
    ) -> None:
        """Ask the server for the model's tensors.

        Args:
            path: Not used.
            threads: At least 1; not used otherwise.
            precision: "f32".
            device: ``http[s]://HOST[:PORT][/MODEL[/VERSION]][?timeout_s=SECONDS]``; ``triton://``
                is http at port 8000. A key that the server asks for is the environment
                variable ``RETINUE_TRITON_API_KEY``.
            name: The model's name there, unless the address has one.

        Raises:
            ConfigError: the address, precision or key is wrong, or no such server is there.
            ModelNotFound: the server does not serve the model.
            Unavailable: the server cannot be reached.
            UnsupportedModel: a tensor is neither numbers nor booleans.
        """
        if precision != "f32":
            raise ConfigError(
                f"the triton runtime cannot ask for {precision}: the server decides; "
                'set execution.precision = "f32"'
            )
        check_threads(threads)
        self._address = parse(device, name)
        self._connection = Connection(self._address)
        self._closed = False
        try:
            metadata = self._metadata()
            self._inputs = tuple(self._spec(tensor) for tensor in metadata.inputs)
            self._outputs = tuple(self._spec(tensor) for tensor in metadata.outputs)
        except RetinueError:
            self.close()
            raise
        self._asked = [
            {"name": spec.name, "parameters": {"binary_data": True}} for spec in self._outputs
        ]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` needs, in the server's order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` returns, in the server's order."""
        return self._outputs

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run one batch.

        Raises:
            InvalidTensor: a tensor is missing, unknown, or of the wrong dtype or shape, or the
                server takes no such batch.
            ModelRunFailed: the server failed or answered nonsense, or the runtime is closed.
            ModelNotFound: the server does not serve the model any more.
            Unavailable: the server cannot be reached, is overloaded, or takes too long.
        """
        if self._closed:
            raise ModelRunFailed(f"{self._where}: the runtime is closed")
        tensor_checks.check(tensors, self._inputs)
        parts = [
            np.ascontiguousarray(tensors[spec.name], np.dtype(spec.dtype).newbyteorder("<"))
            for spec in self._inputs
        ]
        described = [
            {
                "name": spec.name,
                "datatype": _DATATYPES[spec.dtype],
                "shape": list(part.shape),
                "parameters": {"binary_data_size": part.nbytes},
            }
            for spec, part in zip(self._inputs, parts, strict=True)
        ]
        head = orjson.dumps({"inputs": described, "outputs": self._asked})
        answer = self._connection.ask(
            "POST",
            f"{self._address.path}/infer",
            [head, *(part.reshape(-1).view(np.uint8).data for part in parts)],
            {
                "Inference-Header-Content-Length": str(len(head)),
                "Content-Type": "application/octet-stream",
            },
        )
        if answer.status != 200:
            kind = _REFUSALS.get(answer.status, ModelRunFailed)
            raise kind(f"{self._where}: {answer.error}")
        return self._outputs_of(answer)

    def close(self) -> None:
        """Close the connection. May be called twice."""
        self._closed = True
        self._connection.close()

    @property
    def _where(self) -> str:
        return f"model {self._address.model!r} at {self._address.server}"

    def _metadata(self) -> _Metadata:
        answer = self._connection.ask("GET", self._address.path)
        if answer.status in (401, 403):
            raise ConfigError(
                f"{self._where}: {answer.error}; set the variable {API_KEY} to a key of that server"
            )
        if answer.status in (400, 404):
            raise ModelNotFound(
                f"{self._where} is not there: {answer.error}; load it there, or name another in "
                'execution.device = "http://HOST:PORT/MODEL"'
            )
        if answer.status != 200:
            raise Unavailable(f"{self._where}: {answer.error}; try again when it is ready")
        try:
            return _Metadata.model_validate_json(bytes(answer.body))
        except ValidationError as error:
            raise ConfigError(
                f"{self._address.server} does not speak the Open Inference Protocol over HTTP: "
                f"{error.error_count()} fields of its answer are wrong; check execution.device"
            ) from error

    def _spec(self, tensor: _Tensor) -> TensorSpec:
        dtype = _NUMPY.get(tensor.datatype)
        if dtype is None:
            raise UnsupportedModel(
                f"{self._where}: tensor {tensor.name!r} is {tensor.datatype}; only "
                f"{', '.join(_NUMPY)} work"
            )
        return TensorSpec(
            tensor.name, dtype, tuple(size if size >= 0 else -1 for size in tensor.shape)
        )

    def _outputs_of(self, answer: Answer) -> dict[str, Array]:
        head_size = len(answer.body) if answer.head_size is None else answer.head_size
        rest = memoryview(answer.body)[head_size:]
        try:
            parsed = _Answer.model_validate_json(bytes(answer.body[:head_size]))
            found: dict[str, Array] = {}
            for tensor in parsed.outputs:
                size = tensor.parameters.binary_data_size or 0
                found[tensor.name] = _array(tensor, rest[:size])
                rest = rest[size:]
            if len(rest):
                raise ValueError(f"{len(rest)} bytes belong to no tensor")
            return {spec.name: _as(found[spec.name], spec) for spec in self._outputs}
        except (ValueError, OverflowError, TypeError, KeyError) as error:
            raise ModelRunFailed(f"{self._where} answered nonsense: {error}") from error


def _array(tensor: _Tensor, data: memoryview) -> Array:
    """Return a tensor of the answer as an array of its own, aligned and writable."""
    dtype = np.dtype(_NUMPY[tensor.datatype]).newbyteorder("<")
    if tensor.data is not None:
        return np.array(tensor.data, dtype).reshape(tensor.shape)
    size = math.prod(tensor.shape) * dtype.itemsize
    if min(tensor.shape, default=0) < 0 or not tensor.parameters.binary_data_size == size == len(
        data
    ):
        raise ValueError(f"{tensor.name!r} of shape {tensor.shape} comes with {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(tensor.shape).astype(dtype.newbyteorder("="))


def _as(array: Array, spec: TensorSpec) -> Array:
    if array.dtype != np.dtype(spec.dtype):
        raise ValueError(f"{spec.name!r} is {array.dtype}, not {spec.dtype}")
    return array


RUNTIME: RuntimeFactory = TritonRuntime
