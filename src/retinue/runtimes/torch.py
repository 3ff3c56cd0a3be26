"""PyTorch: programs of ``torch.export`` on a CPU or as CUDA graphs on a GPU. An extra."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from retinue.core.errors import (
    ConfigError,
    InstanceCrashed,
    InvalidTensor,
    MissingExtra,
    ModelRunFailed,
)
from retinue.core.protocols import Precision, RuntimeFactory
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.runtimes import _torch_program
from retinue.runtimes import tensors as tensor_checks
from retinue.runtimes._options import check_threads
from retinue.runtimes._torch_execute import Eager, Executor, Graphs
from retinue.runtimes._torch_program import Program


class TorchRuntime:
    """One program of ``torch.export`` (a ``.pt2`` file) on one device.

    On a GPU, each batch size is captured as a CUDA graph when it is first run, within a second
    (batches are padded up to 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...), with pinned memory on the
    host, fixed memory on the device and a stream of its own. A program that cannot be captured,
    or in which more than the batch varies, is executed operator by operator; then one instance
    at a time has the GPU.

    Inputs have the names of the exported model's arguments. Outputs have the keys of the
    dictionary that the model returns; without one they are ``output``, or ``output_0``,
    ``output_1`` and so on. A bfloat16 tensor of the program is float32 outside: widened on the
    way out, which is exact, and rounded on the way in.

    A ``.pt2`` file is trusted like a program: PyTorch unpickles parts of it, and custom classes
    in it can run code. Load those that you made.
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
        """Load a ``.pt2`` file; see `retinue.core.protocols.RuntimeFactory`.

        Args:
            path: What ``torch.export.save`` wrote.
            threads: Threads inside one run on the CPU.
            precision: Must be the program's own: the least precise type that it computes in.
                Float32 is never rounded to TensorFloat-32; that is a setting of the process.
            device: "cpu", "cuda" or "cuda:N"; "" is the first GPU if there is one, else the CPU.
            name: Not used.

        Raises:
            ModelCorrupt: the file is missing, damaged or no such program.
            UnsupportedModel: it is an ONNX file, this PyTorch cannot load it, or it takes or
                returns something else than tensors.
            ConfigError: it has another precision, or there is no such device.
            MissingExtra: PyTorch is not installed.
        """
        check_threads(threads)
        torch = _engine()
        where = _device(torch, device)
        self._path = path
        self._torch = torch
        program = _torch_program.load(torch, path, where)
        if program.precision != precision:
            raise ConfigError(
                f"{path} computes in {program.precision}, not {precision}; set execution.precision "
                f'= "{program.precision}", or export the model in {precision}'
            )
        self._inputs, self._outputs = program.inputs, program.outputs
        self._program: Program | None = program
        self._executor: Executor = (
            Graphs(torch, program, where)
            if where.type == "cuda" and program.graphable
            else Eager(torch, program, where, threads)
        )

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` needs, in the program's order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` returns, in the program's order."""
        return self._outputs

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run one batch.

        Raises:
            InvalidTensor: a tensor is missing, unknown, or of the wrong dtype or shape, or the
                batch is larger than the program takes.
            ModelRunFailed: the engine failed, or the runtime is closed.
            InstanceCrashed: the GPU's context is lost; only a new process gets another.
        """
        program = self._program
        if program is None:
            raise ModelRunFailed(f"{self._path.name}: the runtime is closed")
        tensor_checks.check(tensors, program.inputs)
        arrays = [tensors[spec.name] for spec in program.inputs]
        count = program.count(arrays)
        if count > program.largest:
            raise InvalidTensor(
                f"tensor {program.inputs[0].name!r}: the program was exported for batches of up "
                f"to {program.largest}, not {count}"
            )
        try:
            values = self._executor.run(arrays)
        except RuntimeError as error:
            raise self._failure(error) from error
        return {spec.name: value for spec, value in zip(program.outputs, values, strict=True)}

    def _failure(self, error: RuntimeError) -> ModelRunFailed | InstanceCrashed:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        said = f"torch failed on {self._path.name}: {reason}"
        # After an error of the device itself every further call of this process fails too.
        if isinstance(error, getattr(self._torch, "AcceleratorError", ())):
            return InstanceCrashed(
                f"{said}; execution.isolate = true gives each instance a process"
            )
        return ModelRunFailed(said)

    def close(self) -> None:
        """Give back the device's memory. May be called twice."""
        if self._program is not None:
            self._program = None
            self._executor.close()


@cache
def _engine() -> Any:
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torch.export.passes")
    except ImportError as error:
        raise MissingExtra(
            "the torch runtime needs PyTorch; install it with: pip install 'retinue[torch]'"
        ) from error
    torch.backends.cudnn.allow_tf32 = False
    return torch


def _device(torch: Any, wanted: str) -> Any:
    available = int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
    there = ("cpu", *(("cuda",) if available else ()), *(f"cuda:{n}" for n in range(available)))
    chosen = wanted.lower() or there[min(1, available)]
    if chosen not in there:
        raise ConfigError(
            f"PyTorch {torch.__version__} finds no device {wanted!r} here, only "
            f"{', '.join(there)}; set execution.device to one of these, or leave it empty"
        )
    return torch.device("cuda:0" if chosen == "cuda" else chosen)


RUNTIME: RuntimeFactory = TorchRuntime
