"""OpenVINO: the faster runtime for bf16-capable processors, and for Intel's GPUs. An extra."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from retinue.core.errors import (
    ConfigError,
    MissingExtra,
    ModelCorrupt,
    ModelRunFailed,
    UnsupportedModel,
)
from retinue.core.protocols import Precision, RuntimeFactory
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.runtimes import tensors as tensor_checks
from retinue.runtimes._options import check_threads

CPU: Final = "CPU"
_SINK: Final = "/sink_port_"


class OpenVino:
    """One compiled model and one inference request of an OpenVINO device."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        precision: Precision = "f32",
        device: str = "",
        name: str = "",
    ) -> None:
        """Load an ONNX file; see `retinue.core.protocols.RuntimeFactory`.

        Args:
            path: The file.
            threads: Threads inside one run; only the CPU device has them.
            precision: Arithmetic of the run.
            device: "" or "CPU", or another device that OpenVINO finds, for example "GPU.0".
            name: Not used.
        """
        check_threads(threads)
        ov = _engine()
        self._path = path
        found = _device(device)
        graph = _read(ov, path)
        self._inputs = tuple(_spec(path, _input_name(port), port) for port in graph.inputs)
        self._outputs = tuple(_spec(path, _output_name(port), port) for port in graph.outputs)
        self._request: Any = _compile(
            ov, path, graph, found, threads, precision
        ).create_infer_request()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` needs, in the model file's order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` returns, in the model file's order."""
        return self._outputs

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run one batch.

        Raises:
            InvalidTensor: a tensor is missing, unknown, or of the wrong dtype or shape.
            ModelRunFailed: the engine failed, or the runtime is closed.
        """
        request = self._request
        if request is None:
            raise ModelRunFailed(f"{self._path.name}: the runtime is closed")
        tensor_checks.check(tensors, self._inputs)
        rows = [np.ascontiguousarray(tensors[spec.name]) for spec in self._inputs]
        try:
            values = request.infer(dict(enumerate(rows)), share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise ModelRunFailed(f"openvino failed on {self._path.name}: {error}") from error
        return {spec.name: values[i] for i, spec in enumerate(self._outputs)}

    def close(self) -> None:
        """Give back the request's memory. May be called twice."""
        self._request = None


def without_telemetry() -> None:
    """Keep OpenVINO, and what builds on it, from reporting its use and from writing to ``~/intel``.

    Both count an unanswered question for consent as consent, and do without the package that
    reports where it cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@cache
def _engine() -> Any:
    without_telemetry()
    try:
        importlib.import_module("openvino.frontend")
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingExtra(
            "the openvino runtime needs OpenVINO; install it with: pip install 'retinue[openvino]'"
        ) from error


@cache
def _core() -> Any:
    return _engine().Core()


def _read(ov: Any, path: Path) -> Any:
    """Read an ONNX file with the ONNX front end alone.

    `Core.read_model` tries every front end on a file that the first refuses, and some of them
    write what they think of it to stderr.
    """
    if not path.is_file():
        raise ModelCorrupt(f"{path} is not a file; pull or import the model again")
    front = ov.frontend.FrontEndManager().load_by_framework("onnx")
    failures = ov.frontend
    try:
        graph = front.convert(front.load(str(path)))
    except (failures.OpConversionFailure, failures.OpValidationFailure) as error:
        raise UnsupportedModel(f"openvino does not support {path}: {_last(error)}") from error
    except (failures.GeneralFailure, failures.InitializationFailure, RuntimeError) as error:
        raise ModelCorrupt(
            f"{path} cannot be read as an ONNX model ({_last(error)}); pull or import it again"
        ) from error
    if not graph.outputs:
        raise ModelCorrupt(f"{path} holds no graph; pull or import the model again")
    return graph


def _device(wanted: str) -> str:
    """Return the device as OpenVINO calls it: its name, or "GPU" for the first of several."""
    device = wanted.upper() or CPU
    found = [str(name) for name in _core().available_devices]
    if device not in (*found, *(name.partition(".")[0] for name in found)):
        raise ConfigError(
            f"OpenVINO finds no device {wanted!r} here, only {', '.join(found)}; "
            "set execution.device to one of these, or leave it empty for the CPU"
        )
    return device


def _compile(
    ov: Any, path: Path, graph: Any, device: str, threads: int, precision: Precision
) -> Any:
    wanted = {"f32": ov.Type.f32, "bf16": ov.Type.bf16, "f16": ov.Type.f16}[precision]
    settings = {"INFERENCE_PRECISION_HINT": wanted, "NUM_STREAMS": 1}
    if device == CPU:
        # Pinned, the threads of two instances would share a core while another one idles.
        settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    try:
        compiled = _core().compile_model(graph, device, settings)
    except RuntimeError as error:
        raise UnsupportedModel(f"openvino cannot compile {path}: {_last(error)}") from error
    got = compiled.get_property("INFERENCE_PRECISION_HINT")
    if got != wanted:
        raise ConfigError(
            f"OpenVINO would compute in {got.get_type_name()} on this {device}, not {precision}; "
            'set execution.precision = "f32"'
        )
    return compiled


def _input_name(port: Any) -> str:
    return str(port.get_node().get_friendly_name())


def _output_name(port: Any) -> str:
    # A port may carry several names (those of elided nodes too); its result node's own name
    # is the one in the file.
    return str(port.get_node().get_friendly_name()).rpartition(_SINK)[0]


def _spec(path: Path, name: str, port: Any) -> TensorSpec:
    try:
        dtype = np.dtype(port.get_element_type().to_dtype()).name
    except RuntimeError as error:
        kind = port.get_element_type().get_type_name()
        message = f"{path}: tensor {name!r} is of type {kind}; only numbers work"
        raise UnsupportedModel(message) from error
    partial = port.get_partial_shape()
    if partial.rank.is_dynamic:
        raise UnsupportedModel(f"{path}: the rank of tensor {name!r} is not known")
    return TensorSpec(name, dtype, tuple(-1 if d.is_dynamic else d.get_length() for d in partial))


def _last(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-2:])


RUNTIME: RuntimeFactory = OpenVino
