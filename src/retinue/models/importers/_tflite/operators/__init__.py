"""TensorFlow Lite operators as ONNX: one small function each, registered by `operator`."""

from __future__ import annotations

import importlib

from retinue.models.importers._tflite.operators.table import OPERATORS

for _family in ("convolution", "elementwise", "landmarks", "shaping"):
    importlib.import_module(f"{__name__}.{_family}")

__all__ = ["OPERATORS"]
