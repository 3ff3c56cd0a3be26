"""Imports a TensorFlow.js graph-model as ONNX, without TensorFlow.

The result's conventions:

- An image input, (N, H, W, C) in TensorFlow, is float32 (N, C, H, W); it is called "images" when
  the model has one only. Other inputs keep their name, order and type.
- Outputs have the names of the graph's signature (without ":0"), sorted, and TensorFlow's order of
  dimensions.
- The first dimension of inputs and outputs is "batch" where a batch gives the same rows as its
  items one by one, which is tried with ONNX Runtime; else it stays 1.

NanoDet's graph (``nanodet.json``) has its strides in the outputs' order: "Identity",
"Identity_1", "Identity_2" are class scores in [0, 1], (batch, cells, 80) with 52 x 52, 26 x 26 and
13 x 13 cells, row by row; "Identity_3", "Identity_4", "Identity_5" are distances, (batch, cells,
4 x 11): for left, top, right, bottom a logit for each of 0..10 strides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._build.finish import FixedBatch, finish, rows_agree, write
from retinue.models.importers._build.graph import BATCH
from retinue.models.importers._tfjs.execute import Executor
from retinue.models.importers._tfjs.source import Source, read

_GRAPH = "tfjs_graph_model"


def convert(
    files: Mapping[str, Path],
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    constants: Mapping[str, float] | None = None,
) -> onnx.ModelProto:
    """Convert a graph-model.

    Args:
        files: Name inside the package to the local file: the model's JSON and its weights.
        shapes: Shapes of inputs that the file leaves open, in TensorFlow's order.
        constants: Values of inputs that shall be constants of the result.

    Returns:
        An ONNX model of opset 17, accepted by ONNX's strict checker. The same files give the same
        model, byte by byte.

    Raises:
        UnsupportedModel: operators are missing (all are named), or an input's shape is open.
        ModelCorrupt: a file is missing, truncated or not what its name says.
    """
    source = read(files)
    fixed = dict(shapes or {})
    set_values = dict(constants or {})
    if all(shape[:1] == (1,) for shape in fixed.values()):
        model = _with_batch(source, fixed, set_values)
        if model is not None:
            return model
    executor = Executor(source, shapes=fixed, constants=set_values, batch=1)
    return finish(executor.graph, executor.run(), _GRAPH)


def _with_batch(
    source: Source, shapes: dict[str, tuple[int, ...]], constants: dict[str, float]
) -> onnx.ModelProto | None:
    executor = Executor(source, shapes=shapes, constants=constants, batch=BATCH)
    try:
        outputs = executor.run()
        if any(tensor.shape[:1] != (BATCH,) for tensor in outputs.values()):
            return None
        model = finish(executor.graph, outputs, _GRAPH)
    except (FixedBatch, UnsupportedModel):
        return None
    return model if rows_agree(model) else None


def _import(files: Mapping[str, Path], output: Path) -> None:
    write(convert(files), output)


IMPORTER = _import
"""Called with (name inside the package to local file, path of the ONNX file to write)."""
