"""Reading what an ONNX file says of itself, and whether it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx.external_data_helper import uses_external_data

from retinue.core.errors import ModelCorrupt, UnsupportedModel, storage_errors
from retinue.core.types import TensorSpec


@dataclass(frozen=True, slots=True)
class Facts:
    """What an ONNX file says of itself.

    Attributes:
        inputs: The tensors to feed, in the file's order; -1 stands for a dimension left open.
        outputs: The tensors that come out.
        metadata: The exporter's key-value pairs.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]


def inspect(path: Path) -> Facts:
    """Check the structure of an ONNX file and return its facts.

    Raises:
        ModelCorrupt: it is not a whole and valid ONNX file.
        UnsupportedModel: its weights are in other files.
        StorageError: it cannot be read.
    """
    try:
        with storage_errors(path, "reading the model"):
            model = onnx.load(str(path), load_external_data=False)
        if any(uses_external_data(tensor) for tensor in model.graph.initializer):
            raise UnsupportedModel(
                f"{path.name} keeps its weights in other files; make it one file with "
                "onnx.save(onnx.load('model.onnx'), 'whole.onnx')"
            )
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelCorrupt(f"{path.name} is not a valid ONNX file: {reason}") from error
    weights = {tensor.name for tensor in model.graph.initializer}
    facts = Facts(
        inputs=tuple(_spec(v) for v in model.graph.input if v.name not in weights),
        outputs=tuple(_spec(v) for v in model.graph.output),
        metadata={pair.key: pair.value for pair in model.metadata_props},
    )
    if not facts.inputs or not facts.outputs:
        raise ModelCorrupt(f"{path.name} has no inputs or no outputs; it cannot be run")
    return facts


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except KeyError:
        dtype = "unknown"
    shape = (d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return TensorSpec(value.name, dtype, tuple(shape))
