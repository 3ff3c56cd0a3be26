"""Imports the image tower of a CLIP-like model: its ONNX export, whose vector becomes "embedding".

CLIP's exports call it ``image_embeds``, SigLIP's ``pooler_output``, OpenCLIP's ``embedding``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retinue.models.importers._build.finish import write
from retinue.models.importers._towers import (
    EMBEDDING,
    find_output,
    keep_output,
    one_file,
    read_onnx,
)


def _import(files: Mapping[str, Path], output: Path) -> None:
    model = read_onnx(one_file(files, ".onnx"))
    wanted = ("image_embeds", EMBEDDING, "image_features", "pooler_output")
    keep_output(model, find_output(model, wanted, 2))
    write(model, output)


IMPORTER = _import
"""Called with (name inside the package to local file, path of the ONNX file to write)."""
