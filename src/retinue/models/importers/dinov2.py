"""Imports DINOv2's ONNX export: the class token after the last normalisation becomes "embedding".

That is token 0 of ``last_hidden_state``, (N, 1 + patches, D), the feature that the paper's nearest
neighbours are found with (M. Oquab et al., "DINOv2: Learning Robust Visual Features without
Supervision", arXiv:2304.07193).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retinue.models.importers._build.finish import write
from retinue.models.importers._towers import find_output, keep_output, one_file, read_onnx


def _import(files: Mapping[str, Path], output: Path) -> None:
    model = read_onnx(one_file(files, ".onnx"))
    keep_output(model, find_output(model, ("last_hidden_state",), 3), first_token=True)
    write(model, output)


IMPORTER = _import
"""Called with (name inside the package to local file, path of the ONNX file to write)."""
