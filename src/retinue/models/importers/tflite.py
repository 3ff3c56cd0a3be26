"""Imports a TensorFlow Lite model as ONNX, without TensorFlow.

The result's conventions:

- A picture, (1, H, W, C) in TensorFlow, is float32 (1, C, H, W); it is called "images" when the
  model has one input only.
- Outputs have the names of the file and TensorFlow's order of dimensions.
- The batch stays as it is in the file, 1: on a CPU these small networks gain nothing by more, and
  OpenVINO takes twice as long for the same network where the batch may vary.

Weights in float16 become float32 and sparse ones dense. MediaPipe's own operators in its face and
segmentation models are translated too. Quantised models are not supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from retinue.core.errors import ModelCorrupt, storage_errors
from retinue.models.importers._build.finish import finish, write
from retinue.models.importers._tflite.execute import Executor
from retinue.models.importers._tflite.source import read

_GRAPH = "tflite_model"


def convert(content: bytes) -> onnx.ModelProto:
    """Convert a model.

    Args:
        content: Of a .tflite file.

    Returns:
        An ONNX model of opset 17, accepted by ONNX's strict checker. The same bytes give the same
        model, byte by byte.

    Raises:
        UnsupportedModel: operators are missing (all are named), the model is quantised, or an
            input's shape is open.
        ModelCorrupt: it is no .tflite file, or is truncated or damaged.
    """
    executor = Executor(read(content))
    return finish(executor.graph, executor.run(), _GRAPH)


def _import(files: Mapping[str, Path], output: Path) -> None:
    if len(files) != 1:
        raise ModelCorrupt(f"a TensorFlow Lite model is one file, not {len(files)}")
    (path,) = files.values()
    with storage_errors(path, "reading the model"):
        content = path.read_bytes()
    write(convert(content), output)


IMPORTER = _import
"""Called with (name inside the package to local file, path of the ONNX file to write)."""
