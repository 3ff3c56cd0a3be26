"""TensorFlow operators as ONNX: one small function each, registered by `operator`."""

from __future__ import annotations

import importlib

from retinue.models.importers._tfjs.operators.table import OPERATORS

for _family in (
    "convolution",
    "elementwise",
    "indexing",
    "lists",
    "matrix",
    "reduction",
    "shaping",
    "detection",
):
    importlib.import_module(f"{__name__}.{_family}")

__all__ = ["OPERATORS"]
