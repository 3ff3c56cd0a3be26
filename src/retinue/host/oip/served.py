"""What is served under a name: raw tensors here, images in `retinue.host.oip.images`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from retinue.core.errors import InvalidRequest, InvalidTensor
from retinue.core.protocols import Pipeline
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.host.oip.tensors import datatype
from retinue.models.card import Card

Parameter: TypeAlias = bool | int | float | str
"""The value of a request's parameter."""


@dataclass(frozen=True, slots=True, eq=False)
class InputTensor:
    """One tensor of a request, decoded.

    Attributes:
        name: Its name.
        datatype: The protocol's name of its datatype.
        shape: Its shape.
        data: The array of that datatype and shape; BYTES is an ``object`` array of `bytes`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Array


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The terms of one request, in the pipelines' own units.

    Attributes:
        deadline: Seconds on ``time.monotonic()``'s clock, None for the pipeline's default.
        priority: Larger goes first.
        client: Who asks.
        parameters: All of the request's parameters.
    """

    deadline: float | None = None
    priority: int = 0
    client: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


class Served(Protocol):
    """What a name of the protocol stands for."""

    @property
    def name(self) -> str:
        """The name that it is served under."""
        ...

    @property
    def version(self) -> str:
        """The version that is loaded."""
        ...

    @property
    def pipeline(self) -> Pipeline:
        """What does the work."""
        ...

    @property
    def runtime(self) -> str:
        """Key of what executes it."""
        ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that it takes; -1 for the batch."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that it gives; -1 for the batch."""
        ...

    def labels(self, output: str) -> tuple[str, ...]:
        """Return the names of an output's classes, empty where it has none."""
        ...

    async def infer(self, inputs: Sequence[InputTensor], terms: Terms) -> Tensors:
        """Return all outputs.

        Raises:
            InvalidTensor: the inputs are not those that it takes.
            RetinueError: whatever stopped it.
        """
        ...


class RawModel:
    """A loaded model's own tensors, as its network takes and gives them."""

    def __init__(self, name: str, pipeline: Pipeline, runtime: str) -> None:
        self.name = name
        self.pipeline = pipeline
        self.runtime = runtime
        self._card: Card = pipeline.model.card

    @property
    def version(self) -> str:
        """The version that is loaded."""
        return self.pipeline.model.version

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The network's inputs."""
        return _any_batch(self.pipeline.model.runtime.inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The network's outputs."""
        return _any_batch(self.pipeline.model.runtime.outputs)

    def labels(self, output: str) -> tuple[str, ...]:
        """Return the card's classes where an output has one score for each."""
        classes = self._card.classes
        for spec in self.outputs:
            if spec.name == output and len(spec.shape) == 2 and spec.shape[1] == len(classes):
                return classes
        return ()

    async def infer(self, inputs: Sequence[InputTensor], terms: Terms) -> Tensors:
        """Run the tensors through the pipeline; see `Served.infer`."""
        return await self.pipeline.infer(
            checked(inputs, self.inputs),
            deadline=terms.deadline,
            priority=terms.priority,
            client=terms.client,
        )


def _any_batch(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return specs whose first dimension may vary: a pipeline also splits a fixed batch's rows."""
    return tuple(
        spec if spec.shape[:1] == (-1,) else replace(spec, shape=(-1, *spec.shape[1:]))
        for spec in specs
    )


def checked(inputs: Sequence[InputTensor], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Return a request's tensors by name.

    Raises:
        InvalidTensor: one is missing, unknown or there twice, or of another datatype or shape.
    """
    known = {spec.name: spec for spec in specs}
    found: dict[str, Array] = {}
    for tensor in inputs:
        name = tensor.name
        if name not in known:
            raise InvalidTensor(f"no input is called {name[:80]!r}; known: {', '.join(known)}")
        if name in found:
            raise InvalidTensor(f"input {name!r} is given twice")
        _check_spec(tensor, known[name])
        found[name] = tensor.data
    missing = [name for name in known if name not in found]
    if missing:
        raise InvalidTensor(f"inputs are missing: {', '.join(missing)}")
    return found


def _check_spec(tensor: InputTensor, spec: TensorSpec) -> None:
    expected, what = datatype(spec.dtype), f"input {spec.name!r}"
    if tensor.datatype != expected:
        raise InvalidTensor(f"{what}: datatype must be {expected}, not {tensor.datatype!r}")
    fits = len(tensor.shape) == len(spec.shape) and all(
        want in (-1, got) for want, got in zip(spec.shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = list(spec.shape)
        raise InvalidTensor(f"{what}: shape must be {wanted}, not {list(tensor.shape)}")


def integer(parameters: Mapping[str, Parameter], name: str, default: int) -> int:
    """Return a whole-number parameter.

    Raises:
        InvalidRequest: it is something else.
    """
    value = parameters.get(name, default)
    if type(value) is not int:
        raise InvalidRequest(f"parameter {name!r} must be a whole number, not {str(value)[:40]!r}")
    return value


def refuse_shared_memory(parameters: Mapping[str, Parameter], what: str) -> None:
    """Refuse the parameters of the shared memory extension.

    Raises:
        InvalidRequest: there is one.
    """
    for name in parameters:
        if name.startswith("shared_memory_"):
            raise InvalidRequest(
                f"{what}: parameter {name[:40]!r}: shared memory is not offered; send the data"
            )
