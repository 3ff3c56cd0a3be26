"""ONNX Runtime on the CPU, in float32: the default runtime (docs/adr/0002-cpu-runtime.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import onnxruntime as ort  # type: ignore[import-untyped]
from onnxruntime.capi import (  # type: ignore[import-untyped]
    onnxruntime_pybind11_state as ort_errors,
)

from retinue.core.errors import ConfigError, ModelCorrupt, ModelRunFailed, UnsupportedModel
from retinue.core.protocols import Precision, RuntimeFactory
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.runtimes import tensors as tensor_checks
from retinue.runtimes._blocked import rewritten
from retinue.runtimes._options import check_threads

_DTYPES: Final = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{
        f"tensor({sign}int{bits})": f"{sign}int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
_UNREADABLE: Final = (
    ort_errors.InvalidProtobuf,
    ort_errors.InvalidArgument,
    ort_errors.NoSuchFile,
    ort_errors.NoModel,
)
_REFUSED: Final = (
    ort_errors.InvalidGraph,
    ort_errors.NotImplemented,
    ort_errors.Fail,
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.RuntimeException,
)
_FATAL_ONLY: Final = 4


class OnnxRuntime:
    """One session of ONNX Runtime's CPU provider.

    Precision is float32 always: this provider computes in the precision of the graph itself, so
    any other wish is refused rather than ignored. The device is "cpu" always.
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
        """Load an ONNX file; see `retinue.core.protocols.RuntimeFactory`. ``name`` is not used."""
        if precision != "f32":
            raise ConfigError(
                f"the onnxruntime runtime computes in f32 only, not {precision}; "
                'set execution.precision = "f32", or execution.runtime = "openvino"'
            )
        if device.lower() not in ("", "cpu"):
            raise ConfigError(
                f'the onnxruntime runtime executes on "cpu" only, not {device!r}; leave '
                "execution.device empty, or choose another execution.runtime: openvino for Intel "
                "GPUs, torch for CUDA, triton for a remote server"
            )
        check_threads(threads)
        self._path = path
        self._session: Any = _open(path, threads)
        self._inputs = tuple(_spec(path, node) for node in self._session.get_inputs())
        self._outputs = tuple(_spec(path, node) for node in self._session.get_outputs())
        self._names = [spec.name for spec in self._outputs]

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
        session = self._session
        if session is None:
            raise ModelRunFailed(f"{self._path.name}: the runtime is closed")
        tensor_checks.check(tensors, self._inputs)
        try:
            values = session.run(self._names, dict(tensors))
        except (*_UNREADABLE, *_REFUSED) as error:
            raise ModelRunFailed(f"onnxruntime failed on {self._path.name}: {error}") from error
        return dict(zip(self._names, values, strict=True))

    def close(self) -> None:
        """Give back the session's memory. May be called twice."""
        self._session = None


def _open(path: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # A spinning thread of one instance takes the core that another instance needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Every failure is raised as an exception too; the log would say it twice.
    options.log_severity_level = _FATAL_ONLY
    try:
        model = rewritten(path) or path
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except _UNREADABLE as error:
        raise ModelCorrupt(
            f"{path} cannot be read as an ONNX model ({error}); pull or import it again"
        ) from error
    except _REFUSED as error:
        raise UnsupportedModel(f"onnxruntime does not support {path}: {error}") from error


def _spec(path: Path, node: Any) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise UnsupportedModel(f"{path}: tensor {node.name!r} is a {node.type}; only numbers work")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(node.name, dtype, shape)


RUNTIME: RuntimeFactory = OnnxRuntime
